"""Pieces of the demo's page in HTML: pictures to click, the trail, answers, and how far encoding is."""

import base64
import io
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from html import escape
from pathlib import Path

from src.base.errors import InputError
from src.command.walk import Answer, Example, Query, Walk, link_of
from src.pictures.opening import opened

SIDE = 224
"""Pixels of a thumbnail's longer side."""
CLICK = """
element.addEventListener('click', (event) => {
  const card = event.target.closest('[data-key]');
  if (!card) return;
  window.captionAtClick = document.querySelector('#caption textarea, #caption input').value;
  trigger('click', {key: Number(card.dataset.key)});
  document.getElementById('reference').scrollIntoView({block: 'nearest'});
});
"""
"""What makes cards of an element answer a click with their number, and shows what was clicked."""
CLEAR = "(caption) => caption === window.captionAtClick ? '' : caption"
"""What empties the caption behind a click, unless somebody has begun to write another one since."""
KEEP_LINK = """
const keep = () => {
  const link = element.querySelector('a');
  if (link) history.replaceState(history.state, '', link.getAttribute('href'));
};
watch('value', keep);
"""
"""What writes a link into the browser's address bar, so that a reload asks the same again."""
FRAME = """<style>
.gradio-container .main.fillable { max-width: 1240px !important; padding: 1rem !important }
@media (max-width: 640px) { .gradio-container .main.fillable { padding: .25rem !important } }
</style>"""
"""What stands around the page, which gradio lets no style of the page itself reach."""
STYLE = """
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(104px, 1fr)); gap: .5rem; margin: 0; padding: 0;
         list-style: none }
.cards li, .trail li { margin: 0; padding: 0; min-width: 0 }
.card { display: block; width: 100%; padding: 4px; border: 1px solid var(--border-color-primary); border-radius: 8px;
        background: var(--background-fill-primary); color: var(--body-text-color); text-align: left; cursor: pointer;
        font: 13px/1.35 system-ui, sans-serif }
.card:hover, .card:focus-visible { border-color: var(--color-accent); outline: 2px solid var(--color-accent) }
.card img, .picture img { display: block; width: 100%; aspect-ratio: 1; object-fit: contain; border-radius: 5px;
        background: var(--background-fill-secondary); margin: 0 }
.card .lost { display: grid; place-items: center; aspect-ratio: 1; text-align: center }
.card .score { font-weight: 600; font-variant-numeric: tabular-nums }
.card .rank, .faint { opacity: .72 }
#message:not(:has(p)), #trail:not(:has(li)), #link:not(:has(a)) { display: none }
.card .name { display: block; overflow: hidden; text-overflow: ellipsis; white-space: nowrap }
.picture { display: flex; gap: .75rem; align-items: center; min-height: 112px }
.picture img { width: 112px; flex: none } .picture div { min-width: 0; overflow-wrap: anywhere }
.trail { display: flex; gap: .4rem; overflow-x: auto; margin: 0; padding: 4px; list-style: none; align-items: stretch }
.trail li { flex: none; width: 112px } .trail .card { height: 100% }
.trail img { aspect-ratio: 3/2 }
.trail .words { display: -webkit-box; -webkit-line-clamp: 2; -webkit-box-orient: vertical; overflow: hidden }
.trail [aria-current] { border: 2px solid var(--color-accent); padding: 3px }
.pair { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 1rem }
.answers h3 { font-size: 1rem; margin: .2rem 0 .5rem }
.examples { display: grid; grid-template-columns: repeat(auto-fill, minmax(240px, 1fr)); gap: .5rem; margin: 0;
            padding: 0; list-style: none }
.examples li { display: grid }
.examples .card { display: flex; gap: .6rem; align-items: center; height: 100% }
.examples img { width: 64px; flex: none }
.message { border-left: 4px solid #c2410c; padding: .5rem .75rem; background: var(--background-fill-secondary);
           overflow-wrap: anywhere }
.encoding progress { width: 100%; height: 1.1rem }
@media (max-width: 640px) {
  .pair { gap: .5rem } .cards { grid-template-columns: repeat(auto-fill, minmax(96px, 1fr)) }
}
"""


@lru_cache(maxsize=4096)
def _thumbnail(path: Path, modified: int) -> str:
    def small(picture):
        # A JPEG is decoded no larger than needed. RGB, since JPEG takes neither palettes nor alpha.
        picture.draft("RGB", (2 * SIDE, 2 * SIDE))
        return picture.convert("RGB")

    picture = opened(path, small)
    picture.thumbnail((SIDE, SIDE))
    jpeg = io.BytesIO()
    picture.save(jpeg, "JPEG", quality=85)
    return base64.b64encode(jpeg.getvalue()).decode()


