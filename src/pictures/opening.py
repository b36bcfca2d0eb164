"""Picture files: which are there, and what a transform makes of them."""

import contextlib
import warnings
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

import PIL.Image

from src.base.bars import Bar
from src.base.errors import (
    InputError,
    StorageError,
    escaped,
    first_ten,
    in_a_line,
    is_out_of_memory,
    require_storage,
)
from src.base.reading import open_regular

MISSING = "no such picture"
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "JPEG2000", "AVIF", "HEIF")
"""Formats that are read, as Pillow calls them. Its decoder of JPEG also reads MPO; others run programs, or are rare."""
NO_PICTURES = {
    b"version https://": "a pointer of Git LFS, which `git lfs pull` replaces by the file",
    b"<!doctype": "a web page",
    b"<html": "a web page",
    b"<?xml": "an XML file",
    b"<svg": "an SVG file",
    b"pk\x03\x04": "a ZIP archive",
    b"%!ps": "a PostScript file",
    b"\xc5\xd0\xd3\xc6": "a PostScript file",
    b"%pdf": "a PDF file",
    b"8bps": "a Photoshop file",
    b"gimp xcf": "a GIMP file",
    b"\xd7\xcd\xc6\x9a": "a Windows metafile",
    b"\x01\0\0\0": "a Windows metafile",
    b"\0\0\x01\0": "an icon",
    b"icns": "an icon",
    b"dds ": "a DDS texture",
    b"qoif": "a QOI picture",
    b"\xff\x0a": "a JPEG XL picture",
    b"\0\0\0\x0cjxl ": "a JPEG XL picture",
}
"""{what a file begins with, in lower case: what it then is}"""
HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")


@cache
def readable_formats() -> list[str]:
    """Return those of FORMATS that this Pillow has, HEIF where pillow-heif is installed."""
    with contextlib.suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
    PIL.Image.init()
    return [name for name in FORMATS if name in PIL.Image.OPEN]


class UnusablePicture(InputError):
    """A picture file that is missing, broken or of another format; `reason` is why, without its name."""

    def __init__(self, line: str, reason: str = ""):
        super().__init__(line)
        self.reason = reason


def opened(path: Path, preprocess: Callable):
    """Return what `preprocess` makes of a picture: the one place where a picture file is opened.

    Raises UnusablePicture, with its name, when it cannot be read, and StorageError when its disk or share fails.
    """
    try:
        with open_regular(path) as file:
            try:
                made = _made_of(file, preprocess)
                # Decoders may take a failed read for the end of the file.
                require_storage(file.raw.fault or OSError(), path)
                return made
            except StorageError:
                raise
            except Exception as error:
                require_storage(file.raw.fault or OSError(), path)
                # What Pillow raises for a broken picture depends on its format and damage; most types were seen.
                if is_out_of_memory(error):
                    raise
                reason = in_a_line(error, repr(file)) + _foreign_to(file, error)
    except OSError as error:
        require_storage(error, path)
        reason = error.strerror
    raise UnusablePicture(f"{escaped(str(path))}: cannot be read as a picture ({reason})", reason)


def _made_of(file, preprocess):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")  # its doubts change no pixel
        with PIL.Image.open(file, formats=readable_formats()) as image:
            return _prepared(image, preprocess)


def _prepared(image: PIL.Image.Image, preprocess: Callable):
    # Some formats announce no columns, which a resize would divide by.
    if 0 in image.size:
        raise ValueError("it is {} x {} pixels".format(*image.size))
    return preprocess(image)


def prepared(image: PIL.Image.Image, preprocess: Callable):
    """Return what `preprocess` makes of a picture of PIL; raises UnusablePicture when it cannot be decoded."""
    try:
        return _prepared(image, preprocess)
    except Exception as error:  # as in `opened`
        if is_out_of_memory(error):
            raise
        reason = in_a_line(error)
    raise UnusablePicture(f"a {type(image).__name__}: cannot be read as a picture ({reason})", reason)


def _foreign_to(file, error: Exception) -> str:
    """Return what a file is that Pillow did not identify, where its first bytes say so."""
    if not isinstance(error, PIL.UnidentifiedImageError):
        return ""
    file.seek(0)
    what = what_else(file.read(16))
    return f": it is {what}" if what else ""


def what_else(head: bytes) -> str | None:
    """Return what a file with these first 16 bytes is, where no picture that is read begins with them."""
    if not head:
        return "an empty file"
    # By what no picture begins with. There is nothing that every picture begins with: some formats have no mark.
    if not any(head):
        return "a file of zeros, as a broken download leaves one"
    if head[4:8] == b"ftyp" and head[8:12] in HEIF_BRANDS and "HEIF" not in readable_formats():
        return "a HEIF picture, which pillow-heif reads (pip install pillow-heif)"
    return next((what for mark, what in NO_PICTURES.items() if head.lower().startswith(mark)), None)


def require_present(paths: Iterable[Path]) -> None:
    """Look at each of `paths` and at its first bytes, with a bar; opens none.

    Raises InputError when some are missing, empty or of something else: how many, and the first ten.
    """
    paths = list(dict.fromkeys(paths))
    faults = {}
    for path in Bar(paths, desc="looking at picture files", leave=False, delay=1):
        fault = _fault_at_first_sight(path)
        if fault:
            faults.setdefault(fault, []).append(path)
    if faults:
        raise InputError(_description(faults, len(paths)))


def _fault_at_first_sight(path: Path) -> str | None:
    try:
        with open_regular(path) as file:
            return what_else(file.read(16))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return MISSING
    except OSError as error:
        require_storage(error, path)
        return f"cannot be opened ({error.strerror})"


def _description(faults: dict[str, list[Path]], total: int) -> str:
    """Return a line about {fault: paths} among `total` pictures: the first path, their numbers, and ten names."""
    fault, (first, *_) = next(iter(faults.items()))
    paths = [path for faulty in faults.values() for path in faulty]
    missing = faults.get(MISSING, [])
    if len(missing) == len(paths):
        counted = f"{len(missing)} of {total} are missing"
    else:
        kinds = ", ".join(f"{len(faulty)}: {kind}" for kind, faulty in faults.items())
        counted = f"{len(paths)} of {total} pictures cannot be used ({kinds})"
    names = first_ten([path.name for path in paths])
    hint = _elsewhere(missing[0]) if len(missing) > total / 2 else ""
    remedy = "check_data.py lists all, --skip-missing leaves them out"
    return f"{escaped(str(first))}: {fault}; {counted}: {names}{hint} ({remedy})"


def _elsewhere(path: Path) -> str:
    """Return where a missing file seems to be instead: under another suffix, or a folder away."""
    suffixes = [path.with_suffix(suffix) for suffix in (".jpg", ".png", ".jpeg", ".webp", ".JPG", ".PNG", ".JPEG")]
    above = path.parent.parent
    folders = [above, *_folders(path.parent), *_folders(above), *_folders(above.parent)]
    moved = [folder / name for folder in folders for name in (path.name, Path(path.parent.name) / path.name)]
    found = next((place for place in (*suffixes, *moved) if place.is_file()), None)
    return f"; there is {found} instead" if found else ""


def _folders(folder: Path) -> list[Path]:
    return [inside for inside in sorted(folder.iterdir()) if inside.is_dir()] if folder.is_dir() else []
