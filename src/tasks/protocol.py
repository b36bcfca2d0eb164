"""Protocols: the ways of counting."""

from collections.abc import Sequence
from typing import NamedTuple

OWN = "own"
"""The name of the protocol of own triplets."""


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
    """Score a query by the best grade among its first k answers instead of hit or miss."""

    @property
    def metrics(self) -> list[str]:
        """The names of what it counts, apart from those of aspects, which depend on the queries."""
        of_group = [f"group_recall_at{k}" for k in self.group_at]
        return [*of_group, *(f"map_at{k}" for k in self.map_at), *(f"recall_at{k}" for k in self.at)]

    def chosen(self, presets: Sequence["Protocol"], **choices: str | None) -> "Protocol":
        """Return this protocol with `choices` (gallery, reference, captions) changed, renamed to match."""
        changed = self._replace(**{name: value for name, value in choices.items() if value is not None})
        same = next((preset for preset in presets if preset._replace(name=changed.name) == changed), None)
        spelled = "-".join([*(["soft"] if self.soft else []), changed.gallery, changed.reference, changed.captions])
        return changed._replace(name=spelled) if same is None else same

    def described(self, counts: dict[str, tuple[int, int]]) -> str:
        """Return protocol, queries and galleries in a line, from {category: (queries, pictures)}."""
        each = [
            f"{name + ': ' if len(counts) > 1 else ''}{queries:,} queries over {pictures:,} pictures"
            for name, (queries, pictures) in counts.items()
        ]
        rules = f"{self.gallery} gallery, reference {'dropped' if self.reference == 'drop' else 'kept'}"
        return f"protocol {self.name}: {rules}, captions {self.captions}; {', '.join(each)}"
