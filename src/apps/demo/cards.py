"""Pieces of the demo's page in HTML: pictures to click, the trail, answers, and how far encoding is."""

import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from src.apps.demo.examples import Example
from src.apps.demo.walk import Query, Walk, link_of
from src.apps.pages.kit import TEMPLATES, small_copy
from src.base.bars import Bar
from src.base.errors import InputError

Answer = tuple[str, float, Path]
"""(name in the gallery, score, file)"""
PASSES = {"gallery": "Encoding pictures", "trying every picture": "Trying every picture, since one cannot be read"}
"""{what a bar is called: what the page calls it}"""
SIDE = 224
"""Pixels of a thumbnail's longer side."""
LARGE = 1024
"""Pixels of the longer side of a picture that is shown large."""
UPLOADED = "your picture"
"""What an uploaded picture is called."""


class Picture(NamedTuple):
    """A picture on the page."""

    source: str
    """A data: URL that carries a small copy; empty where it cannot be read any more."""
    name: str
    short: str
    """Its name without the folders that it needs not."""


def readable(text: str) -> str:
    """Return a text as it can be sent: what of a file's name is no UTF-8 becomes \\udcff, as in a terminal."""
    return text.encode("utf-8", "backslashreplace").decode()


def _render(piece: str, *values) -> str:
    """Render a macro of cards.html."""
    return readable(getattr(TEMPLATES.get_template("demo/cards.html").module, piece)(*values))


@lru_cache(maxsize=4096)
def _small_copy(path: Path, modified: int) -> str:
    """Return a picture's small copy; `modified` distinguishes a file from the one that it was before."""
    return small_copy(path, SIDE)


def thumbnail(path: Path) -> str:
    """Return a small copy of a picture as a data: URL; raises InputError when it cannot be read."""
    return _small_copy(path, _modified(path))


def _modified(path: Path) -> int:
    """Return when a regular file was modified; raises InputError for what is none."""
    try:
        found = path.stat()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    if not stat.S_ISREG(found.st_mode):  # opening a pipe may wait for ever
        raise InputError(f"{path}: cannot be read as a picture (it is not a regular file)")
    return found.st_mtime_ns


def _picture(path: Path, name: str, short: str = "") -> Picture:
    """Return a picture for the page, without a source where it cannot be read any more."""
    try:
        return Picture(thumbnail(path), name, short or name)
    except InputError:
        return Picture("", name, short or name)


def _start(query: Query, path: Path | None) -> Picture | None:
    """Return the picture that a query starts from; None for none."""
    return None if path is None else _picture(path, query.reference or UPLOADED)


def gallery(names: Iterable[str], path: Callable[[str], Path], short: Mapping[str, str]) -> str:
    """Return pictures to click; `short` has their names without folders."""
    return _render("gallery", [_picture(path(name), name, short[name]) for name in names])


def large(path: Path, name: str) -> str:
    """Return a picture of the gallery as large as a screen, to be looked at or searched from."""
    try:
        _modified(path)
        # Not kept: a folder of these would be too much for the memory.
        source = small_copy(path, LARGE)
    except InputError:
        source = ""
    return _render("large", Picture(source, name, name))


def reference(query: Query, path: Path | None) -> str:
    """Return the picture that a query starts from, as the page shows it."""
    return _render("reference", _start(query, path))


def trail(walk: Walk, path: Callable[[Query], Path | None]) -> str:
    """Return the steps of a walk, to click; nothing for a walk that has not begun."""
    if walk.query.is_empty and len(walk.steps) == 1:
        return ""
    return _render("trail", [(_start(query, path(query)), query.caption) for query in walk.steps], walk.at)


def answers(by_function: Mapping[str, Sequence[Answer]], short: Mapping[str, str]) -> str:
    """Return the answers of one function, or of two side by side with each answer's rank by the other one."""
    ranks = {
        function: {name: rank for rank, (name, *_) in enumerate(found, start=1)}
        for function, found in by_function.items()
    }

    def notes(function, name):
        return [f"{ranks[other].get(name, 'not')} by {other}" for other in ranks if other != function]

    sections = [
        (function, [(_picture(path, name, short[name]), score, notes(function, name)) for name, score, path in found])
        for function, found in by_function.items()
    ]
    return _render("answers", sections)


def examples(queries: Iterable[Example], path: Callable[[str], Path]) -> str:
    """Return queries of the data set, to click."""
    return _render("examples", [(_picture(path(reference), reference), caption) for reference, caption in queries])


def link(query: Query) -> str:
    """Return a link that asks `query` again."""
    return "" if query.is_empty else _render("link", link_of(query), query.upload is None)


def message(lines: Iterable[str]) -> str:
    """Return what went wrong, a paragraph a line; nothing for no line."""
    return _render("message", lines)


def progress(bar: Bar | None) -> str:
    """Render a progress bar as HTML; None means not started."""
    line = "Looking which pictures are to be encoded."
    if bar is not None:
        # Other bars count batches, which say nothing to a reader.
        counted = "{n:,} of {total:,}, {rate_noinv_fmt}" if bar.unit == " pictures" else "{percentage:.0f} %"
        numbers = bar.format_meter(**{**bar.format_dict, "bar_format": f"{counted}, {{remaining}} left"})
        line = f"{PASSES.get(bar.desc, bar.desc)}: {numbers}"
    return _render("progress", line, bar)
