"""What CIRR's evaluation server would refuse of a submission, or score as something else than was meant.

A submission is two JSON files. {"version": "rc2", "metric": "recall", "<pair id>": [50 names], …} ranks the gallery;
"recall_subset" ranks the other members of each query's group, and has 3 names. Opens no picture.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from src.base.errors import in_a_line, shown
from src.evaluation.submission import FAULT, WARNING, Constant, Number, SubmissionFile, read_object, take_answers
from src.tasks.cirr import GROUP_SIZE
from src.tasks.registry import TASKS
from src.tasks.triplets import Split, Triplet

VERSION = "rc2"
LENGTHS = {"recall": 50, "recall_subset": 3}
"""{metric: how many names the server wants for each pair}"""
LARGEST = 5_000_000
"""Bytes that the server takes of one file. A right file of recalls has 4.2 million."""

# Bounds of what is odd about all lists together. CIRR's own example is far from each.
LEAST_DIFFERENT = 0.1
"""With fewer different lists than this share of the pairs, the query plays hardly a part. The example: 0.999."""
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
        written = file.path.stat().st_mtime
        newer = [shown(checkpoint.name) for checkpoint in checkpoints if checkpoint.stat().st_mtime > written]
        if newer:
            mend = f"Write the submission again, if these weights are meant: {', '.join(newer)}."
            file.find("older than its checkpoint", mend, level=WARNING)
        # Sorting is stable, so a cause stays before what may follow from it.
        file.findings.sort(key=lambda finding: finding.level != FAULT)
    return files


# ---- which file it is ----


def _read(path: Path) -> SubmissionFile:
    """Read a file; find what is wrong with its form, version and metric."""
    file = SubmissionFile(path)
    told = read_object(file, LARGEST)
    if told is None:
        return file
    if told.get("version") != VERSION:
        file.find("wrong version", f'Write "version": "{VERSION}", where it {_has(told, "version")}.')
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
    _check_lengths(file, len(pictures))
    several = [key for key, names in answers.items() if len(set(names)) < len(names)]
    file.find("lists that repeat a name", "Give each picture once in a list.", several, len(answers))
    referring = [key for key, names in answers.items() if triplets[key].reference in names]
    mend = "Take the query's own reference out of the ranking, before the list is cut."
    file.find("lists with the query's reference", mend, referring, len(answers))
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
    numbers = {key: _number(key) for key in file.ids if key not in triplets}
    odd = {key: number for key, number in numbers.items() if number in triplets}
    foreign = [key for key in numbers if key not in odd]
    val_ids = _ids_of_val(data_path) if foreign else set()
    of_val = {
        key: numbers[key]
        for key in foreign
        if numbers[key] in val_ids or any(map(_is_of_val, file.answers.get(key, ())))
    }
    mend = "Answer the queries of cap.rc2.test1.json: these are of the split val."
    file.find("pairs of val", mend, of_val, len(file.ids))
    for key in list(odd)[:1]:
        mend = f'Write "{odd[key]}", where it has "{shown(key)}": str(int(pair_id)) makes it.'
        file.find("keys that are no plain pair id", mend, odd, len(file.ids))
    unknown = [key for key in foreign if key not in of_val]
    mend = "Answer only the queries of cap.rc2.test1.json."
    file.find("pairs that test1 does not have", mend, unknown, len(file.ids))

    there = {*file.ids, *odd.values()}
    missing = [key for key in triplets if key not in there]
    # Where not one is right the file answers something else, and that is said already.
    if len(missing) < len(triplets):
        mend = "Answer every query of cap.rc2.test1.json, also one whose pictures --skip-missing leaves out."
        file.find("pairs missing", mend, missing, len(triplets))
    plain = {odd.get(key, key): names for key, names in file.answers.items()}
    return {key: names for key, names in plain.items() if key in triplets}


def _number(key: str) -> str:
    found = re.search("[1-9][0-9]*", key)
    return found[0] if found else ""


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


def _check_lengths(file: SubmissionFile, gallery: int) -> None:
    answers, wanted = file.answers, LENGTHS[file.metric]
    nearly = [key for key, names in answers.items() if len(names) == wanted - 1]
    short = [key for key, names in answers.items() if len(names) < wanted - 1]
    if gallery <= wanted:
        mend = f"Rank a larger gallery: of {gallery} pictures no list can name {wanted} besides the reference."
        file.find("lists too short", mend, nearly + short, len(answers))
    else:
        mend = f"Take the reference out of the ranking before it is cut at {wanted}, not after."
        file.find("lists one name short", mend, nearly, len(answers))
        file.find("lists too short", f"Give the first {wanted} names of the whole ranking.", short, len(answers))
    long = [key for key, names in answers.items() if len(names) > wanted]
    file.find("lists too long", f"Cut each ranking at {wanted} names.", long, len(answers))


def _check_variety(file: SubmissionFile, triplets: dict[str, Triplet], pictures: dict) -> None:
    """Find lists that hardly depend on the query, or not on its caption, or that leave out part of the gallery."""
    lists = {key: tuple(names) for key, names in file.answers.items()}
    alike = Counter(lists.values())
    if len(alike) < LEAST_DIFFERENT * len(lists):
        mend = f"Rank for each query anew: {len(lists):,} queries have {len(alike):,} different lists."
        file.find("lists that others equal", mend, [key for key in lists if alike[lists[key]] > 1], len(lists))
        return  # such lists name few pictures too

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
