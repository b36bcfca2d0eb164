"""Copies of a picture in a gallery: files of the same bytes."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from src.base.errors import require_storage
from src.base.reading import file_digest


class Copies:
    """Finds the rows of a gallery's pictures that have the same bytes."""

    def __init__(self, names: Sequence[str], folder: Path | None, digests: Sequence[str] | None):
        """Take what a Gallery has: without `digests` the files in `folder` are read."""
        self.names, self.folder, self.digests = names, folder, digests

    def rows(self, row: int | None, path: Path | None) -> list[int]:
        """Return the rows of the picture in `row`, or of none in the gallery, whose file is at `path`, and its copies.

        The file need not be there.
        """
        same = [] if row is None else [row]
        if row is not None and self.digests is not None:
            same += self._with_digest(self.digests[row])
        elif path is not None and path.is_file():
            same += self._of_file(path)
        return sorted(set(same))

    def _of_file(self, path: Path) -> list[int]:
        digest = file_digest(path)
        if self.digests is not None:
            return self._with_digest(digest)
        # Few files have the same size, so few are read.
        rows = self._rows_of_size.get(path.stat().st_size, ())
        return [row for row in rows if _has_digest(self.folder / self.names[row], digest)]

    def _with_digest(self, digest: str) -> list[int]:
        return [row for row, other in enumerate(self.digests) if other == digest]

    @cached_property
    def _rows_of_size(self) -> dict[int, list[int]]:
        """{bytes of a file: its rows}, found once: there may be many questions."""
        rows = {}
        for row, name in enumerate(self.names):
            path = self.folder / name
            try:
                rows.setdefault(path.stat().st_size, []).append(row)
            except OSError as error:
                require_storage(error, path)  # else it was deleted since it was encoded
        return rows


def _has_digest(path: Path, digest: str) -> bool:
    try:
        return file_digest(path) == digest
    except OSError as error:
        require_storage(error, path)
        return False  # it was deleted since it was encoded
