"""What CIRR's evaluation server would refuse of a submission, or score as something else than was meant.

A submission is two JSON files. {"version": "rc2", "metric": "recall", "<pair id>": [50 names], …} ranks the gallery;
"recall_subset" ranks the other members of each query's group, and has 3 names. Opens no picture.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from src.base.errors import in_a_line, shown
from src.evaluation.submission import (
    WARNING,
    Constant,
    Form,
    Number,
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
from src.tasks.cirr import GROUP_SIZE
from src.tasks.registry import TASKS
from src.tasks.triplets import Split, Triplet

VERSION = "rc2"
LENGTHS = {"recall": 50, "recall_subset": 3}
"""{metric: how many names the server wants for each pair}"""
FORM = Form(
    key="pair id",
    queries="pairs",
    name="a name",
    names="names",
    example='"12063": ["test1-147-1-img1", …]',
    largest=5_000_000,
    limit="the server takes 5 MB",
)
"""A right file of recalls has 4.2 MB."""

# Bounds of what is odd about all lists together. CIRR's own example is far from each.
MOST_DEAF = 0.9
"""Share of the references whose pairs all have one list, from which on captions play no part. The example: 0."""
LEAST_NAMED = 0.5
"""Share of the gallery that all lists together should name. The example: 2,314 of 2,315 pictures."""
LEAST_PLACES = 10
"""Places in lists for each picture; with fewer of them, a picture may be without one by chance. The example: 90."""
LEAST_UNASKED = 20
"""With so many pictures that are no reference, it is no chance that no list names one. The example names 136 of 137."""


def check(paths: list[Path], split: Split, data_path: Path, checkpoints: Collection[Path] = ()) -> list[SubmissionFile]:
    """Read one or two files and find what is wrong with them; `split` is the whole of test1.

    Where a file has ids that are not of test1, `data_path` is asked for those of val. `checkpoints` that are newer than
    a file are a warning.
    """
    files = [_read(path) for path in paths]
    triplets = {triplet.id: triplet for triplet in split.triplets}
    for file in files:
        if file.metric:
            _check_answers(file, triplets, split.pictures, data_path)
    _check_pair(files, triplets)
    for file in files:
        conclude(file, checkpoints)
    return files


# ---- which file it is ----


def _read(path: Path) -> SubmissionFile:
    """Read a file; find what is wrong with its form, version and metric."""
    file = SubmissionFile(path, FORM)
    told = read_object(file)
    if told is None:
        return file
    if file.is_indented and file.size <= FORM.largest:
        file.find("indented", f"Write it without indentation: {FORM.limit}, and blanks count.", level=WARNING)
    if told.get("version") != VERSION:
        mend = f'Write "version": "{VERSION}", where it {_has(told, "version")}.'
        if {"0", "1"} <= told.keys() and told.keys().isdisjoint(("version", "metric")):
            mend += " Is it a submission to CIRCO? Then add --dataset CIRCO."
        file.find("wrong version", mend)
    take_answers(file, {key: value for key, value in told.items() if key not in ("version", "metric")})
    if file.answers:
        _tell_metric(file, told)
    return file


def _has(told: dict, key: str) -> str:
    """Say what the file has as `key`."""
    if key not in told:
        return "has none"
    return f"has {in_a_line(repr(told[key]))}" if isinstance(told[key], (str, bool)) else "has no text"


def _tell_metric(file: SubmissionFile, told: dict) -> None:
    """Tell which of the two files this is, and find whether it says so."""
    ((length, _),) = Counter(map(len, file.answers.values())).most_common(1)
    seems = "recall" if length > GROUP_SIZE else "recall_subset"
    said = told.get("metric")
    # Lists of another length may be cut wrong. These are surely those of the other file.
    is_other = length > GROUP_SIZE if said == "recall_subset" else length == LENGTHS["recall_subset"]
    if said not in tuple(LENGTHS):  # it may be a list, which no dict takes as a key
        mend = f'Write "metric": "{seems}", where it {_has(told, "metric")}: most lists have {length} names.'
        file.find("wrong metric", mend)
    elif is_other:
        mend = f'Write "metric": "{seems}", where it has "{said}" and lists of {length}. Or were the files confused?'
        file.find("metric of the other file", mend)
    file.metric = seems if said not in tuple(LENGTHS) or is_other else said


# ---- its answers ----


def _check_answers(file: SubmissionFile, triplets: dict[str, Triplet], pictures: dict, data_path: Path) -> None:
    file.answers = answers = _check_names(file, _check_ids(file, triplets, data_path), pictures)
    check_lengths(file, LENGTHS[file.metric], len(pictures))
    find_repeats(file)
    mend = "Take the query's own reference out of the ranking, before the list is cut."
    file.find("lists with the query's reference", mend, with_reference(file, triplets), len(answers))
    if file.metric == "recall":
        _check_variety(file, triplets, pictures)
        return
    outside = [
        key
        for key, names in answers.items()
        if any(name in pictures and name not in triplets[key].group for name in names)
    ]
    mend = "Rank only the members of the query's group: img_set.members in cap.rc2.test1.json."
    file.find("names outside the group", mend, outside, len(answers))


def _check_ids(file: SubmissionFile, triplets: dict[str, Triplet], data_path: Path) -> dict[str, list[str]]:
    """Find what is wrong with the pair ids; return {pair id of test1: names}, also where the file spells it oddly."""
    odd = find_odd_keys(file, triplets)
    numbers = {key: number_in(key) for key in file.ids if key not in triplets and key not in odd}
    val_ids = _ids_of_val(data_path) if numbers else set()
    of_val = {
        key: number
        for key, number in numbers.items()
        if number in val_ids or any(map(_is_of_val, file.answers.get(key, ())))
    }
    mend = "Answer the queries of cap.rc2.test1.json: these are of the split val."
    file.find("pairs of val", mend, of_val, len(file.ids))
    mend = "Answer only the queries of cap.rc2.test1.json."
    unknown = [key for key in numbers if key not in of_val]
    file.find("pairs that test1 does not have", mend, unknown, len(file.ids))
    mend = "Answer every query of cap.rc2.test1.json, also one whose pictures --skip-missing leaves out."
    find_missing(file, triplets, odd, mend)
    return plain_answers(file, triplets, odd)


def _ids_of_val(data_path: Path) -> set[str]:
    """Return the pair ids of val, none where its annotations are not there."""
    task = TASKS["CIRR"]
    there = all(path.is_file() for path in task.files(data_path, task.categories[0], "val"))
    splits = task.read_all(data_path, "val").values() if there else ()
    return {triplet.id for split in splits for triplet in split.triplets} - {""}


def _is_of_val(name: str) -> bool:
    return name.startswith("dev-")


PATHS = "names with a folder or a suffix"
_MENDS = {
    "names of val": "Rank the pictures of split.rc2.test1.json: {name} is a picture of val.",
    "numbers for names": "Write names of pictures, where it has {name}. Is that the row of a gallery?",
    PATHS: "Write {bare}, where it has {name}.",
    "names that test1 does not list": "Rank only the pictures of split.rc2.test1.json: {name} is none of them.",
}


def _check_names(file: SubmissionFile, answers: dict[str, list[str]], pictures: dict) -> dict[str, list[str]]:
    """Find what is wrong with single names; return the answers with names as test1 spells them, where they can be."""
    unlisted = {name for names in answers.values() for name in names if name not in pictures}
    bare = {name: PurePosixPath(name.strip().replace("\\", "/")).stem for name in unlisted}
    kinds = {name: PATHS if bare[name] in pictures else _kind_of(name) for name in unlisted}
    found = {kind: {} for kind in _MENDS}
    for key, names in answers.items():
        for name in names:
            if name in unlisted and type(name) is not Constant:
                found[kinds[name]].setdefault(key, name)
    for kind, examples in found.items():
        for name in list(examples.values())[:1]:
            mend = _MENDS[kind].format(name=shown(name) or '""', bare=bare[name])
            file.find(kind, mend, examples, len(answers))
    return {key: [bare[n] if kinds.get(n) == PATHS else n for n in names] for key, names in answers.items()}


def _kind_of(name: str) -> str:
    if isinstance(name, Number) or re.fullmatch(r"(tensor)?\W*\d[\d\W]*", name):
        return "numbers for names"
    return "names of val" if _is_of_val(name) else "names that test1 does not list"


def _check_variety(file: SubmissionFile, triplets: dict[str, Triplet], pictures: dict) -> None:
    """Find lists that hardly depend on the query, or not on its caption, or that leave out part of the gallery."""
    if are_alike(file):
        return  # such lists name few pictures too

    lists = {key: tuple(names) for key, names in file.answers.items()}
    asked = defaultdict(list)
    for key in lists:
        asked[triplets[key].reference].append(key)
    several = [keys for keys in asked.values() if len({triplets[key].captions for key in keys}) > 1]
    deaf = [keys for keys in several if len({lists[key] for key in keys}) == 1]
    if len(several) > 1 and len(deaf) >= MOST_DEAF * len(several):
        mend = "Look whether the captions are used: all queries of one reference have the same list."
        names = [key for keys in deaf for key in keys]
        file.find("captions that change nothing", mend, names, len(lists), level=WARNING)

    places = Counter(name for names in lists.values() for name in names if name in pictures)
    if places.total() < LEAST_PLACES * len(pictures):
        return
    unnamed = [name for name in pictures if name not in places]
    unasked = pictures.keys() - {triplet.reference for triplet in triplets.values()}
    none_unasked = len(unasked) >= LEAST_UNASKED and places.keys().isdisjoint(unasked)
    if none_unasked or len(unnamed) > (1 - LEAST_NAMED) * len(pictures):
        mend = "Rank every picture of split.rc2.test1.json, not only " + (
            "the references." if none_unasked else "some."
        )
        file.find("pictures that no list names", mend, unnamed, len(pictures))


# ---- the pair ----


def _check_pair(files: list[SubmissionFile], triplets: dict[str, Triplet]) -> None:
    of_metric = {file.metric: file for file in files}
    lacking = [metric for metric in LENGTHS if metric not in of_metric]
    # Of two files, one that could not be read may be the one that seems to lack.
    if len(files) == 1 or (lacking and "" not in of_metric):
        files[-1].find("not both files", f"Give that of {' and '.join(lacking)} as well: the server wants two files.")
    if lacking:
        return
    recall, subset = of_metric["recall"], of_metric["recall_subset"]
    # A list that is at fault would only be told twice.
    faulty = {name for file in files for finding in file.findings for name in finding.names}
    expected = {}
    for key in recall.answers.keys() & subset.answers.keys() - faulty:
        of_group = [name for name in recall.answers[key] if name in triplets[key].group]
        expected[key] = of_group[: LENGTHS["recall_subset"]]
    comparable = [key for key in recall.answers if expected.get(key)]
    contrary = [key for key in comparable if subset.answers[key][: len(expected[key])] != expected[key]]
    mend = "Write both files from one run: they seem to be of two."
    subset.find("other order than the recall file", mend, contrary, len(comparable), level=WARNING)
