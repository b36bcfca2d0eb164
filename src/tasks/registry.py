"""The data sets of --dataset: named ones, each a file of this folder and a line here, and own ones."""

from pathlib import Path

from src.tasks.circo import CIRCO
from src.tasks.cirr import CIRR
from src.tasks.fashioniq import FashionIQ
from src.tasks.genecis import GeneCIS
from src.tasks.icir import ICIR
from src.tasks.shoes import Shoes
from src.tasks.task import Task, require_whole

TASKS: dict[str, Task] = {
    getattr(task, "name", type(task).__name__): task
    for task in (CIRR(), FashionIQ(), CIRCO(), Shoes(), ICIR(), GeneCIS())
}
"""{name of --dataset: Task}"""


def whole_tasks() -> list[Task]:
    """Return all data sets with a name; raises InputError for one that lacks what commands need of it."""
    for task in TASKS.values():
        require_whole(task)
    return list(TASKS.values())


def find_task(dataset: Path | str) -> Task:
    """Find the task that --dataset names; raises InputError for a folder without triplets."""
    name = str(dataset)
    if name in TASKS:
        require_whole(TASKS[name])
        return TASKS[name]
    from src.tasks.own import OwnTriplets  # late: most runs are on a data set with a name

    return OwnTriplets.in_folder(Path(dataset))


def folders() -> str:
    """Return the data sets' folders as help texts name them."""
    return " and ".join(f"{task.folder}/" for task in whole_tasks())
