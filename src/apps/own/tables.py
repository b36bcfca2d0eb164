"""Tables of other programs, which have other titles and may hold pictures in their cells."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from src.apps.own.additions import Additions
from src.base.errors import InputError, in_a_line, repeated, shown
from src.base.files import replacing
from src.base.folders import PICTURE_SUFFIXES
from src.base.reading import read_json, read_text, without_repetition
from src.tasks.annotations import is_text
from src.tasks.own.names import plain
from src.tasks.own.rows import COLUMNS, LISTS, Row, column_of, json_lines, read_cells

LASCO = {"id": "qid", "reference": "query-image", "caption": "query-text", "target": "target-image"}
"""{column: what LaSCo calls it}; its pictures are lists of an id and a path."""
NAMES = ("reference", *LISTS)
"""Columns that name pictures."""


def read_table(path: Path, titles: dict[str, str], added: Additions) -> list[Row]:
    """Return a table's rows that are not empty, with what COLUMNS they fill.

    `titles` {column: title} has the columns that the table calls something else. Pictures inside the table, as in
    Hugging Face's, are among what is `added`. Raises InputError with the place of the first faulty row.
    """
    read = {".parquet": _parquet, ".jsonl": _json_lines, ".json": _json}.get(path.suffix.lower(), _delimited)
    used = {column_of(titles.get(column, column)) for column in COLUMNS}

    def require_once(header):
        again = repeated([title for title in map(column_of, map(str, header)) if title in used])
        if again:
            raise InputError(f"{path}: has two columns {shown(again[0])}")

    rows = []
    for where, cells in read(path, require_once):
        place = f"{path}, {where}"
        if not isinstance(cells, dict):
            raise InputError(f"{place}: no object")
        require_once(cells)
        by_title = {column_of(str(title)): value for title, value in cells.items()}
        for title in (titles.get(column, column) for column in ("reference", "caption", *titles)):
            if column_of(title) not in by_title:
                raise InputError(f"{place}: has no {shown(title)}, only {', '.join(map(shown, map(str, cells)))}")
        if all(_is_empty(value) for value in cells.values()):  # spreadsheets write empty rows
            continue
        rows.append(Row(where, _filled(place, by_title, titles, added)))
    if not rows:
        raise InputError(f"{path}: holds no triplets")
    return rows


def _is_empty(value: object) -> bool:
    return value is None or value == [] or (isinstance(value, str) and not value.strip())


def _filled(place: str, by_title: dict, titles: dict[str, str], added: Additions) -> dict[str, list[str]]:
    """Return the cells of COLUMNS that hold something, as read_rows does."""
    cells = {}
    for column in COLUMNS:
        value = by_title.get(column_of(titles.get(column, column)))
        if not _is_empty(value):
            cells[column] = _names(place, column, value, added) if column in NAMES else _texts(place, column, value)
    if len(cells.get("reference", [""])) != 1:
        raise InputError(f"{place}: reference is more than one picture")
    captions = cells.get("caption", [])
    if len(captions) > 2 or (len(captions) == 2 and "caption2" in cells):
        raise InputError(f"{place}: has more than two captions")
    if len(captions) == 2:
        cells |= {"caption": captions[:1], "caption2": captions[1:]}
    return {column: values for column, values in cells.items() if values}


def _texts(place: str, column: str, value: object) -> list[str]:
    if column in ("id", "category") and type(value) is int:
        return [str(value)]
    several = value if column == "caption" and isinstance(value, list) else [value]
    if not all(map(is_text, several)):
        raise InputError(f"{place}: {column} is not text")
    return [text.strip() for text in several if text.strip()]


def _names(place: str, column: str, value: object, added: Additions) -> list[str]:
    """Return the names of the pictures that a cell gives, by path or by their bytes."""
    # An id beside the path, as in LaSCo, is not a picture.
    several = [part for part in value if not isinstance(part, int)] if isinstance(value, list) else [value]
    names = []
    for part in several:
        if isinstance(part, dict) and isinstance(part.get("bytes"), bytes):
            names.append(_written(part, added))
        elif isinstance(part, dict) and is_text(part.get("path")):
            names.append(part["path"])
        elif is_text(part):
            names += part.split("|") if column in LISTS else [part]
        else:
            raise InputError(f"{place}: {column} is not the path of a picture and holds none")
    return [plain(name.strip()) for name in names if name.strip()]


def _written(picture: dict, added: Additions) -> str:
    """Write a picture's bytes to the folder, equal ones once; return its name there."""
    suffix = Path(str(picture.get("path") or "")).suffix.lower()
    suffix = suffix if suffix in PICTURE_SUFFIXES else ".png"
    name = f"pictures/{hashlib.sha256(picture['bytes']).hexdigest()[:24]}{suffix}"
    if not (added.folder / name).is_file():
        with replacing(added.place(name)) as unfinished:
            unfinished.write_bytes(picture["bytes"])
    return name


def _parquet(path: Path, require_once: Callable) -> Iterator[tuple[str, dict]]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise InputError(f"{path}: needs pyarrow to be read (pip install pyarrow)") from None
    try:
        # Some rows at a time: a table with pictures is larger than memory.
        file = parquet.ParquetFile(path)
        require_once(file.schema_arrow.names)  # a dict would keep the last of two in silence
        rows = (row for batch in file.iter_batches(batch_size=64) for row in batch.to_pylist())
        yield from _numbered(rows)
    except (ArrowException, OSError) as error:
        raise InputError(f"{path}: cannot be read as parquet ({in_a_line(error)})") from None


def _numbered(rows: Iterable) -> Iterator[tuple[str, object]]:
    return ((f"entry {number}", row) for number, row in enumerate(rows, start=1))


def _json_lines(path: Path, _) -> Iterator[tuple[str, object]]:
    return json_lines(path, without_repetition)


def _json(path: Path, _) -> Iterator[tuple[str, object]]:
    # Other programs call lines of JSON .json too.
    if read_text(path).lstrip().startswith("{"):
        return json_lines(path, without_repetition)
    return _numbered(read_json(path, list))


def _delimited(path: Path, require_once: Callable) -> Iterator[tuple[str, dict]]:
    titles, rows = read_cells(path)
    require_once(titles)
    return ((place, dict(zip(titles, cells, strict=True))) for place, cells in rows)
