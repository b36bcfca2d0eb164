"""Splits of a data set, read before anything is loaded."""

from collections.abc import Iterable
from pathlib import Path

from src.base.files import HELD_FEATURES
from src.pictures.presence import require_present
from src.tasks.task import Task
from src.tasks.triplets import Split


def read_data(
    task: Task,
    data_path: Path | str,
    *names: str,
    skip_missing: bool = False,
    clip_model_name: Path | str = "",
) -> dict[str, dict[str, Split]]:
    """Read splits by name, before CLIP is loaded: {name: {category: Split}}.

    Raises InputError for faulty annotations, and as `require_pictures` does.
    """
    data = {name: task.read_all(Path(data_path), name) for name in names}
    require_pictures(
        (split for of_split in data.values() for split in of_split.values()), skip_missing, clip_model_name
    )
    return data


def require_pictures(splits: Iterable[Split], skip_missing: bool, clip_model_name: Path | str) -> None:
    """Raise InputError for pictures that are missing, empty or not pictures at first sight, unless `skip_missing`.

    A CLIP that is a folder of features needs no pictures.
    """
    if skip_missing:
        return
    if str(clip_model_name).startswith(HELD_FEATURES):
        # A gallery that is all that lies in a folder would shrink with it, and its recalls grow.
        splits = [split for split in splits if not split.is_listed and split.name != "train"]
    require_present(splits)
