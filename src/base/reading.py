"""Files that are read: regular ones only, whose errors name them."""

import errno
import hashlib
import io
import json
import os
import stat
from collections import Counter
from pathlib import Path

from src.base.errors import InputError, repeated, require_storage, shown

KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}
"""{what a path leads to: what it is called}, where that is no file"""


def kind_of(path: Path | str) -> str | None:
    """Return what a path leads to where that is neither a regular file nor nothing at all, such as "a FIFO"."""
    try:
        return KINDS.get(stat.S_IFMT(os.stat(path).st_mode))  # noqa: PTH116
    except (FileNotFoundError, NotADirectoryError):
        return None


def require_regular(path: Path) -> None:
    """Raise ValueError for a folder, a FIFO and the like in the place of a file of this program's own."""
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
    """Open a file to read its bytes, and nothing that waits for another program or that is a device.

    Raises OSError, which says what it is, for everything but a regular file.
    """
    return io.BufferedReader(RegularFile(path))


def _open_regular(path, flags: int) -> int:
    # Looked at before, as opening a device may do something; not waiting, in case it is replaced in between.
    kind = kind_of(path)
    if kind is not None:
        number = errno.EISDIR if kind == KINDS[stat.S_IFDIR] else errno.EINVAL
        raise OSError(number, f"Is {kind}, not a file", str(path))
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _bytes_of(path: Path | str) -> bytes:
    with open_regular(path) as file:
        return file.read()


def read_text(path: Path) -> str:
    """Read a text in UTF-8, without the mark that may begin it; raises InputError when that cannot be done."""
    try:
        content = _bytes_of(path)
        if content[:4] == b"PK\x03\x04":
            raise InputError(f"{path}: is an Excel workbook or another archive; save it as CSV in UTF-8")
        return content.decode("utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        require_storage(error, path)
        raise InputError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = 1 + error.object[: error.start].count(b"\n")
        raise InputError(f"{path}, line {line}: not UTF-8; save it as UTF-8") from None


def read_json(path: Path, kind: type) -> list | dict:
    """Read a JSON file whose top level is a `kind` (list or dict).

    Raises InputError when the file is missing, unreadable or of another kind, StorageError when its disk fails.
    """
    path = Path(path)
    try:
        content = json.loads(_bytes_of(path).decode("utf-8-sig"), object_pairs_hook=without_repetition)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        require_storage(error, path)
        raise InputError(f"{path}: {error.strerror}") from None
    # ValueError may be about the bytes, the syntax, a key that stands twice, or a whole number of thousands of digits.
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a JSON file ({error})") from None
    if not isinstance(content, kind):
        raise InputError(f"{path}: holds a {type(content).__name__} where a {kind.__name__} is expected")
    return content


def without_repetition(pairs: list[tuple]) -> dict:
    """Make a dict of the pairs of a JSON object. Python's own would keep the last of two equal keys in silence."""
    content = dict(pairs)
    if len(content) < len(pairs):
        again = repeated([name for name, _ in pairs])[0]
        raise ValueError(f"the key {shown(again)} stands twice in one object")
    return content


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _by_hand(file)


def _by_hand(file) -> str:
    digest = hashlib.sha256()  # Python 3.10
    while block := file.read(2**20):
        digest.update(block)
    return digest.hexdigest()


def originals(paths: dict[str, Path]) -> dict[str, str]:
    """Return {name: the first name whose file has the same bytes} for files {name: file}."""
    sizes = {name: path.stat().st_size for name, path in paths.items()}
    sharing = Counter(sizes.values())
    first = {}
    # Few files have the size of another, so few are read.
    digests = {name: file_digest(path) if sharing[sizes[name]] > 1 else "" for name, path in paths.items()}
    return {name: first.setdefault((sizes[name], digests[name]), name) for name in paths}
