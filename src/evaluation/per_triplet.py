"""Per-triplet results of a training as CSV: how the model held each training triplet in the last epochs."""

import csv
import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from src.base.errors import InputError, first_ten, repeated, shown
from src.base.files import ESCAPING, replacing
from src.base.tables import cells_of
from src.evaluation.per_query import cell
from src.tasks.triplets import Split

COLUMNS = ("row", "category", "triplet", "data", "reference", "caption", "target", "epochs", "rank", "loss")
Key = tuple[str, int]
"""Category, or the path of extra triplets, and the triplet's number in it."""


class Held(NamedTuple):
    """How a model held a triplet."""

    epochs: int
    """In how many of the last epochs the triplet was in a batch."""
    rank: float
    """The mean rank of its target, from 1, among the negatives of these steps; nan without an epoch."""
    loss: float
    """Its mean cross-entropy; nan without an epoch."""


NUMBER = re.compile("[0-9]{1,18}")
NOTHING = Held(0, math.nan, math.nan)


class PerTriplet(NamedTuple):
    """A file that --per-triplet wrote."""

    path: Path
    data: str
    held: dict[Key, Held]

    @property
    def dataset(self) -> str:
        """The name of its data set."""
        return self.data.rsplit(".", 2)[0]

    def categories(self) -> list[str]:
        """Return its categories, and the paths of extra triplets."""
        return list(dict.fromkeys(category for category, _ in self.held))


def data_of(dataset: str, splits: Mapping[str, Split]) -> str:
    """Return data set, split, and the start of a digest of all triplets: {category or path: Split}."""
    triplets = {
        name: [(triplet.reference, triplet.captions, triplet.targets) for triplet in split.triplets]
        for name, split in splits.items()
    }
    return f"{dataset}.train.{hashlib.sha256(json.dumps(triplets).encode()).hexdigest()[:12]}"


# ---- writing ----


def write_per_triplet(
    path: Path, data: str, splits: Mapping[str, Split], used: Sequence[Split], held: Iterable[Held]
) -> None:
    """Write a row for each triplet of the `splits` {category or path: Split}, in their order.

    `held` is of those that training had, which are in `used`, one for each split.
    """
    with replacing(path) as unfinished, unfinished.open("w", newline="", **ESCAPING) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(_rows(data, splits, used, iter(held)))


def _rows(data, splits, used, held) -> Iterator[list]:
    for (category, split), with_pictures in zip(splits.items(), used, strict=True):
        kept = set(map(id, with_pictures.triplets))  # equal triplets may stand in a table
        for number, triplet in enumerate(split.triplets):
            one = next(held) if id(triplet) in kept else NOTHING
            yield [
                *(split.place(number), category, number, data),
                *(triplet.reference, " | ".join(triplet.captions), "|".join(triplet.targets)),
                *(one.epochs, cell(one.rank), cell(one.loss)),
            ]


# ---- reading ----


def read_per_triplet(path: Path) -> PerTriplet:
    """Read a file that --per-triplet wrote; raises InputError with the number of the first faulty line."""
    lines = cells_of(path, "line", fault="not a CSV file")
    _, header = next(lines, ("", []))
    lacking = [column for column in COLUMNS if column not in header]
    if lacking:
        raise InputError(f"{path}: not a file of --per-triplet, it has no column {lacking[0]}")
    if repeated(header):
        raise InputError(f"{path}: has two columns called {shown(repeated(header)[0])}")
    data, held = None, {}
    for line, cells in lines:
        place = f"{path}, {line}"
        if len(cells) != len(header):
            raise InputError(f"{place}: has another number of cells than the header")
        row = dict(zip(header, cells, strict=True))
        key, one = _checked(place, row)
        if key in held:
            raise InputError(f"{place}: triplet {key[1]} of {shown(key[0])} stands in it twice")
        if data not in (None, row["data"]):
            raise InputError(f"{place}: is of other data than the lines before it")
        data, held[key] = row["data"], one
    if not held:
        raise InputError(f"{path}: holds no triplets")
    return PerTriplet(path, data, held)


def _checked(place: str, row: Mapping[str, str]) -> tuple[Key, Held]:
    """Return the key and the values of a row; raises InputError, which begins with `place`, for a faulty cell."""
    _, *rest = row["data"].rsplit(".", 2)
    if len(rest) != 2 or rest[0] != "train":
        raise InputError(f"{place}: {shown(row['data'])!r} is not a data set, train and a digest")
    for name in ("triplet", "epochs"):
        if not NUMBER.fullmatch(row[name]):
            raise InputError(f"{place}: {shown(row[name])!r} is not a number of {name.removesuffix('s')}s")
    epochs = int(row["epochs"])
    values = []
    for name, least in (("rank", 1), ("loss", 0)):
        values.append(_number(row[name]) if epochs else math.nan)
        if not values[-1] >= least if epochs else row[name]:
            wanted = f"of {epochs} epochs, a number from {least} on" if epochs else "of no epoch, empty"
            raise InputError(f"{place}: {shown(row[name])!r} is not a {name} {wanted}")
    return (row["category"], int(row["triplet"])), Held(epochs, *values)


def _number(text: str) -> float:
    """Return a finite number, nan for any other text."""
    try:
        return float(text) if math.isfinite(float(text)) else math.nan
    except ValueError:
        return math.nan


def require_same_triplets(per_triplet: PerTriplet, dataset: str, splits: Mapping[str, Split]) -> None:
    """Raise InputError unless a file has a line for each triplet of `splits`, and these are those it was written of."""
    path, held = per_triplet.path, per_triplet.held
    data = data_of(dataset, splits)
    if per_triplet.data != data:
        tables = first_ten(list(dict.fromkeys(split.path.name for split in splits.values())))
        now = "the triplets are no longer those that were trained on"
        raise InputError(f"{path}: is of {per_triplet.data}, but {tables} of {data}: {now}")
    keys = {
        (name, number): split.place(number) for name, split in splits.items() for number in range(len(split.triplets))
    }
    for one, other, fault in ((keys, held, "lacks"), (held, keys, "has other triplets than")):
        odd = [key for key in one if key not in other]
        if odd:
            named = [keys.get(key, f"{key[1]} of {key[0]}") for key in odd]
            raise InputError(f"{path}: {fault} {len(odd)} of {len(keys)} triplets: {first_ten(named)}")
