"""Pages that need no other file: templates, and the pictures that they show."""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jinja2

from src.base.bars import Bar
from src.base.files import ESCAPING, replacing
from src.pictures.opening import UnusablePicture, opened

TEMPLATES = jinja2.Environment(
    # Each app keeps its page beside its code.
    loader=jinja2.FileSystemLoader(Path(__file__).parents[1]),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
TEMPLATES.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":")}


SIDE = 144
"""Pixels of a small copy's longer side. A page of CIRR holds 2,297 of them."""


class Picture(NamedTuple):
    """A picture on a page."""

    number: int
    """Its place in the page's album."""
    name: str
    is_target: bool = False


class Album:
    """The pictures of a page: one small copy of each, however often it is shown."""

    def __init__(self):
        self.paths: dict[Path, int] = {}
        """{file: number}"""

    def picture(self, path: Path, is_target: bool = False) -> Picture:
        """Take a picture into the album."""
        return Picture(self.paths.setdefault(path, len(self.paths)), path.stem, is_target)

    def numbers(self, files: Mapping[str, Path], names: Iterable[str]) -> list[int]:
        """Take pictures into the album by their names in `files`; return their numbers."""
        return [self.picture(files[name]).number for name in names]

    def copies(self, lost: dict[str, str] | None) -> list[tuple[str, str]]:
        """Return (name, data: URL) of each picture; the URL is empty where it cannot be read, and `lost` gets why.

        Where `lost` is None, raises UnusablePicture for the first such picture.
        """
        pairs = []
        for path in Bar(self.paths, desc="pictures of the page", leave=False, delay=1):
            try:
                pairs.append((path.stem, small_copy(path, SIDE)))
            except UnusablePicture as error:
                if lost is None:
                    raise
                lost[str(path)] = error.reason
                pairs.append((path.stem, ""))
        return pairs


class QueryRow(NamedTuple):
    """A query on a page, with its answers."""

    reference: Picture | None
    caption: str
    remark: str
    answers: Sequence[tuple[str, Sequence[Picture]]]
    """(heading, which may be empty, pictures), one for each model."""
    missed: Picture | None = None
    """The target where it is not among the answers."""


def write_page(path: Path, template: str, album: Album, lost: dict[str, str] | None = None, **values: object) -> None:
    """Render a template, named by its path in src/apps, to the file at `path`, which is replaced as a whole.

    The album's pictures go into it; `lost` is as `Album.copies` takes it. What of file names is no UTF-8 is written
    escaped.
    """
    # Sections add their headings, for the table of contents.
    values |= {"pictures": album.copies(lost), "contents": []}
    text = TEMPLATES.get_template(template).render(values)
    with replacing(path) as unfinished:
        unfinished.write_text(text, **ESCAPING)


def small_copy(path: Path, size: int) -> str:
    """Encode a picture, at most `size` pixels a side, as a data: URL; raises UnusablePicture when it cannot be read."""

    def decoded(original):
        # A JPEG is decoded no larger than needed. RGB, since JPEG takes neither palettes nor alpha.
        original.draft("RGB", (2 * size, 2 * size))
        return original.convert("RGB")

    small = opened(path, decoded)
    small.thumbnail((size, size))
    jpeg = io.BytesIO()
    small.save(jpeg, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg.getvalue()).decode()}"
