"""The records of a data set: triplets, queries and splits."""

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple


class Triplet(NamedTuple):
    """One annotated entry of a data set: a query, and its answer where the annotations give it."""

    reference: str
    """Name of the picture that the caption starts from."""
    captions: tuple[str, ...]
    """What is to change, in one caption (CIRR) or in those of two annotators (FashionIQ)."""
    targets: tuple[str, ...] = ()
    """Names of the pictures meant, first the one that the caption was written for; none in a test split."""
    group: tuple[str, ...] = ()
    """Names of the similar pictures that the target was chosen from, the reference among them (CIRR); or of those that
    the query ranks (i-CIR, GeneCIS). Queries of one group share the tuple."""
    id: str = ""
    """What an evaluation server calls the query."""
    graded: tuple[tuple[str, float], ...] = ()
    """(name, grade) of pictures that annotators graded as answers, from -1 to 1 (CIRR's soft targets)."""
    concept: str = ""
    """What reference and targets have in common, in words (CIRCO)."""
    aspects: tuple[str, ...] = ()
    """The kinds of change that the caption asks for (CIRCO)."""
    place: str = ""
    """Its position in the file, if not its index."""
    unlisted: tuple[str, ...] = ()
    """Its pictures that are in the folder but not in the split's list; only the gallery "all" has them (Shoes)."""
    may_be_lost: bool = False
    """Where the reference is a target and leaves the ranking: whether that is a miss instead of a fault (Shoes)."""


def named_by(triplets: Iterable[Triplet]) -> set[str]:
    """Return the names of all pictures that `triplets` name."""
    triplets = list(triplets)
    groups = {one.group for one in triplets}  # thousands of queries may share one of thousands of names
    named = {name for one in triplets for name in (one.reference, *one.targets)}
    return named.union(*groups)


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
    """{name: file} of the whole gallery, in the order of the image split, `unlisted` ones last."""
    is_listed: bool = True
    """Whether a file lists the gallery. Else it is all that lies in a folder."""

    @property
    def unlisted(self) -> set[str]:
        """Names of those of its pictures that no gallery has but "all"."""
        return {name for triplet in self.triplets for name in triplet.unlisted}

    def place(self, number: int) -> str:
        """Return where triplet `number` stands: "cap.rc2.train.json[5]", or "triplets.train.csv, row 7"."""
        place = self.triplets[number].place
        return f"{self.path.name}, {place}" if place else f"{self.path.name}[{number}]"

    def needed(self, triplet: Triplet) -> set[str]:
        """Return the names of the pictures without which `triplet` cannot be used."""
        # Training never looks at a group, so a member's missing picture costs it nothing.
        return {triplet.reference, *triplet.targets, *(() if self.name == "train" else triplet.group)}

    def without(self, lost: Collection[Path]) -> "Split":
        """Return the split without the `lost` picture files and without the triplets that need them."""
        pictures = {name: path for name, path in self.pictures.items() if path not in lost}
        triplets = [triplet for triplet in self.triplets if self.needed(triplet) <= pictures.keys()]
        return self._replace(pictures=pictures, triplets=triplets)
