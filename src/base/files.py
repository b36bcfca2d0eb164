"""Where the project is, and files that are either whole or not there."""

import contextlib
import hashlib
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from src.base.errors import InputError, repeated, shown

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_UNSYNCED = set()
"""File systems that refused to sync a folder, each of which is mentioned once."""
PROJECT_ROOT = Path(__file__).absolute().parents[2]


@contextlib.contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Yield a file name beside `path` to write to; that file takes the place of `path` when the block ends well.

    Syncs both, so that the new file is on the disk even if the power fails. Raises OSError that names `path`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # In the same folder: renaming is only atomic on one file system.
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield unfinished
        _sync(unfinished, os.O_RDWR)
        unfinished.replace(path)
        _sync_folder(path.parent)
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


def _sync_folder(folder: Path) -> None:
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
def owning(folder: Path) -> Iterator[None]:
    """Make `folder` this process's own inside the block. A process that died holds nothing.

    Raises InputError when another process has it.
    """
    path = folder / ".lock"
    # This kind of lock is not passed on to workers, who may outlive their process by a moment.
    with path.open("w") as file:
        try:
            if fcntl is not None:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise InputError(f"{folder}: another process works on this run; it has to end first") from None
        except OSError:  # a file system without locks: nobody can be kept away
            pass
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


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


def require_writable_files(*paths: Path | None) -> None:
    """Raise InputError unless each of `paths` can be written as a file of its own; None is none."""
    asked = [Path(path).absolute() for path in paths if path is not None]
    if repeated(asked):
        raise InputError(f"{repeated(asked)[0]}: is asked for twice, each output needs a file of its own")
    for path in asked:
        if path.is_dir():
            raise InputError(f"{path}: is a folder, a file is needed")
        require_writable(path.parent)


def read_text(path: Path) -> str:
    """Read a text in UTF-8, without the mark that may begin it; raises InputError when that cannot be done."""
    try:
        content = Path(path).read_bytes()
        if content[:4] == b"PK\x03\x04":
            raise InputError(f"{path}: is an Excel workbook or another archive; save it as CSV in UTF-8")
        return content.decode("utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = 1 + error.object[: error.start].count(b"\n")
        raise InputError(f"{path}, line {line}: no text in UTF-8, which it has to be saved as") from None


def write_json(path: Path, content: object, **options) -> None:
    """Write `content` to `path` as JSON; `options` are json.dumps's."""
    with replacing(path) as unfinished:
        unfinished.write_text(json.dumps(content, **options), encoding="utf-8")


def read_json(path: Path, kind: type) -> list | dict:
    """Read a JSON file whose top level is a `kind` (list or dict).

    Raises InputError when the file is missing, unreadable, or holds something else.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_without_repetition)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    # ValueError may be about the bytes, the syntax, a key that stands twice, or a whole number of thousands of digits.
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a JSON file ({error})") from None
    if not isinstance(content, kind):
        raise InputError(f"{path}: holds a {type(content).__name__} where a {kind.__name__} is expected")
    return content


def _without_repetition(pairs: list[tuple]) -> dict:
    """Make a dict of the pairs of a JSON object. Python's own would keep the last of two equal keys in silence."""
    content = dict(pairs)
    if len(content) < len(pairs):
        again = repeated([name for name, _ in pairs])[0]
        raise ValueError(f"the key {shown(again)} stands twice in one object")
    return content


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with path.open("rb") as file:
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
