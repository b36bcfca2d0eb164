"""Whether the picture files that splits need are there."""

from collections.abc import Iterable
from pathlib import Path

from src.base.bars import Bar
from src.base.crops import file_of
from src.base.errors import InputError, require_storage
from src.base.reading import open_regular
from src.pictures.opening import what_else
from src.tasks.triplets import Split

MISSING = "no such picture"


def require_present(splits: Iterable[Split]) -> None:
    """Look at each picture of `splits` and at its first bytes, with a bar; opens none.

    Raises InputError when some are missing, empty or of something else: how many, the first ten, the rows that name
    them, and what is there instead.
    """
    splits = list(splits)
    paths = list(dict.fromkeys(path for split in splits for path in split.pictures.values()))
    faults = {}
    for path in Bar(paths, desc="looking at picture files", leave=False, delay=1):
        fault = _fault_at_first_sight(path)
        if fault:
            faults.setdefault(fault, []).append(path)
    if faults:
        from src.pictures.gaps import description  # late: mostly all are there

        raise InputError(description(faults, faults.get(MISSING, []), len(paths), splits))


def _fault_at_first_sight(path: Path) -> str | None:
    try:
        with open_regular(file_of(path)) as file:
            return what_else(file.read(16))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return MISSING
    except OSError as error:
        require_storage(error, path)
        return f"cannot be opened ({error.strerror})"
