"""The data sets that every command knows: each a file of this folder and a line here."""

from src.tasks.circo import CIRCO
from src.tasks.cirr import CIRR
from src.tasks.fashioniq import FashionIQ
from src.tasks.triplets import Task

TASKS: dict[str, Task] = {task.name: task for task in (CIRR(), FashionIQ(), CIRCO())}
"""{name of --dataset: Task}"""


def folders() -> str:
    """Return the data sets' folders as help texts name them."""
    return " and ".join(f"{task.folder}/" for task in TASKS.values())
