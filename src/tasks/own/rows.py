"""Tables of own triplets: CSV, TSV, XLSX and JSONL, read row by row. No row is silently skipped."""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

from src.base.crops import file_of
from src.base.errors import InputError, in_a_line, repeated, shown
from src.base.folders import is_picture
from src.base.reading import read_text
from src.base.tables import cells_of
from src.tasks.annotations import is_list_of_text, is_text, refuse

SUFFIXES = (".csv", ".tsv", ".xlsx", ".jsonl")
COLUMNS = ("reference", "target", "caption", "caption2", "id", "category", "group")
LISTS = ("target", "group")
"""Columns that may hold several names: a list in JSONL, names with | between them in a table."""


class Row(NamedTuple):
    """A row of a table."""

    place: str
    """Where it stands, as spreadsheets and editors count: "row 2" is the first one below the header."""
    cells: dict[str, list[str]]
    """{one of COLUMNS: what it holds}; a column that the row leaves empty is not there."""
    grades: tuple[float, ...] = ()
    """The grade of each target, where some row's target has one."""

    def text(self, column: str) -> str:
        """Return the only value of a column, or an empty text."""
        return self.cells.get(column, [""])[0]


def read_rows(path: Path) -> list[Row]:
    """Read a table; raises InputError with the first faulty row's number."""
    rows = list(_rows_of_json(path) if path.suffix.lower() == ".jsonl" else _table(path))
    if not rows:
        raise InputError(f"{path}: holds no triplets")
    return rows


def column_of(title: str) -> str:
    """Return a title as COLUMNS has it: in small letters, without blanks, dashes and underscores."""
    return re.sub(r"[\s_-]", "", title).lower()


def read_cells(path: Path) -> tuple[list[str], Iterator[tuple[str, list[str]]]]:
    """Return a table's titles, none of an empty file, and its rows as ("row 2", its cells), as many as titles."""
    rows = cells_of(path)
    _, titles = next(rows, ("", []))
    return titles, _of_width(path, rows, len(titles))


def _of_width(path: Path, rows: Iterable[tuple[str, list[str]]], width: int) -> Iterator[tuple[str, list[str]]]:
    for place, cells in rows:
        if len(cells) != width:
            raise InputError(f"{path}, {place}: has {len(cells)} cells, the header has {width}")
        yield place, cells


def _table(path: Path) -> Iterator[Row]:
    titles, rows = read_cells(path)
    columns = _columns(path, titles) if titles else []
    for place, cells in rows:
        yield Row(place, _filled(dict(zip(columns, cells, strict=True))))


def _columns(path: Path, titles: list[str]) -> list[str]:
    columns = [column_of(title) for title in titles]
    known = [column for column in columns if column in COLUMNS]
    # The column of a misspelled title would never be read.
    absent = [column for column in COLUMNS if column not in known]
    for title, column in zip(titles, columns, strict=True):
        meant = get_close_matches(column, absent, 1, 0.8) if column not in COLUMNS else []
        if meant:
            raise InputError(f"{path}: has a column {shown(title)}; is {meant[0]} meant?")
    lacking = [column for column in ("reference", "caption") if column not in known]
    if lacking:
        found = ", ".join(map(shown, titles))
        raise InputError(
            f"{path}: has no column {lacking[0]}, only {found}; rename one (python -m src.apps.own does, for triplets)"
        )
    if repeated(known):
        raise InputError(f"{path}: has two columns {repeated(known)[0]}")
    return columns


def _filled(cells: dict[str, str]) -> dict[str, list[str]]:
    """Return the cells of COLUMNS that hold something."""
    values = {
        column: [part.strip() for part in (cell.split("|") if column in LISTS else [cell])]
        for column, cell in cells.items()
        if column in COLUMNS
    }
    return {column: found for column, parts in values.items() if (found := [part for part in parts if part])}


# ---- grades ----


GRADED = re.compile(r"(?P<name>.+):(?P<grade>[-+]?[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)")


def with_grades(path: Path, rows: list[Row]) -> list[Row]:
    """Return rows with the grades that stand after names of targets, a.jpg:0.5, apart from these; 1 where none stands.

    Raises InputError for a grade that is not above 0 and at most 1.
    """
    found = [[_graded(value) for value in row.cells.get("target", ())] for row in rows]
    if not any(grade is not None for of_row in found for _, grade in of_row):
        return rows
    faulty = [
        f"{row.place} ({name}:{grade:g})"
        for row, of_row in zip(rows, found, strict=True)
        for name, grade in of_row
        if grade is not None and not 0 < grade <= 1
    ]
    refuse(path, faulty, len(rows), "rows with a grade that is not above 0 and at most 1")
    return [
        row._replace(
            cells=row.cells | ({"target": [name for name, _ in of_row]} if of_row else {}),
            grades=tuple(1.0 if grade is None else grade for _, grade in of_row),
        )
        for row, of_row in zip(rows, found, strict=True)
    ]


def _graded(target: str) -> tuple[str, float | None]:
    # After a picture's suffix only: other names may end in a colon and a number.
    found = GRADED.fullmatch(target)
    is_grade = found is not None and is_picture(file_of(found["name"]).name)
    return (found["name"], float(found["grade"])) if is_grade else (target, None)


# ---- JSONL ----


def json_lines(path: Path, pairs_hook: Callable = dict) -> Iterator[tuple[str, object]]:
    """Yield ("line 3", its content) of each line that is not empty; raises InputError for one that is not JSON.

    `pairs_hook` makes an object of its pairs.
    """
    # Not splitlines: it ends lines at characters that stand inside JSON's texts.
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            try:
                content = json.loads(line, object_pairs_hook=pairs_hook)
            except (ValueError, RecursionError) as error:
                raise InputError(f"{path}, line {number}: not JSON ({in_a_line(error)})") from None
            yield f"line {number}", content


def _rows_of_json(path: Path) -> Iterator[Row]:
    for place, content in json_lines(path, _Pairs):
        yield Row(place, _cells(f"{path}, {place}", content))


def _cells(place: str, pairs: object) -> dict[str, list[str]]:
    """Return the cells of a line; raises InputError, which begins with `place`, for one that is no such object."""
    if not isinstance(pairs, _Pairs):
        raise InputError(f"{place}: not a JSON object; expected {{...}}")
    known = [(column_of(key), value) for key, value in pairs if column_of(key) in COLUMNS]
    again = repeated([column for column, _ in known])
    if again:
        raise InputError(f"{place}: has {again[0]} twice")
    cells = {}
    for column, value in known:
        values = _values(column, value)
        if values is None:
            kind = "text or a list of texts" if column in (*LISTS, "caption") else "text"
            raise InputError(f"{place}: {column} is not {kind}")
        cells |= {column: values} if values else {}
    if len(cells.get("caption", ())) > 1:
        if len(cells["caption"]) > 2 or "caption2" in cells:
            raise InputError(f"{place}: has more than two captions")
        cells["caption"], cells["caption2"] = cells["caption"][:1], cells["caption"][1:]
    return cells


class _Pairs(list):
    """The pairs of a JSON object, which may repeat a key."""


def _values(column: str, value: object) -> list[str] | None:
    """Return a value's texts without surrounding blanks; None where it has a wrong type."""
    if value is None:
        return []
    if column == "id" and type(value) is int:
        return [str(value)]
    if isinstance(value, _Pairs):
        return None
    if isinstance(value, list) and column in (*LISTS, "caption") and is_list_of_text(value, len(value)):
        return [part.strip() for part in value if part.strip()]
    if not is_text(value):
        return None
    return [value.strip()] if value.strip() else []
