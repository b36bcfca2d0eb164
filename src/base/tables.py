"""CSV and TSV files, read row by row."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from src.base.errors import InputError
from src.base.reading import read_text


def cells_of(path: Path, unit: str = "row", fault: str = "no row of a table") -> Iterator[tuple[str, list[str]]]:
    """Yield ("row 2", its cells) of each row that is not empty, the header first.

    The `unit` "row" counts as spreadsheets do, "line" as editors do. Raises InputError with the place and the `fault`
    of a row that cannot be read.
    """
    text = read_text(path)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(path, text), strict=True)
    number = 0
    try:
        for number, cells in enumerate(reader, start=1):
            if any(map(str.strip, cells)):  # spreadsheets write empty rows
                yield f"{unit} {number if unit == 'row' else reader.line_num}", cells
    except csv.Error as error:
        place = f"{unit} {number + 1 if unit == 'row' else reader.line_num}"
        raise InputError(f"{path}, {place}: {fault} ({error})") from None


def _delimiter(path: Path, text: str) -> str:
    if path.suffix == ".tsv":
        return "\t"
    # Spreadsheets write semicolons where the comma is the decimal mark.
    return max(",;\t", key=text[: text.find("\n")].count)
