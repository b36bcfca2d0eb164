"""Where the project is, and files that are either whole or not there."""

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from src.base.errors import InputError

_UNSYNCED = set()
"""File systems that refused to sync a folder, each of which is mentioned once."""
PROJECT_ROOT = Path(__file__).absolute().parents[2]
HELD_FEATURES = "features:"
"""How the name of a CLIP begins that is a folder of features (src/models/features.py)."""
ESCAPING = {"encoding": "utf-8", "errors": "backslashreplace"}
"""How text for people is written: file names that are not UTF-8 are shown with escapes such as \\udce9."""


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
        # A failed write does not say where, and the name of the unfinished file would mean nothing to people.
        if error.filename in (None, str(unfinished)):
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise
    finally:
        unfinished.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Sync a folder, so that a new name in it survives a power failure, where the file system can."""
    try:
        _sync(folder, os.O_RDONLY)
    except OSError as error:
        # Shares, FUSE and Windows refuse in many ways. The file itself is whole and has its name.
        device = folder.stat().st_dev
        if device not in _UNSYNCED:
            _UNSYNCED.add(device)
            line = f"{folder}: folders cannot be synced here ({error.strerror}); a power failure may cost the last file"
            print(line, file=sys.stderr, flush=True)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def require_space(folder: Path, size: int, needs: str) -> None:
    """Raise InputError, which begins with `needs`, unless the disk of `folder` has `size` bytes free."""
    free = shutil.disk_usage(folder).free
    if size > free:
        raise InputError(f"{needs}, its disk has {free / 1e9:.2f} GB free")


def require_writable(folder: Path | str) -> None:
    """Raise InputError unless files can be written to `folder`, now rather than after hours of work."""
    folder = Path(folder)
    existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not existing.is_dir():
        raise InputError(f"{existing}: is a file, a folder is needed to write to")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(f"{existing}: may not be written to")


def require_replaceable(path: Path) -> None:
    """Raise InputError for a folder or a device, such as /dev/stdout, whose place `replacing` would take."""
    if path.is_dir():
        raise InputError(f"{path}: is a folder, expected a file")
    # /dev/stdout leads to a regular file where the shell has redirected it.
    place = path.parent.resolve()
    if (path.exists() and not path.is_file()) or place == Path("/dev") or place.parts[:2] == ("/", "proc"):
        raise InputError(f"{path}: is not a regular file, which a file of results has to be")


def write_json(path: Path, content: object, **options) -> None:
    """Write `content` to `path` as JSON; `options` are json.dumps's."""
    with replacing(path) as unfinished:
        unfinished.write_text(json.dumps(content, **options), encoding="utf-8")


def time_stamp() -> str:
    """Return the time, to the second, in characters that every file system takes."""
    return datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
