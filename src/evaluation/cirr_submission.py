"""What CIRR's server would refuse of a submission, or score as something else. Needs no torch and no pictures."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from src.base.errors import first_ten, in_a_line, repeated
from src.tasks.triplets import Split, Triplet

FAULT, WARNING = "fault", "warning"
VERSION = "rc2"
LENGTHS = {"recall": 50, "recall_subset": 3}
"""{metric: names for each pair}"""
LARGEST = 5 * 10**6
"""Bytes that the server takes."""


class Finding(NamedTuple):
    """A fault or a warning, the pair ids it concerns, and what mends it."""

    level: str
    file: str
    what: str
    ids: list[str]
    of: int
    mend: str

    def line(self) -> str:
        """Return it as a line, with the first ten pair ids."""
        count = f" ({len(self.ids):,} of {self.of:,}: {first_ten(self.ids)})" if self.ids else ""
        return f"{self.level}: {self.file}: {self.what}{count}. {self.mend}."


class Submission(NamedTuple):
    """One of the two files as it was read."""

    path: Path
    metric: str
    """What it seems to be by the length of its lists, else by what it says."""
    answers: dict[str, list[str]]
    """{pair id: names}, only of pairs whose answer is a list of names."""


def read_submission(path: Path, found: list[Finding]) -> Submission | None:
    """Read a file, adding what is wrong with its form to `found`; None when nothing more can be said of it."""

    def say(level, what, mend, ids=(), of=0):
        found.append(Finding(level, path.name, what, list(ids), of, mend))

    data = path.read_bytes()
    pairs = _pairs(data, say)
    if pairs is None:
        return None
    if len(data) > LARGEST:
        say(FAULT, f"has {len(data) / 1e6:.1f} MB, and the server takes 5", "Write it without indent")
    elif b"\n" in data.strip():
        say(WARNING, "is indented, which may make it too large", "Write it without indent")
    ids = [key for key, _ in pairs if key not in ("version", "metric")]
    again = list(dict.fromkeys(repeated(ids)))
    if again:
        say(FAULT, "pair ids stand there twice", "Write one list for each pair id", again, len(ids))
    told = dict(pairs)
    if told.get("version") != VERSION:
        say(FAULT, f"version is {_shown(told, 'version')}", f'Write "version": "{VERSION}"')
    content = {key: told[key] for key in ids}
    answers = {key: value for key, value in content.items() if _is_names(value)}
    odd = [key for key in content if key not in answers]
    if odd:
        say(
            FAULT,
            "answers that are not lists of names",
            "Write a list of picture names for each pair id",
            odd,
            len(ids),
        )
    return Submission(path, _metric(told, answers, say), answers)


def _pairs(data: bytes, say: Callable) -> list[tuple] | None:
    """Return the pairs of the JSON object that `data` holds."""
    if data[:2] == b"\x1f\x8b":
        return say(FAULT, "is a gzip archive", "Unpack it")
    if data[:3] == b"\xef\xbb\xbf":
        say(FAULT, "begins with a byte order mark", "Write it as UTF-8 without one")
    constants, nested = [], _Pairs
    try:
        content = json.loads(data.decode("utf-8-sig"), object_pairs_hook=nested, parse_constant=constants.append)
    except (ValueError, RecursionError) as error:
        return say(FAULT, f"is no JSON file ({in_a_line(error)})", "Write one JSON object and nothing behind it")
    if constants:
        say(FAULT, f"holds {constants[0]}, which is no JSON", "Write names alone")
    if not isinstance(content, _Pairs):
        return say(FAULT, "holds no JSON object", 'Write {"version": …, "metric": …, pair id: [names], …}')
    return list(content)


class _Pairs(list):
    """The pairs of a JSON object, which may repeat a key."""


def _is_names(value) -> bool:
    return type(value) is list and all(isinstance(name, (str, int)) and not isinstance(name, bool) for name in value)


def _shown(told: dict, key: str) -> str:
    return in_a_line(repr(told[key])) if key in told else "missing"


def _metric(told: dict, answers: dict[str, list], say: Callable) -> str:
    """Return which of the two files this is."""
    lengths = Counter(map(len, answers.values())).most_common(1)
    length = lengths[0][0] if lengths else 0
    # What the lists are counts more than what the file says.
    seems = "recall" if length > 5 else "recall_subset"
    said = told.get("metric")
    if said not in tuple(LENGTHS):  # it may be a list, which no dict takes
        say(FAULT, f"metric is {_shown(told, 'metric')}", f'Its lists are those of "metric": "{seems}"')
    elif said != seems:
        what = f"says metric {said}, but most of its lists have {length} names"
        say(FAULT, what, f'Its lists are those of "metric": "{seems}": were the two files confused?')
    return seems


def check_answers(submission: Submission, split: Split, val_ids: Collection[str]) -> Iterator[Finding]:
    """Yield what is wrong with the answers of one file; `val_ids` are the pair ids of the val split."""
    triplets = {triplet.id: triplet for triplet in split.triplets}
    answers, count = submission.answers, len(submission.answers)

    def finding(what, ids, mend, level=FAULT, of=count):
        return [Finding(level, submission.path.name, what, list(ids), of, mend)] if ids else []

    of_val = [key for key, names in answers.items() if (key in val_ids and key not in triplets) or _of_val(names)]
    if of_val:
        mend = "Answer the split test1 (cap.rc2.test1.json) instead of val"
        yield from finding("answers to the val split", of_val, mend)
    foreign = answers.keys() - triplets.keys() - set(of_val)
    numbers = {key: re.search(r"\d+", key) for key in answers if key in foreign}
    spelled = {key: number[0] for key, number in numbers.items() if number and number[0] in triplets}
    yield from finding(
        "keys that are no plain pair id", spelled, 'Write the number alone, such as "12063": str(int(id))'
    )
    unknown = [key for key in numbers if key not in spelled]
    yield from finding("pair ids that test1 does not have", unknown, "Leave them out")
    covered = answers.keys() | set(spelled.values())
    missing = [key for key in triplets if key not in covered]
    # Of a val file all are missing, which says nothing more.
    if len(of_val) < count or not of_val:
        yield from finding("pair ids are missing", missing, "Answer every pair of test1", of=len(triplets))
    yield from _lists(submission, triplets, split.pictures, finding)


def _lists(submission, triplets: dict[str, Triplet], pictures, finding) -> Iterator[Finding]:
    """Yield what is wrong with lists of names."""
    answers = {key: names for key, names in submission.answers.items() if key in triplets}
    length = LENGTHS[submission.metric]
    short = [key for key, names in answers.items() if len(names) == length - 1]
    mend = "Drop the reference before the list is cut, not after"
    yield from finding(f"lists of {length - 1} names where the server wants {length}", short, mend)
    other = [key for key, names in answers.items() if len(names) not in (length, length - 1)]
    yield from finding(f"lists that have not {length} names", other, f"Give the first {length} of the whole ranking")
    twice = [key for key, names in answers.items() if len(set(names)) < len(names)]
    yield from finding("lists that repeat a name", twice, "Give each picture once")
    referring = [key for key, names in answers.items() if triplets[key].reference in names]
    yield from finding("lists that hold the query's own reference", referring, "Drop the reference from the ranking")

    unlisted = {key: [name for name in names if name not in pictures] for key, names in answers.items()}
    mended = [key for key, names in unlisted.items() if any(_bare(name) in pictures for name in names)]
    yield from finding("names with a suffix or a folder", mended, "Write test1-147-1-img1, not a path or a file")
    foreign = [key for key, names in unlisted.items() if any(_bare(name) not in pictures for name in names)]
    mend = "Rank the pictures of split.rc2.test1.json alone, by name"
    yield from finding("names that are no picture of test1", [k for k in foreign if not _of_val(unlisted[k])], mend)
    if submission.metric == "recall_subset":
        outside = [
            key
            for key, names in answers.items()
            if any(name in pictures and name not in triplets[key].group for name in names)
        ]
        yield from finding("names outside the query's group", outside, "Rank img_set.members alone")
    else:
        yield from _whole(answers, triplets, pictures, finding)


def _bare(name) -> str:
    return PurePosixPath(str(name).replace("\\", "/")).stem


def _of_val(names: list) -> bool:
    return any(str(name).startswith("dev-") for name in names)


def _whole(answers, triplets, pictures, finding) -> Iterator[Finding]:
    """Yield what is odd about all lists together."""
    if len(answers) < 2:
        return
    distinct = len({tuple(names) for names in answers.values()})
    # The official example has a list of its own for nearly every query.
    if distinct < len(answers) / 10:
        what = f"all queries share {distinct:,} lists"
        yield from finding(what, list(answers), "The answers do not depend on the query")
    lists = defaultdict(list)
    for key, names in answers.items():
        lists[triplets[key].reference].append((key, tuple(names)))
    several = [of for of in lists.values() if len({triplets[key].captions for key, _ in of}) > 1]
    same = [key for of in several if len({names for _, names in of}) == 1 for key, _ in of]
    if len(several) > 1 and len(same) > sum(map(len, several)) / 2 and distinct > 1:
        mend = "The caption seems to play no part: is the text encoder's feature used?"
        yield from finding("queries of one reference have the same list whatever the caption", same, mend)
    named = {name for names in answers.values() for name in names if name in pictures}
    # Fifty answers to each of thousands of queries reach nearly every picture of a whole gallery.
    if len(named) < len(pictures) / 2 and 50 * len(answers) > 4 * len(pictures):
        what = f"all lists together name {len(named):,} of {len(pictures):,} pictures"
        yield from finding(what, list(answers), "Rank the whole of split.rc2.test1.json")


def check_pair(recall: Submission, subset: Submission) -> Iterator[Finding]:
    """Yield a warning where the two files of a pair rank the same pictures in different orders."""
    disagreeing, comparable = [], 0
    for key, names in recall.answers.items():
        place = {name: number for number, name in enumerate(names)}
        places = [place[name] for name in subset.answers.get(key, ()) if name in place]
        comparable += len(places) > 0
        if places != sorted(places):
            disagreeing.append(key)
    if disagreeing:
        what, mend = "orders a group otherwise than the other file", "Write both files from one ranking"
        yield Finding(WARNING, subset.path.name, what, disagreeing, comparable, mend)


def check(
    paths: list[Path], split: Split, val_ids: Collection[str], checkpoints: Collection[Path] = ()
) -> list[Finding]:
    """Return what is wrong with one or two files, faults first."""
    found = []
    read = [submission for path in paths if (submission := read_submission(path, found)) is not None]
    for submission in read:
        found += check_answers(submission, split, val_ids)
    metrics = [submission.metric for submission in read]
    lacking = [metric for metric in LENGTHS if metric not in metrics]
    if len(read) == len(paths) and lacking:
        mend = f"Give the file of {lacking[0]} too: the server scores the two apart"
        found.append(Finding(FAULT, paths[0].name, f"there is no file of {lacking[0]} beside it", [], 0, mend))
    if sorted(metrics) == sorted(LENGTHS):
        found += check_pair(*sorted(read, key=lambda submission: submission.metric))
    for path in paths:
        newer = [str(checkpoint) for checkpoint in checkpoints if checkpoint.stat().st_mtime > path.stat().st_mtime]
        if newer:
            mend = "Write the submission again if these weights are meant"
            found.append(Finding(WARNING, path.name, f"is older than {newer[0]}", [], 0, mend))
    return sorted(found, key=lambda finding: finding.level != FAULT)
