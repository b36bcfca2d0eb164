"""Picture files that are missing: where they are named, and what is there instead."""

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from src.base.alike import Alike, Instead
from src.base.errors import NAMED, escaped, shown
from src.base.folders import files_below
from src.tasks.triplets import Split

MISSPELLED = 20
"""How many missing names are looked for as misspelled, which takes time among many files."""


def description(faults: dict[str, list[Path]], missing: Sequence[Path], total: int, splits: Sequence[Split]) -> str:
    """Return a line about {fault: paths} among `total` pictures: the first path, their numbers, and ten names.

    Of these the `missing` ones are looked for under other names.
    """
    fault, (first, *_) = next(iter(faults.items()))
    paths = [path for faulty in faults.values() for path in faulty]
    if len(missing) == len(paths):
        counted = f"{len(missing)} of {total} are missing"
    else:
        kinds = ", ".join(f"{len(faulty)}: {kind}" for kind, faulty in faults.items())
        counted = f"{len(paths)} of {total} pictures cannot be used ({kinds})"
    gaps = Gaps(splits, missing)
    names = ", ".join(gaps.described(path) for path in paths[:NAMED])
    names += f" and {len(paths) - NAMED} more" if len(paths) > NAMED else ""
    instead = gaps.instead(missing[0]) if missing else None
    hint = ""
    if instead and missing[0] not in gaps.rows:
        hint = f"; there is {gaps.root / instead.names[0]} instead, {instead.how}"
    # What is called otherwise is at hand, and nothing to do without.
    is_lost = not any(map(gaps.instead, missing))
    remedy = "check_data.py --output FILE.json lists all" + (", --skip-missing leaves them out" if is_lost else "")
    return f"{escaped(str(first))}: {fault}; {counted}: {names}{hint} ({remedy})"


class Gaps:
    """Missing pictures of splits: the rows that name them, and what is there instead."""

    def __init__(self, splits: Iterable[Split], missing: Sequence[Path]):
        splits = list(splits)
        self.rows = _rows(splits, set(missing))
        """{missing path: "triplets.val.csv, row 7"} of those that a table's rows name"""
        # What a program listed is not misspelled.
        self._misspelled = set(list(self.rows)[:MISSPELLED])
        self._alike, self._instead = None, {}
        if missing:
            paths = [*(split.path for split in splits), *(path for split in splits for path in split.pictures.values())]
            self.root = Path(os.path.commonpath([path.absolute() for path in paths]))
            # A data set that lies in two places has no folder to look through.
            known = [] if self.root == Path(self.root.anchor) else files_below(self.root)
            self._alike = Alike([*known, *map(self._name, _beside(missing))])

    def instead(self, path: Path) -> Instead | None:
        """Return what is there instead of a missing picture."""
        if path not in self._instead and self._alike:
            self._instead[path] = self._alike.instead(self._name(path), path in self._misspelled)
        return self._instead.get(path)

    def about(self, path: Path) -> str:
        """Return where a missing picture is named, and what there is instead, as far as either is known."""
        return ": ".join(map(str, filter(None, (self.rows.get(path), self.instead(path)))))

    def described(self, path: Path) -> str:
        """Return the name of a picture as a part of a line; where rows name it, with all that is known."""
        return f"{shown(self._name(path))} ({self.about(path)})" if path in self.rows else shown(path.name)

    def _name(self, path: Path) -> str:
        return path.absolute().relative_to(self.root).as_posix()


def _rows(splits: Iterable[Split], missing: set[Path]) -> dict[Path, str]:
    rows = {}
    for split in splits:
        for triplet in split.triplets if missing else ():
            named = {split.pictures.get(name) for name in (triplet.reference, *triplet.targets, *triplet.group)}
            for path in named & missing if triplet.place else ():
                rows.setdefault(path, {})[f"{split.path.name}, {triplet.place}"] = None
    return {path: _and_more(list(places)) for path, places in rows.items()}


def _and_more(places: list[str]) -> str:
    return places[0] + (f" and {len(places) - 1} more" if len(places) > 1 else "")


def _beside(missing: Iterable[Path]) -> Iterator[Path]:
    """Yield the files beside missing ones, which may lie where only a link leads."""
    for folder in dict.fromkeys(path.parent for path in missing):
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            yield from (folder / entry.name for entry in entries if entry.is_file())
