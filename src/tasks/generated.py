"""Triplets that a language model wrote, in SPN4CIR's files: their names are those of a data set's training pictures."""

from collections.abc import Iterable
from pathlib import Path

from src.tasks.annotations import entries_that, is_name, is_text, read_entries, refuse
from src.tasks.captions import OneOf
from src.tasks.triplets import Split, Triplet

REFERENCE, TARGET = ("reference", "candidate"), ("target_hard", "target")
"""Keys as in CIRR's annotations, and as in FashionIQ's."""
CAPTIONS = ("llm_caption", "caption", "captions")
"""Where there is the first, its program takes only that."""


def read_generated(path: Path, train: Iterable[Split]) -> Split:
    """Read such a file, of pictures of the splits `train`; raises InputError for the first kind of fault."""
    entries = read_entries(path, {})
    for keys in (REFERENCE, TARGET):
        faulty = entries_that(entries, lambda entry, keys=keys: not is_name(_value(entry, keys)))
        refuse(path, faulty, len(entries), f"entries without a name under {' or '.join(map(repr, keys))}")
    faulty = entries_that(entries, lambda entry: not _captions(entry))
    refuse(path, faulty, len(entries), "entries without a caption, or a list of captions, none of them blank")
    triplets = [
        Triplet(_value(entry, REFERENCE), OneOf(_captions(entry)), (_value(entry, TARGET),)) for entry in entries
    ]
    same = entries_that(triplets, lambda triplet: triplet.reference in triplet.targets)
    refuse(path, same, len(triplets), "entries whose target is their reference")
    pictures = {name: file for split in train for name, file in split.pictures.items()}
    named = dict.fromkeys(name for triplet in triplets for name in (triplet.reference, *triplet.targets))
    unknown = [name for name in named if name not in pictures]
    refuse(path, unknown, len(named), "names that are not of the data set's training pictures")
    return Split("train", path, triplets, {name: pictures[name] for name in named})


def _value(entry: dict, keys: Iterable[str]) -> object:
    return next((entry[key] for key in keys if key in entry), None)


def _captions(entry: dict) -> list[str]:
    """Return the captions of an entry, none where one is not a text or is blank."""
    value = _value(entry, CAPTIONS)
    captions = value if isinstance(value, list) else [value]
    return captions if all(is_text(caption) and caption.strip() for caption in captions) else []
