"""Reading of regular files, with errors that name them."""

import errno
import hashlib
import io
import json
import os
import stat
from pathlib import Path

from src.base.errors import InputError, repeated, require_storage, shown

KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}
"""{what a path leads to, where that is not a file: what it is called}"""


class Number(str):
    """A number as it is written, however large."""

    __slots__ = ()
    __repr__ = str.__str__


class Constant(Number):
    """NaN or an infinity, which Python writes although JSON does not have it."""

    __slots__ = ()


def kind_of(path: Path | str) -> str | None:
    """What a path leads to, such as "a FIFO"; None for a regular file and where nothing is."""
    try:
        return KINDS.get(stat.S_IFMT(os.stat(path).st_mode))  # noqa: PTH116
    except (FileNotFoundError, NotADirectoryError):
        return None


def require_regular(path: Path) -> None:
    """Raise ValueError for a folder, a FIFO and the like where a file of this program is expected."""
    kind = kind_of(path)
    if kind is not None:
        raise ValueError(f"it is {kind}, not a file")


class RegularFile(io.FileIO):
    """A file that is read, whose errors name it. `fault` keeps the last, whatever a decoder makes of that."""

    fault: OSError | None = None

    def __init__(self, path: Path | str):
        super().__init__(path, "rb", opener=_open_regular)

    def readinto(self, buffer):
        return self._naming(super().readinto, buffer)

    def readall(self):
        return self._naming(super().readall)

    def fileno(self):
        raise io.UnsupportedOperation("a decoder in C would read past this")

    def _naming(self, read, *arguments):
        try:
            return read(*arguments)
        except OSError as error:
            self.fault = OSError(error.errno, error.strerror, str(self.name))
            raise self.fault from None


def open_regular(path: Path | str) -> io.BufferedReader:
    """Open a regular file to read its bytes; raises OSError for a device, a FIFO and the like."""
    return io.BufferedReader(RegularFile(path))


def _open_regular(path, flags: int) -> int:
    # Looked at before, as opening a device may do something; not waiting, in case it is replaced in between.
    kind = kind_of(path)
    if kind is not None:
        number = errno.EISDIR if kind == KINDS[stat.S_IFDIR] else errno.EINVAL
        raise OSError(number, f"Is {kind}, not a file", str(path))
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def read_text(path: Path, remedy: str = "save it as UTF-8") -> str:
    """Read a text in UTF-8, without the mark that may begin it.

    Raises InputError when that cannot be done, which ends with the `remedy`.
    """
    content = _content(path)
    if content[:4] in (b"PK\x03\x04", b"\xd0\xcf\x11\xe0"):
        raise InputError(f"{path}: is an Excel workbook or another archive; {remedy}")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = 1 + error.object[: error.start].count(b"\n")
        raise InputError(f"{path}, line {line}: not UTF-8; {remedy}") from None


def read_json(path: Path, kind: type) -> list | dict:
    """Read a JSON file whose top level is a `kind` (list or dict).

    Raises InputError when the file is missing, unreadable or of another kind, StorageError when its disk fails.
    """
    stored = _content(path)
    try:
        content = json.loads(stored.decode("utf-8-sig"), object_pairs_hook=without_repetition)
    # ValueError may be about the bytes, the syntax, a key that stands twice, or a whole number of thousands of digits.
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a JSON file ({error})") from None
    if not isinstance(content, kind):
        raise InputError(f"{path}: holds a {type(content).__name__} where a {kind.__name__} is expected")
    return content


def _content(path: Path) -> bytes:
    try:
        with open_regular(path) as file:
            return file.read()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        require_storage(error, path)
        raise InputError(f"{path}: {error.strerror}") from None


def without_repetition(pairs: list[tuple]) -> dict:
    """Make a dict of the pairs of a JSON object. Python's own would keep the last of two equal keys in silence."""
    content = dict(pairs)
    if len(content) < len(pairs):
        again = repeated([name for name, _ in pairs])[0]
        raise ValueError(f"the key {shown(again)} stands twice in one object")
    return content


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
