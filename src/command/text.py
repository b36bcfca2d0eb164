"""Tables in a terminal."""

from collections.abc import Sequence


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return strings in columns, the first to the left, the others to the right."""
    # Numbers to the right, so that digits stand below each other.
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in (header, *rows)]
    return "\n".join(line.rstrip() for line in lines)
