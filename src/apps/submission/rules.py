"""Rules for the files of a submission: what finds a fault and what mends it. One loop reads them.

The rules here are those that servers share.
"""

import math
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from src.apps.submission.files import Finding, SubmissionFile
from src.base.reading import Constant
from src.evaluation.run_oddities import LEAST_DIFFERENT
from src.tasks.triplets import Split

FAULT, WARNING = "fault", "warning"


class Rule(NamedTuple):
    """One way in which a file can be wrong. `kind` and `mend` may use the file: "no {file.queries}"."""

    kind: str
    find: Callable[[SubmissionFile], Collection[str] | bool]
    """Return the culprits, or whether the file as a whole is wrong."""
    mend: str
    """What to do. It may use `of`, how many were looked at, and `case`, what `find` maps the first culprit to."""
    of: str = ""
    """Which attribute of the file the culprits are in; empty where the file as a whole is meant."""
    level: str = FAULT
    """FAULT when the server would refuse the file or score something else, otherwise WARNING."""

    def finding(self, file: SubmissionFile, culprits: Collection[str] | bool) -> Finding:
        """Return what to report about `culprits` of a file."""
        names, of = (list(culprits), len(getattr(file, self.of))) if self.of else ([], 0)
        case = culprits[names[0]] if isinstance(culprits, dict) else None
        return Finding(
            self.level, self.kind.format(file=file), names, of, self.mend.format(file=file, case=case, of=of)
        )


def check(
    form: type[SubmissionFile], paths: Sequence[Path], split: Split, data_path: Path, checkpoints: Collection[Path] = ()
) -> list[SubmissionFile]:
    """Read the files of a submission and find what is wrong with them.

    `split` is the whole of the split that the server judges, and `data_path` holds the data set's folder.
    `checkpoints` that are newer than a file are a warning.
    """
    files = [form(path, split, data_path, checkpoints) for path in paths]
    for rule in form.rules:
        for file in files:
            file.submission = files
            culprits = rule.find(file)
            if culprits:
                file.findings.append(rule.finding(file, culprits))
    for file in files:
        # Sorting is stable, so a cause stays before what may follow from it.
        file.findings.sort(key=lambda finding: finding.level != FAULT)
    return files


# ---- what finds faults ----


def _no_lists(file: SubmissionFile) -> list[str]:
    return [key for key, value in file.values.items() if key not in file.lists and type(value) is not Constant]


def _constants(file: SubmissionFile) -> list[str]:
    def types(value):
        return map(type, value if type(value) is list else [value])

    return [key for key, value in file.values.items() if Constant in types(value)]


def _unknown(file: SubmissionFile) -> list[str]:
    known = {*file.triplets, *file.odd_keys, *file.of_val}
    return [key for key in file.keys if key not in known]


def _missing(file: SubmissionFile) -> list[str]:
    there = {*file.values, *(spelling.right for spelling in file.odd_keys.values())}
    missing = [key for key in file.triplets if key not in there]
    # Where not one is right the file answers another split, and that is a finding already.
    is_of_other = len(file.of_val) == len(file.keys) or len(missing) == len(file.triplets)
    return [] if is_of_other else missing


def _of_length(file: SubmissionFile, least: int, most: float) -> list[str]:
    return [key for key, names in file.answers.items() if least <= len(names) <= most]


def _repeating(file: SubmissionFile) -> list[str]:
    return [key for key, names in file.answers.items() if len(set(names)) < len(names)]


def with_reference(file: SubmissionFile) -> list[str]:
    """Return the keys of lists that name their query's own reference."""
    return [key for key, names in file.answers.items() if file.triplets[key].reference in names]


def equal_lists(file: SubmissionFile) -> list[str]:
    """Return the keys of equal lists, if nearly all rankings of the gallery are the same ones."""
    if not file.ranks_gallery or len(file.times) >= LEAST_DIFFERENT * len(file.answers):
        return []
    return [key for key, names in file.answers.items() if file.times[tuple(names)] > 1]


# ---- the table: each rule's kind and what finds it, then what mends it ----


def misspelling(kind: str, mend: str) -> Rule:
    """Make the rule for names of which `SubmissionFile.spell` returns `kind`."""
    return Rule(kind, lambda file: file.misspelled(kind), mend, "answers")


# fmt: off
_LIST_OF_NAMES = "Write a list of {file.names} for each {file.key}: {file.example}."
OF_FORM = (
    Rule("too large", lambda file: file.size > file.largest,
        "Write {file.names} alone, without indentation: {file.limit}."),
    Rule("packed", lambda file: file.is_packed, "Unpack it: the server takes plain JSON."),
    Rule("byte order mark", lambda file: file.has_mark, "Save it as UTF-8 without the mark before its first brace."),
    Rule("not JSON", lambda file: file.error, "Write it with json.dump. What a reader says: {file.error}."),
    Rule("not a JSON object", lambda file: file.is_other_json,
        'Write one object, {{"<{file.key}>": [{file.names}], …}}.'),
    Rule("text after the object", lambda file: file.rest,
        "Delete everything after its last brace. Was the file written to twice?"),
    Rule("repeated keys", lambda file: file.again, "Write each key once, with one list.", "content"),
)
OF_VALUES = (
    Rule("NaN", _constants, "Write {file.names} alone: JSON has no NaN and no Infinity.", "values"),
    Rule("values that are not a list of {file.names}", _no_lists, _LIST_OF_NAMES, "values"),
    Rule("no {file.queries}", lambda file: file.pairs is not None and not file.values, _LIST_OF_NAMES),
)
ODD_KEYS = Rule("keys that are not a plain {file.key}", lambda file: file.odd_keys,
    'Write "{case.right}", where it has "{case.written}": str(int({file.variable})) makes it.', "values")
OTHER_KEYS = (
    Rule("{file.queries} that {file.split} does not have", _unknown,
        "Answer only the queries of {file.captions}.", "values"),
    Rule("{file.queries} missing", _missing,
        "Answer every query of {file.captions}, also one whose pictures --skip-missing leaves out.", "triplets"),
)
REFERENCE = "lists with the query's reference"
OF_LISTS = (
    Rule("lists too short", lambda file: file.is_small and _of_length(file, 0, file.length - 1),
        "Rank a larger gallery: of {file.gallery_size} pictures no list can name {file.length} besides the reference.",
        "answers"),
    Rule("lists one {file.name} short",
        lambda file: not file.is_small and _of_length(file, file.length - 1, file.length - 1),
        "Take the reference out of the ranking before it is cut at {file.length}, not after.", "answers"),
    Rule("lists too short", lambda file: not file.is_small and _of_length(file, 0, file.length - 2),
        "Give the first {file.length} {file.names} of the whole ranking.", "answers"),
    Rule("lists too long", lambda file: _of_length(file, file.length + 1, math.inf),
        "Cut each ranking at {file.length} {file.names}.", "answers"),
    Rule("lists that repeat {file.a_name}", _repeating, "Give each picture once in a list.", "answers"),
    Rule("identical lists", equal_lists,
        "Rank for each query anew: {of:,} queries have {file.different:,} different lists.", "answers"),
)
OLDER = Rule("older than its checkpoint", lambda file: file.newer,
    "Write the submission again, if these weights are meant: {file.newer}.", level=WARNING)
# fmt: on
