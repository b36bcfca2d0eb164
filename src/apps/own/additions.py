"""What a conversion adds to a folder, all of it or nothing."""

import contextlib
from pathlib import Path

from src.base.errors import InputError


class Additions:
    """New files of a folder, which are taken away again unless the block ends well."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._made = []

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if kind is None:
            return
        # Only what was made here: other files may come into the folder meanwhile.
        for path in reversed(self._made):
            if path.is_dir() and not path.is_symlink():
                with contextlib.suppress(OSError):  # it holds something else by now
                    path.rmdir()
            else:
                path.unlink(missing_ok=True)

    def place(self, name: str) -> Path:
        """Return where a new file of this name belongs, and make the folders above it.

        Raises InputError where a link in the folder leads out of it.
        """
        path = self.folder / name
        if not path.parent.resolve().is_relative_to(self.folder.resolve()):
            raise InputError(f"{path}: lies outside {self.folder}, where a link leads; make another folder")
        for above in reversed([above for above in path.parents if not above.exists()]):
            above.mkdir()
            self._made.append(above)
        self._made.append(path)
        return path
