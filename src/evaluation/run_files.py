"""Rankings that other programs wrote: a TREC run, JSON, the forms of CIRR's and CIRCO's servers, a per-query table."""

import json
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from src.base.errors import InputError, first_ten, in_a_line, repeated, shown
from src.base.reading import Constant, read_text, without_repetition
from src.base.tables import cells_of

Key = tuple[str, str]
"""Category, empty where the file names none, and what it calls the query."""
TABLES = (".csv", ".tsv", ".xlsx")
TREC = "TREC run"
FORMS = "a TREC run, a JSON object {query: [names]} or a per-query CSV"
UNPACK = "unpack it, or save it as UTF-8"
HEAD = ("version", "metric")
"""Keys of CIRR's files that are not pair ids."""
GROUPS = "recall_subset"
"""What CIRR's file of the groups has as its metric."""
PLACE = re.compile("(>?)((?<=>)0|[1-9][0-9]{0,8})")
"""A rank from 1 in a per-query table; ">50" is one after the first fifty, and ">0" any."""


class OtherProtocolError(InputError):
    """A ranking that one protocol cannot count, though another may."""


class Row(NamedTuple):
    """What a per-query table says of a query besides its first answers."""

    rank: str
    group_rank: str
    data: str
    """Data set, split and digest of what was counted; empty in a table of another program."""
    scores: dict[str, str]
    """{column: cell} of all others."""


class RunFile(NamedTuple):
    """A ranking as its file has it."""

    path: Path
    form: str
    """What kind of file it is, as a part of a line."""
    lists: dict[Key, list[str]]
    """{query: names, best first}"""
    rows: dict[Key, Row]
    """Of a per-query table."""
    remarks: list[str]
    """What had to be decided to read it."""


class RunPart(NamedTuple):
    """What a ranking's file has of one category's queries, by their ids."""

    file: RunFile
    lists: dict[str, list[str]]
    """{query: names, best first}"""
    rows: dict[str, Row]
    """Of a per-query table."""


def read_run(path: Path, protocol: str, of_groups: bool = False) -> RunFile:
    """Read a ranking of the gallery, or `of_groups`; of a per-query table the rows of `protocol`.

    Raises InputError for the first kind of fault.
    """
    if is_table(path):
        return _table(path, protocol)
    text = read_text(path, UNPACK)
    if not text.strip():
        raise InputError(f"{path}: is empty; expected {FORMS}")
    if text.lstrip()[0] in "{[":
        return _json(path, text, of_groups)
    return _trec(path, text)


def is_table(path: Path) -> bool:
    """Whether a file is a table with a column query, or called like a table."""
    if path.suffix.lower() in TABLES:
        return True
    header = read_text(path, UNPACK).lstrip().partition("\n")[0]
    words = header.split()
    if len(words) == 6 and words[1] == "Q0":
        return False  # a TREC run, whatever it calls itself
    return header[:1] not in ("{", "[") and "query" in re.split(r'[,;\t"\r]', header)


def refuse(path: Path, culprits: Sequence, total: int, fault: str, mend: str) -> None:
    """Raise InputError where there are `culprits`: the fault, how many of how many, the first ten, what mends it."""
    if culprits:
        raise InputError(f"{path}: {fault}: {len(culprits):,} of {total:,} ({first_ten(culprits)}); {mend}")


# ---- TREC ----


def _trec(path: Path, text: str) -> RunFile:
    found: dict[str, list[tuple[float, float, str]]] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        if len(words) != 6:
            raise InputError(f"{path}, line {number}: has {len(words)} columns, a TREC run has six; expected {FORMS}")
        topic, _, name, rank, score, _ = words
        numbers = [number_of(rank), number_of(score)]
        if any(map(math.isnan, numbers)):
            what = f"rank {shown(rank)!r}" if math.isnan(numbers[0]) else f"score {shown(score)!r}"
            raise InputError(f"{path}, line {number}: {what} is not a number; write query Q0 name rank score run")
        found.setdefault(topic, []).append((-numbers[1], numbers[0], name))
    contrary, tied, lists = [], [], {}
    for topic, entries in found.items():
        entries.sort(key=lambda entry: entry[:2])  # which leaves equal ones in the file's order
        lists["", topic] = [name for _, _, name in entries]
        ranks, scores = [entry[1] for entry in entries], [entry[0] for entry in entries]
        contrary += [topic] if ranks != sorted(ranks) else []
        tied += [topic] if len(set(scores)) < len(scores) else []
    if 2 * len(contrary) > len(found):
        mend = "write scores that fall as ranks grow, not distances"
        refuse(path, contrary, len(found), "queries whose scores contradict their ranks", mend)
    remarks = [
        _counted(contrary, found, "whose scores contradict their ranks, taken by their scores as TREC's tools do")
    ]
    remarks.append(_counted(tied, found, "with equal scores, taken in the order of their ranks"))
    return RunFile(path, TREC, lists, {}, list(filter(None, remarks)))


