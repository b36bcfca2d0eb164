"""Picture files that surprise, as bytes: what looking at each finds, and why opening refuses some."""

import io
import struct
import zlib
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import PIL.Image


class Odd(NamedTuple):
    """A picture file."""

    make: Callable[[], bytes] | None
    """Its bytes; None where there is no file."""
    kinds: tuple[str, ...] = ()
    """What src/pictures/kinds.py finds: one of FAULTS, or else any number of ODDITIES."""
    fault: str | None = None
    """A part of what is said where it is refused; None where it is taken."""


def saved(image, form, **options):
    """Return the bytes of a picture in some form."""
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def noise(*shape, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


RGB = PIL.Image.fromarray(noise(30, 50, 3))
RGBA = PIL.Image.fromarray(noise(30, 50, 4))
GREY, PALETTE = RGB.convert("L"), RGB.quantize(16)
DEEP_GREY = PIL.Image.fromarray(noise(30, 50, dtype=np.uint16))
TURNED = PIL.Image.Exif()
TURNED[0x0112] = 6
TWO_MORE = {"save_all": True, "append_images": [RGB.rotate(90), RGB.rotate(180)]}
"""More frames for an animation."""


def chunk(kind, content):
    """Return a chunk of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def framed(header, data):
    """Return a PNG of a header and of compressed rows."""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def black_png(width, height):
    """Draw a black picture of any size: a pixel is a bit."""
    rows = zlib.compressobj()
    black = b"".join(rows.compress(bytes(100 * (1 + (width + 7) // 8))) for _ in range(-(-height // 100)))
    return framed(struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0), black + rows.flush())


def deep_colour():
    """Draw a PNG of 16 bits a channel in colour, which Pillow reads but does not write."""
    return framed(struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0), zlib.compress(b"\0" + b"\x12\x34" * 3))


def sixteen_bits_a_pixel():
    """Draw a bitmap of 5, 6 and 5 bits a channel."""
    numbers = (0, 4), (66, 4), (40, 4), (1, 4), (1, 4), (1, 2), (16, 2), (3, 4), (4, 4), (0, 16)
    header = b"".join(number.to_bytes(width, "little") for number, width in ((70, 4), *numbers))
    masks = b"".join(mask.to_bytes(4, "little") for mask in (0xF800, 0x7E0, 0x1F))
    return b"BM" + header + masks + b"\x12\x34\0\0"


def without_pixels():
    """Draw a picture whose header announces no columns."""
    content = bytearray(saved(RGB, "TGA"))
    content[12:14] = b"\0\0"
    return bytes(content)


def announced_bomb():
    """Draw a bitmap whose header announces 20,000 x 20,000 pixels."""
    content = bytearray(saved(RGB, "BMP"))
    content[18:26] = (20000).to_bytes(4, "little") * 2
    return bytes(content)


def png(image, **options):
    return partial(saved, image, "PNG", **options)


def jpeg(image, **options):
    return partial(saved, image, "JPEG", **options)


TAKEN = {
    "JPEG": Odd(jpeg(RGB)),
    "palette": Odd(png(PALETTE), ("palette",)),
    "palette of the web": Odd(png(RGB.convert("P")), ("palette",)),
    "palette with a transparent colour": Odd(png(PALETTE, transparency=3), ("palette",)),
    "palette with alpha": Odd(png(PALETTE, transparency=bytes(range(0, 256, 16))), ("palette",)),
    "black and white": Odd(png(RGB.convert("1"))),
    "grey": Odd(png(GREY)),
    "grey JPEG": Odd(jpeg(GREY)),
    "grey with alpha": Odd(png(RGBA.convert("LA"))),
    "RGBA": Odd(png(RGBA)),
    "RGB with a transparent colour": Odd(png(RGB, transparency=RGB.getpixel((7, 5)))),
    "CMYK": Odd(jpeg(RGB.convert("CMYK")), ("CMYK",)),
    "16-bit grey": Odd(png(DEEP_GREY), ("16-bit",)),
    "16-bit colour": Odd(deep_colour, ("16-bit",)),
    "32-bit float": Odd(partial(saved, RGB.convert("F"), "TIFF"), ("16-bit",)),
    "16 bits a pixel": Odd(sixteen_bits_a_pixel),
    "turned by EXIF": Odd(jpeg(RGB, exif=TURNED), ("EXIF-rotated",)),
    "animated GIF": Odd(
        partial(saved, PALETTE, "GIF", save_all=True, append_images=[PALETTE.rotate(90)]), ("animated", "palette")
    ),
    "animated PNG": Odd(png(RGB, **TWO_MORE), ("animated",)),
    "animated WebP": Odd(partial(saved, RGB, "WEBP", lossless=True, **TWO_MORE), ("animated",)),
    "TIFF of three pages": Odd(partial(saved, RGB, "TIFF", **TWO_MORE), ("animated",)),
    "icon": Odd(partial(saved, RGBA, "ICO")),
    "1 x 1": Odd(png(RGB.crop((0, 0, 1, 1)))),
    "1 x 1, palette": Odd(png(PALETTE.crop((0, 0, 1, 1))), ("palette",)),
    "1 x 1000": Odd(png(RGB.resize((1, 1000)))),
    "1 x 1000 JPEG": Odd(jpeg(RGB.resize((1, 1000)))),
    "1000 x 1": Odd(png(RGB.resize((1000, 1)))),
}
"""What every command takes, as the published code does."""

UNKNOWN = "cannot identify image file the file"
REFUSED = {
    "missing": Odd(None, ("missing",), "No such file"),
    "zero-sized": Odd(lambda: b"", ("zero-sized",), UNKNOWN),
    "text": Odd(lambda: b"not a picture\n", ("unreadable",), UNKNOWN),
    "zeros": Odd(lambda: bytes(500), ("unreadable",), UNKNOWN),
    "XML": Odd(lambda: b"<svg/>", ("unreadable",), UNKNOWN),
    "torn JPEG": Odd(lambda: saved(RGB.resize((200, 200)), "JPEG")[:4000], ("unreadable",), "image file is truncated"),
    "torn PNG": Odd(lambda: saved(RGB.resize((90, 90)), "PNG")[:2000], ("unreadable",), "truncated"),
    "PNG torn soon": Odd(lambda: black_png(1000, 1000)[:80], ("unreadable",), ""),
    "torn header": Odd(lambda: black_png(1000, 1000)[:20], ("unreadable",), ""),
    "no columns": Odd(without_pixels, ("unreadable",), UNKNOWN),
    "no height": Odd(partial(black_png, 50, 0), ("unreadable",), ""),
    "bomb": Odd(partial(black_png, 20_000, 20_000), ("unreadable",), "decompression bomb"),
    "announced bomb": Odd(announced_bomb, ("unreadable",), "decompression bomb"),
    # A whole picture, which would fill the memory once its shorter side were as long as CLIP's resolution.
    "1 x 60000": Odd(partial(black_png, 1, 60_000), ("too long",), "pixels, the limit is"),
    "EPS": Odd(partial(saved, RGB, "EPS"), ("unreadable",), f"{UNKNOWN}: it is a PostScript file"),
    "PDF": Odd(partial(saved, RGB, "PDF"), ("unreadable",), f"{UNKNOWN}: it is a PDF file"),
    "PSD": Odd(lambda: b"8BPS" + bytes(40), ("unreadable",), f"{UNKNOWN}: it is a Photoshop file"),
    "metafile": Odd(lambda: b"\xd7\xcd\xc6\x9a" + bytes(80), ("unreadable",), f"{UNKNOWN}: it is a Windows metafile"),
    "TGA by another name": Odd(partial(saved, RGB, "TGA"), ("unreadable",), UNKNOWN),
}
"""What no command takes."""


def write(odd, path):
    """Let `path` be such a picture file."""
    path.unlink(missing_ok=True)
    if odd.make is not None:
        path.write_bytes(odd.make())


def write_taken(folder):
    """Write all that is taken; return {name: file}."""
    files = {name: folder / f"{number}.png" for number, name in enumerate(TAKEN)}
    for name, path in files.items():
        write(TAKEN[name], path)
    return files
