"""Pages that need no other file: templates, and the pictures that they show."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jinja2

from src.base.files import ESCAPING, replacing
from src.pictures.opening import opened

TEMPLATES = jinja2.Environment(
    # Each app keeps its page beside its code.
    loader=jinja2.FileSystemLoader(Path(__file__).parents[1]),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
TEMPLATES.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":")}


class Picture(NamedTuple):
    """A picture on a page."""

    source: str
    """A data: URL that carries a small copy."""
    name: str
    is_target: bool = False


class QueryRow(NamedTuple):
    """A query on a page, with its answers."""

    reference: Picture | None
    caption: str
    remark: str
    answers: Sequence[tuple[str, Sequence[Picture]]]
    """(heading, which may be empty, pictures), one for each model."""
    missed: Picture | None = None
    """The target where it is not among the answers."""


def write_page(path: Path, template: str, **values: object) -> None:
    """Render a template, named by its path in src/apps, to the file at `path`, which is replaced as a whole.

    What of file names is no UTF-8 is written escaped.
    """
    text = TEMPLATES.get_template(template).render(values)
    with replacing(path) as unfinished:
        unfinished.write_text(text, **ESCAPING)


def picture(path: Path, is_target: bool = False, size: int = 208) -> Picture:
    """Open a picture for a page, at most `size` pixels a side; raises InputError when it cannot be read."""
    return Picture(small_copy(path, size), path.stem, is_target)


def small_copy(path: Path, size: int) -> str:
    """Encode a picture, at most `size` pixels a side, as a data: URL; raises InputError when it cannot be read."""

    def decoded(original):
        # A JPEG is decoded no larger than needed. RGB, since JPEG takes neither palettes nor alpha.
        original.draft("RGB", (2 * size, 2 * size))
        return original.convert("RGB")

    small = opened(path, decoded)
    small.thumbnail((size, size))
    jpeg = io.BytesIO()
    small.save(jpeg, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg.getvalue()).decode()}"
