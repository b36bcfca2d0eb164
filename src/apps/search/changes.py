"""Changes that an update makes to the pictures of an index or of a Qdrant collection."""

from typing import NamedTuple

from src.base.errors import InputError


class Changes(NamedTuple):
    """Numbers of pictures."""

    added: int
    changed: int
    """Those of an old name whose file has other bytes."""
    kept: int
    removed: int
    """Those that were there and are not in what was given."""

    def __str__(self) -> str:
        numbers = zip(self._fields, self, strict=True)
        return ", ".join(f"{number:,} {what}" for what, number in numbers)


def require_most_remain(what: str, gone: int, total: int) -> None:
    """Raise InputError, which begins with `what`, when more than half of its pictures are gone."""
    if 2 * gone > total:
        raise InputError(
            f"{what}: {gone:,} of its {total:,} pictures are gone or cannot be read; "
            "name the folder that has them, or remove them with --remove-missing"
        )
