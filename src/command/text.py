"""Tables as text, in a terminal and in files."""

import math
import re
from collections.abc import Sequence

from src.command.terminal import width

NUMBER = re.compile(r"[-+<−]?[\d,]+(\.\d+)?( \(.*\))?|nan|–|")
"""A cell of a column of numbers: 34.17, +0.50, <0.0001, 1,200, 34.17 (31.5–36.8)."""


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return strings in columns: numbers to the right, names to the left.

    Columns that the terminal has no room for come in a further table below, beside the first column again.
    """
    # Digits stand below each other. The first column names the row.
    columns = [
        _column([title, *cells], right=number > 0 and all(map(NUMBER.fullmatch, cells)))
        for number, (title, *cells) in enumerate(zip(header, *rows, strict=True))
    ]
    first, *others = columns
    tables, most = [[first]], width()
    for column in others:
        if most and len(tables[-1]) > 1 and _total([*tables[-1], column]) > most:
            tables.append([first])
        tables[-1].append(column)
    return "\n\n".join("\n".join("  ".join(cells).rstrip() for cells in zip(*some, strict=True)) for some in tables)


def cell(score: float) -> str:
    """Return a score as a cell of a file: empty for NaN, which a query has where the metric does not count it."""
    # Whole scores as 0 and 1: a spreadsheet's reader wants no 1.0.
    return "" if math.isnan(score) else f"{score:.9g}"


def _column(cells: list[str], right: bool) -> list[str]:
    widest = max(map(len, cells))
    return [cell.rjust(widest) if right else cell.ljust(widest) for cell in cells]


def _total(columns: list[list[str]]) -> int:
    return sum(len(column[0]) + 2 for column in columns) - 2
