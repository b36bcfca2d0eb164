"""What a data set asks, as plain values: triplets, splits, protocols and tasks. Opens no picture, imports no torch."""

import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from statistics import mean as mean_of_numbers
from typing import NamedTuple

from src.base.errors import InputError, first_ten, repeated, require_one_of
from src.base.files import read_json

HALF_PAIRS = re.compile("[\ud800-\udfff]")
"""Halves of surrogate pairs. JSON can escape one alone, but no file name, tokenizer or terminal takes it."""
NOT_IN_NAMES = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Characters that control a terminal or break a line, and halves of surrogate pairs."""


class Triplet(NamedTuple):
    """One query of a data set, and its answer where the annotations give it."""

    reference: str
    """Name of the picture that the caption starts from."""
    captions: tuple[str, ...]
    """What is to change, in one caption (CIRR) or in those of two annotators (FashionIQ)."""
    targets: tuple[str, ...] = ()
    """Names of the pictures meant, first the one that the caption was written for; none in a test split."""
    group: tuple[str, ...] = ()
    """Names of the similar pictures that the target was chosen from, the reference among them (CIRR)."""
    id: str = ""
    """What an evaluation server calls the query."""
    graded: tuple[tuple[str, float], ...] = ()
    """(name, grade) of pictures that annotators graded as answers, from -1 to 1 (CIRR's soft targets)."""
    concept: str = ""
    """What reference and targets have in common, in words (CIRCO)."""
    aspects: tuple[str, ...] = ()
    """The kinds of change that the caption asks for (CIRCO)."""
    place: str = ""
    """Where it stands in its file, where that is not its number."""


class Query(NamedTuple):
    """A triplet as a protocol asks it; some protocols ask each triplet twice."""

    id: str
    triplet: Triplet
    texts: tuple[str, ...]
    """What it asks in words. The predicted features of several texts are averaged."""


class Split(NamedTuple):
    """The triplets of one split or category, and its gallery."""

    name: str
    """The split's name: "train", "val" or the test split's."""
    path: Path
    """The captions file, for messages."""
    triplets: list[Triplet]
    pictures: dict[str, Path]
    """{name: file} of the whole gallery, in the order of the image split."""

    def needed(self, triplet: Triplet) -> set[str]:
        """Return the names without whose pictures `triplet` is lost. Training needs no group, judging does."""
        # Training never looks at a group, so a member's missing picture costs it nothing.
        return {triplet.reference, *triplet.targets, *(() if self.name == "train" else triplet.group)}

    def without(self, lost: Collection[Path]) -> "Split":
        """Return the split without the `lost` picture files and without the triplets that need them."""
        pictures = {name: path for name, path in self.pictures.items() if path not in lost}
        triplets = [triplet for triplet in self.triplets if self.needed(triplet) <= pictures.keys()]
        return self._replace(pictures=pictures, triplets=triplets)


class Protocol(NamedTuple):
    """One way of counting, most of them published."""

    name: str
    reference: str
    """"keep", or "drop": the reference picture leaves the ranking."""
    gallery: str
    """"full": the split's list; "val": only the pictures that its triplets name."""
    at: tuple[int, ...]
    """Cut-offs of the recalls in the gallery."""
    captions: str
    """How a triplet's captions become what a query asks: one of the task's `captions`."""
    group_at: tuple[int, ...] = ()
    """Cut-offs of the recalls among the other members of the query's group."""
    map_at: tuple[int, ...] = ()
    """Cut-offs of the mean average precision, which all targets of a query count for."""
    aspect_map_at: int = 0
    """Cut-off of the mean average precision over the queries of each aspect; 0 for none."""
    any_target: bool = False
    """Whether the rank of a query is that of its best-ranked target, and not of the first one."""
    soft: bool = False
    """Whether a query scores the best grade among its first answers, and not whether its target is there."""

    def chosen(self, presets: Sequence["Protocol"], **choices: str | None) -> "Protocol":
        """Return this protocol with `choices` (gallery, reference, captions) changed, under the name this then has."""
        changed = self._replace(**{name: value for name, value in choices.items() if value is not None})
        same = next((preset for preset in presets if preset._replace(name=changed.name) == changed), None)
        spelled = "-".join([*(["soft"] if self.soft else []), changed.gallery, changed.reference, changed.captions])
        return changed._replace(name=spelled) if same is None else same


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

    def _queries(self, triplets, captions, ids) -> list[Query]:
        queries = []
        for name, triplet in zip(ids, triplets, strict=True):
            asked = self.captions[captions](triplet)
            # A blank caption asks nothing where it is a query of its own; the other one keeps its number.
            numbered = [(f"{name}.{number}" if len(asked) > 1 else name, texts) for number, texts in enumerate(asked)]
            queries += [Query(query, triplet, texts) for query, texts in numbered if len(asked) == 1 or texts[0]]
        return queries

    def training_texts(self, captions: Sequence[str]) -> tuple[str, ...]:
        """Return the texts that training draws from, uniformly, for a triplet's captions."""
        raise NotImplementedError

    def measures(self, values: dict[str, dict], mean: Callable = mean_of_numbers) -> dict:
        """Return {measure: value} from {category: {metric: value}}: those of each category, then `means` of them.

        Values may be anything that `mean` takes a list of.
        """
        # One category needs no name.
        many = len(self.categories) > 1
        named = {
            f"{category}_{name}" if many else name: value
            for category, of_category in values.items()
            for name, value in of_category.items()
        }
        for name, parts in self.means.items():
            named[name] = mean([named[part] for part in parts])
        return named

    def columns(self, recalls: dict[str, dict[str, float]]) -> dict[str, float]:
        """Return the columns of validation_metrics.csv, in percent, from {category: {recall: percent}}."""
        return self.measures(recalls)

    def printed(self, recalls: dict[str, dict[str, float]]) -> dict[str, float]:
        """Return what validate.py prints, in percent, from {category: {recall: percent}}."""
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


# ---- captions as texts ----


def drawn_texts(captions: Sequence[str]) -> tuple[str, ...]:
    """Return what training draws from for a caption, which is that, or for two (paper, section 4.1).

    Of two these are both in either order, and each alone.
    """
    if len(captions) == 1:
        return tuple(captions)
    first, second = map(cleaned_caption, captions)
    # The published draw has these four in this order: below .25 the first, and so on.
    return joined_captions(first, second), joined_captions(second, first), first.capitalize(), second.capitalize()


def cleaned_caption(caption: str) -> str:
    """Return a caption without the punctuation that annotators put around it."""
    return caption.strip(".?, ")


def joined_captions(first: str, second: str) -> str:
    """Return two cleaned captions as one sentence: "First and second" (paper, section 4.1)."""
    return f"{first.capitalize()} and {second}"


# ---- checks that readers of annotations share ----


def refuse(path: Path, culprits: Sequence, of: int, fault: str) -> None:
    """Raise InputError when there are `culprits`: how many `of` all, the fault they share, and the first ten."""
    if culprits:
        raise InputError(f"{path}: {len(culprits)} of {of} {fault}: {first_ten(culprits)}")


def read_entries(path: Path, fields: dict[str, type]) -> list[dict]:
    """Read a JSON list of objects, each with `fields` {key: str or int}; raises InputError for the first fault."""
    entries = read_json(path, list)
    refuse(
        path,
        entries_that(entries, lambda entry: not isinstance(entry, dict)),
        len(entries),
        "entries that are not objects",
    )
    for field, kind in fields.items():
        is_right, what = (is_text, "text") if kind is str else (_is_whole_number, "a whole number")
        faulty = entries_that(entries, lambda entry, field=field, is_right=is_right: not is_right(entry.get(field)))
        refuse(path, faulty, len(entries), f"entries without {what} under {field!r}")
    require_any(path, entries, "triplets")
    return entries


def require_any(path: Path, content: Collection, what: str) -> None:
    """Raise InputError when `content` is empty."""
    if not content:
        raise InputError(f"{path}: holds no {what}")


def require_listed(path: Path, listing: Path, pictures: dict[str, Path], triplets: Sequence[Triplet]) -> None:
    """Raise InputError unless `listing` lists every reference, target and group member of the triplets."""
    for role, names in (
        ("reference", [triplet.reference for triplet in triplets]),
        ("target", [name for triplet in triplets for name in triplet.targets]),
    ):
        unlisted = [name for name in names if name not in pictures]
        refuse(path, unlisted, len(triplets), f"triplets with a {role} that {listing.name} does not list")
    members = [name for triplet in triplets for name in triplet.group]
    unlisted = [name for name in members if name not in pictures]
    refuse(path, unlisted, len(members), f"group members that {listing.name} does not list")


def entries_that(entries: Sequence, are_faulty) -> list[str]:
    """Return "entry <number>" for each entry that `are_faulty(entry)`."""
    return [f"entry {number}" for number, entry in enumerate(entries) if are_faulty(entry)]


def is_text(value) -> bool:
    """Whether a JSON value is text that can be written in UTF-8."""
    return isinstance(value, str) and (value.isascii() or HALF_PAIRS.search(value) is None)


def is_list_of_text(value, length: int) -> bool:
    """Whether a JSON value is a list of `length` texts."""
    return isinstance(value, list) and len(value) == length and all(map(is_text, value))


def is_name(value) -> bool:
    """Whether a JSON value can name a picture: text in one line that a terminal can show."""
    return isinstance(value, str) and value != "" and NOT_IN_NAMES.search(value) is None


def stays_inside(path: str) -> bool:
    """Whether a relative path leads to a file below where it starts, on every system."""
    parts = path_parts(path)
    # A drive letter is an absolute path on one system and a folder's name on another.
    starts_elsewhere = parts[0] == "" or re.match("[A-Za-z]:", path) is not None
    leads_down = ".." not in parts and any(part not in ("", ".") for part in parts)
    return leads_down and not starts_elsewhere and NOT_IN_NAMES.search(path) is None


def path_parts(path: str) -> list[str]:
    """Split a path at slashes of either kind, since each separates names on some system."""
    return path.replace("\\", "/").split("/")


def _is_whole_number(value) -> bool:
    return type(value) is int  # a bool is an int too
