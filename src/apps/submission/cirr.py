"""CIRR's evaluation server: the form of the two files that it takes, and the rules that are CIRR's only.

{"version": "rc2", "metric": "recall", "<pair id>": [50 names], …} ranks the gallery; "recall_subset" ranks the other
members of each query's group, and has 3 names. No picture is opened.
"""

import re
from collections import Counter, defaultdict
from functools import cached_property
from pathlib import PurePosixPath

from src.apps.submission.files import SubmissionFile, number_in
from src.apps.submission.rules import (
    ODD_KEYS,
    OF_FORM,
    OF_LISTS,
    OF_VALUES,
    OLDER,
    OTHER_KEYS,
    REFERENCE,
    WARNING,
    Rule,
    equal_lists,
    misspelling,
    with_reference,
)
from src.base.errors import in_a_line
from src.base.reading import Number
from src.evaluation.run_oddities import LEAST_NAMED, LEAST_PLACES, LEAST_UNASKED, MOST_DEAF
from src.tasks.cirr import GROUP_SIZE
from src.tasks.registry import TASKS

VERSION = "rc2"
LENGTHS = {"recall": 50, "recall_subset": 3}
"""{metric: how many names the server wants for each pair}"""

VAL_NAMES, NUMBERS, PATHS = "names of val", "numbers for names", "names with a folder or a suffix"
UNLISTED = "names that test1 does not list"


class CIRRFile(SubmissionFile):
    """One of CIRR's two files."""

    dataset, split, captions = "CIRR", "test1", "cap.rc2.test1.json"
    most, too_many = 2, "a third file; a submission has two"
    key, variable, queries = "pair id", "pair_id", "pairs"
    name, a_name, names, right_name = "name", "a name", "names", "the picture's name"
    example = '"12063": ["test1-147-1-img1", …]'
    limit = "the server takes 5 MB"  # a right file of recalls has 4.2 MB

    @cached_property
    def usual_length(self) -> int:
        """The length that most lists have; 0 without lists."""
        return Counter(map(len, self.lists.values())).most_common(1)[0][0] if self.lists else 0

    @property
    def seems(self) -> str:
        """The metric that the lists are made for."""
        return "recall" if self.usual_length > GROUP_SIZE else "recall_subset"

    @property
    def says(self) -> str | None:
        """The metric that the file names; None where it has another word there."""
        said = self.content.get("metric")
        return next((metric for metric in LENGTHS if metric == said), None)  # a list is no key of LENGTHS

    @property
    def is_of_other(self) -> bool:
        """Whether the lists are surely those of the other file. Lists of odd lengths may be cut wrong."""
        if self.says == "recall_subset":
            return self.usual_length > GROUP_SIZE
        return self.says == "recall" and self.usual_length == LENGTHS["recall_subset"]

    @property
    def metric(self) -> str:
        if not self.lists:
            return ""
        return self.seems if self.says is None or self.is_of_other else self.says

    @property
    def length(self) -> int:
        return LENGTHS.get(self.metric, 0)

    @property
    def ranks_gallery(self) -> bool:
        return self.metric == "recall"

    @property
    def has_version(self) -> str:
        return self._has("version")

    @property
    def has_metric(self) -> str:
        return self._has("metric")

    def _has(self, key: str) -> str:
        """Say what the file has as `key`."""
        if key not in self.content:
            return "has none"
        value = self.content[key]
        return f"has {in_a_line(repr(value))}" if isinstance(value, (str, bool)) else "has no text"

    @property
    def hint(self) -> str:
        """A question for a file that looks like one of CIRCO's."""
        is_circos = {"0", "1"} <= self.content.keys() and self.content.keys().isdisjoint(self.head)
        return " Is it a submission to CIRCO? Then add --dataset CIRCO." if is_circos else ""

    @cached_property
    def of_val(self) -> dict[str, None]:
        others = [key for key in self.keys if key not in self.triplets and key not in self.odd_keys]
        ids = self._ids_of_val() if others else ()
        return dict.fromkeys(
            key for key in others if number_in(key) in ids or any(map(_is_of_val, self.lists.get(key, ())))
        )

    def _ids_of_val(self) -> set[str]:
        """Return the pair ids of val, none where its annotations are not there."""
        task = TASKS["CIRR"]
        are_there = all(path.is_file() for path in task.files(self.data_path, task.categories[0], "val"))
        splits = task.read_all(self.data_path, "val").values() if are_there else ()
        return {triplet.id for split in splits for triplet in split.triplets} - {""}

    @property
    def lacking(self) -> str:
        """The metrics that no file of the submission has."""
        return " and ".join(metric for metric in LENGTHS if metric not in [file.metric for file in self.submission])

    @property
    def comparable(self) -> dict[str, list[str]]:
        """{pair id: what the file of recalls ranks of the group}, for lists of this file's that are right so far."""
        recall = next((file for file in self.submission if file.metric == "recall"), None)
        if self.metric != "recall_subset" or recall is None:
            return {}
        # A list that is wrong already would only be named twice.
        faulty = {name for file in self.submission for finding in file.findings for name in finding.names}
        ranked = {}
        for key in recall.answers:
            if key in self.answers and key not in faulty:
                ranked[key] = [name for name in recall.answers[key] if name in self.triplets[key].group][: self.length]
        return {key: names for key, names in ranked.items() if names}

    def spell(self, name: str) -> tuple[str, str]:
        if name in self.pictures:
            return "", name
        bare = PurePosixPath(name.strip().replace("\\", "/")).stem
        if bare in self.pictures:
            return PATHS, bare
        if isinstance(name, Number) or re.fullmatch(r"(tensor)?\W*\d[\d\W]*", name):
            return NUMBERS, name
        return VAL_NAMES if _is_of_val(name) else UNLISTED, name


