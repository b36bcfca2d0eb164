"""Tables of other programs, which have other titles and may hold pictures in their cells."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

from src.base.errors import InputError, in_a_line, repeated, shown
from src.base.files import replacing
from src.base.reading import read_json, without_repetition
from src.tasks.annotations import is_text
from src.tasks.own.rows import COLUMNS, LISTS, column_of, json_lines, read_cells

LASCO = {"id": "qid", "reference": "query-image", "caption": "query-text", "target": "target-image"}
"""{column: what LaSCo calls it}; its pictures are lists of an id and a path."""
NAMES = ("reference", *LISTS)
"""Columns that name pictures."""


def read_table(path: Path, titles: dict[str, str], folder: Path) -> list[dict]:
    """Return a table's rows as {column: value}, of COLUMNS only, with names of pictures as lists.

    `titles` {column: title} has the columns that the table calls something else. Pictures inside the table, as in
    Hugging Face's, are written to `folder`. Raises InputError with the number of the first faulty row.
    """
    read = {".parquet": _parquet, ".jsonl": _json_lines, ".json": _json}.get(path.suffix, _delimited)
    used = {column_of(titles.get(column, column)) for column in COLUMNS}

    def require_once(header):
        again = repeated([title for title in map(column_of, map(str, header)) if title in used])
        if again:
            raise InputError(f"{path}: has two columns {shown(again[0])}")

    rows = []
    for number, cells in enumerate(read(path, require_once), start=1):
        place = f"{path}, entry {number}"
        if not isinstance(cells, dict):
            raise InputError(f"{place}: no object")
        require_once(cells)
        by_title = {column_of(str(title)): value for title, value in cells.items()}
        for title in (titles.get(column, column) for column in ("reference", "caption", *titles)):
            if column_of(title) not in by_title:
                raise InputError(f"{place}: has no {shown(title)}, only {', '.join(map(shown, map(str, cells)))}")
        named = {column: by_title.get(column_of(titles.get(column, column))) for column in COLUMNS}
        row = {}
        for column, value in named.items():
            if value not in (None, "", []):
                row[column] = _names(place, column, value, folder) if column in NAMES else _text(place, column, value)
        if len(row.get("reference", [""])) != 1:
            raise InputError(f"{place}: reference is more than one picture")
        rows.append(row)
    return rows


def _text(place: str, column: str, value: object) -> str | list[str]:
    if column == "caption" and isinstance(value, list) and all(map(is_text, value)):
        return value
    if column in ("id", "category") and type(value) is int:
        return str(value)
    if not is_text(value):
        raise InputError(f"{place}: {column} is no text")
    return value


def _names(place: str, column: str, value: object, folder: Path) -> list[str]:
    """Return the names of the pictures that a cell gives, by path or by their bytes."""
    # An id beside the path, as in LaSCo, is not a picture.
    several = [part for part in value if not isinstance(part, int)] if isinstance(value, list) else [value]
    names = []
    for part in several:
        if isinstance(part, dict) and isinstance(part.get("bytes"), bytes):
            names.append(_written(part, folder))
        elif isinstance(part, dict) and is_text(part.get("path")):
            names.append(part["path"])
        elif is_text(part):
            names += part.split("|") if column in LISTS else [part]
        else:
            raise InputError(f"{place}: {column} is no path of a picture and holds none")
    return names


def _written(picture: dict, folder: Path) -> str:
    """Write a picture's bytes below `folder`, equal ones once; return its name there."""
    suffix = Path(picture.get("path") or "").suffix.lower() or ".png"
    name = f"pictures/{hashlib.sha256(picture['bytes']).hexdigest()[:24]}{suffix}"
    if not (folder / name).is_file():
        with replacing(folder / name) as unfinished:
            unfinished.write_bytes(picture["bytes"])
    return name


def _parquet(path: Path, require_once: Callable) -> Iterator[dict]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise InputError(f"{path}: needs pyarrow to be read (pip install pyarrow)") from None
    try:
        # Some rows at a time: a table with pictures is larger than memory.
        file = parquet.ParquetFile(path)
        require_once(file.schema_arrow.names)  # a dict would keep the last of two in silence
        for batch in file.iter_batches(batch_size=64):
            yield from batch.to_pylist()
    except (ArrowException, OSError) as error:
        raise InputError(f"{path}: cannot be read as parquet ({in_a_line(error)})") from None


def _json_lines(path: Path, _) -> Iterator[object]:
    for _, content in json_lines(path, without_repetition):
        yield content


def _json(path: Path, _) -> Iterator[object]:
    yield from read_json(path, list)


def _delimited(path: Path, require_once: Callable) -> Iterator[dict]:
    titles, rows = read_cells(path)
    require_once(titles)
    for _, cells in rows:
        yield dict(zip(titles, cells, strict=True))
