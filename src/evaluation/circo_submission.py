"""What CIRCO's evaluation server would refuse of a submission, or score as something else than was meant.

A submission is one JSON file: {"0": [50 ids], …, "799": [50 ids]}, an id being the number that COCO gives a picture.
Opens no picture.
"""

import re
from collections.abc import Collection
from pathlib import Path

from src.base.errors import shown
from src.evaluation.submission import (
    WARNING,
    Constant,
    Form,
    SubmissionFile,
    are_alike,
    check_lengths,
    conclude,
    find_missing,
    find_odd_keys,
    find_repeats,
    number_in,
    plain_answers,
    read_object,
    take_answers,
    with_reference,
)
from src.tasks.triplets import Split, Triplet

LENGTH = 50
"""How many ids the server wants for each query."""
VAL_QUERIES = 220
"""How many queries val has. Like those of test they are numbered from 0."""
OF_CIRR = ("version", "metric")
"""Keys that a submission to CIRR has besides its answers."""
FORM = Form(
    key="query id",
    queries="queries",
    name="an id",
    names="ids",
    example='"0": [123456, …]',
    largest=5_000_000,
    limit="a right file has 0.3 MB",
)
"""The server's own limit is not known."""


def check(path: Path, split: Split, checkpoints: Collection[Path] = ()) -> list[SubmissionFile]:
    """Read the one file of a submission and find what is wrong with it; `split` is the whole of test.

    `checkpoints` that are newer than the file are a warning.
    """
    file = SubmissionFile(path, FORM)
    told = read_object(file)
    if told is not None:
        _check_other_keys(file, told)
        take_answers(file, {key: value for key, value in told.items() if key not in OF_CIRR})
    if file.answers:
        file.metric = "mAP"
        _check_answers(file, {triplet.id: triplet for triplet in split.triplets}, split.pictures)
    conclude(file, checkpoints)
    return [file]


def _check_other_keys(file: SubmissionFile, told: dict) -> None:
    others = [key for key in OF_CIRR if key in told]
    mend = "Delete what is no query's key: CIRCO's files have no version and no metric."
    if "0" not in told:
        mend += " Is it a submission to CIRR? Then add --dataset CIRR."
    file.find("keys of CIRR's files", mend, others, len(told))


def _check_answers(file: SubmissionFile, triplets: dict[str, Triplet], pictures: dict) -> None:
    odd = find_odd_keys(file, triplets)
    is_of_val = {odd.get(key, key) for key in file.ids} == set(map(str, range(VAL_QUERIES))) < triplets.keys()
    if is_of_val:
        mend = f"Answer the {len(triplets)} queries of test.json: val has {VAL_QUERIES}, and no server scores it."
        file.find("a file of val", mend)
    else:
        unknown = [key for key in file.ids if key not in triplets and key not in odd]
        file.find("queries that test does not have", "Answer only the queries of test.json.", unknown, len(file.ids))
        find_missing(file, triplets, odd, "Answer every query of test.json.")
    file.answers = _check_ids(file, plain_answers(file, triplets, odd), pictures)
    check_lengths(file, LENGTH, len(pictures))
    find_repeats(file)
    are_alike(file)
    # Val's queries have other references.
    if not is_of_val:
        mend = "Leave it if it is meant: the server counts it as a miss. Some take it out, before the list is cut."
        found = with_reference(file, triplets)
        file.find("lists with the query's reference", mend, found, len(file.answers), level=WARNING)


# ---- ids of pictures ----

NO_NUMBERS, FILES = "ids that are no whole numbers", "file names for ids"
UNLISTED = "ids that the gallery does not have"


def _check_ids(file: SubmissionFile, answers: dict[str, list[str]], pictures: dict) -> dict[str, list[str]]:
    """Find what is wrong with single ids; return the answers with ids as the gallery spells them, where they can be."""
    read = {name: _read(name, pictures) for name in {name for names in answers.values() for name in names}}
    found = {kind: {} for kind in (FILES, NO_NUMBERS, UNLISTED)}
    for key, names in answers.items():
        for name in names:
            kind, _ = read[name]
            if kind and type(name) is not Constant:
                found[kind].setdefault(key, name)
    are_rows = all(_is_below(len(pictures), plain) for _, plain in read.values())
    for kind, examples in found.items():
        for name in list(examples.values())[:1]:
            _, plain = read[name]
            file.find(kind, _mend(kind, name, plain if plain in pictures else "", are_rows), examples, len(answers))
    return {key: [read[name][1] for name in names] for key, names in answers.items()}


def _read(name: str, pictures: dict) -> tuple[str, str]:
    """Return what is wrong with an id, nothing where it is right, and the id as the gallery would spell it."""
    if re.fullmatch("[0-9]+", name):
        plain = number_in(name)
        return "" if plain in pictures else UNLISTED, plain
    if re.fullmatch("-[0-9]+", name):
        return UNLISTED, name
    kind = FILES if re.search(r"[\\/]|\.[A-Za-z]\w*$", name) else NO_NUMBERS
    one_number = re.fullmatch(r"\D*([0-9]+)(\.0*)?\D*", re.split(r"[\\/]", name)[-1])
    meant = number_in(one_number[1]) if one_number else ""
    return kind, meant if meant in pictures else name


def _mend(kind: str, name: str, meant: str, are_rows: bool) -> str:
    has = shown(name) or '""'
    if kind == UNLISTED:
        mend = f"Rank only the pictures of image_info_unlabeled2017.json: {has} is none of them."
        return f"{mend} Is it the row of a gallery?" if are_rows else mend
    return f"Write {meant or 'the number that COCO gives the picture'}, where it has {has}."


def _is_below(bound: int, number: str) -> bool:
    # Python refuses to read numbers of thousands of digits.
    return number.isdecimal() and len(number) <= len(str(bound)) and int(number) < bound
