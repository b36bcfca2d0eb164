"""Where the project is, and files that are either whole or not there."""

import contextlib
import errno
import hashlib
import io
import json
import os
import shutil
import stat
import sys
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator
from datetime import datetime
from pathlib import Path

from src.base.errors import InputError, repeated, require_storage, shown
from src.base.folders import PICTURE_SUFFIXES

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_UNSYNCED = set()
"""File systems that refused to sync a folder, each of which is mentioned once."""
PROJECT_ROOT = Path(__file__).absolute().parents[2]


# ---- reading ----

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
        raise OSError(number, f"Is {kind}, no file", str(path))
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


# ---- writing ----

ESCAPING = {"encoding": "utf-8", "errors": "backslashreplace"}
"""How text is written that people read, where names of files may be no UTF-8: these have \\udce9 in it."""


@contextlib.contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Yield a file name beside `path` to write to; that file takes the place of `path` when the block ends well.

    Syncs both, so that the new file is on the disk even if the power fails. Raises OSError that names `path`, and
    InputError where it is a folder or a device.
    """
    path = Path(path)
    require_replaceable(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # In the same folder: renaming is only atomic on one file system.
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield unfinished
        _sync(unfinished, os.O_RDWR)
        unfinished.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        # A failed write does not say where, and the name of the unfinished file would mean nothing to anybody.
        if error.filename in (None, str(unfinished)):
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise
    finally:
        unfinished.unlink(missing_ok=True)


def remove_unfinished(folder: Path) -> None:
    """Delete what processes that were killed inside `replacing` left in `folder` and below."""
    for path in Path(folder).rglob(".*"):
        # The process's number is the suffix, so other hidden files stay.
        if path.is_file() and path.suffix[1:].isdecimal():
            path.unlink()


def sync_folder(folder: Path) -> None:
    """Sync a folder, so that a new name in it survives a power failure, where the file system can."""
    try:
        _sync(folder, os.O_RDONLY)
    except OSError as error:
        # Shares, FUSE and Windows refuse in many ways. The file itself is whole and has its name.
        device = folder.stat().st_dev
        if device not in _UNSYNCED:
            _UNSYNCED.add(device)
            said = f"{folder}: folders cannot be synced here ({error.strerror}); a power failure may cost the last file"
            print(said, file=sys.stderr, flush=True)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def owning(folder: Path, what: str = "run") -> Iterator[None]:
    """Make `folder`, which holds a `what`, this process's own inside the block. A process that died holds nothing.

    Raises InputError when another process has it.
    """
    path = folder / ".lock"
    descriptor = _lock(path, f"{folder}: another process works on this {what}; it has to end first")
    try:
        yield
    finally:
        # Before the lock is given back: from then on the file may be another process's.
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _lock(path: Path, refusal: str) -> int:
    """Return the descriptor of a new or old file at `path` that nobody else has locked; InputError(refusal) if not."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            # This kind of lock is not passed on to workers, who may outlive their process by a moment.
            if fcntl is not None:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            os.close(descriptor)
            raise InputError(refusal) from None
        except OSError as error:  # a file system without locks: nobody can be kept away
            said = f"{path}: cannot be locked here ({error.strerror}); start nothing else that writes to this folder"
            print(said, file=sys.stderr, flush=True)
        # Its last owner may have removed it between both steps. A lock on it would keep nobody away.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(path.stat(), os.fstat(descriptor)):
                return descriptor
        os.close(descriptor)


def require_space(folder: Path, size: int, needs: str) -> None:
    """Raise InputError, which begins with `needs`, unless the disk of `folder` has `size` bytes free."""
    free = shutil.disk_usage(folder).free
    if size > free:
        raise InputError(f"{needs}, its disk has {free / 1e9:.2f} GB free")


def require_writable(folder: Path) -> None:
    """Raise InputError unless files can be written to `folder`, now rather than after hours of work."""
    existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not existing.is_dir():
        raise InputError(f"{existing}: is a file, a folder is needed to write to")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(f"{existing}: may not be written to")


NEVER_REPLACED = (
    *(*PICTURE_SUFFIXES, ".heic", ".heif"),
    *(".pt", ".pth", ".ckpt", ".bin", ".safetensors", ".npy", ".npz", ".parquet"),
)
"""Suffixes of pictures, weights, features and tables that no command writes where --json or --csv says."""


def require_writable_files(outputs: dict[str, Iterable[Path]], inputs: dict[str, Iterable[Path]] | None = None) -> None:
    """Raise InputError unless all of `outputs` {option: its files} can be written, and none replaces what is needed.

    That is one of `inputs` {option: its files, or folders with all that is in them}, under whatever name; a picture;
    and a file of weights or features.
    """
    asked = [(option, Path(path).absolute()) for option, paths in outputs.items() for path in paths]
    again = repeated([path for _, path in asked], key=_place)
    if again:
        raise InputError(f"{again[0]}: is asked for twice, each output needs a file of its own")
    for option, path in asked:
        require_replaceable(path)
        require_writable(path.parent)
        if path.exists() and path.suffix.lower() in NEVER_REPLACED:
            raise InputError(f"{option} {path}: is a picture or holds weights or features; name another file")
    there = [(option, path, _identities(path)) for option, path in asked if path.exists()]
    for of_input, paths in (inputs or {}).items() if there else ():
        for identity in filter(None, map(_identity, paths)):
            for option, path, identities in there:
                if identity in identities:
                    raise InputError(f"{option} {path}: is an input of this command ({of_input}); name another file")


def require_replaceable(path: Path) -> None:
    """Raise InputError for a folder or a device, such as /dev/stdout, whose place `replacing` would take."""
    if path.is_dir():
        raise InputError(f"{path}: is a folder, expected a file")
    # /dev/stdout leads to a regular file where the shell has redirected it.
    place = path.parent.resolve()
    if (path.exists() and not path.is_file()) or place == Path("/dev") or place.parts[:2] == ("/", "proc"):
        raise InputError(f"{path}: is not a regular file, which a file of results has to be")


def _place(path: Path) -> Hashable:
    """Return what two names of one file have in common, whether it is there or not."""
    return _identity(path) or path.parent.resolve() / path.name


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what the system knows a file or a folder by, whatever it is called here; None where there is none."""
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _identities(path: Path) -> set:
    """Return what the system knows a file by, and all the folders that it lies in."""
    return {_identity(path), *map(_identity, path.absolute().parents), *map(_identity, path.resolve().parents)}


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


def write_json(path: Path, content: object, **options) -> None:
    """Write `content` to `path` as JSON; `options` are json.dumps's."""
    with replacing(path) as unfinished:
        unfinished.write_text(json.dumps(content, **options), encoding="utf-8")


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


def time_stamp() -> str:
    """Return the time, to the second, in characters that every file system takes."""
    return datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
