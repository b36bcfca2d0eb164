"""A page that needs nothing but itself: tables, curves and pictures in one HTML file."""

import base64
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import Path

from src.pictures.opening import opened

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1c1e21; max-width: 1160px; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.6rem; margin-bottom: .2rem } h2 { font-size: 1.15rem; margin: 2.2rem 0 .4rem }
p { max-width: 46rem; margin: .3rem 0 .8rem; color: #444 }
table { border-collapse: collapse } td, th { padding: .3rem .9rem .3rem 0; border-bottom: 1px solid #ddd }
th { text-align: left; font-weight: 600 } td + td, th + th { text-align: right; font-variant-numeric: tabular-nums }
svg { max-width: 100%; height: auto }
.query { display: grid; grid-template-columns: 112px 15rem 1fr; gap: 1rem; align-items: center;
         padding: .6rem 0; border-bottom: 1px solid #ddd }
.query q { font-size: 1rem } .rank { display: block; color: #666; font-size: .85rem }
.answers { display: flex; flex-wrap: wrap; gap: .5rem } .missed { margin-left: 1rem }
img { width: 104px; height: 104px; object-fit: contain; background: #f1f2f4; border: 4px solid #f1f2f4 }
figure { margin: 0; width: 112px; font-size: .8rem; color: #666; overflow-wrap: anywhere }
img.target { border-color: #1a8a3c }
@media (max-width: 700px) { .query { grid-template-columns: 112px 1fr } .query .answers { grid-column: 1 / -1 } }
.beside { display: flex; flex-wrap: wrap; gap: 1.5rem 3.5rem; align-items: flex-start }
.bars td:last-child { width: 14rem; padding-right: 0 } .bars i { display: block; height: .8rem; background: #4878b0 }
#filters { display: flex; flex-wrap: wrap; gap: .5rem 1.4rem; align-items: center }
#filters [type=number] { width: 5rem }
#list { font-size: .85rem; width: 100% } #list td, #list th { text-align: left }
#list td { overflow-wrap: break-word } #list td:first-child { white-space: nowrap }
"""


def page(title: str, introduction: str, sections: Sequence[tuple[str, str, str]]) -> str:
    """Return an HTML document; `sections` are (heading, explanation, HTML)."""
    body = "".join(
        f"<section><h2>{escape(heading)}</h2><p>{escape(explanation)}</p>{content}</section>\n"
        for heading, explanation, content in sections
    )
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style></head>\n"
        f"<body><h1>{escape(title)}</h1><p>{escape(introduction)}</p>\n{body}</body></html>\n"
    )


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return an HTML table of strings, whose first column names the rows."""
    lines = ["".join(f"<th>{escape(cell)}</th>" for cell in header)]
    lines += ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows]
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def bars(title: str, counts: Sequence[tuple[str, int]]) -> str:
    """Return a histogram as an HTML table: label, count, percent of all, and a bar as long as the count."""
    most, of = max(count for _, count in counts), sum(count for _, count in counts)
    header = f"<tr><th>{escape(title)}</th><th>queries</th><th>%</th><th></th></tr>"
    rows = "".join(
        f"<tr><td>{escape(label)}</td><td>{count:,}</td><td>{100 * count / of:.1f}</td>"
        f'<td><i style="width: {100 * count / most:.1f}%"></i></td></tr>'
        for label, count in counts
    )
    return f'<table class="bars">{header}{rows}</table>'


def picture(path: Path, is_target: bool = False, size: int = 208) -> str:
    """Return an <img> that carries a copy of the picture at `path`, of at most `size` pixels a side."""
    frame = ' class="target"' if is_target else ""
    return f'<img{frame} alt="{escape(path.stem)}" title="{escape(path.stem)}" src="{small_copy(path, size)}">'


def small_copy(path: Path, size: int) -> str:
    """Return the address of a picture's copy of at most `size` pixels a side, which the address itself carries.

    Raises InputError when it cannot be read.
    """

    def decoded(original):
        # A JPEG is decoded no larger than needed. RGB, since JPEG takes neither palettes nor alpha.
        original.draft("RGB", (2 * size, 2 * size))
        return original.convert("RGB")

    small = opened(path, decoded)
    small.thumbnail((size, size))
    jpeg = io.BytesIO()
    small.save(jpeg, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg.getvalue()).decode()}"


def captioned(image: str, text: str) -> str:
    """Return an <img> with a line below it."""
    return f"<figure>{image}<figcaption>{escape(text)}</figcaption></figure>"


EMPTY = "<span></span>"


def wall_row(reference: str, caption: str, remark: str, answers: Sequence[str], missed: str = "") -> str:
    """Return a query, its answers, and a target that is not among these: all but caption and remark are <img>s.

    A query without a reference keeps its place empty.
    """
    return (
        f'<div class="query">{reference or EMPTY}'
        f'<div><q>{escape(caption)}</q><span class="rank">{escape(remark)}</span></div>'
        f'<div class="answers">{"".join(answers)}<div class="missed">{missed}</div></div></div>\n'
    )


def curves(panels: Sequence[tuple[str, str, dict]], columns: int = 2) -> str:
    """Return an inline SVG of line plots, row by row; `panels` are (title, axis label, {line's name: (xs, ys)})."""
    with plain_figure(figsize=(5.6 * columns, 3 * (len(panels) // columns))) as figure:
        return _drawn(figure, panels, columns)


@contextmanager
def plain_figure(**options) -> Iterator:
    """Give a figure of matplotlib's own defaults, whatever backend or style the environment or a file asks for."""
    import matplotlib
    from matplotlib.figure import Figure  # not pyplot, which chooses a backend

    with matplotlib.rc_context(matplotlib.rcParamsDefault):
        yield Figure(**options)


def _drawn(figure, panels, columns) -> str:
    axes = figure.subplots(len(panels) // columns, columns, squeeze=False)
    for axis, (title, label, lines) in zip(axes.flat, panels, strict=True):
        for name, (xs, ys) in lines.items():
            axis.plot(xs, ys, marker="o", markersize=3, label=name)
        axis.set(title=title, xlabel="epoch", ylabel=label)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
        if len(lines) > 1:
            # Beside the plot, where it hides no line.
            axis.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    figure.tight_layout()
    text = io.StringIO()
    # Without a date, so that the same run gives the same page.
    figure.savefig(text, format="svg", metadata={"Date": None})
    # An XML declaration may not stand inside HTML.
    return text.getvalue()[text.getvalue().index("<svg") :]
