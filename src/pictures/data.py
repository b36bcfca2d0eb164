"""Splits of a data set, read before anything is loaded."""

from pathlib import Path

from src.pictures.presence import require_present
from src.tasks.task import Task
from src.tasks.triplets import Split


def read_data(
    task: Task, data_path: Path | str, *names: str, skip_missing: bool = False
) -> dict[str, dict[str, Split]]:
    """Read splits by name, before CLIP is loaded: {name: {category: Split}}.

    Raises InputError for faulty annotations and, unless `skip_missing`, for pictures that are missing, empty or not
    pictures at first sight.
    """
    data = {name: task.read_all(Path(data_path), name) for name in names}
    if not skip_missing:
        require_present(split for categories in data.values() for split in categories.values())
    return data
