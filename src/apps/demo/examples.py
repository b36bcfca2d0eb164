"""Queries of the data set that a folder of pictures belongs to, as examples of what to ask."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from src.base.errors import InputError
from src.tasks.own import OwnTriplets
from src.tasks.registry import whole_tasks
from src.tasks.task import Task

SEVERAL = 6


class Example(NamedTuple):
    """A query of the data set."""

    reference: str
    """Its path from the folder of pictures."""
    caption: str


def examples_of(folder: Path, has: Callable[[str], bool]) -> list[Example]:
    """Return some validation queries of the data set at or above `folder`, whose references `has` finds.

    There are none where a folder belongs to no data set; faulty annotations are reported on stderr, and give none.
    """
    try:
        task, data_path = _task_of(folder)
        found = {} if task is None else _queries(task, data_path, folder, has)
    except (InputError, OSError) as error:
        print(f"no examples: {error}", file=sys.stderr)
        return []
    queries = list(found.values())
    # Spread over all, since neighbours are alike.
    return queries[:: max(1, len(queries) // SEVERAL)][:SEVERAL]


def _task_of(folder: Path) -> tuple[Task | None, Path]:
    """Return the data set that a folder is, or is a part of, and its data path."""
    for place in (folder, *folder.parents):
        for task in whole_tasks():
            if place.name == task.folder and task.categories_in(place.parent, "val"):
                return task, place.parent
    if any(folder.glob("triplets.val.*")):
        return OwnTriplets.in_folder(folder), folder.parent
    return None, folder


def _queries(task: Task, data_path: Path, folder: Path, has: Callable[[str], bool]) -> dict[str, Example]:
    """Return a query {reference: example} for each reference of the validation split, by its path from `folder`."""
    found = {}
    for split in task.read_all(data_path, "val").values():
        for query in task.queries(split.triplets, task.protocols[0].captions):
            path = split.pictures.get(query.triplet.reference)
            if path is None or not path.is_relative_to(folder):
                continue
            name = path.relative_to(folder).as_posix()
            if has(name):
                found.setdefault(name, Example(name, query.texts[0]))
    return found
