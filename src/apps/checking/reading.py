"""The data sets to check, as far as they have annotations."""

from pathlib import Path

from src.apps.checking.findings import Splits
from src.base.errors import InputError
from src.tasks.registry import TASKS, find_task, folders
from src.tasks.task import Task


def read_all(dataset: str | None, data_path: Path) -> list[tuple[Task, Splits]]:
    """Read the annotations of `dataset`, or of all that `data_path` holds; raises InputError for faulty ones."""
    return [(task, _splits(task, data_path)) for task in _tasks(dataset, data_path)]


def _tasks(dataset: str | None, data_path: Path) -> list[Task]:
    """Return the task that `dataset` names, or all that `data_path` holds; raises InputError when it holds none."""
    if dataset:
        return [find_task(dataset)]
    found = [task for task in TASKS.values() if (data_path / task.folder).is_dir()]
    if not found:
        raise InputError(f"{data_path}: holds none of {folders()}; --data-path names a folder that does")
    return found


def _splits(task: Task, data_path: Path) -> Splits:
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
