"""Per-triplet results of a training as CSV: how the model held each training triplet in the last epochs."""

import csv
import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from src.base.files import ESCAPING, replacing
from src.command.text import cell
from src.tasks.triplets import Split

COLUMNS = ("row", "category", "triplet", "data", "reference", "caption", "target", "epochs", "rank", "loss")


class Held(NamedTuple):
    """How a model held a triplet."""

    epochs: int
    """In how many of the last epochs the triplet was in a batch."""
    rank: float
    """The mean rank of its target, from 1, among the negatives of these steps; nan without an epoch."""
    loss: float
    """Its mean cross-entropy; nan without an epoch."""


NOTHING = Held(0, math.nan, math.nan)


def data_of(dataset: str, splits: Mapping[str, Split]) -> str:
    """Return data set, split, and the start of a digest of all triplets: {category or path: Split}."""
    triplets = {
        name: [(triplet.reference, triplet.captions, triplet.targets) for triplet in split.triplets]
        for name, split in splits.items()
    }
    return f"{dataset}.train.{hashlib.sha256(json.dumps(triplets).encode()).hexdigest()[:12]}"


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
