"""The bytes of picture files that surprise: ODD ones with the kinds they are of, BROKEN ones with their fault."""

import io
import zlib

import numpy as np
import PIL.Image


def saved(image, form, **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def plain(mode="RGB", size=(8, 6)):
    return PIL.Image.effect_noise(size, 80).convert(mode)


def rotated():
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    return saved(plain(), "JPEG", exif=exif)


def deep_colour():
    """A PNG of 16 bits a channel in colour, which Pillow reads but does not write."""
    header = b"\0\0\0\1\0\0\0\1\x10\2\0\0\0"
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(b"\0" + b"\x12\x34" * 3)), (b"IEND", b"")
    framed = (
        len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big") for kind, body in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def sixteen_bits_a_pixel():
    """A bitmap of 5, 6 and 5 bits a channel."""
    numbers = (0, 4), (66, 4), (40, 4), (1, 4), (1, 4), (1, 2), (16, 2), (3, 4), (4, 4), (0, 16)
    header = b"".join(number.to_bytes(width, "little") for number, width in ((70, 4), *numbers))
    masks = b"".join(mask.to_bytes(4, "little") for mask in (0xF800, 0x7E0, 0x1F))
    return b"BM" + header + masks + b"\x12\x34\0\0"


def without_pixels():
    """A picture whose header announces no columns."""
    content = bytearray(saved(plain(), "TGA"))
    content[12:14] = b"\0\0"
    return bytes(content)


def bomb():
    """A bitmap whose header announces 20,000 x 20,000 pixels."""
    content = bytearray(saved(plain(), "BMP"))
    content[18:26] = (20000).to_bytes(4, "little") * 2
    return bytes(content)


ODD = {
    "palette": (lambda: saved(plain("P"), "PNG"), ["palette"]),
    "CMYK": (lambda: saved(plain("CMYK"), "JPEG"), ["CMYK"]),
    "16-bit grey": (lambda: saved(PIL.Image.fromarray(np.array([[0, 40000]], np.uint16)), "PNG"), ["16-bit"]),
    "16-bit colour": (deep_colour, ["16-bit"]),
    "32-bit float": (lambda: saved(plain("F"), "TIFF"), ["16-bit"]),
    "16 bits a pixel": (sixteen_bits_a_pixel, []),
    "EXIF-rotated": (rotated, ["EXIF-rotated"]),
    "animated GIF": (
        lambda: saved(plain("P"), "GIF", save_all=True, append_images=[plain("P")]),
        ["animated", "palette"],
    ),
    "animated WebP": (lambda: saved(plain(), "WEBP", save_all=True, append_images=[plain()]), ["animated"]),
    "TIFF of two pages": (lambda: saved(plain(), "TIFF", save_all=True, append_images=[plain()]), ["animated"]),
    "grey": (lambda: saved(plain("L"), "PNG"), []),
    "alpha": (lambda: saved(plain("RGBA"), "PNG"), []),
    "grey and alpha": (lambda: saved(plain("LA"), "PNG"), []),
    "one bit": (lambda: saved(plain("1"), "PNG"), []),
    "1 x 1": (lambda: saved(plain(size=(1, 1)), "PNG"), []),
    "1 x 1000": (lambda: saved(plain(size=(1, 1000)), "JPEG"), []),
}
BROKEN = {
    "missing": (None, ""),
    "zero-sized": (lambda: b"", ""),
    "no picture": (lambda: b"no picture", "cannot identify image file the file"),
    "torn": (lambda: saved(plain(size=(90, 90)), "PNG")[:2000], "truncated"),
    "no pixels": (without_pixels, "cannot identify image file the file"),
    "bomb": (bomb, "decompression bomb"),
    "XML": (lambda: b"<svg/>", "cannot identify image file the file"),
}
