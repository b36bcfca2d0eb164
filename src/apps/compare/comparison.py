"""Per-query files: reading them back, and which of them can be compared."""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import NamedTuple

import numpy as np

from src.base.errors import InputError, first_ten, repeated, shown
from src.base.tables import cells_of
from src.evaluation.intervals import Values
from src.evaluation.outside import RUN, judge_runs
from src.evaluation.per_query import COLUMNS, SOLVED_BY, table_of
from src.evaluation.run_files import PLACE, is_table
from src.tasks.own import OwnTriplets
from src.tasks.protocol import GALLERIES, SOFT, Protocol
from src.tasks.registry import TASKS, find_task
from src.tasks.task import Task

Key = tuple[str, str, str]
"""Protocol, category and query."""


class PerQuery(NamedTuple):
    """A file that --per-query wrote."""

    path: Path
    name: str
    """What to call it: the file's stem, or its path where another file has that stem too."""
    metrics: list[str]
    rows: dict[Key, dict[str, str]]
    data: dict[str, str]
    """{protocol: data set, split and digest}"""

    @property
    def task(self) -> Task:
        """Its data set. Own triplets get the measures that the file has."""
        name = next(iter(self.data.values())).rsplit(".", 2)[0]
        if name in TASKS:
            return find_task(name)
        has = {metric.rpartition("_at")[0] for metric in self.metrics}
        categories = tuple(dict.fromkeys(category for _, category, _ in self.rows))
        has_grades = any(protocol.startswith(SOFT) for protocol in self.data)
        return OwnTriplets(name, categories, "group_recall" in has, "map" in has, has_grades)

    @property
    def split(self) -> str:
        """The split's name."""
        return next(iter(self.data.values())).rsplit(".", 2)[1]

    @property
    def is_outside(self) -> bool:
        """Whether it is of a ranking of another program."""
        return f"{SOLVED_BY}{RUN}" in next(iter(self.rows.values()))

    def known(self, protocol: str) -> list[str]:
        """Return the metrics of one protocol: all, but of a ranking of another program those that it knows."""
        if not self.is_outside:
            return self.metrics
        rows = [self.rows[key] for key in self.keys(protocol)]
        return [metric for metric in self.metrics if any(row[metric] for row in rows)]

    def keys(self, protocol: str) -> list[Key]:
        """Return the queries of one protocol."""
        return [key for key in self.rows if key[0] == protocol]

    def scores(self, keys: list[Key], metrics: Sequence[str]) -> Values:
        """Return what the queries `keys` of one protocol score, by category."""
        values = {}
        for key in keys:
            of_category = values.setdefault(key[1], {metric: [] for metric in metrics})
            for metric in metrics:
                of_category[metric].append(float(self.rows[key][metric] or "nan"))
        return {name: {m: np.array(scores) for m, scores in by_metric.items()} for name, by_metric in values.items()}


# ---- reading ----


def read_all(paths: Sequence[Path], data_path: Path) -> list[PerQuery]:
    """Read files that --per-query wrote, and after the first one rankings of other programs.

    Raises InputError for the first that cannot be used, or has no other.
    """
    if len(paths) < 2:
        raise InputError(f"{paths[0]}: needs at least two files")
    if not _is_per_query(paths[0]):
        what = "no file of validate.py --per-query, which the first must be"
        raise InputError(f"{paths[0]}: {what}; the others may be rankings of other programs")
    first = read_per_query(paths[0])
    others = [read_per_query(path) if _is_per_query(path) else _judged(path, first, data_path) for path in paths[1:]]
    stems = [path.stem for path in paths]
    return [run if stems.count(run.name) == 1 else run._replace(name=str(run.path)) for run in (first, *others)]


def _is_per_query(path: Path) -> bool:
    """Whether a file is a table, perhaps a faulty one, and not one that another program made for --run."""
    if not is_table(path):
        return False
    _, header = next(cells_of(path, "line", fault="not a CSV file"), ("", []))
    is_ours = {"protocol", "data"} <= {*header} and any(column.startswith(SOLVED_BY) for column in header)
    return is_ours or "query" not in header


def _judged(path: Path, first: PerQuery, data_path: Path) -> PerQuery:
    """Judge a ranking of another program as `first` was judged, under each of its protocols that can count it."""
    task = first.task
    options = {"run": path, "group_run": None, "protocol": ["all"]}
    protocols = [_protocol(first, name) for name in first.data]
    outside = judge_runs(task, task.read_all(data_path, first.split), protocols, options)
    header, *table = table_of([one.judged for one in outside])
    rows = [dict(zip(header, map(str, cells), strict=True)) for cells in table]
    keyed = {(row["protocol"], row["category"], row["query"]): row for row in rows}
    data = {row["protocol"]: row["data"] for row in rows}
    return PerQuery(path, path.stem, _metrics(path, header), keyed, data)


