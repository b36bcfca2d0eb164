"""A file of a submission: the JSON object in it, the answers this holds, and what is wrong with its form.

What the answers have to be is a matter of each benchmark: a module for each.
"""

import json
import re
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from src.base.errors import in_a_line, repeated, shown

FAULT, WARNING = "fault", "warning"
LEAST_DIFFERENT = 0.1
"""With fewer different lists than this share of the queries, the query plays hardly a part. CIRR's example: 0.999."""


class Form(NamedTuple):
    """How a benchmark's files are spelled, and how large they may be."""

    key: str
    """What a key of its answers is: a "pair id"."""
    queries: str
    """What these keys stand for: "pairs"."""
    name: str
    """What a list is made of, with its article: "a name"."""
    names: str
    example: str
    """One answer, as JSON."""
    largest: int
    """Bytes from which on a file is too large."""
    limit: str
    """The same as what mends such a file says it."""


class Finding(NamedTuple):
    """What is wrong with a file, in one respect, and what mends it."""

    level: str
    """FAULT when the server would refuse it or score something else, else WARNING."""
    kind: str
    names: list[str]
    """Keys of answers, or pictures where the kind says so; none where the file as a whole is meant."""
    of: int
    """How many were looked at."""
    mend: str

    def summary(self) -> str:
        """Return the kind, and how many of how many."""
        return f"{self.kind}: {len(self.names):,} of {self.of:,}" if self.names else self.kind


class SubmissionFile:
    """One file of a submission: what it is, what it answers, and what was found."""

    def __init__(self, path: Path, form: Form):
        self.path, self.form, self.size = path, form, path.stat().st_size
        self.is_indented = False
        self.metric = ""
        """What its lists are, whatever it says; empty where it holds nothing to check."""
        self.ids: list[str] = []
        """The keys of its answers, as they are spelled there."""
        self.answers: dict[str, list[str]] = {}
        """{key: names}, of the values that are lists of names. Numbers among the names are of the type Number."""
        self.findings: list[Finding] = []

    def find(self, kind: str, mend: str, names: Collection[str] | None = None, of: int = 0, level: str = FAULT) -> None:
        """Add a finding, unless it is about `names` and there are none."""
        if names is None or names:
            self.findings.append(Finding(level, kind, list(names or ()), of, mend))


class Number(str):
    """A number as it is written, however large."""

    __slots__ = ()
    __repr__ = str.__str__


class Constant(Number):
    """NaN or an infinity, which Python writes and JSON does not have."""

    __slots__ = ()


class _Pairs(list):
    """The pairs of a JSON object. A dict would keep the last of two equal keys in silence."""


_READER = json.JSONDecoder(object_pairs_hook=_Pairs, parse_int=Number, parse_float=Number, parse_constant=Constant)


def read_object(file: SubmissionFile) -> dict | None:
    """Return the JSON object of a file; None where it holds none.

    Finds what is wrong with the bytes, and keys that stand there twice, of which the last one counts.
    """
    largest = file.form.largest
    if file.size > largest:
        file.find("too large", f"Write {file.form.names} alone, without indentation: {file.form.limit}.")
    # What is ten times too large is no submission, and might not fit the memory.
    if file.size > 10 * largest:
        return None
    pairs = _parsed(file)
    if pairs is None:
        return None
    told = dict(pairs)
    again = dict.fromkeys(repeated([key for key, _ in pairs]))
    file.find("keys that stand there twice", "Write each key once, with one list.", again, len(told))
    return told


def _parsed(file: SubmissionFile) -> _Pairs | None:
    """Return the pairs of the file's JSON object, None where it holds none, and keep whether it is indented."""
    data = file.path.read_bytes()
    if data[:2] in (b"\x1f\x8b", b"PK"):
        file.find("packed", "Unpack it: the server takes plain JSON.")
        return None
    if data[:3] == b"\xef\xbb\xbf":
        file.find("byte order mark", "Save it as UTF-8 without the mark before its first brace.")
    try:
        text = data.decode("utf-8-sig").strip(" \t\r\n")
        content, end = _READER.raw_decode(text)
    except (ValueError, RecursionError) as error:
        file.find("no JSON", f"Write it with json.dump. What a reader says: {in_a_line(error)}.")
        return None
    if not isinstance(content, _Pairs):
        file.find("no JSON object", f'Write one object, {{"<{file.form.key}>": [{file.form.names}], …}}.')
        return None
    if text[end:]:
        file.find("text behind the object", "Delete all behind its last brace. Was the file written to twice?")
    # A line cannot end inside a JSON string, so all line ends are layout.
    file.is_indented = "\n" in text[:end]
    return content


# ---- checks that benchmarks share ----