def thumbnail(path: Path, name: str) -> str:
    """Return an <img> that carries a small copy of a picture; raises InputError when it cannot be read."""
    modified = path.stat().st_mtime_ns if path.is_file() else 0
    return f'<img alt="{escape(name)}" src="data:image/jpeg;base64,{_thumbnail(path, modified)}">'


def _image(path: Path, name: str) -> str:
    """Return a thumbnail, or words for a picture that is gone since."""
    try:
        return thumbnail(path, name)
    except InputError:
        return '<span class="lost faint">cannot be read</span>'


def _card(key: int, content: str, title: str, current: bool = False) -> str:
    """Return a picture to click; `title` says what a click does."""
    here = ' aria-current="step"' if current else ""
    return (
        f'<li><button type="button" class="card" data-key="{key}" title="{escape(title)}"{here}>{content}</button></li>'
    )


def gallery(names: Sequence[str], path: Callable[[int], Path]) -> str:
    """Return the pictures called `names`, the first of the gallery, to click."""
    cards = [
        _card(row, f'{_image(path(row), name)}<span class="name">{escape(name)}</span>', name)
        for row, name in enumerate(names)
    ]
    return f'<ul class="cards">{"".join(cards)}</ul>'


def reference(query: Query, path: Path | None) -> str:
    """Return the picture that a query starts from, as the page shows it."""
    if path is None:
        return '<div class="picture faint"><div>No picture yet: a caption alone finds pictures too.</div></div>'
    name = query.reference or "your picture"
    return f'<div class="picture">{_image(path, name)}<div>{escape(name)}</div></div>'


def trail(walk: Walk, path: Callable[[Query], Path | None]) -> str:
    """Return the steps of a walk, to click; nothing for a walk that has not begun."""
    if walk.query.is_empty and len(walk.steps) == 1:
        return ""
    cards = []
    for number, query in enumerate(walk.steps):
        of_query = path(query)
        image = _image(of_query, query.reference or "your picture") if of_query is not None else ""
        words = escape(query.caption) or '<span class="faint">pictures like it</span>'
        content = f'{image}<span class="words"><span class="rank">{number + 1}</span> {words}</span>'
        cards.append(_card(number, content, f"back to step {number + 1}", number == walk.at))
    return f'<nav aria-label="Trail"><ol class="trail">{"".join(cards)}</ol></nav>'


def answers(by_function: dict[str, Sequence[Answer]], path: Callable[[int], Path]) -> str:
    """Return the answers of one function, or of two side by side, which say where the other one has theirs."""
    sections = []
    for function, found in by_function.items():
        elsewhere = {
            name: {answer.row: rank for rank, answer in enumerate(others, 1)}
            for name, others in by_function.items()
            if name != function
        }
        cards = []
        for rank, (row, name, score) in enumerate(found, 1):
            line = f'<span class="rank">{rank}</span> <span class="score">{score:.3f}</span>'
            for other, ranks in elsewhere.items():
                line += f'<span class="name faint">{ranks.get(row, "not")} by {escape(other)}</span>'
            content = f'{_image(path(row), name)}{line}<span class="name">{escape(name)}</span>'
            cards.append(_card(row, content, f"go on from {name}"))
        sections.append(f'<section><h3>{escape(function)}</h3><ol class="cards">{"".join(cards)}</ol></section>')
    return f'<div class="answers{" pair" if len(sections) > 1 else ""}">{"".join(sections)}</div>'


def examples(some: Sequence[Example], path: Callable[[str], Path]) -> str:
    """Return queries of the data set, to click."""
    cards = [
        _card(number, f"{_image(path(reference), reference)}<span>{escape(caption)}</span>", "ask this")
        for number, (reference, caption) in enumerate(some)
    ]
    return f'<ul class="examples">{"".join(cards)}</ul>'


def link(query: Query) -> str:
    """Return a link that asks `query` again."""
    if query.is_empty:
        return ""
    note = " (without the uploaded picture, which no link can hold)" if query.upload else ""
    return f'<a href="{escape(link_of(query))}">Link to this query</a><span class="faint">{note}</span>'


def message(lines: Iterable[str]) -> str:
    """Return what went wrong, a paragraph a line; nothing for no line."""
    return "".join(f'<p class="message" role="alert">{escape(line)}</p>' for line in lines)


def encoding(done: int, total: int, seconds: float) -> str:
    """Return how far encoding is after `seconds`; a `total` of 0 is one that is not known yet."""
    if not total:
        return (
            '<div class="encoding" role="status">Looking which pictures are to be encoded.<progress></progress></div>'
        )
    said = f"Encoding pictures: {done:,} of {total:,}"
    if done and seconds > 0:
        left = (total - done) * seconds / done
        said += f", {done / seconds:.1f} pictures/second, about {duration(left)} left"
    bar = f'<progress value="{done}" max="{total}"></progress>'
    return f'<div class="encoding" role="status">{said}.{bar}</div>'


def duration(seconds: float) -> str:
    """Return a time in words, as exact as somebody who waits wants it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
