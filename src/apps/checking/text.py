"""Findings about a data set, for a terminal and as plain values."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from src.apps.checking.findings import (
    FAULT,
    LEVELS,
    Finding,
    Splits,
    annotation_findings,
    picture_findings,
    pictures_of,
)
from src.base.errors import NAMED, escaped
from src.base.files import write_json
from src.base.folders import PassedOver, pictures_below
from src.command.terminal import filled
from src.pictures.kinds import look_at_all
from src.tasks.task import Task

WIDTH = 110


class Checked(NamedTuple):
    """A data set, what of it was looked at, and what was found."""

    dataset: str
    folder: Path
    sizes: dict
    """{split: {"pictures": number, "triplets": number}}."""
    absent: list
    """Splits without annotations, with their categories where each has a file."""
    passed: PassedOver
    """What lies in the folder and is no picture."""
    findings: list
    """Of every kind, worst first, also those that nothing was found of."""

    def plain(self) -> dict:
        """Return it as plain values."""
        found = [finding.plain() for finding in self.findings]
        passed = {"not_looked_at": dict(self.passed.files), "left_out": self.passed.folders}
        sizes = {"sizes": self.sizes, "absent": self.absent}
        return {"dataset": self.dataset, "folder": str(self.folder), **sizes, **passed, "findings": found}


def check(task: Task, splits: Splits, data_path: Path, num_workers: int) -> Checked:
    """Look at all pictures and annotations of `splits`."""
    folder = task.root(data_path)
    # A picture that several splits or categories list is decoded once.
    paths = list(dict.fromkeys(path for categories in splits.values() for path in pictures_of(categories).values()))
    findings = picture_findings(splits, look_at_all(paths, num_workers), folder) + annotation_findings(splits)
    # Worst first. Sorting is stable, so findings of one level stay together by subject.
    findings.sort(key=lambda finding: LEVELS.index(finding.level))
    absent = [name for split in task.splits for name in _absent(task, data_path, split, splits.get(split, {}))]
    passed = PassedOver.nothing()
    pictures_below(folder, {}, passed)
    return Checked(task.name, folder, {split: _sizes(splits[split]) for split in splits}, absent, passed, findings)


def _absent(task, data_path, split, there):
    """Return what of a split has no annotations: the split, or those of its categories that have a file each."""
    if len({task.files(data_path, category, split)[0] for category in task.categories}) == 1:
        return [] if there else [split]
    return [f"{category}.{split}" for category in task.categories if category not in there]


def _sizes(categories):
    triplets = sum(len(split.triplets) for split in categories.values())
    return {"pictures": len(pictures_of(categories)), "triplets": triplets}


def text_of(checked: Checked) -> Iterator[str]:
    """Yield what was found as lines for a terminal: the first names of each kind, and at the end what was not found."""
    yield f"{checked.dataset} in {checked.folder}"
    for split, size in checked.sizes.items():
        yield f"  {split:<8} {size['pictures']:>7,} pictures {size['triplets']:>7,} triplets"
    if checked.absent:
        yield _wrapped(f"  no annotations of {', '.join(checked.absent)}", "    ")
    yield from (_wrapped(f"  {escaped(line)}", "    ") for line in checked.passed.lines())
    yield ""
    # Columns are as wide as the longest kind, also of those that were not found, so that reports line up.
    widest = max(len(finding.kind) for finding in checked.findings)
    for finding in checked.findings:
        if finding.names:
            count = f"{len(finding.names):,}" + (f" of {finding.of:,}" if finding.of else "")
            line = f"  {finding.level:<8} {finding.kind:<{widest}}  {count:>16}  {finding.meaning}"
            yield filled(line, " " * 11)
            yield from _first_names(finding.names)
    yield _wrapped(
        f"  none     {', '.join(finding.kind for finding in checked.findings if not finding.names)}", " " * 11
    )


def _first_names(names: list[str]) -> Iterator[str]:
    """Yield the first ten names, a line each where they say more than a name."""
    first = [escaped(name) for name in names[:NAMED]]
    # An entry with a blank says more than a name, for example why a picture is unreadable.
    for line in first if any(" " in name for name in first) else [", ".join(first)]:
        yield _wrapped(" " * 11 + line, " " * 13)
    if len(names) > NAMED:
        yield f"{'':11}and {len(names) - NAMED:,} more"


def _wrapped(text, indent):
    return filled(text, indent, longest=WIDTH)


def faults_in(checked: list[Checked]) -> list[Finding]:
    """Return what was found that would change a result."""
    return [finding for one in checked for finding in one.findings if finding.level == FAULT and finding.names]


def write(path: Path, checked: list[Checked]) -> None:
    """Write the findings as JSON."""
    content = {"exit_status": int(bool(faults_in(checked))), "datasets": [one.plain() for one in checked]}
    write_json(path, content, indent=1)


def verdict(faults: list[Finding]) -> str:
    """Return the last line: what the exit status means."""
    if not faults:
        return "exit status 0: nothing found would change a result"
    kinds = ", ".join(f"{len(finding.names):,} {finding.kind}" for finding in faults)
    return filled(f"exit status 1: pictures that are needed and cannot be used would change a result ({kinds})", "  ")
