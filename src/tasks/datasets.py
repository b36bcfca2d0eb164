"""What --dataset means: the name of a known data set, or a folder of own triplets."""

from pathlib import Path

from src.tasks.own import OwnTriplets
from src.tasks.registry import TASKS
from src.tasks.triplets import Task


def find_task(dataset: str) -> Task:
    """Return the task that --dataset names; raises InputError for a folder without triplets."""
    return TASKS[dataset] if dataset in TASKS else OwnTriplets.in_folder(Path(dataset))
