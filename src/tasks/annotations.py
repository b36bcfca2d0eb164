"""Checks that readers of annotations share."""

import functools
import os
import re
from collections.abc import Collection, Sequence
from pathlib import Path

from src.base.errors import InputError, first_ten
from src.base.reading import read_json
from src.tasks.triplets import Triplet

HALF_PAIRS = re.compile("[\ud800-\udfff]")
"""Halves of surrogate pairs. JSON can escape a single one, but no file name, tokenizer or terminal takes it."""
NOT_IN_NAMES = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Characters that control a terminal or break a line, and halves of surrogate pairs."""
KNOWN_NAMES = re.compile(r"triplets\.(train|val|test)\.(csv|tsv|xlsx|jsonl)|gallery\.(train|val|test)(\..+)?\.txt")
"""Names of the files that are read of a folder of own triplets, beside its pictures."""


@functools.cache
def find_below(root: Path, expected: Path) -> Path:
    """Find a file or folder by its name, since people unpack archives at other depths."""
    if (root / expected).exists():
        return root / expected
    for folder, folders, files in os.walk(root):
        if expected.name in (*folders, *files):
            return Path(folder, expected.name)
    return root / expected


def refuse(path: Path, culprits: Sequence, total: int, fault: str) -> None:
    """Raise InputError when there are `culprits`: how many of the `total`, the fault they share, and the first ten."""
    if culprits:
        raise InputError(f"{path}: {len(culprits)} of {total} {fault}: {first_ten(culprits)}")


def read_entries(path: Path, fields: dict[str, type]) -> list[dict]:
    """Read a JSON list of objects, each with `fields` {key: str or int}; raises InputError for the first fault."""
    entries = read_json(path, list)
    refuse(
        path,
        entries_that(entries, lambda entry: not isinstance(entry, dict)),
        len(entries),
        "entries that are not objects",
    )
    for field, kind in fields.items():
        is_right, what = (is_text, "text") if kind is str else (is_whole_number, "a whole number")
        faulty = entries_that(entries, lambda entry, field=field, is_right=is_right: not is_right(entry.get(field)))
        refuse(path, faulty, len(entries), f"entries without {what} under {field!r}")
    require_any(path, entries, "triplets")
    return entries


def require_any(path: Path, content: Collection, what: str) -> None:
    """Raise InputError when `content` is empty."""
    if not content:
        raise InputError(f"{path}: holds no {what}")


def require_listed(path: Path, listing: Path, pictures: dict[str, Path], triplets: Sequence[Triplet]) -> None:
    """Raise InputError unless `listing` lists every reference, target and group member of the triplets."""
    for role, names in (
        ("reference", [triplet.reference for triplet in triplets]),
        ("target", [name for triplet in triplets for name in triplet.targets]),
    ):
        unlisted = [name for name in names if name not in pictures]
        refuse(path, unlisted, len(triplets), f"triplets with a {role} that {listing.name} does not list")
    members = [name for triplet in triplets for name in triplet.group]
    unlisted = [name for name in members if name not in pictures]
    refuse(path, unlisted, len(members), f"group members that {listing.name} does not list")


def entries_that(entries: Sequence, are_faulty) -> list[str]:
    """Return "entry <number>" for each entry that `are_faulty(entry)`."""
    return [f"entry {number}" for number, entry in enumerate(entries) if are_faulty(entry)]


def is_text(value) -> bool:
    """Whether a JSON value is text that can be written in UTF-8."""
    return isinstance(value, str) and (value.isascii() or HALF_PAIRS.search(value) is None)


def is_list_of_text(value, length: int) -> bool:
    """Whether a JSON value is a list of `length` texts."""
    return isinstance(value, list) and len(value) == length and all(map(is_text, value))


def is_name(value) -> bool:
    """Whether a JSON value can name a picture: text in one line that a terminal can show."""
    return isinstance(value, str) and value != "" and NOT_IN_NAMES.search(value) is None


def stays_inside(path: str) -> bool:
    """Whether a relative path leads to a file below where it starts, on every system."""
    parts = path_parts(path)
    # A drive letter is an absolute path on one system and a folder's name on another.
    starts_elsewhere = parts[0] == "" or re.match("[A-Za-z]:", path) is not None
    leads_down = ".." not in parts and any(part not in ("", ".") for part in parts)
    return leads_down and not starts_elsewhere and NOT_IN_NAMES.search(path) is None


def path_parts(path: str) -> list[str]:
    """Split a path at slashes of either kind, since each separates names on some system."""
    return path.replace("\\", "/").split("/")


def is_whole_number(value) -> bool:
    """Whether a JSON value is a whole number."""
    return type(value) is int  # a bool is an int too
