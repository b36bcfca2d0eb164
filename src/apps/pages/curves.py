"""Line plots as SVG, for a page."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager


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