def take_answers(file: SubmissionFile, values: dict[str, object]) -> None:
    """Keep those of `values` {key: value} that are lists of names, and find the others."""
    form, count = file.form, len(values)
    file.ids = list(values)
    file.answers = {key: value for key, value in values.items() if _is_names(value)}
    constants = [
        key
        for key, value in values.items()
        if type(value) is Constant or (type(value) is list and Constant in map(type, value))
    ]
    file.find("NaN", f"Write {form.names} alone: JSON has no NaN and no Infinity.", constants, count)
    odd = [key for key, value in values.items() if key not in file.answers and type(value) is not Constant]
    mend = f"Write a list of {form.names} for each {form.key}: {form.example}."
    file.find(f"values that are no list of {form.names}", mend, odd, count)
    if not values:
        file.find(f"no {form.queries}", mend)


def _is_names(value: object) -> bool:
    # The pairs of an object are a list as well, of another type.
    return type(value) is list and all(isinstance(name, str) for name in value)


def number_in(text: str) -> str:
    """Return the first whole number in a text, without leading zeros; nothing where it has none."""
    found = re.search("0*([1-9][0-9]*|0)", text)
    return found[1] if found else ""


def find_odd_keys(file: SubmissionFile, ids: Collection[str]) -> dict[str, str]:
    """Find keys that spell one of `ids` oddly; return {key: that id}."""
    there = set(file.ids)
    numbers = {key: number_in(key) for key in file.ids if key not in ids}
    odd = {key: number for key, number in numbers.items() if number in ids and number not in there}
    for key in list(odd)[:1]:
        makes = f"str(int({file.form.key.replace(' ', '_')}))"
        mend = f'Write "{odd[key]}", where it has "{shown(key)}": {makes} makes it.'
        file.find(f"keys that are no plain {file.form.key}", mend, odd, len(file.ids))
    return odd


def find_missing(file: SubmissionFile, ids: Collection[str], odd: dict[str, str], mend: str) -> None:
    """Find those of `ids` that the file does not answer, `odd` {key: id} being other spellings."""
    there = {*file.ids, *odd.values()}
    missing = [key for key in ids if key not in there]
    # Where not one is right the file answers something else, and that is said already.
    if len(missing) < len(ids):
        file.find(f"{file.form.queries} missing", mend, missing, len(ids))


def plain_answers(file: SubmissionFile, ids: Collection[str], odd: dict[str, str]) -> dict[str, list[str]]:
    """Return {id: names} of the answers to `ids`, also of those with `odd` {key: id} spellings."""
    plain = {odd.get(key, key): names for key, names in file.answers.items()}
    return {key: names for key, names in plain.items() if key in ids}


def check_lengths(file: SubmissionFile, wanted: int, gallery: int) -> None:
    """Find lists without the `wanted` number of names; `gallery` is how many there are to choose from."""
    answers, names = file.answers, file.form.names
    nearly = [key for key, listed in answers.items() if len(listed) == wanted - 1]
    short = [key for key, listed in answers.items() if len(listed) < wanted - 1]
    if gallery <= wanted:
        mend = f"Rank a larger gallery: of {gallery} pictures no list can name {wanted} besides the reference."
        file.find("lists too short", mend, nearly + short, len(answers))
    else:
        mend = f"Take the reference out of the ranking before it is cut at {wanted}, not after."
        file.find(f"lists one {file.form.name.split()[-1]} short", mend, nearly, len(answers))
        mend = f"Give the first {wanted} {names} of the whole ranking."
        file.find("lists too short", mend, short, len(answers))
    long = [key for key, listed in answers.items() if len(listed) > wanted]
    file.find("lists too long", f"Cut each ranking at {wanted} {names}.", long, len(answers))


def find_repeats(file: SubmissionFile) -> None:
    """Find lists that name a picture twice."""
    several = [key for key, names in file.answers.items() if len(set(names)) < len(names)]
    file.find(f"lists that repeat {file.form.name}", "Give each picture once in a list.", several, len(file.answers))


def with_reference(file: SubmissionFile, triplets: dict) -> list[str]:
    """Return the keys of lists that name their query's own reference; `triplets` is {key: Triplet}."""
    return [key for key, names in file.answers.items() if triplets[key].reference in names]


def are_alike(file: SubmissionFile) -> bool:
    """Find whether nearly all lists are the same ones, and say so."""
    lists = {key: tuple(names) for key, names in file.answers.items()}
    times = Counter(lists.values())
    if len(times) >= LEAST_DIFFERENT * len(lists):
        return False
    mend = f"Rank for each query anew: {len(lists):,} queries have {len(times):,} different lists."
    file.find("lists that others equal", mend, [key for key in lists if times[lists[key]] > 1], len(lists))
    return True


def conclude(file: SubmissionFile, checkpoints: Collection[Path]) -> None:
    """Find `checkpoints` that are newer than the file, and put faults before warnings."""
    written = file.path.stat().st_mtime
    newer = [shown(checkpoint.name) for checkpoint in checkpoints if checkpoint.stat().st_mtime > written]
    if newer:
        mend = f"Write the submission again, if these weights are meant: {', '.join(newer)}."
        file.find("older than its checkpoint", mend, level=WARNING)
    # Sorting is stable, so a cause stays before what may follow from it.
    file.findings.sort(key=lambda finding: finding.level != FAULT)
