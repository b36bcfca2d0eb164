"""Look at a data set before anybody trains on it: annotations, and every picture decoded once.

    python check_data.py --dataset CIRR --output findings.json

Exit status 1 when something would change a result, 2 when the data set cannot be read at all, else 0.
"""

from pathlib import Path

from src.apps.checking.findings import (
    FAULT,
    Splits,
)
from src.apps.checking.text import check, text_of, verdict
from src.base.errors import InputError, one_line_errors
from src.base.files import PROJECT_ROOT, write_json
from src.base.parser import Parser
from src.command.data_flags import dataset_choices, dataset_name
from src.command.flags import add_num_workers
from src.command.outputs import data_files, output_files, require_outputs
from src.tasks.registry import TASKS, find_task, folders
from src.tasks.task import Task

DESCRIPTION = (
    "Decode every picture of a data set once and say what is wrong with it. Exit status 1 when something would change "
    "a result: a listed picture that is missing, unreadable or empty. Warnings bear on what a result means: pictures "
    "that two splits share, the same bytes under two names, 16 bits a channel, blank captions. Warnings and notes "
    "leave the exit status at 0. Exit status 2 when the annotations or an option cannot be used."
)


def make_parser() -> Parser:
    parser = Parser(DESCRIPTION, __doc__)
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


@one_line_errors
def main(argv=None):
    args = make_parser().parse_args(argv)
    tasks = tasks_to_check(args.dataset, args.data_path)
    annotated = [(task, read_splits(task, args.data_path)) for task in tasks]
    # Before any picture is decoded.
    for task, splits in annotated:
        of_task = (split for categories in splits.values() for split in categories.values())
        inputs = data_files(task.tables(args.data_path), of_task)
        require_outputs(vars(args), output_files(vars(args), "output"), inputs)

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