def _is_of_val(name: str) -> bool:
    return name.startswith("dev-")


# ---- what finds its faults ----


def _deaf(file: CIRRFile) -> list[str]:
    """Return the keys of lists that do not depend on the caption, if nearly all are so."""
    if not file.ranks_gallery or equal_lists(file):
        return []  # equal lists have another reason
    keys_of = defaultdict(list)
    for key in file.answers:
        keys_of[file.triplets[key].reference].append(key)
    several = [keys for keys in keys_of.values() if len({file.triplets[key].captions for key in keys}) > 1]
    deaf = [keys for keys in several if len({tuple(file.answers[key]) for key in keys}) == 1]
    are_most = len(several) > 1 and len(deaf) >= MOST_DEAF * len(several)
    return [key for keys in deaf for key in keys] if are_most else []


def _unnamed(file: CIRRFile) -> dict[str, str]:
    """Return {picture: what is ranked instead} of a part of the gallery that was left out."""
    if not file.ranks_gallery or equal_lists(file):
        return {}  # equal lists name few pictures
    pictures = file.pictures
    places = Counter(name for names in file.answers.values() for name in names if name in pictures)
    if places.total() < LEAST_PLACES * len(pictures):
        return {}
    no_references = pictures.keys() - {triplet.reference for triplet in file.triplets.values()}
    only_references = len(no_references) >= LEAST_UNASKED and places.keys().isdisjoint(no_references)
    unnamed = [name for name in pictures if name not in places]
    if not only_references and len(unnamed) <= (1 - LEAST_NAMED) * len(pictures):
        return {}
    return dict.fromkeys(unnamed, "the references" if only_references else "some")


def _outside(file: CIRRFile) -> list[str]:
    def has_outsider(key, names):
        return any(name in file.pictures and name not in file.triplets[key].group for name in names)

    return [] if file.ranks_gallery else [key for key, names in file.answers.items() if has_outsider(key, names)]


def _is_alone(file: CIRRFile) -> bool:
    # Of two files, one that could not be read may be the one that seems to be lacking.
    files = file.submission
    return file is files[-1] and (len(files) == 1 or bool(file.lacking and all(one.metric for one in files)))


def _contrary(file: CIRRFile) -> list[str]:
    return [key for key, ranked in file.comparable.items() if file.answers[key][: len(ranked)] != ranked]


# fmt: off
CIRRFile.rules = (
    *OF_FORM,
    Rule("indented", lambda file: file.is_indented and file.size <= file.largest,
        "Write it without indentation: {file.limit}, and blanks count.", level=WARNING),
    Rule("wrong version", lambda file: file.pairs is not None and file.content.get("version") != VERSION,
        f'Write "version": "{VERSION}", where it {{file.has_version}}.{{file.hint}}'),
    *OF_VALUES,
    Rule("wrong metric", lambda file: file.lists and file.says is None,
        'Write "metric": "{file.seems}", where it {file.has_metric}: most lists have {file.usual_length} names.'),
    Rule("metric of the other file", lambda file: file.is_of_other,
        'Write "metric": "{file.seems}", where it has "{file.says}" and lists of {file.usual_length}. '
        "Or were the files confused?"),
    ODD_KEYS,
    Rule("pairs of val", lambda file: file.of_val,
        "Answer the queries of {file.captions}: these are of the split val.", "values"),
    *OTHER_KEYS,
    misspelling(VAL_NAMES, "Rank the pictures of split.rc2.test1.json: {case.written} is a picture of val."),
    misspelling(NUMBERS, "Write names of pictures, where it has {case.written}. Is that the row of a gallery?"),
    misspelling(PATHS, "Write {case.right}, where it has {case.written}."),
    misspelling(UNLISTED, "Rank only the pictures of split.rc2.test1.json: {case.written} is none of them."),
    *OF_LISTS,
    Rule(REFERENCE, with_reference,
        "Take the query's own reference out of the ranking, before the list is cut.", "answers"),
    Rule("captions that change nothing", _deaf,
        "Look whether the captions are used: all queries of one reference have the same list.", "answers", WARNING),
    Rule("pictures that no list names", _unnamed,
        "Rank every picture of split.rc2.test1.json, not only {case}.", "pictures"),
    Rule("names outside the group", _outside,
        "Rank only the members of the query's group: img_set.members in {file.captions}.", "answers"),
    Rule("not both files", _is_alone, "Give that of {file.lacking} as well: the server wants two files."),
    Rule("other order than the recall file", _contrary,
        "Write both files from one run: they seem to be of two.", "comparable", WARNING),
    OLDER,
)
# fmt: on
