"""Folders that one process works on at a time."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from src.base.errors import InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


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
    """Lock the file at `path`, made where it is not there, and return its descriptor; raises InputError(refusal)."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            # This kind of lock is not passed on to workers, who may outlive their process by a moment.
            if fcntl is not None:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            os.close(descriptor)
            raise InputError(refusal) from None
        except OSError as error:  # a file system without locks
            line = f"{path}: cannot be locked here ({error.strerror}); start nothing else that writes to this folder"
            print(line, file=sys.stderr, flush=True)
        # Its last owner may have removed it between both steps. A lock on it would keep no process away.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(path.stat(), os.fstat(descriptor)):
                return descriptor
        os.close(descriptor)
