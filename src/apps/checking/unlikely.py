"""The training triplets that a model holds least likely, from a file of --per-triplet: which rows may be wrong."""

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from src.apps.checking.findings import Splits
from src.apps.checking.per_triplet import PerTriplet, read_per_triplet, require_same_triplets
from src.base.errors import InputError, escaped, shown
from src.command.terminal import filled
from src.tasks.own import read_extra
from src.tasks.task import Task
from src.tasks.triplets import Split, Triplet
from src.training.per_triplet import Held

LISTED = 20
"""Triplets in the terminal."""
MEANING = (
    "The model holds the first ones least likely: the row is wrong, or hard. Loss and rank are means of the last "
    "epochs; a rank counts the negatives of a step."
)


class Unlikely(NamedTuple):
    """A training triplet, where it stands, and how the model held it."""

    triplet: Triplet
    split: Split
    place: str
    held: Held


class Ranking(NamedTuple):
    """The training triplets of a data set, least likely first."""

    path: Path
    """The file that says so."""
    dataset: str
    triplets: list[Unlikely]
    left_out: int
    """Triplets that were in no batch of these epochs."""

    def described(self) -> str:
        """Return data set, numbers and the usual loss in a line."""
        count = f"{self.dataset}, {len(self.triplets):,} training triplets by their loss"
        left_out = f", without {self.left_out:,} that were in no batch" if self.left_out else ""
        return f"{count}{left_out}; half have less than {statistics.median(one.held.loss for one in self.triplets):.2f}"


def rank_triplets(path: Path, annotated: Sequence[tuple[Task, Splits]]) -> Ranking:
    """Read a file of --per-triplet for one of the data sets that were read; raises InputError for another's."""
    found = read_per_triplet(path)
    task, train = _trained_on(found, annotated)
    names = [name for name in found.categories() if name not in train]
    for name in names:
        if "\0" in name or not Path(name).is_absolute():  # as the path of extra triplets is
            raise InputError(f"{path}: {shown(name)} is not a category of {task.name}")
    splits = train | read_extra(list(map(Path, names)), train.values())
    require_same_triplets(found, task.name, splits)
    all_held = [
        Unlikely(splits[name].triplets[number], splits[name], splits[name].place(number), held)
        for (name, number), held in found.held.items()
    ]
    seen = [one for one in all_held if one.held.epochs]
    if not seen:
        raise InputError(f"{path}: no triplet was in a batch")
    # Of equal losses, such as those that round to 0, the worse rank comes first.
    seen.sort(key=lambda one: (one.held.loss, one.held.rank), reverse=True)
    return Ranking(path, task.name, seen, len(all_held) - len(seen))


def _trained_on(found: PerTriplet, annotated: Sequence[tuple[Task, Splits]]) -> tuple[Task, dict[str, Split]]:
    for task, splits in annotated:
        if task.name == found.dataset and "train" in splits:
            return task, splits["train"]
    names = ", ".join(task.name for task, _ in annotated)
    raise InputError(f"{found.path}: is of {escaped(found.dataset)}, but --dataset and --data-path give {names}")


def text_of(ranking: Ranking) -> Iterator[str]:
    """Yield the first triplets as lines for a terminal."""
    yield filled(ranking.described(), "  ")
    yield filled(MEANING, "  ", longest=100)
    yield ""
    yield f"{'loss':>7}  {'rank':>8}"
    for one in ranking.triplets[:LISTED]:
        yield filled(f"{one.held.loss:>7.2f}  {one.held.rank:>8,.1f}  {escaped(one.place)}", " " * 19, longest=110)
        yield filled(f"{'':19}{described(one.triplet)}", " " * 21, longest=110)
    others = len(ranking.triplets) - LISTED
    if others > 0:
        yield f"and {others:,} more in {ranking.path}"


def described(triplet: Triplet) -> str:
    """Return a triplet in a line."""
    captions = " | ".join(triplet.captions)
    return escaped(f"{triplet.reference} + “{captions}” → {triplet.targets[0]}")
