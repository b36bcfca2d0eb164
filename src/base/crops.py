"""Parts of picture files, whose paths end as media fragments of W3C do: photo.jpg#xywh=10,20,300,200."""

import re
from pathlib import Path

FRAGMENT = re.compile(r"#xywh=([0-9]{1,9}),([0-9]{1,9}),([0-9]{1,9}),([0-9]{1,9})\Z")
Box = tuple[int, int, int, int]
"""Left, top, width and height in pixels."""


def crop_of(path: Path, box: Box) -> Path:
    """Return the path of a part of the picture file at `path`."""
    return path.with_name("{}#xywh={},{},{},{}".format(path.name, *box))


def box_of(path: Path | str) -> Box | None:
    """Return which part of a picture file a path means; None for the whole of it."""
    found = FRAGMENT.search(str(path))
    return found and tuple(map(int, found.groups()))


def file_of(path: Path | str) -> Path:
    """Return the file that a path of a picture, or of a part of one, leads to."""
    path = path if isinstance(path, Path) else Path(path)  # a Path of a Path would be parsed again
    found = FRAGMENT.search(path.name)
    return path.with_name(path.name[: found.start()]) if found else path
