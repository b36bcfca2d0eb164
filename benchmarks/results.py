"""The measured rows as a table in Markdown, and the curves as a picture."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.cases import Curve, Row
from benchmarks.measure import Measured
from src.command.page import plain_figure

HEADER = "| | plain | here | ratio | memory, plain | here |\n|---|---|---|---|---|---|"


def table(rows: Sequence[Row]) -> str:
    """Return rows with median seconds, their ratio, and the memory of each way beyond what was held before."""
    return "\n".join([HEADER, *map(_line, rows)])


def facts(row: Row) -> dict:
    """Return a row in plain values."""
    ways = {"plain": row.plain, "ours": row.ours}
    return {"what": row.what} | {
        name: None if way is None else {"seconds": way.seconds, "peak_bytes": way.peak_bytes}
        for name, way in ways.items()
    }


def draw_curves(curves: dict[str, Curve], path: Path) -> None:
    """Draw a panel for each of `curves` {what grows: Curve}, both axes logarithmic."""
    with plain_figure(figsize=(10, 4), layout="constrained") as figure:
        _draw(figure, curves)
        figure.savefig(path, dpi=120)


def _draw(figure, curves):
    from matplotlib.ticker import NullFormatter  # late: plain_figure says how matplotlib is imported

    panels = figure.subplots(1, len(curves))
    for panel, (what, ways) in zip(panels, curves.items(), strict=True):
        for way, points in ways.items():
            sizes, seconds, _ = zip(*points, strict=True)
            panel.loglog(sizes, seconds, marker="o", label={"ours": "here"}.get(way, way))
        panel.set(xlabel=what, ylabel="seconds")
        panel.xaxis.set_minor_formatter(NullFormatter())
        panel.yaxis.set_minor_formatter(NullFormatter())
        panel.grid(True, which="major", alpha=0.3)
        panel.legend(frameon=False)
    panels[0].set_title("CIRR's metrics, 418 queries")
    panels[1].set_title("an epoch of stage 2")


def _line(row):
    if row.plain is None:
        return f"| {row.what} | – | {time_cell(row.ours)} | – | – | {memory_cell(row.ours)} |"
    ratio = row.plain.seconds / row.ours.seconds
    times, memories = ([cell(way) for way in (row.plain, row.ours)] for cell in (time_cell, memory_cell))
    cells = (row.what, *times, f"{ratio:.3g} ×", *memories)
    return f"| {' | '.join(cells)} |"


def time_cell(measured: Measured) -> str:
    """Return the seconds of a way as a cell."""
    return f"{measured.seconds:.3g} s" if measured.seconds >= 0.1 else f"{1000 * measured.seconds:.3g} ms"


def memory_cell(measured: Measured) -> str:
    """Return the memory of a way as a cell, a dash where the system does not say."""
    if measured.peak_bytes is None:
        return "–"
    gigabytes = measured.peak_bytes / 1e9
    return f"{gigabytes:.3g} GB" if gigabytes >= 1 else f"{1000 * gigabytes:.0f} MB"
