"""Reading the files that trainings write with --per-triplet."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from src.base.errors import InputError, first_ten, repeated, shown
from src.base.tables import cells_of
from src.tasks.triplets import Split
from src.training.per_triplet import COLUMNS, Held, data_of

NUMBER = re.compile("[0-9]{1,18}")
Key = tuple[str, int]
"""Category, or the path of extra triplets, and the triplet's number in it."""


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
