"""Pictures in folders."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from src.base.errors import first_ten, require_storage

PICTURE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".tif", ".tiff", ".bmp"),
    *(".pbm", ".pgm", ".ppm", ".pnm", ".jp2", ".j2k", ".jpx", ".avif", ".heic", ".heif", ".hif", ".tga", ".ico"),
)
"""Suffixes of picture files, in small letters."""
TABLES_AND_TEXTS = {".csv", ".tsv", ".xlsx", ".json", ".jsonl", ".txt", ".md", ".html"}
"""Suffixes of files that nobody takes for pictures."""
KEPT_FOR_THEMSELVES = {
    *("@eadir", "#recycle", "@recycle", "@recently-snapshot", "#snapshot", "@tmp", "__macosx"),
    *("$recycle.bin", "recycler", "system volume information"),
}
"""Folders, beside hidden ones, that systems fill with thumbnails, copies and what was deleted, in small letters."""


class PassedOver(NamedTuple):
    """What lies below a folder and is not taken for one of its pictures."""

    files: Counter
    """{suffix: how many files}, without tables and texts"""
    folders: list[str]
    """Hidden ones, those of KEPT_FOR_THEMSELVES, and links, by their paths from the folder"""

    @classmethod
    def nothing(cls) -> "PassedOver":
        return cls(Counter(), [])

    def take(self, name: str) -> None:
        """Count a file, where somebody might take it for a picture."""
        suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122, in less time
        if name.startswith("."):
            if suffix in PICTURE_SUFFIXES:
                self.files[f"hidden {suffix}"] += 1
        elif suffix not in TABLES_AND_TEXTS:
            self.files[suffix or "without suffix"] += 1

    def lines(self) -> list[str]:
        """Return a line for the files and one for the folders, where there are such."""
        lines = []
        if self.files:
            kinds = first_ten([f"{suffix} {count:,}" for suffix, count in self.files.most_common()])
            lines.append(f"not looked at, for their suffixes: {_counted(self.files.total(), 'file')} ({kinds})")
        if self.folders:
            counted, names = _counted(len(self.folders), "folder"), first_ten(self.folders)
            lines.append(f"left out: {counted} of thumbnails, bins and the like: {names}")
        return lines


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' if number > 1 else ''}"


def pictures_below(
    folder: Path, left_out: dict[str, str] | None = None, passed: PassedOver | None = None
) -> dict[str, Path]:
    """Return every picture below a folder, by its suffix, as {path from there: file} in the order of the paths.

    `left_out` receives {path from there: why} of folders below that may not be read or were deleted meanwhile. Without
    it they raise OSError, as `folder` itself does. `passed` receives what is no picture. Raises StorageError when a
    disk or share fails.
    """
    passed = PassedOver.nothing() if passed is None else passed
    names, folders = [], [""]
    # Not rglob, which passes over folders that may not be read. scandir is several times as fast as Path's methods.
    while folders:
        below = folders.pop()
        try:
            names_in, folders_in = _looked_through(folder, below, passed)
        except OSError as error:
            require_storage(error, folder / below)
            if left_out is None or below == "":
                raise
            left_out[below] = error.strerror
        else:
            names += names_in
            folders += folders_in
    return {name: folder / name for name in sorted(names)}


def deleted(paths: dict[str, Path]) -> dict[str, str]:
    """Return {name: why} of those of files {name: file} that are not there, such as links to nowhere.

    Raises StorageError when a disk or share fails.
    """
    gone = {}
    for name, path in paths.items():
        try:
            os.stat(path)  # noqa: PTH116, in less time
        except OSError as error:
            require_storage(error, path)
            gone[name] = error.strerror
    return gone


def files_below(folder: Path) -> Iterator[str]:
    """Yield the paths from a folder of all files below it, as far as they can be looked at."""
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not is_passed_over(name)]
        start = Path(place).relative_to(folder)
        yield from ((start / name).as_posix() for name in files)


def is_passed_over(name: str) -> bool:
    """Whether a folder or file of this name holds nobody's pictures."""
    return name.startswith(".") or name.lower() in KEPT_FOR_THEMSELVES


def is_picture(name: str) -> bool:
    """Whether a file is a picture, by its name."""
    return name.lower().endswith(PICTURE_SUFFIXES) and not is_passed_over(name)


def _looked_through(folder: Path, below: str, passed: PassedOver) -> tuple[list[str], list[str]]:
    """Return the pictures and the folders in a folder below another one, by their paths from that."""
    names, folders = [], []
    with os.scandir(folder / below) as entries:
        for entry in entries:
            if _is_folder(entry):
                if is_passed_over(entry.name):
                    passed.folders.append(f"{below}{entry.name}/")
                elif entry.is_symlink():  # which may lead back up
                    passed.folders.append(f"{below}{entry.name}/ (a link)")
                else:
                    folders.append(f"{below}{entry.name}/")
            elif is_picture(entry.name):
                names.append(below + entry.name)
            else:
                passed.take(entry.name)
    return names, folders


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:  # of a link to itself, or to where access is denied
        require_storage(error, entry.path)
        return False