def _protocol(run: PerQuery, name: str) -> Protocol:
    """Find a protocol by the name that a file has of it, which may spell its choices."""
    task = run.task
    choices = itertools.product(task.protocols, GALLERIES, ("keep", "drop"), task.captions)
    chosen = (
        preset.chosen(task.protocols, gallery=gallery, reference=reference, captions=captions)
        for preset, gallery, reference, captions in choices
    )
    found = next((protocol for protocol in (*task.protocols, *chosen) if protocol.name == name), None)
    if found is None:
        raise InputError(f"{run.path}: {shown(name)!r} is not a protocol of {task.name}, to judge another ranking by")
    return found


def read_per_query(path: Path) -> PerQuery:
    """Read a file that --per-query wrote; raises InputError with the number of the first faulty line."""
    lines = cells_of(path, "line", fault="not a CSV file")
    _, header = next(lines, ("", []))
    metrics = _metrics(path, header)
    rows, data = {}, {}
    for line, cells in lines:
        place = f"{path}, {line}"
        if len(cells) != len(header):
            raise InputError(f"{place}: has another number of cells than the header")
        row = dict(zip(header, cells, strict=True))
        key = _checked(place, row, metrics)
        if key in rows:
            raise InputError(f"{place}: query {_named(key)} stands in it twice")
        if data.setdefault(row["protocol"], row["data"]) != row["data"]:
            raise InputError(f"{place}: its protocol has rows of two data sets")
        rows[key] = row
    if not rows or not metrics:
        raise InputError(f"{path}: holds no {'queries' if metrics else 'metrics'}")
    run = PerQuery(path, path.stem, metrics, rows, data)
    _require_complete(run)
    return run


def _named(key: Key) -> str:
    return f"{shown(key[2])} of {shown(key[1])}"


def _metrics(path: Path, header: list[str]) -> list[str]:
    lacking = [column for column in COLUMNS if column not in header]
    if lacking:
        raise InputError(f"{path}: no file of validate.py --per-query, it has no column {lacking[0]}")
    if repeated(header):
        raise InputError(f"{path}: has two columns called {shown(repeated(header)[0])}")
    if "" in header:
        raise InputError(f"{path}: has a column without a title; delete it in the spreadsheet that wrote it")
    if not any(column.startswith(SOLVED_BY) for column in header):
        raise InputError(f"{path}: no file of validate.py --per-query, it has no column {SOLVED_BY}…")
    return [column for column in header if column not in COLUMNS and not column.startswith(SOLVED_BY)]


def _checked(place: str, row: dict, metrics: list[str]) -> Key:
    """Return the key of a row; raises InputError, which begins with `place`, for a cell that holds no such value."""
    ranks = {"rank": row["rank"]} | ({"group_rank": row["group_rank"]} if row["group_rank"] else {})
    faults = [f"{shown(text)!r} is not a {name}" for name, text in ranks.items() if not PLACE.fullmatch(text)]
    faults += [
        f"{shown(row[name])!r} is not a {shown(name)}, which is from 0 to 1"
        for name in metrics
        if not _is_score(row[name])
    ]
    name, *rest = row["data"].rsplit(".", 2)
    if len(rest) != 2 or rest[0] not in TASKS.get(name, OwnTriplets).splits:
        faults.append(f"{shown(row['data'])!r} is not a data set, split and digest")
    if faults:
        raise InputError(f"{place}: {faults[0]}")
    return row["protocol"], row["category"], row["query"]


def _is_score(text: str) -> bool:
    try:
        return not text or 0 <= float(text) <= 1  # which nan is not
    except ValueError:
        return False


# ---- what can be compared ----


def _require_complete(run: PerQuery) -> None:
    """Raise InputError unless each protocol has all that the data set's measures are made of."""
    if len({data.rpartition(".")[0] for data in run.data.values()}) > 1:
        raise InputError(f"{run.path}: is of more than one data set or split: {first_ten(list(run.data.values()))}")
    for protocol in run.data:
        values = run.scores(run.keys(protocol), run.known(protocol))
        if values.keys() != set(run.task.categories):
            wanted = f"{run.task.name} has {', '.join(run.task.categories)}"
            raise InputError(f"{run.path}: protocol {shown(protocol)} has {first_ten(list(values))}, but {wanted}")
        for category, of_category in values.items():
            uncounted = [metric for metric, scores in of_category.items() if np.isnan(scores).all()]
            if uncounted:
                place = f"{category}, protocol {shown(protocol)}"
                raise InputError(f"{run.path}: no query of {place}, has a {shown(uncounted[0])}")
    measures = run.task.measures({name: dict.fromkeys(run.metrics, 0) for name in run.task.categories}, mean)
    lacking = [part for parts in run.task.means.values() for part in parts if part not in measures]
    # A ranking of another program may end before what a mean is made of.
    if lacking and not run.is_outside:
        raise InputError(f"{run.path}: has no {lacking[0]}, which {run.task.name}'s means are made of")


