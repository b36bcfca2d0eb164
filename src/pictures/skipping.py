"""Drop missing or unreadable pictures and the triplets that need them (--skip-missing), and mark every result."""

import sys
from collections.abc import Callable

from src.base.errors import InputError, with_reasons
from src.tasks.triplets import Split

NOT_COMPARABLE = "not comparable"


class Skipping:
    """Drop missing or unreadable pictures and the triplets that need them (--skip-missing)."""

    def __init__(self, enabled: bool, num_workers: int = 0):
        self.enabled, self.num_workers = enabled, num_workers
        self._reduced = {}
        self._lost = [0, 0, 0, 0]

    def usable(self, split: Split, preprocess: Callable) -> Split:
        """Return the split without what has to be left out; all of it unless `enabled`.

        Tries each picture, once a process. Says on stderr what falls out; raises InputError when nothing is left.
        """
        if not self.enabled:
            return split
        # Training and validation of a command ask more than once; trying every picture takes minutes.
        # Keyed by id() because categories may share a file; the split is stored so its id is not reused.
        if id(split) not in self._reduced:
            self._reduced[id(split)] = split, self._reduce(split, preprocess)
        return self._reduced[id(split)][1]

    @property
    def mark(self) -> str:
        """What is printed after every result, an empty string when nothing was left out."""
        return "".join(f"  ({name}: {remark})" for name, remark in self.remarks.items())

    @property
    def remarks(self) -> dict[str, str]:
        """What is kept beside every result: {"not comparable": why}, or nothing when nothing was left out."""
        pictures, of_pictures, triplets, of_triplets = self._lost
        if not pictures:
            return {}
        return {NOT_COMPARABLE: f"without {pictures} of {of_pictures} pictures, {triplets} of {of_triplets} triplets"}

    def _reduce(self, split: Split, preprocess: Callable) -> Split:
        from src.pictures.trying import unusable  # late: needed with --skip-missing only

        # Decoded, not only looked at: a torn file has the right size and the right first bytes.
        lost = unusable(list(split.pictures.values()), preprocess, self.num_workers)
        reduced = split.without(lost)
        self._count(split, reduced, {path.name: lost[path] for path in split.pictures.values() if path in lost})
        return reduced

    def _count(self, split: Split, reduced: Split, lost: dict[str, str]) -> None:
        pictures, triplets = len(split.pictures), len(split.triplets)
        lost_pictures, lost_triplets = pictures - len(reduced.pictures), triplets - len(reduced.triplets)
        left_out = f"{lost_pictures} of {pictures} pictures and {lost_triplets} of {triplets} triplets"
        # A result over nothing would print as zero.
        if not reduced.triplets:
            raise InputError(f"{split.path}: --skip-missing leaves nothing, without {left_out}: {with_reasons(lost)}")
        if lost:
            print(f"{split.path}: --skip-missing leaves out {left_out}: {with_reasons(lost)}", file=sys.stderr)
        # Over all splits of a command, since one remark stands beside one result.
        counts = lost_pictures, pictures, lost_triplets, triplets
        self._lost = [sum(pair) for pair in zip(self._lost, counts, strict=True)]
