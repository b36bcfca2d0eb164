"""Pictures in folders."""

import os
from pathlib import Path

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".jp2", ".avif")
"""Suffixes of picture files, in small letters."""


def pictures_below(folder: Path) -> dict[str, Path]:
    """Return every picture below a folder, by its suffix, as {path from there: file} in the order of the paths.

    Raises OSError for a folder that may not be read.
    """
    names, folders = [], [""]
    # Not rglob, which passes over folders that may not be read. scandir is several times as fast as Path's methods.
    while folders:
        below = folders.pop()
        with os.scandir(folder / below) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue  # thumbnails and caches
                if entry.is_dir():
                    if not entry.is_symlink():  # which may lead back up
                        folders.append(f"{below}{entry.name}/")
                elif entry.name.lower().endswith(PICTURE_SUFFIXES):
                    names.append(below + entry.name)
    return {name: folder / name for name in sorted(names)}
