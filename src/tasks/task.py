"""Task: what commands need to know of a data set."""

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean as mean_of_numbers
from typing import get_origin, get_type_hints

from src.base.errors import InputError, repeated, require_one_of
from src.tasks.protocol import Protocol
from src.tasks.triplets import Query, Split, Triplet


class Task:
    """What every command needs to know of a data set. One file of this folder derives it, the registry lists it."""

    name: str
    """What --dataset takes, in any case."""
    short_name: str
    """Its part of a run folder's name."""
    folder: str
    """Its folder in the data path."""
    annotations: str
    """The subfolder of `folder` that holds captions/ and image_splits/."""
    splits: tuple[str, ...]
    categories: tuple[str, ...]
    """What each split is divided into; the names of the annotation files begin with it."""
    protocols: tuple[Protocol, ...]
    """The published one first."""
    captions: dict[str, Callable[[Triplet], list[tuple[str, ...]]]]
    """{how: what the queries of a triplet ask in words, each in one text or in several to be averaged}"""
    means: dict[str, tuple[str, ...]]
    """{metric that papers report: the measures it is the mean of}; later ones may build on earlier ones."""
    headline: tuple[str, ...]
    """Columns of `columns` that a report shows."""
    best: dict[str, str]
    """{ending of a weights file: column that picks these weights}; an empty ending names the only file."""
    submission: tuple[str, ...] = ()
    """The command that writes what its evaluation server takes, and the server's address; empty without one."""
    rungs: tuple[str, ...] = ()
    """Combining functions that its ladder has beside the usual ones."""
    names_protocol = True
    """Whether validate.py says above its metrics how they were counted, which the published print-outs do not."""

    def files(self, data_path: Path, category: str, split: str) -> tuple[Path, Path]:
        """Return the captions file and the listing of pictures of one category of a split."""
        folder, name = Path(data_path) / self.folder / self.annotations, f"{category}.{split}.json"
        return folder / "captions" / f"cap.{name}", folder / "image_splits" / f"split.{name}"

    def categories_in(self, data_path: Path, split: str) -> list[str]:
        """Return the categories of a split that there are files of."""
        # One file is enough to ask for the other: a missing one is the reader's to name.
        return [
            category
            for category in self.categories
            if any(file.exists() for file in self.files(data_path, category, split))
        ]

    def tables(self, data_path: Path) -> list[Path]:
        """Return the annotation files that are there, of all splits."""
        files = (
            file
            for split in self.splits
            for category in self.categories
            for file in self.files(data_path, category, split)
        )
        return [file for file in dict.fromkeys(files) if file.is_file()]

    def read(self, data_path: Path, category: str, split: str) -> Split:
        """Read one category of a split; raises InputError for the first kind of fault in its two files."""
        raise NotImplementedError

    def queries(self, triplets: Sequence[Triplet], captions: str) -> list[Query]:
        """Return the queries that `triplets` make; `captions`, one of the task's ways, says what they ask in words.

        A query's id is the triplet's, or its number in the file where not all have different ids of their own.
        """
        require_one_of(captions, tuple(self.captions), f"way to ask {self.name}'s captions")
        numbers = list(map(str, range(len(triplets))))
        ids = [triplet.id for triplet in triplets]
        queries = self._queries(triplets, captions, ids if all(ids) else numbers)
        # The second query of a triplet "a" is called "a.1", which may be another one's id.
        return self._queries(triplets, captions, numbers) if repeated([query.id for query in queries]) else queries

    def _queries(self, triplets: Sequence[Triplet], captions: str, ids: Sequence[str]) -> list[Query]:
        queries = []
        for name, triplet in zip(ids, triplets, strict=True):
            each = self.captions[captions](triplet)
            # A blank caption is no query by itself; the other one keeps its number.
            numbered = [(f"{name}.{number}" if len(each) > 1 else name, texts) for number, texts in enumerate(each)]
            queries += [Query(query, triplet, texts) for query, texts in numbered if len(each) == 1 or texts[0]]
        return queries

    def training_texts(self, captions: Sequence[str]) -> tuple[str, ...]:
        """Return the texts that training draws from, uniformly, for a triplet's captions."""
        raise NotImplementedError

    def measures(self, values: dict[str, dict], mean: Callable = mean_of_numbers) -> dict:
        """Return {measure: value} from {category: {metric: value}}: those of each category, then `means` of them.

        Values may be anything that `mean` takes a list of. A mean of a metric that is not there is left out: rankings
        of other programs may end too early.
        """
        # One category needs no name.
        many = len(self.categories) > 1
        named = {
            f"{category}_{name}" if many else name: value
            for category, of_category in values.items()
            for name, value in of_category.items()
        }
        for name, parts in self.means.items():
            if all(part in named for part in parts):
                named[name] = mean([named[part] for part in parts])
        return named

    def columns(self, recalls: dict[str, dict[str, float]]) -> dict[str, float]:
        """Return the columns of validation_metrics.csv, in percent, from {category: {recall: percent}}."""
        return self.measures(recalls)

    def column_names(self) -> list[str]:
        """Return the names of `columns` as the published protocol counts."""
        zeros = dict.fromkeys(self.protocol().metrics, 0.0)
        return list(self.columns(dict.fromkeys(self.categories, zeros)))

    def printed(self, recalls: dict[str, dict[str, float]]) -> dict[str, float]:
        """Return the metrics that validate.py prints, in percent, from {category: {recall: percent}}."""
        return self.measures(recalls)

    def protocol(self, chosen: Protocol | str | None = None) -> Protocol:
        """Return the protocol called `chosen`; None is the published one. Raises InputError for an unknown name."""
        if isinstance(chosen, Protocol):
            return chosen
        # By name for people, as a Protocol for other code that has its own way of counting.
        named = {protocol.name: protocol for protocol in self.protocols}
        require_one_of(chosen or self.protocols[0].name, tuple(named), f"protocol of {self.name}")
        return named[chosen or self.protocols[0].name]

    def read_all(self, data_path: Path, split: str) -> dict[str, Split]:
        """Read all categories of a split: {category: Split}."""
        return {category: self.read(data_path, category, split) for category in self.categories}

    def root(self, data_path: Path) -> Path:
        """Return the data set's folder; raises InputError when there is none."""
        folder = Path(data_path) / self.folder
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder; --data-path names the folder that holds {self.folder}/")
        return folder


def require_whole(task: Task) -> None:
    """Raise InputError for a data set that lacks a member which every command counts on, with all that it lacks."""
    kinds = {name: get_origin(hint) or hint for name, hint in get_type_hints(Task).items()}
    who = f"{type(task).__module__}.{type(task).__qualname__}"
    where = "src/tasks/task.py says what every data set has"
    lacking = [name for name in kinds if not hasattr(task, name)]
    # CIRCO's triplets are to judge on only.
    needed = ("read", "training_texts") if "train" in getattr(task, "splits", ()) else ("read",)
    lacking += [f"{name}()" for name in needed if getattr(type(task), name) is getattr(Task, name)]
    if lacking:
        raise InputError(f"{who}: lacks {', '.join(lacking)}; {where}")
    for name, kind in kinds.items():
        # ("train") is a text, whose letters would be taken for names.
        if not isinstance(getattr(task, name), kind):
            found = type(getattr(task, name)).__name__
            raise InputError(f"{who}: {name} is a {found}, expected a {kind.__name__}; {where}")
