"""Line plots as SVG, for a page."""

import io
from collections.abc import Sequence


def curves(panels: Sequence[tuple[str, str, dict]], columns: int = 2) -> str:
    """Draw line plots, row by row, as one SVG; `panels` are (title, axis label, {line's name: (xs, ys)})."""
    import matplotlib

    # Without a display, since pages are made on servers too.
    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    rows = len(panels) // columns
    figure, axes = plt.subplots(rows, columns, figsize=(5.6 * columns, 3 * rows), squeeze=False)
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
    plt.close(figure)
    # An XML declaration may not stand inside HTML.
    return text.getvalue()[text.getvalue().index("<svg") :]
