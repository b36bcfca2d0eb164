"""Padding, resizing and cropping of pictures that would be too large in between, a strip at a time."""

import PIL.Image

AT_ONCE = 2**24
"""Pixels of a strip before and after it is resized: 64 MB."""
NEWER = tuple(map(int, PIL.__version__.split(".")[:2])) >= (12, 2)
TURNED = PIL.Image.Transpose.TRANSPOSE
"""Makes rows of columns, and moves pixels without a change."""


def shaped(image: PIL.Image.Image, border: tuple[int, int], resized: tuple[int, int], dim: int) -> PIL.Image.Image:
    """Return the middle [dim, dim] of a picture padded with zeros and resized, to the bit what doing so whole gives.

    `border` is how many pixels are added at the left and the right each, and at the top and the bottom each; `resized`
    is width and height after the bicubic resize. Pillow resizes rows first, and each row by itself, then columns.
    """
    width, height = (side + 2 * added for side, added in zip(image.size, border, strict=True))
    # As Pillow does it around both passes: alpha weighs colours.
    weighed = {"LA": "La", "RGBA": "RGBa"}.get(image.mode)
    passed = image.convert(weighed) if weighed else image
    # Of very tall pictures that become smaller, newer ones resize columns first.
    columns_first = NEWER and height > 100 * width and resized[1] < height
    for side in (1, 0) if columns_first else (0, 1):
        passed = passed.transpose(TURNED) if side else passed
        passed = _rows_resized(passed, border[side], resized[side], dim)
        passed = passed.transpose(TURNED) if side else passed
    if image.mode in ("P", "PA"):
        passed.putpalette(image.crop((0, 0, 2, 2)).resize((1, 1)).getpalette())  # what a resize leaves of it
    return passed.convert(image.mode) if weighed else passed


def _rows_resized(image, border: int, resized: int, dim: int):
    """Return the middle `dim` columns of a picture whose rows are padded at both ends, then resized."""
    padded, left = image.width + 2 * border, int(round((resized - dim) / 2.0))
    middle = PIL.Image.new(image.mode, (dim, image.height))
    at_once = max(1, AT_ONCE // max(padded, resized))
    for top in range(0, image.height, at_once):
        rows = min(at_once, image.height - top)
        strip = PIL.Image.new(image.mode, (padded, rows))
        strip.paste(image.crop((0, top, image.width, top + rows)), (border, 0))
        strip = strip.resize((resized, rows), PIL.Image.Resampling.BICUBIC)
        middle.paste(strip.crop((left, 0, left + dim, rows)), (0, top))
    return middle
