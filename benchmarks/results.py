"""Measured rows as a table in Markdown, and curves as a plot."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.cases import Curve, Row
from benchmarks.measure import duration
from src.apps.pages.curves import plain_figure

HEADER = "| | plain | here | ratio | memory, plain | here |\n|---|---|---|---|---|---|"


def table(rows: Sequence[Row]) -> str:
    """Format rows: median seconds, their ratio, and the memory of each way beyond what was held before."""
    return "\n".join([HEADER, *map(_line, rows)])


def draw_curves(curves: dict[str, Curve], path: Path) -> None:
    """Draw a panel for each of `curves` {what grows: Curve}, both axes logarithmic."""
    with plain_figure(figsize=(10, 4), layout="constrained") as figure:
        panels = figure.subplots(1, len(curves))
        for panel, (what, ways) in zip(panels, curves.items(), strict=True):
            for way, points in ways.items():
                sizes, seconds, _ = zip(*points, strict=True)
                panel.loglog(sizes, seconds, marker="o", label={"ours": "here"}.get(way, way))
            panel.set(xlabel=what, ylabel="seconds")
            panel.tick_params(which="minor", labelbottom=False, labelleft=False)
            panel.grid(True, which="major", alpha=0.3)
            panel.legend(frameon=False)
        panels[0].set_title("CIRR's metrics, 418 queries")
        panels[1].set_title("an epoch of stage 2")
        figure.savefig(path, dpi=120)


def _line(row):
    ways = row.plain, row.ours
    times = [duration(way.seconds) if way else "–" for way in ways]
    sizes = [_size(way and way.peak_bytes) for way in ways]
    ratio = f"{row.plain.seconds / row.ours.seconds:.3g} ×" if row.plain else "–"
    return f"| {' | '.join([row.what, *times, ratio, *sizes])} |"


def _size(number):
    """Format a number of bytes; a dash if the system cannot say."""
    if number is None:
        return "–"
    return f"{number / 1e9:.3g} GB" if number >= 1e9 else f"{number / 1e6:.0f} MB"
