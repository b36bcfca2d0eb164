"""Per-query results as CSV, which compare.py, pandas and spreadsheets read."""

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from src.base.files import ESCAPING, replacing
from src.command.text import cell
from src.evaluation.judged import Judged

COLUMNS = (
    "query",
    "category",
    "protocol",
    "data",
    "reference",
    "caption",
    "target",
    "rank",
    "group_rank",
    "answers",
)
"""The first columns. One for each combining function follows, and one for each metric."""
SOLVED_BY = "solved_by_"
"""How the columns of the combining functions begin."""
ANSWERS = 10


def write_per_query(path: Path, all_judged: list[Judged]) -> None:
    """Write the table of what was judged."""
    with replacing(path) as unfinished, unfinished.open("w", newline="", **ESCAPING) as file:
        csv.writer(file, lineterminator="\n").writerows(table_of(all_judged))


def table_of(all_judged: list[Judged]) -> Iterator[list]:
    """Yield a header, then a row for each query of each protocol: ranks from 1, and each metric's score from 0 to 1."""
    metrics = dict.fromkeys(
        metric
        for judged in all_judged
        for category in judged.categories.values()
        for metric in category.scores[judged.rung]
    )
    solvers = [f"{SOLVED_BY}{function.name}" for function in all_judged[0].listed()]
    yield [*COLUMNS, *solvers, *metrics]
    for judged in all_judged:
        yield from _rows(judged, list(metrics))


def _rows(judged: Judged, metrics: list[str]) -> Iterator[list]:
    data = judged.data
    for name, category in judged.categories.items():
        ranks = _places(category.ranks, category.beyond)
        group_ranks = [""] * len(ranks)
        if category.group_ranks is not None:
            group_ranks = _places(category.group_ranks, category.group_beyond)
        # The Combiner's column stays empty where a CLIP was judged without one.
        rungs = [category.solved.get(function.name) for function in judged.listed()]
        solved = [[""] * len(ranks) if rung is None else rung.astype(int).tolist() for rung in rungs]
        # Of a ranking that ends early one protocol may know a metric that another does not.
        known, nothing = category.scores[judged.rung], np.full(len(ranks), np.nan)
        scores = [[cell(value) for value in known.get(metric, nothing).tolist()] for metric in metrics]
        for number, query in enumerate(category.queries):
            triplet = query.triplet
            yield [
                *(query.id, name, judged.protocol.name, data, triplet.reference, " | ".join(query.texts)),
                *("|".join(triplet.targets), ranks[number], group_ranks[number]),
                "|".join(category.best[number][:ANSWERS]),
                *(column[number] for column in (*solved, *scores)),
            ]


def _places(ranks: np.ndarray, beyond: np.ndarray | None) -> list[int | str]:
    """Return ranks from 1 as cells; one that is only known to come after the first fifty is ">50"."""
    places = (ranks + 1).tolist()
    if beyond is None:
        return places
    return [f">{place - 1}" if is_beyond else place for place, is_beyond in zip(places, beyond.tolist(), strict=True)]
