"""Pictures in folders."""

import os
from pathlib import Path

from src.base.errors import require_storage

PICTURE_SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".jp2", ".avif"),
    *(".mpo", ".heic", ".heif"),
)
"""Suffixes of picture files, in small letters."""


def pictures_below(folder: Path, left_out: dict[str, str] | None = None) -> dict[str, Path]:
    """Return every picture below a folder, by its suffix, as {path from there: file} in the order of the paths.

    `left_out` receives {path from there: why} of folders below that may not be read or were deleted meanwhile. Without
    it they raise OSError, as `folder` itself does. Raises StorageError when a disk or share fails.
    """
    names, folders = [], [""]
    # Not rglob, which passes over folders that may not be read. scandir is several times as fast as Path's methods.
    while folders:
        below = folders.pop()
        try:
            names_in, folders_in = _looked_through(folder, below)
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


def _looked_through(folder: Path, below: str) -> tuple[list[str], list[str]]:
    """Return the pictures and the folders in a folder below another one, by their paths from that."""
    names, folders = [], []
    with os.scandir(folder / below) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue  # thumbnails and caches
            if _is_folder(entry):
                if not entry.is_symlink():  # which may lead back up
                    folders.append(f"{below}{entry.name}/")
            elif entry.name.lower().endswith(PICTURE_SUFFIXES):
                names.append(below + entry.name)
    return names, folders


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:  # of a link to itself, or to where access is denied
        require_storage(error, entry.path)
        return False