def shared(first: PerQuery, other: PerQuery) -> tuple[PerQuery, PerQuery, list[str]]:
    """Return both files with the protocols and metrics that both have, and a sentence for each that only one has.

    Raises InputError unless that leaves the same queries of the same data in both.
    """
    mine, theirs = (f"{run.task.name} {run.split}" for run in (first, other))
    if mine != theirs:
        raise InputError(f"{other.path}: is of {theirs}, but {first.path} of {mine}")
    one, two = _reduced(first, other), _reduced(other, first)
    for what, names, others in (("protocols", first.data, other.data), ("metrics", first.metrics, other.metrics)):
        if not set(names) & set(others):
            have = f"has {what} {first_ten(list(others))}, but {first.path} has {first_ten(list(names))}"
            raise InputError(f"{other.path}: {have}; give both the same --protocol")
    known = {protocol: [name for name in one.known(protocol) if name in two.known(protocol)] for protocol in one.data}
    _require_same_queries(one, two, known)
    unknown = [
        f"Left out: metric {first_ten(lacking)} of protocol {shown(protocol)}, which {shown(run.name)} does not know."
        for run in (one, two)
        for protocol in known
        if (lacking := [name for name in run.metrics if name not in run.known(protocol)])
    ]
    left_out = [
        f"Left out: {what} {first_ten(lacking)}, which {shown(lacks.name)} does not have."
        for has, lacks in ((first, other), (other, first))
        for what, lacking in (
            ("protocol", [name for name in has.data if name not in lacks.data]),
            ("metric", [name for name in has.metrics if name not in lacks.metrics]),
        )
        if lacking
    ]
    return one, two, left_out + unknown


def _reduced(run: PerQuery, other: PerQuery) -> PerQuery:
    """Return what is in `run` of the protocols and metrics that `other` has too."""
    data = {protocol: of for protocol, of in run.data.items() if protocol in other.data}
    rows = {key: row for key, row in run.rows.items() if key[0] in data}
    return run._replace(data=data, rows=rows, metrics=[name for name in run.metrics if name in other.metrics])


def _require_same_queries(first: PerQuery, other: PerQuery, known: dict[str, list[str]]) -> None:
    for protocol, data in first.data.items():
        if other.data[protocol] != data:
            theirs, mine = (f"{len(run.keys(protocol)):,} queries" for run in (other, first))
            what = f"(protocol {shown(protocol)}): its {theirs}, their texts, answers or galleries are not"
            raise InputError(f"{other.path}: is of other data {what} those of {first.path}, which has {mine}")
    for one, two in ((first, other), (other, first)):
        lacking = [_named(key) for key in one.rows if key not in two.rows]
        if lacking:
            count = f"{len(lacking)} of the {len(one.rows)} queries of {one.path}"
            raise InputError(f"{two.path}: lacks {count}: {first_ten(lacking)}")
    for metric in first.metrics:
        uneven = [
            _named(key)
            for key, row in first.rows.items()
            if metric in known[key[0]] and bool(row[metric]) != bool(other.rows[key][metric])
        ]
        if uneven:
            raise InputError(
                f"{other.path}: counts other queries for {shown(metric)} than {first.path}: {first_ten(uneven)}"
            )


def repeats(runs: Sequence[PerQuery], protocol: str, earlier: str) -> bool:
    """Whether each query of a protocol scores in all `runs` as under an `earlier` one, which then says the same."""

    def scored(run, name):
        columns = "rank", *run.metrics
        return {key[1:]: [run.rows[key][column] for column in columns] for key in run.keys(name)}

    return all(scored(run, protocol) == scored(run, earlier) for run in runs)


def moved_most(first: PerQuery, other: PerQuery, keys: list[Key], most: int = 20) -> list[Key]:
    """Return the queries whose rank changed by the largest factor, at most `most` of them."""

    # By factor: from 40 to 1 is news, from 500 to 461 is none.
    def factor(key):
        (early, late), (earlier, later) = (rank_of(run.rows[key]["rank"]) for run in (first, other))
        # Where one is only known to come after some places, by as much as is sure.
        if late < earlier:
            return abs(math.log(earlier / late))
        return abs(math.log(later / early)) if later < early else 0

    return [key for key in sorted(keys, key=factor, reverse=True)[:most] if factor(key)]


def rank_of(cell: str) -> tuple[int, float]:
    """Return the least and the greatest rank that a cell says: ">50" is any after the first fifty."""
    is_after, place = PLACE.fullmatch(cell).groups()
    return (int(place) + 1, math.inf) if is_after else (int(place), int(place))
