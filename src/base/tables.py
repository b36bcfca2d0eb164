"""CSV and TSV files and workbooks of Excel, read row by row."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from src.base.errors import InputError, in_a_line
from src.base.reading import open_regular, read_text

AS_CSV = "save it as CSV UTF-8"
"""What to do with a table that cannot be read, in Excel's words."""


def cells_of(path: Path, unit: str = "row", fault: str = "no row of a table") -> Iterator[tuple[str, list[str]]]:
    """Yield ("row 2", its cells) of each row that is not empty, the header first.

    The `unit` "row" counts as spreadsheets do, "line" as editors do. Raises InputError with the place and the `fault`
    of a row that cannot be read.
    """
    rows = _workbook(path) if path.suffix.lower() == ".xlsx" else _delimited(path, unit, fault)
    return (
        (f"{unit} {number}", cells) for number, cells in rows if any(map(str.strip, cells))
    )  # some write empty rows


def _delimited(path: Path, unit: str, fault: str) -> Iterator[tuple[int, list[str]]]:
    text = read_text(path, AS_CSV)
    # Excel takes the delimiter from such a line, and shows no row of it.
    named = text[:5] if text[:4].lower() == "sep=" and text[5:6] in ("", "\r", "\n") else ""
    lines = io.StringIO(text, newline="")
    if named:
        lines.readline()
    reader = csv.reader(lines, delimiter=named[4:] or _delimiter(path, text), strict=True)
    number = 0
    try:
        for number, cells in enumerate(reader, start=1):
            yield number if unit == "row" else reader.line_num + bool(named), cells
    except csv.Error as error:
        place = f"{unit} {number + 1 if unit == 'row' else reader.line_num + bool(named)}"
        raise InputError(f"{path}, {place}: {fault} ({error})") from None


def _delimiter(path: Path, text: str) -> str:
    if path.suffix.lower() == ".tsv":
        return "\t"
    # Spreadsheets write semicolons where the comma is the decimal mark.
    return max(",;\t", key=text[: text.find("\n")].count)


# ---- workbooks ----


def _workbook(path: Path) -> Iterator[tuple[int, list[str]]]:
    try:
        from openpyxl import load_workbook
    except ImportError:
        raise InputError(f"{path}: needs openpyxl to be read (pip install openpyxl); or {AS_CSV}") from None
    try:
        with open_regular(path) as file:
            # Values, not the formulas that they come from.
            book = load_workbook(io.BytesIO(file.read()), data_only=True)
            sheets = [sheet for sheet in book.worksheets if any(map(any, sheet.iter_rows(values_only=True)))]
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    # What openpyxl raises for a damaged file depends on its damage.
    except Exception as error:
        raise InputError(f"{path}: cannot be read as a workbook ({in_a_line(error)}); {AS_CSV}") from None
    if len(sheets) > 1:
        names = ", ".join(sheet.title for sheet in sheets)
        raise InputError(f"{path}: has {len(sheets)} sheets ({names}), where one is expected; keep one")
    width = 0
    for sheet in sheets:
        for number, row in enumerate(sheet.iter_rows(), start=1):
            cells = [_text(f"{path}, row {number}", cell) for cell in row]
            # Formatted cells may be empty, in each row another number of them.
            while cells and not cells[-1].strip() and len(cells) > width:
                cells.pop()
            width = width or len(cells)
            yield number, cells


def _text(place: str, cell) -> str:
    """Return what a cell shows, as CSV would hold it."""
    value = cell.value
    if cell.data_type == "e":
        raise InputError(f"{place}: column {cell.column_letter} holds the error {value}")
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return "" if value is None else str(value)
