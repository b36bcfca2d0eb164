"""Picture files: which are there, and what a transform makes of them."""

import contextlib
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path

import PIL.Image

from src.base.crops import Box, box_of, file_of
from src.base.errors import (
    InputError,
    StorageError,
    escaped,
    in_a_line,
    is_out_of_memory,
    require_storage,
)
from src.base.reading import open_regular

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "JPEG2000", "AVIF", "HEIF", "ICO")
"""Formats that are read, as Pillow calls them. Its decoder of JPEG also reads MPO; others run programs, or are rare."""
UNMARKED = {".tga": "TGA"}
"""{suffix: format} of formats that begin with no mark: a file of anything might be one, so it has to be called so."""
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
        whole = file_of(path)
        with open_regular(whole) as file:
            try:
                made = _made_of(file, UNMARKED.get(whole.suffix.lower()), preprocess, box_of(path))
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


def _made_of(file, unmarked: str | None, preprocess, box: Box | None = None):
    formats = [*readable_formats(), unmarked] if unmarked else readable_formats()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")  # its doubts change no pixel
        with PIL.Image.open(file, formats=formats) as image:
            return _prepared(image if box is None else _cropped(image, box), preprocess)


def _cropped(image: PIL.Image.Image, box: Box) -> PIL.Image.Image:
    """Return the part of a picture that lies in a box, amid a black square, as GeneCIS's programs do."""
    left, top, width, height = box
    right, bottom = min(image.width, left + width), min(image.height, top + height)
    if right <= left or bottom <= top:
        raise ValueError("the part at {},{} of {} x {} pixels is empty".format(*box))
    part = image.crop((left, top, right, bottom))
    part = part if part.mode in ("L", "RGB") else part.convert("RGB")  # in which zeros are black
    side = max(part.size)
    square = PIL.Image.new(part.mode, (side, side))
    square.paste(part, ((side - part.width) // 2, (side - part.height) // 2))
    return square


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
