"""Protocols: the ways of counting."""

from collections.abc import Collection, Sequence, Set
from typing import NamedTuple

from src.tasks.triplets import Triplet, named_by

GALLERIES = "full", "val", "group", "all"
OWN = "own"
"""The name of the protocol of own triplets."""
SOFT = "soft"
"""The name of the protocols by grades of CIRR and of own triplets."""


class Protocol(NamedTuple):
    """One way of counting, most of them published."""

    name: str
    reference: str
    """"keep", or "drop": the reference picture leaves the ranking."""
    gallery: str
    """"full": the split's list; "val": only the pictures that its triplets name; "group": only the query's group;
    "all": the split's list, and what its triplets name besides."""
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
    """Score a query by the best grade among its first k answers instead of hit or miss."""
    by_trapezoid: bool = False
    """Whether the mean average precision of the whole ranking is counted, by the trapezoid, and by group (i-CIR)."""

    @property
    def counts_all(self) -> bool:
        """Whether all pictures that count as answers are ranked, and not only first targets."""
        return self.soft or bool(self.map_at) or self.by_trapezoid

    @property
    def metrics(self) -> list[str]:
        """The names of what it counts, apart from those of aspects, which depend on the queries."""
        of_group = [f"group_recall_at{k}" for k in self.group_at]
        maps = [*(("map", "mmap", "minmap") if self.by_trapezoid else ()), *(f"map_at{k}" for k in self.map_at)]
        return [*of_group, *maps, *(f"recall_at{k}" for k in self.at)]

    def inside(self, triplets: Sequence[Triplet], pictures: Collection[str], unlisted: Set[str]) -> set[str] | None:
        """Return the names that the gallery is narrowed to before ranking; None leaves it whole.

        `unlisted` are those of the `pictures` that the split's list lacks.
        """
        if self.gallery == "val":
            return named_by(triplets)
        return {*pictures} - unlisted if self.gallery == "full" and unlisted else None

    def ranked(self, triplets: Sequence[Triplet], pictures: int) -> list[int]:
        """Return how many pictures the query of each triplet ranks, of a gallery of `pictures`."""
        drops = self.reference == "drop"
        if self.gallery == "group":
            return [len(triplet.group) - (drops and triplet.reference in triplet.group) for triplet in triplets]
        return [pictures - drops] * len(triplets)

    def loses(self, triplet: Triplet) -> bool:
        """Whether the reference of a triplet is a target of it, and leaves the ranking."""
        return self.reference == "drop" and triplet.reference in triplet.targets

    def chosen(self, presets: Sequence["Protocol"], **choices: str | None) -> "Protocol":
        """Return this protocol with `choices` (gallery, reference, captions) changed, renamed to match."""
        changed = self._replace(**{name: value for name, value in choices.items() if value is not None})
        same = next((preset for preset in presets if preset._replace(name=changed.name) == changed), None)
        spelled = "-".join([*(["soft"] if self.soft else []), changed.gallery, changed.reference, changed.captions])
        return changed._replace(name=spelled) if same is None else same

    def described(self, categories: dict[str, tuple[Sequence[Triplet], int]]) -> str:
        """Return protocol, queries and galleries in a line, from {category: (triplet of each query, pictures)}."""
        each = [
            f"{name + ': ' if len(categories) > 1 else ''}{len(triplets):,} queries over {self._size(triplets, count)}"
            for name, (triplets, count) in categories.items()
        ]
        rules = f"{self.gallery} gallery, reference {'dropped' if self.reference == 'drop' else 'kept'}"
        return f"protocol {self.name}: {rules}, captions {self.captions}; {', '.join(each)}"

    def _size(self, triplets: Sequence[Triplet], pictures: int) -> str:
        if self.gallery != "group":
            return f"{pictures:,} pictures"
        sizes = [len(triplet.group) for triplet in triplets]
        fewest, most = min(sizes), max(sizes)
        return f"{most:,} pictures each" if fewest == most else f"{fewest:,} to {most:,} pictures each"
