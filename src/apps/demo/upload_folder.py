"""The folder that a demo's uploads lie in: gone when the demo ends, or at the next start where it was killed."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from src.base.locks import owning

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

PREFIX = "demo-"
INSIDE = "clip4cir-uploads"
"""The folder in it, by whose name another program's folder called demo-... is never taken for one of these."""


@contextlib.contextmanager
def upload_folder() -> Iterator[Path]:
    """Yield a new folder, which is deleted when the block ends, as are those of demos that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        if _is_left_behind(folder):
            shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True) as folder, owning(Path(folder)):
        # Made last: until it is there, no other demo takes this folder for one that was left behind.
        uploads = Path(folder) / INSIDE
        uploads.mkdir()
        yield uploads


def _is_left_behind(folder: Path) -> bool:
    """Whether a demo made this folder and works no more."""
    try:
        if fcntl is None or folder.is_symlink() or not (folder / INSIDE).is_dir():
            return False
        with (folder / ".lock").open("r+") as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError:  # a living demo has it, another user does, or this file system cannot lock
        return False
