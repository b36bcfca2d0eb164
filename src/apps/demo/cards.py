"""Pieces of the demo's page in HTML: pictures to click, the trail, answers, and how far encoding is."""

import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from html import escape as escape_html
from pathlib import Path

from src.apps.demo.examples import Example
from src.apps.demo.walk import Query, Walk, link_of
from src.apps.pages.kit import small_copy
from src.base.bars import Bar
from src.base.errors import InputError

Answer = tuple[str, float, Path]
"""(name in the gallery, score, file)"""
PASSES = {"gallery": "Encoding pictures", "trying every picture": "Trying every picture, since one cannot be read"}
"""{what a bar is called: what the page calls it}"""
SIDE = 224
"""Pixels of a thumbnail's longer side."""
CLICK = """
element.addEventListener('click', (event) => {
  const card = event.target.closest('[data-key]');
  if (!card) return;
  window.captionAtClick = document.querySelector('#caption textarea, #caption input').value;
  trigger('click', {key: card.dataset.key});
  document.getElementById('reference').scrollIntoView({block: 'nearest'});
});
"""
"""What makes cards of an element answer a click with their key, and shows the reference."""
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
.progress progress { width: 100%; height: 1.1rem }
@media (max-width: 640px) {
  .pair { gap: .5rem } .cards { grid-template-columns: repeat(auto-fill, minmax(96px, 1fr)) }
}
"""


def readable(text: str) -> str:
    """Return a text as it can be sent: what of a file's name is no UTF-8 becomes \\udcff, as in a terminal."""
    return text.encode("utf-8", "backslashreplace").decode()


def escape(text: str) -> str:
    """Return a text as HTML shows it."""
    return escape_html(readable(text))


@lru_cache(maxsize=4096)
def _small_copy(path: Path, modified: int) -> str:
    """Return a picture's small copy; `modified` tells a file from the one that it was before."""
    return small_copy(path, SIDE)


def thumbnail(path: Path, name: str) -> str:
    """Return an <img> that carries a small copy of a picture; raises InputError when it cannot be read."""
    try:
        found = path.stat()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    if not stat.S_ISREG(found.st_mode):  # whoever opens a pipe may wait for ever
        raise InputError(f"{path}: cannot be read as a picture (it is no regular file)")
    modified = found.st_mtime_ns
    return f'<img alt="{escape(name)}" src="{_small_copy(path, modified)}">'


def _image(path: Path, name: str) -> str:
    """Return a thumbnail, or words for a picture that is gone since."""
    try:
        return thumbnail(path, name)
    except InputError:
        return '<span class="lost faint">cannot be read</span>'


def _card(key: str | int, content: str, title: str, attributes: str = "") -> str:
    """Return a picture to click; `title` says what a click does."""
    button = f'<button type="button" class="card" data-key="{escape(str(key))}" title="{escape(title)}"{attributes}>'
    return f"<li>{button}{content}</button></li>"


def _name(name: str) -> str:
    # Without its folders: the end of a name is what differs.
    return f'<span class="name">{escape(Path(name).name)}</span>'


def gallery(names: Iterable[str], path: Callable[[str], Path]) -> str:
    """Return pictures to click."""
    cards = [_card(name, _image(path(name), name) + _name(name), name) for name in names]
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
        here = ' aria-current="step"' if number == walk.at else ""
        cards.append(_card(number, content, f"back to step {number + 1}", here))
    return f'<nav aria-label="Trail"><ol class="trail">{"".join(cards)}</ol></nav>'


def answers(by_function: Mapping[str, Sequence[Answer]]) -> str:
    """Return the answers of one function, or of two side by side, which say where the other one has theirs."""
    ranks = {
        function: {name: rank for rank, (name, *_) in enumerate(found, start=1)}
        for function, found in by_function.items()
    }
    sections = []
    for function, found in by_function.items():
        cards = []
        for rank, (name, score, path) in enumerate(found, start=1):
            line = f'<span class="rank">{rank}</span> <span class="score">{score:.3f}</span>'
            for other in ranks.keys() - {function}:
                line += f'<span class="name faint">{ranks[other].get(name, "not")} by {escape(other)}</span>'
            cards.append(_card(name, _image(path, name) + line + _name(name), f"go on from {name}"))
        sections.append(f'<section><h3>{escape(function)}</h3><ol class="cards">{"".join(cards)}</ol></section>')
    return f'<div class="answers{" pair" if len(sections) > 1 else ""}">{"".join(sections)}</div>'


def examples(some: Iterable[Example], path: Callable[[str], Path]) -> str:
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


def progress(bar: Bar | None) -> str:
    """Render a progress bar as HTML; None means not started."""
    said, share = "Looking which pictures are to be encoded.", ""
    if bar is not None:
        # Other bars count batches, which say nothing to a reader.
        counted = "{n:,} of {total:,}, {rate_noinv_fmt}" if bar.unit == " pictures" else "{percentage:.0f} %"
        numbers = bar.format_meter(**{**bar.format_dict, "bar_format": f"{counted}, {{remaining}} left"})
        said = f"{PASSES.get(bar.desc, bar.desc)}: {numbers}"
        share = f' value="{bar.n}" max="{bar.total}"'
    return f'<div class="progress" role="status">{escape(said)}<progress{share}></progress></div>'
