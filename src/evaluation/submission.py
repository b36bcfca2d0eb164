"""A file of a submission: the JSON object in it, the answers this holds, and what is wrong with its form.

What the answers have to be is a matter of each benchmark: a module for each.
"""

import json
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from src.base.errors import in_a_line, repeated

FAULT, WARNING = "fault", "warning"


class Finding(NamedTuple):
    """What is wrong with a file, in one respect, and what mends it."""

    level: str
    """FAULT when the server would refuse it or score something else, else WARNING."""
    kind: str
    names: list[str]
    """Pair ids, or pictures where the kind says so; none where the file as a whole is meant."""
    of: int
    """How many were looked at."""
    mend: str

    def summary(self) -> str:
        """Return the kind, and how many of how many."""
        return f"{self.kind}: {len(self.names):,} of {self.of:,}" if self.names else self.kind


class SubmissionFile:
    """One file of a submission: what it is, what it answers, and what was found."""

    def __init__(self, path: Path):
        self.path, self.size = path, path.stat().st_size
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


def read_object(file: SubmissionFile, largest: int) -> dict | None:
    """Return the JSON object of a file of which the server takes `largest` bytes; None where it holds none.

    Finds what is wrong with the bytes, and keys that stand there twice, of which the last one counts.
    """
    if file.size > largest:
        mend = f"Write names alone, without indentation: the server takes {largest // 10**6} MB."
        file.find("too large", mend)
    # What is ten times too large is no submission, and might not fit the memory.
    if file.size > 10 * largest:
        return None
    pairs, is_indented = _parsed(file)
    if pairs is None:
        return None
    if is_indented and file.size <= largest:
        mend = f"Write it without indentation: the server takes {largest // 10**6} MB, and blanks count."
        file.find("indented", mend, level=WARNING)
    told = dict(pairs)
    again = dict.fromkeys(repeated([key for key, _ in pairs]))
    file.find("keys that stand there twice", "Write each key once, with one list.", again, len(told))
    return told


def _parsed(file: SubmissionFile) -> tuple[_Pairs | None, bool]:
    """Return the pairs of the file's JSON object, None where it holds none, and whether it is indented."""
    data = file.path.read_bytes()
    if data[:2] in (b"\x1f\x8b", b"PK"):
        file.find("packed", "Unpack it: the server takes plain JSON.")
        return None, False
    if data[:3] == b"\xef\xbb\xbf":
        file.find("byte order mark", "Save it as UTF-8 without the mark before its first brace.")
    try:
        text = data.decode("utf-8-sig").strip(" \t\r\n")
        content, end = _READER.raw_decode(text)
    except (ValueError, RecursionError) as error:
        file.find("no JSON", f"Write it with json.dump. What a reader says: {in_a_line(error)}.")
        return None, False
    if not isinstance(content, _Pairs):
        file.find("no JSON object", 'Write one object, {"<pair id>": [names], …}.')
        return None, False
    if text[end:]:
        file.find("text behind the object", "Delete all behind its last brace. Was the file written to twice?")
    # A line cannot end inside a JSON string, so all line ends are layout.
    return content, "\n" in text[:end]


def take_answers(file: SubmissionFile, values: dict[str, object]) -> None:
    """Keep those of `values` {key: value} that are lists of names, and find the others."""
    file.ids, count = list(values), len(values)
    file.answers = {key: value for key, value in values.items() if _is_names(value)}
    constants = [
        key
        for key, value in values.items()
        if type(value) is Constant or (type(value) is list and Constant in map(type, value))
    ]
    file.find("NaN", "Write names alone: JSON has no NaN and no Infinity.", constants, count)
    odd = [key for key, value in values.items() if key not in file.answers and type(value) is not Constant]
    mend = 'Write a list of names for each pair id: "12063": ["test1-147-1-img1", …].'
    file.find("values that are no list of names", mend, odd, count)
    if not values:
        file.find("no pairs", mend)


def _is_names(value: object) -> bool:
    # The pairs of an object are a list as well, of another type.
    return type(value) is list and all(isinstance(name, str) for name in value)