def number_of(text: str) -> float:
    """Return a number, NaN for a text that is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def _counted(culprits: Sequence, found: Sequence, what: str) -> str:
    return f"queries {what}: {len(culprits):,} of {len(found):,} ({first_ten(culprits)})" if culprits else ""


# ---- JSON ----


def _json(path: Path, text: str, of_groups: bool) -> RunFile:
    options = {"parse_int": str, "parse_float": str, "parse_constant": Constant}
    try:
        content = json.loads(text, object_pairs_hook=without_repetition, **options)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({in_a_line(error)}); expected {FORMS}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: not a JSON object, but a list; write one object, {{query: [names]}}")
    metric = content.get("metric")
    if metric in ("recall", GROUPS) and (metric == GROUPS) != of_groups:
        option = "--group-run of validate.py" if metric == GROUPS else "--run"
        raise InputError(f"{path}: metric of the other file ({metric}); give it as {option}")
    answers = {key: value for key, value in content.items() if key not in HEAD}
    form = "CIRR's form" if len(answers) < len(content) else "JSON"
    values = dict(_pairs(answers))
    queries = [query for _, query in values]

    def refuse_those(are_wrong, fault, mend):
        wrong = [query for (_, query), value in values.items() if are_wrong(value)]
        refuse(path, wrong, len(queries), fault, mend)

    if not values:
        raise InputError(f"{path}: holds no queries; write one object, {{query: [names]}}")
    refuse_those(_has_constants, "NaN", "write only names, or numbers as scores: JSON has no NaN and no Infinity")
    mend = 'write "query": ["name", …] for each query'
    refuse_those(lambda value: _names(value) is None, "values that are not a list of names", mend)
    tied = [query for (_, query), value in values.items() if _has_ties(value)]
    remark = _counted(tied, queries, "with equal scores, taken in the order of the file")
    lists = {key: _names(value) for key, value in values.items()}
    return RunFile(path, form, lists, {}, [remark] if remark else [])


def _pairs(answers: dict) -> Iterator[tuple[Key, object]]:
    """Yield ((category, query), value); some programs write {category: {query: value}}."""
    for key, value in answers.items():
        if isinstance(value, dict) and any(isinstance(part, (list, dict)) for part in value.values()):
            yield from (((key, query), part) for query, part in value.items())
        else:
            yield ("", key), value


def _names(value: object) -> list[str] | None:
    """Return the names of a query, best first, from a list of them or from {name: score}; None for something else."""
    if isinstance(value, list):
        return value if all(isinstance(name, str) for name in value) else None
    if not isinstance(value, dict):
        return None
    scores = {name: number_of(score) if isinstance(score, str) else math.nan for name, score in value.items()}
    # Sorting keeps the file's order among equal scores.
    return None if any(map(math.isnan, scores.values())) else sorted(scores, key=lambda name: -scores[name])


def _has_constants(value: object) -> bool:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
    return any(type(part) is Constant for part in parts)


def _has_ties(value: object) -> bool:
    return isinstance(value, dict) and len(set(map(float, value.values()))) < len(value)


# ---- per-query tables ----


def _table(path: Path, protocol: str) -> RunFile:
    rows = cells_of(path, "line", fault="not a CSV file")
    _, header = next(rows, ("", []))
    if "query" not in header or not {"answers", "rank", "group_rank"} & set(header):
        raise InputError(
            f"{path}: no per-query table, it has no column {'query' if 'query' not in header else 'answers'}"
        )
    if repeated(header):
        raise InputError(f"{path}: has two columns called {shown(repeated(header)[0])}")
    lists, known, protocols = {}, {}, {}
    for line, cells in rows:
        if len(cells) != len(header):
            raise InputError(f"{path}, {line}: has another number of cells than the header")
        row = dict(zip(header, cells, strict=True))
        counted_by = row.pop("protocol", protocol)
        protocols[counted_by] = None
        if counted_by != protocol:
            continue
        key = row.pop("category", ""), row.pop("query")
        if key in lists:
            raise InputError(f"{path}, {line}: query {shown(key[1])} stands in it twice")
        ranks = row.pop("rank", ""), row.pop("group_rank", "")
        odd = [rank for rank in ranks if rank and not PLACE.fullmatch(rank)]
        if odd:
            raise InputError(f"{path}, {line}: {shown(odd[0])!r} is not a rank; write a whole number from 1")
        lists[key] = list(filter(None, row.pop("answers", "").split("|")))
        known[key] = Row(*ranks, row.pop("data", ""), row)
    if not lists:
        has = f"has rows of protocol {first_ten(list(protocols))}" if protocols else "holds no queries"
        raise OtherProtocolError(f"{path}: {has}, none of {shown(protocol)}, by which it is to be judged")
    return RunFile(path, "per-query table", lists, known, [])
