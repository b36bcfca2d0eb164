"""Pictures in folders."""

from pathlib import Path

PICTURE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".jp2", ".avif"}
"""Suffixes of picture files, in small letters."""


def pictures_below(folder: Path) -> dict[str, Path]:
    """Return every picture below a folder, by its suffix, as {path from there: file} in the order of the paths.

    Raises OSError for a folder that may not be read.
    """
    named, folders = {}, [folder]
    # Not rglob, which passes over folders that may not be read.
    while folders:
        for path in folders.pop().iterdir():
            if path.name.startswith("."):
                continue  # thumbnails and caches
            if path.is_dir():
                if not path.is_symlink():  # which may lead back up
                    folders.append(path)
            elif path.suffix.lower() in PICTURE_SUFFIXES:
                named[path.relative_to(folder).as_posix()] = path
    return {name: named[name] for name in sorted(named)}
