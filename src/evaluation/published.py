"""What validate.py prints where no protocol is asked for."""

from collections.abc import Mapping

from src.command.terminal import filled
from src.tasks.task import Task


def print_published(task: Task, described: str, metrics: Mapping[str, float], mark: str = "") -> None:
    """Print metrics in percent as the published code does, with the `mark` of results that lack pictures."""
    if task.names_protocol:
        print(filled(described, indent="  "))
    for name, value in metrics.items():
        # In full where the published code prints so.
        print(f"{name} = {round(value, 4) if task.names_protocol else value}{mark}")
