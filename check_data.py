"""Look at a data set before anybody trains on it: annotations, and every picture decoded once.

    python check_data.py --dataset CIRR --output findings.json

Exit status 1 when something would change a result, 2 when the data set cannot be read at all, else 0.
"""

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from src.base.errors import NAMED, InputError, escaped, one_line_errors
from src.base.files import PROJECT_ROOT, require_writable_files, write_json
from src.base.parser import Parser
from src.command.flags import add_num_workers, dataset_choices, dataset_name
from src.pictures.findings import FAULT, LEVELS, Finding, Splits, annotation_findings, picture_findings, pictures_of
from src.pictures.kinds import look_at_all
from src.tasks.datasets import find_task
from src.tasks.registry import TASKS, folders
from src.tasks.triplets import Task

WIDTH = 110
DESCRIPTION = (
    "Decode every picture of a data set once and say what is wrong with it. Exit status 1 when something would change "
    "a result: a listed picture that is missing, unreadable or empty. Warnings bear on what a result means: pictures "
    "that two splits share, the same bytes under two names, 16 bits a channel, blank captions. Warnings and notes "
    "leave the exit status at 0. Exit status 2 when the annotations or an option cannot be used."
)


def make_parser() -> Parser:
    parser = Parser(DESCRIPTION)
    help_text = f"{dataset_choices(TASKS)} (default: all in the data path)"
    parser.add_argument("--dataset", type=dataset_name(TASKS), help=help_text)
    parser.add_argument("--data-path", type=Path, default=PROJECT_ROOT, help=f"folder that holds {folders()}")
    add_num_workers(parser)
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="file that keeps the findings as JSON")
    return parser


def tasks_to_check(dataset: str | None, data_path: Path) -> list[Task]:
    """Return the task that `dataset` names, or all that `data_path` holds; raises InputError when it holds none."""
    if dataset:
        return [find_task(dataset)]
    found = [task for task in TASKS.values() if (data_path / task.folder).is_dir()]
    if not found:
        raise InputError(f"{data_path}: holds none of {folders()}; --data-path names a folder that does")
    return found


def read_splits(task: Task, data_path: Path) -> Splits:
    """Read the splits that have annotations; raises InputError for faulty ones and when there are none."""
    root = task.root(data_path)
    splits = {}
    for split in task.splits:
        there = task.categories_in(data_path, split)
        if there:
            splits[split] = {category: task.read(data_path, category, split) for category in there}
    if not splits:
        looked_for = task.files(data_path, task.categories[0], task.splits[0])[0].relative_to(root)
        raise InputError(f"{root}: has annotations of no split; {looked_for} would be one of their files")
    return splits


class Checked(NamedTuple):
    """A data set, what of it was looked at, and what was found."""

    dataset: str
    folder: Path
    sizes: dict
    """{split: {"pictures": number, "triplets": number}}."""
    absent: list
    """Splits without annotations, as in the names of their files."""
    findings: list
    """Of every kind, worst first, also those that nothing was found of."""

    def plain(self) -> dict:
        """Return it as plain values."""
        found = [finding.plain() for finding in self.findings]
        return {**self._asdict(), "folder": str(self.folder), "findings": found}


def check(task: Task, splits: Splits, data_path: Path, num_workers: int) -> Checked:
    """Look at all pictures and annotations of `splits`."""
    folder = task.root(data_path)
    # A picture that several splits or categories list is decoded once.
    paths = list(dict.fromkeys(path for categories in splits.values() for path in pictures_of(categories).values()))
    findings = picture_findings(splits, look_at_all(paths, num_workers), folder) + annotation_findings(splits)
    # Worst first. Sorting is stable, so findings of one level stay together by subject.
    findings.sort(key=lambda finding: LEVELS.index(finding.level))
    files = [(category, split) for split in task.splits for category in task.categories]
    absent = [f"{category}.{split}" for category, split in files if category not in splits.get(split, ())]
    return Checked(task.name, folder, {split: _sizes(splits[split]) for split in splits}, absent, findings)


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
    yield ""
    # Columns are as wide as the longest kind, also of those that were not found, so that reports line up.
    widest = max(len(finding.kind) for finding in checked.findings)
    for finding in checked.findings:
        if finding.names:
            count = f"{len(finding.names):,}" + (f" of {finding.of:,}" if finding.of else "")
            yield f"  {finding.level:<8} {finding.kind:<{widest}}  {count:>16}  {finding.meaning}"
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
    return textwrap.fill(text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def verdict(faults: list[Finding]) -> str:
    """Return the last line: what the exit status means."""
    if not faults:
        return "exit status 0: nothing found would change a result"
    kinds = ", ".join(f"{len(finding.names):,} {finding.kind}" for finding in faults)
    return f"exit status 1: pictures that are needed and cannot be used would change a result ({kinds})"


@one_line_errors
def main(argv=None):
    args = make_parser().parse_args(argv)
    tasks = tasks_to_check(args.dataset, args.data_path)
    annotated = [(task, read_splits(task, args.data_path)) for task in tasks]
    # Before any picture is decoded.
    require_writable_files(args.output)

    checked = []
    for task, splits in annotated:
        checked.append(check(task, splits, args.data_path, args.num_workers))
        # Flushed, since the next data set may take an hour.
        print(*text_of(checked[-1]), "", sep="\n", flush=True)

    faults = [finding for one in checked for finding in one.findings if finding.level == FAULT and finding.names]
    if args.output:
        content = {"exit_status": int(bool(faults)), "datasets": [one.plain() for one in checked]}
        write_json(args.output, content, indent=1)
    print(verdict(faults))
    if faults:
        # Scripts can stop on 1, as on a failed test; 2 means that nothing could be checked.
        raise SystemExit(1)


if __name__ == "__main__":
    main()
