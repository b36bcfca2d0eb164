"""The zip archives in which torch keeps tensors, with every byte read compared with its CRC-32."""

import io
import os
import struct
import threading
import zipfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from src.base.errors import in_a_line

BEGINNING = b"PK\x03\x04"
"""What such a file begins with."""
LIMIT = 2**24
"""Bytes that pickles, code and the archive's directory may have; a large CLIP's have a fifteenth of that."""
PIECE = 2**20
"""Bytes that are read and checked at once, while the processor still has them in its cache."""
UNPACKED = 16 * LIMIT
"""Bytes that all code of an archive may unpack to."""
DIRECTORY_END = struct.Struct("<4s4H2LH")
HEADER = struct.Struct("<4s5H3L2H")


class Unreadable(Exception):
    """Why a file cannot be read as weights, in words."""


class Archive:
    """An archive open for reading: its small entries as bytes, its tensors' storages as tensors.

    Raises Unreadable, and OSError, in every method. torch's own reader ignores the CRC-32 of what it reads.
    """

    def __init__(self, path: Path):
        self._file = _Bounded(path)
        try:
            self._size = self._file.seek(0, io.SEEK_END)
            entries = self._listed()
            self.folder = entries[0].orig_filename.partition("/")[0] if entries else ""
            self._entries = {entry.orig_filename: entry for entry in entries}
            self._starts = self._data_starts(entries)
        except BaseException:
            self._file.close()
            raise
        self._reading = threading.Lock()
        self._threads = ThreadPoolExecutor(min(4, os.cpu_count() or 1))
        self._storages, self._checks = {}, []

    def __enter__(self) -> "Archive":
        return self

    def __exit__(self, *_) -> None:
        # Before the file is closed, since its number might then be another file's.
        self._threads.shutdown(cancel_futures=True)
        self._file.close()

    def __contains__(self, name: str) -> bool:
        return f"{self.folder}/{name}" in self._entries

    def read(self, name: str) -> bytes:
        """Return what the entry `name` holds, without the archive's own folder before it."""
        entry = self._entry(name)
        if entry.file_size > LIMIT:
            raise Unreadable(f"its {name} has {entry.file_size / 1e6:.0f} MB, which is no description of weights")
        content = bytearray(entry.file_size)
        self._fill(entry, memoryview(content))
        return bytes(content)

    def storage(self, key: str, dtype: torch.dtype, count: int) -> Tensor:
        """Return the `count` values of a storage, the same tensor each time; they are there once `finish` returns."""
        entry = self._entry(f"data/{key}")
        if entry.file_size != count * dtype.itemsize:
            raise Unreadable(
                f"its data/{key} has {entry.file_size} bytes, not the {count * dtype.itemsize} of its tensors"
            )
        if key not in self._storages:
            self._storages[key] = torch.empty(entry.file_size, dtype=torch.uint8)
            self._check_later(entry, memoryview(self._storages[key].numpy()))
        return self._storages[key].view(dtype)

    def finish(self) -> None:
        """Wait for all storages, and check the entries that nobody has read."""
        unread = self._entries.keys() - {f"{self.folder}/data/{key}" for key in self._storages}
        for name in unread:
            self._check_later(self._entries[name], None)
        for check in self._checks:
            check.result()

    def _listed(self) -> list[zipfile.ZipInfo]:
        """Return the directory's entries in the order of their data."""
        self._file.seek(max(0, self._size - DIRECTORY_END.size))
        mark, *_, comment = DIRECTORY_END.unpack(self._file.read(DIRECTORY_END.size).rjust(DIRECTORY_END.size))
        if mark != b"PK\x05\x06" or comment:
            raise Unreadable("it is torn: the directory of a zip archive is not at its end")
        try:
            with zipfile.ZipFile(self._file) as archive:
                return sorted(archive.infolist(), key=lambda entry: entry.header_offset)
        except (OSError, Unreadable):
            raise
        except Exception as error:  # what Python's reader of directories raises for a torn one may be anything
            raise Unreadable(f"it is torn: {in_a_line(error)}") from None

    def _data_starts(self, entries: list[zipfile.ZipInfo]) -> dict[str, int]:
        """Return {name: where its data begins}; raises Unreadable where directory and headers do not agree."""
        starts, end = {}, 0
        if entries and entries[0].header_offset:
            raise Unreadable("it is torn: its first entry is not at its beginning")
        unpacked = sum(entry.file_size for entry in entries if entry.compress_type != zipfile.ZIP_STORED)
        for entry in entries:
            name = entry.orig_filename
            if name in starts or not name.startswith(f"{self.folder}/"):
                raise Unreadable(f"its entry {name!r} stands twice or outside of its folder")
            self._require_readable(entry)
            if entry.header_offset < end:
                raise Unreadable(f"its entry {name!r} overlaps another one")
            starts[name] = self._start(entry)
            end = starts[name] + entry.compress_size
            if end > self._size:
                raise Unreadable(f"its entry {name!r} is longer than the file")
        if unpacked > UNPACKED:
            raise Unreadable(f"its code would unpack to {unpacked / 1e6:.0f} MB")
        return starts

    def _require_readable(self, entry: zipfile.ZipInfo) -> None:
        """Raise Unreadable for a compressed entry: torch compresses nothing but the code of TorchScript."""
        name = entry.orig_filename
        is_stored = entry.compress_type == zipfile.ZIP_STORED and entry.compress_size == entry.file_size
        is_code = entry.compress_type == zipfile.ZIP_DEFLATED and name.startswith(f"{self.folder}/code/")
        if not is_stored and not is_code:
            raise Unreadable(f"its entry {name!r} is compressed, which torch never does; unpack it and save it again")

    def _start(self, entry: zipfile.ZipInfo) -> int:
        """Return where an entry's data begins by its own header, which must agree with the directory."""
        self._file.seek(entry.header_offset)
        head = self._file.read(HEADER.size)
        if len(head) < HEADER.size:
            raise Unreadable(f"its entry {entry.orig_filename!r} is longer than the file")
        mark, _, flags, method, _, _, crc, _, size, name_length, extra_length = HEADER.unpack(head)
        name = self._file.read(name_length)
        # Checksum and sizes may follow the data instead, or stand in the extra field where they are large.
        agrees = crc in (0, entry.CRC) and size in (0, 0xFFFFFFFF, entry.file_size) and method == entry.compress_type
        encrypted = (flags | entry.flag_bits) & 1
        if not agrees or mark != BEGINNING or encrypted or name != entry.orig_filename.encode():
            raise Unreadable(f"its entry {entry.orig_filename!r} has another header than its directory says")
        return entry.header_offset + HEADER.size + name_length + extra_length

    def _entry(self, name):
        if name not in self:
            raise Unreadable(f"it has no {name}")
        return self._entries[f"{self.folder}/{name}"]

    def _check_later(self, entry, buffer):
        self._checks.append(self._threads.submit(self._fill, entry, buffer))

    def _fill(self, entry, buffer: memoryview | None) -> None:
        """Read an entry into `buffer`, or nowhere, and compare its checksum."""
        crc, done = 0, 0
        for piece in self._unpacked(entry) if entry.compress_type else self._pieces(entry, buffer):
            crc = zlib.crc32(piece, crc)
            if entry.compress_type and buffer is not None:
                buffer[done : done + len(piece)] = piece
            done += len(piece)
        if crc != entry.CRC or done != entry.file_size:
            raise Unreadable(
                f"it is damaged: the CRC-32 of its entry {entry.orig_filename!r} is another; copy it again"
            )

    def _pieces(self, entry, buffer: memoryview | None) -> Iterator[memoryview]:
        """Yield an entry's bytes as they lie in the file, piece by piece, out of `buffer` where there is one."""
        spare = memoryview(bytearray(min(PIECE, entry.compress_size))) if buffer is None else None
        for begin in range(0, entry.compress_size, PIECE):
            length = min(PIECE, entry.compress_size - begin)
            piece = spare[:length] if buffer is None else buffer[begin : begin + length]
            with self._reading:  # one thread reads while others compute checksums
                self._file.seek(self._starts[entry.orig_filename] + begin)
                if self._file.readinto(piece) != length:
                    raise Unreadable(f"its entry {entry.orig_filename!r} is longer than the file")
            yield piece

    def _unpacked(self, entry) -> Iterator[bytes]:
        """Yield the bytes of a compressed entry, no more than it says it has."""
        unpacker, left = zlib.decompressobj(-zlib.MAX_WBITS), entry.file_size
        for piece in self._pieces(entry, None):
            if left:  # zero would mean all
                content = unpacker.decompress(piece, left)
                left -= len(content)
                yield content


class _Bounded(io.FileIO):
    """A file of whose end, where a zip archive lists its entries, no more than LIMIT bytes are taken at once."""

    def read(self, size: int = -1) -> bytes:
        if size > LIMIT:
            raise Unreadable(f"its directory has {size / 1e6:.0f} MB")
        return super().read(size)
