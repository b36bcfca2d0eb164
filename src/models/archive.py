"""The zip archives in which torch keeps tensors, with every byte read compared with its CRC-32."""

import io
import os
import struct
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor

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
HEADER = 30
"""Bytes of an entry's own header before its name."""


class Unreadable(Exception):
    """Why a file cannot be read as weights, in words."""


class WeightsFile(io.BufferedReader):
    """An open file of weights, of which no more than LIMIT bytes are taken at once, whatever length it claims."""

    def read(self, size: int | None = -1) -> bytes:
        if size is not None and size > LIMIT:
            raise Unreadable(f"its directory has {size / 1e6:.0f} MB")
        return super().read(size)


class Archive:
    """An archive open for reading: its small entries as bytes, its tensors' storages as tensors.

    Raises Unreadable, and OSError, in every method. torch's own reader ignores the CRC-32 of what it reads.
    """

    def __init__(self, file: WeightsFile):
        archive = _open(file)
        entries = sorted(archive.infolist(), key=lambda entry: entry.header_offset)
        self.folder = entries[0].orig_filename.partition("/")[0] if entries else ""
        self._entries = {entry.orig_filename: entry for entry in entries}
        _require_fitting(entries, self.folder, file.seek(0, io.SEEK_END))
        # All are opened now, since their own headers have to agree with the directory.
        self._files = {entry.orig_filename: _open_entry(file, archive, entry) for entry in entries}
        self._storages = {}

    def __contains__(self, name: str) -> bool:
        return f"{self.folder}/{name}" in self._entries

    def read(self, name: str) -> bytes:
        """Return what the entry `name` holds, without the archive's own folder before it. It can be read once."""
        entry = self._entry(name)
        if entry.file_size > LIMIT:
            raise Unreadable(f"its {name} has {entry.file_size / 1e6:.0f} MB, too large for a description of weights")
        content = bytearray(entry.file_size)
        self._fill(entry.orig_filename, memoryview(content))
        return bytes(content)

    def storage(self, key: str, dtype: torch.dtype, count: int) -> Tensor:
        """Return the `count` values of a storage, the same tensor each time; they are there once `finish` returns."""
        entry = self._entry(f"data/{key}")
        if entry.file_size != count * dtype.itemsize:
            raise Unreadable(
                f"its data/{key} has {entry.file_size} bytes, not the {count * dtype.itemsize} of its tensors"
            )
        if entry.orig_filename not in self._storages:
            self._storages[entry.orig_filename] = torch.empty(entry.file_size, dtype=torch.uint8)
        return self._storages[entry.orig_filename].view(dtype)

    def finish(self) -> None:
        """Read all storages, and check the entries that were not read."""
        buffers = {name: memoryview(storage.numpy()) for name, storage in self._storages.items()}
        # One thread reads while others compute checksums.
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as threads:
            for _ in threads.map(lambda name: self._fill(name, buffers.get(name)), self._files):
                pass

    def _entry(self, name: str) -> zipfile.ZipInfo:
        if name not in self:
            raise Unreadable(f"it has no {name}")
        return self._entries[f"{self.folder}/{name}"]

    def _fill(self, name: str, buffer: memoryview | None) -> None:
        """Read what is left of an entry into `buffer`, or nowhere; zipfile compares its checksum at its end."""
        done = 0
        try:
            while piece := self._files[name].read(PIECE):
                if buffer is not None:
                    buffer[done : done + len(piece)] = piece
                done += len(piece)
            whole = buffer is None or done == len(buffer)
        except (zipfile.BadZipFile, EOFError, zlib.error):
            whole = False
        if not whole:
            raise Unreadable(f"it is damaged: the CRC-32 of its entry {name!r} is another; copy it again")


def _open(file: WeightsFile) -> zipfile.ZipFile:
    """Open the archive in `file`, at whose very end its directory has to be."""
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - 22))
    end = file.read()
    if not end.startswith(b"PK\x05\x06") or not end.endswith(b"\0\0"):  # the length of a comment
        raise Unreadable("it is torn: the directory of a zip archive is not at its end")
    try:
        return zipfile.ZipFile(file)
    except (OSError, Unreadable):
        raise
    except Exception as error:  # what zipfile raises for a torn directory may be anything
        raise Unreadable(f"it is torn: {in_a_line(error)}") from None


def _require_fitting(entries: list[zipfile.ZipInfo], folder: str, size: int) -> None:
    """Raise Unreadable unless `entries`, in the order of their data, lie one after the other in a file of `size`."""
    if entries and entries[0].header_offset:
        raise Unreadable("it is torn: its first entry is not at its beginning")
    names, end = set(), 0
    for entry in entries:
        name = entry.orig_filename
        if name in names or not name.startswith(f"{folder}/"):
            raise Unreadable(f"its entry {name!r} stands twice or outside of its folder")
        names.add(name)
        # torch compresses nothing but the code of TorchScript.
        is_stored = entry.compress_type == zipfile.ZIP_STORED and entry.compress_size == entry.file_size
        is_code = entry.compress_type == zipfile.ZIP_DEFLATED and name.startswith(f"{folder}/code/")
        if not is_stored and not is_code:
            raise Unreadable(f"its entry {name!r} is compressed, which torch never does; unpack it and save it again")
        if entry.header_offset < end:
            raise Unreadable(f"its entry {name!r} overlaps another one")
        end = entry.header_offset + HEADER + len(name.encode()) + entry.compress_size
        if end > size:
            raise Unreadable(f"its entry {name!r} is longer than the file")
    unpacked = sum(entry.file_size for entry in entries if entry.compress_type != zipfile.ZIP_STORED)
    if unpacked > UNPACKED:
        raise Unreadable(f"its code would unpack to {unpacked / 1e6:.0f} MB")


def _open_entry(file: WeightsFile, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> zipfile.ZipExtFile:
    """Open an entry, whose own header must agree with the directory."""
    file.seek(entry.header_offset)
    flags, method, crc, _, size = struct.unpack("<6xHH4xLLL", file.read(HEADER - 4))
    # Checksum and sizes may follow the data instead, or stand in the extra field where they are large.
    agrees = crc in (0, entry.CRC) and size in (0, 0xFFFFFFFF, entry.file_size) and method == entry.compress_type
    try:
        if agrees and not flags & 1:  # not encrypted
            return archive.open(entry)  # which compares the names
    except (zipfile.BadZipFile, RuntimeError, ValueError):
        pass
    raise Unreadable(f"its entry {entry.orig_filename!r} has another header than its directory says")
