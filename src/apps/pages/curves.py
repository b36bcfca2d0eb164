"""Line plots as SVG, for a page."""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

INK = "#010203"
"""Stands for the colour of the page's text, which is dark or light."""


def curves(panels: Sequence[tuple[str, str, dict]]) -> str:
    """Return an inline SVG for each line plot; `panels` are (title, axis label, {line's name: (xs, ys)})."""
    return "".join(_drawn(str(number), *panel) for number, panel in enumerate(panels))


@contextmanager
def plain_figure(settings: Mapping[str, object] | None = None, **options) -> Iterator:
    """Give a figure of matplotlib's own defaults, whatever backend or style the environment or a file asks for.

    `settings` are changed ones of these defaults.
    """
    import matplotlib
    from matplotlib.figure import Figure  # not pyplot, which chooses a backend

    with matplotlib.rc_context(matplotlib.rcParamsDefault):
        matplotlib.rcParams.update(settings or {})
        yield Figure(**options)


def _drawn(salt: str, title: str, label: str, lines: dict) -> str:
    inked = dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK)
    # The salt makes ids that no other plot of the page has, and which the same run gives again.
    settings = {**inked, "svg.hashsalt": salt}
    # Narrow, since a phone shows one as wide as its screen: wider ones would have tiny letters there.
    with plain_figure(settings, figsize=(5, 3.4), layout="constrained") as figure:
        axis = figure.subplots()
        for name, (xs, ys) in lines.items():
            axis.plot(xs, ys, marker="o", markersize=3, label=name)
        axis.set(title=title, xlabel="epoch", ylabel=label)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
        if len(lines) > 1:
            # Below the plot, where it hides no line and takes no width.
            figure.legend(loc="outside lower center", ncols=2, fontsize=9, frameon=False)
        text = io.StringIO()
        # Without a date, so that the same run gives the same page.
        figure.savefig(text, format="svg", metadata={"Date": None}, transparent=True)
    # An XML declaration may not stand inside HTML.
    return text.getvalue()[text.getvalue().index("<svg") :].replace(INK, "currentColor")
