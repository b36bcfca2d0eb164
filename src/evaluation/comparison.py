"""Per-query files read back, and what differs between two of them."""

import csv
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from src.base.errors import InputError, first_ten
from src.evaluation.intervals import Values
from src.evaluation.per_query import COLUMNS

Key = tuple[str, str, str]
"""Protocol, category and query."""


class PerQuery(NamedTuple):
    """A file that --per-query wrote."""

    path: Path
    metrics: list[str]
    rows: dict[Key, dict[str, str]]
    data: dict[str, str]
    """{protocol: data set, split and digest}"""

    def scores(self, keys: list[Key]) -> Values:
        """Return what the queries `keys` of one protocol score, by category."""
        values = {}
        for key in keys:
            of_category = values.setdefault(key[1], {metric: [] for metric in self.metrics})
            for metric in self.metrics:
                of_category[metric].append(float(self.rows[key][metric] or "nan"))
        return {name: {m: np.array(scores) for m, scores in of.items()} for name, of in values.items()}


def read_per_query(path: Path) -> PerQuery:
    """Read a file that --per-query wrote; raises InputError with the number of the first faulty line."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            header = reader.fieldnames or []
            lacking = [column for column in COLUMNS if column not in header]
            if lacking:
                raise InputError(f"{path}: no file of validate.py --per-query, it has no column {lacking[0]}")
            metrics = [column for column in header if column not in COLUMNS]
            rows, data = {}, {}
            for row in reader:
                key = _checked(path, reader.line_num, row, metrics)
                if key in rows:
                    raise InputError(f"{path}, line {reader.line_num}: query {key[2]} of {key[1]} stands there twice")
                if data.setdefault(row["protocol"], row["data"]) != row["data"]:
                    raise InputError(f"{path}, line {reader.line_num}: its protocol has rows of two data sets")
                rows[key] = row
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a CSV file ({error})") from None
    if not rows or not metrics:
        raise InputError(f"{path}: holds no {'queries' if metrics else 'metrics'}")
    return PerQuery(path, metrics, rows, data)


def _checked(path: Path, line: int, row: dict, metrics: list[str]) -> Key:
    if None in row or None in row.values():
        raise InputError(f"{path}, line {line}: has another number of cells than the header")
    for column in ("rank", *metrics):
        try:
            number = float(row[column] or "nan")
        except ValueError:
            number = math.inf
        if math.isinf(number) or (column == "rank" and not number >= 1):
            raise InputError(f"{path}, line {line}: {row[column]!r} is no {column}")
    return row["protocol"], row["category"], row["query"]


def require_comparable(first: PerQuery, other: PerQuery) -> None:
    """Raise InputError unless both files hold the same queries of the same data, judged by the same protocols."""
    for what, mine, theirs in (
        ("protocols", list(first.data), list(other.data)),
        ("metrics", first.metrics, other.metrics),
    ):
        if sorted(mine) != sorted(theirs):
            raise InputError(f"{other.path}: has {what} {', '.join(theirs)}, but {first.path} has {', '.join(mine)}")
    for protocol, data in first.data.items():
        if other.data[protocol] != data:
            raise InputError(f"{other.path}: is of {other.data[protocol]}, but {first.path} of {data} ({protocol})")
    for one, two in ((first, other), (other, first)):
        alone = [key[2] for key in one.rows if key not in two.rows]
        if alone:
            raise InputError(f"{two.path}: lacks {len(alone)} queries of {one.path}: {first_ten(alone)}")


def moved_most(first: PerQuery, other: PerQuery, keys: list[Key], most: int = 20) -> list[Key]:
    """Return the queries whose rank changed by the largest factor, at most `most` of them."""

    # By factor: from 40 to 1 is news, from 500 to 461 is none.
    def factor(key):
        return abs(math.log(int(other.rows[key]["rank"]) / int(first.rows[key]["rank"])))

    return [key for key in sorted(keys, key=factor, reverse=True)[:most] if factor(key)]
