"""Files of a submission: the JSON object in each, and its answers as the server would spell them."""

import json
import re
from collections import Counter
from collections.abc import Collection
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from src.base.errors import in_a_line, repeated, shown
from src.base.reading import Constant, Number
from src.tasks.registry import TASKS
from src.tasks.task import Task
from src.tasks.triplets import Split


class Finding(NamedTuple):
    """One thing that is wrong with a file, and what mends it."""

    level: str
    kind: str
    names: list[str]
    """Keys of answers, or pictures where the kind says so; empty where the file as a whole is meant."""
    of: int
    """How many were looked at."""
    mend: str

    def summary(self) -> str:
        """Return the kind, and how many of how many."""
        return f"{self.kind}: {len(self.names):,} of {self.of:,}" if self.names else self.kind


class Spelling(NamedTuple):
    """A key or a name as the file has it, and how to write it."""

    written: str
    right: str


class _Pairs(list):
    """The pairs of a JSON object. A dict would silently keep the last of two equal keys."""


_READER = json.JSONDecoder(object_pairs_hook=_Pairs, parse_int=Number, parse_float=Number, parse_constant=Constant)


class SubmissionFile:
    """A file of a submission. Each server has a subclass, which gives the form of its files and the rules for them."""

    dataset: str
    split: str
    captions: str  # the file of that split's queries
    most: int  # how many files a submission has
    too_many: str  # what is wrong with one file more
    metric: str  # what the lists are for
    head = ("version", "metric")  # keys that are not keys of answers
    key: str  # what a key of the answers is: a "pair id"
    variable: str  # the same as Python has it
    queries: str  # what these keys stand for: "pairs"
    name: str  # what lists are made of: a "name"
    a_name: str
    names: str
    right_name: str  # what to write where the right name is not known
    example: str  # one answer, as JSON
    largest = 5_000_000  # bytes
    limit: str  # the same in words
    length = 50  # how many names the server wants in a list
    ranks_gallery = True  # rather than a group
    rules: tuple = ()  # in the order of their findings

    def __init__(self, path: Path, split: Split, data_path: Path, checkpoints: Collection[Path]):
        self.path, self.size = path, path.stat().st_size
        self.data_path, self.checkpoints = data_path, checkpoints
        self.triplets = {triplet.id: triplet for triplet in split.triplets}
        self.pictures = split.pictures
        self.query_count, self.gallery_size = len(self.triplets), len(self.pictures)
        self.findings: list[Finding] = []
        self.submission: list[SubmissionFile] = [self]
        """All files that are checked together."""
        self.is_packed = self.has_mark = self.is_other_json = self.is_indented = False
        self.error = self.rest = ""
        self.pairs: list[tuple[str, object]] | None = None
        """Those of the JSON object, None where the file holds none."""
        # A file that is ten times too large is not a submission, and might not fit into memory.
        if self.size <= 10 * self.largest:
            self._parse(path.read_bytes())

    @classmethod
    def task(cls) -> Task:
        """The data set that the server judges."""
        return TASKS[cls.dataset]

    def _parse(self, data: bytes) -> None:
        self.is_packed = data[:2] in (b"\x1f\x8b", b"PK")
        self.has_mark = data[:3] == b"\xef\xbb\xbf"
        if self.is_packed:
            return
        try:
            text = data.decode("utf-8-sig").strip(" \t\r\n")
            content, end = _READER.raw_decode(text)
        except (ValueError, RecursionError) as error:
            self.error = in_a_line(error)
            return
        self.is_other_json = not isinstance(content, _Pairs)
        if not self.is_other_json:
            # A line cannot end inside a JSON string, so all line ends are layout.
            self.pairs, self.rest, self.is_indented = content, text[end:], "\n" in text[:end]

    @property
    def again(self) -> dict[str, None]:
        """The keys of the JSON object that are repeated."""
        return dict.fromkeys(repeated([key for key, _ in self.pairs or ()]))

    @cached_property
    def content(self) -> dict[str, object]:
        """The JSON object. Of equal keys the last one counts."""
        return dict(self.pairs or ())

    @cached_property
    def values(self) -> dict[str, object]:
        """{key: value} of the answers, whatever these are."""
        return {key: value for key, value in self.content.items() if key not in self.head}

    @cached_property
    def lists(self) -> dict[str, list[str]]:
        """{key: names} of the values that are lists of names, as the file spells them."""
        return {key: value for key, value in self.values.items() if _is_names(value)}

    @property
    def newer(self) -> str:
        """The checkpoints that are newer than the file."""
        written = self.path.stat().st_mtime
        return ", ".join(shown(path.name) for path in self.checkpoints if path.stat().st_mtime > written)

    # ---- its answers as the server would spell them ----

    @cached_property
    def keys(self) -> list[str]:
        """The keys of the answers; none where not one has a list, and the file holds something else."""
        return list(self.values) if self.lists else []

    @cached_property
    def odd_keys(self) -> dict[str, Spelling]:
        """{key: how to write it} of the keys that spell a query's id oddly."""
        numbers = {key: number_in(key) for key in self.keys if key not in self.triplets}
        return {
            key: Spelling(shown(key), number)
            for key, number in numbers.items()
            if number in self.triplets and number not in self.values
        }

    def id_of(self, key: str) -> str:
        """Return the query's id that a key means."""
        return self.odd_keys[key].right if key in self.odd_keys else key

    @cached_property
    def of_val(self) -> Collection[str]:
        """The keys that are of val."""
        return ()

    def spell(self, name: str) -> tuple[str, str]:
        """Return the kind of a name's fault, empty where it is right, and the name as the gallery spells it."""
        raise NotImplementedError

    @cached_property
    def _as_written(self) -> dict[str, list[str]]:
        """{query's id: names as the file spells them}"""
        by_id = {self.id_of(key): names for key, names in self.lists.items()}
        return {key: names for key, names in by_id.items() if key in self.triplets}

    @cached_property
    def spelled(self) -> dict[str, tuple[str, str]]:
        """{name: what `spell` returns of it}"""
        return {name: self.spell(name) for name in {name for names in self._as_written.values() for name in names}}

    @cached_property
    def answers(self) -> dict[str, list[str]]:
        """{query's id: names}, both as the split spells them where they can be."""
        return {key: [self.spelled[name][1] for name in names] for key, names in self._as_written.items()}

    def misspelled(self, kind: str) -> dict[str, Spelling]:
        """Return {query's id: the first name in its list that has this kind of fault}."""
        first = {}
        for key, names in self._as_written.items():
            # NaN has a rule already.
            wrong = [name for name in names if self.spelled[name][0] == kind and type(name) is not Constant]
            if wrong:
                _, right = self.spelled[wrong[0]]
                first[key] = Spelling(shown(wrong[0]) or '""', right if right in self.pictures else self.right_name)
        return first

    @property
    def is_small(self) -> bool:
        """Whether the gallery is too small for a list."""
        return self.gallery_size <= self.length

    @cached_property
    def times(self) -> Counter[tuple[str, ...]]:
        """{list: how many queries have it}"""
        return Counter(map(tuple, self.answers.values()))

    @property
    def different(self) -> int:
        """The number of different lists."""
        return len(self.times)


def _is_names(value: object) -> bool:
    # The pairs of an object are a list as well, of another type.
    return type(value) is list and all(isinstance(name, str) for name in value)


def number_in(text: str) -> str:
    """Return the first whole number in a text, without leading zeros; empty where it has none."""
    found = re.search("0*([1-9][0-9]*|0)", text)
    return found[1] if found else ""
