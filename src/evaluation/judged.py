"""Results of judging a model under one protocol, as lines for a terminal and as plain values."""

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from src.command.combining import CombiningFunction
from src.command.terminal import PROSE, filled
from src.command.text import text_table
from src.evaluation.intervals import intervals
from src.retrieval.metrics import of_groups
from src.tasks.protocol import Protocol
from src.tasks.task import Task
from src.tasks.triplets import Query

Measures = dict[str, float]


class JudgedCategory(NamedTuple):
    """The queries of one category and what they got. All arrays are of numpy; ranks count from 0."""

    queries: list[Query]
    gallery: list[str]
    """Names of the pictures that were ranked."""
    ranked: list[int]
    """How many of them each query ranks: one fewer where the reference leaves."""
    recalls: dict[str, float]
    """{metric: percent}, as the published code rounds."""
    scores: dict[str, dict[str, np.ndarray]]
    """{combining function: {metric: what each query scores, from 0 to 1}}"""
    ranks: np.ndarray
    group_ranks: np.ndarray | None
    solved: dict[str, np.ndarray]
    """{combining function: whether each target is among the first}, up to the protocol's smallest cut-off."""
    best: list[list[str]]
    """Names of each query's first answers."""
    similarities: np.ndarray
    """Their cosine similarities [queries, answers]."""
    group_best: list[list[str]] | None
    """Names of each group's other members, best first."""
    features: str | None
    """SHA-256 of the gallery's features; None for a ranking of another program."""
    beyond: np.ndarray | None = None
    """Where a rank is not known, and `ranks` has the first place that is possible. None where all are known."""
    group_beyond: np.ndarray | None = None
    """The same of `group_ranks`."""


class Judged(NamedTuple):
    """A model's answers under one protocol."""

    task: Task
    split: str
    protocol: Protocol
    rung: str
    """The name of the combining function that was judged."""
    categories: dict[str, JudgedCategory]
    chance: Measures
    functions: Sequence[CombiningFunction]
    """All combining functions there are, weakest first; those that ranked are the rungs of the ladder."""

    def recalls(self) -> dict[str, Measures]:
        """Return {category: {metric: percent}}."""
        return {name: category.recalls for name, category in self.categories.items()}

    def measures(self) -> Measures:
        """Return every metric, and the means that papers report, in percent."""
        return self.task.measures(self.recalls())

    def rungs(self) -> list[CombiningFunction]:
        """Return the functions that ranked, weakest first."""
        scored = next(iter(self.categories.values())).scores
        return [function for function in self.functions if function.name in scored]

    def reported(self) -> list[CombiningFunction]:
        """Return the rungs of a report's ladder, the one that was judged last."""
        rungs = [rung for rung in self.rungs() if rung.is_listed or rung.name == self.rung]
        return sorted(rungs, key=lambda rung: rung.name == self.rung)

    def listed(self) -> list[CombiningFunction]:
        """Return the functions that per-query files list, weakest first, whether they ranked or not."""
        return [function for function in self.functions if function.is_listed]

    def shortcuts(self) -> list[CombiningFunction]:
        """Return the functions that ignore a part of the query."""
        return [function for function in self.functions if function.is_shortcut]

    @property
    def label(self) -> str:
        """What tables call the function that was judged."""
        return next(function.label for function in self.functions if function.name == self.rung)

    def of_rung(self, rung: str, hard: bool = False) -> Measures:
        """Return the measures of a rung in percent, on all queries or only on the `hard` ones."""
        scores = {
            name: self._hard_scores(category, rung) if hard else category.scores[rung]
            for name, category in self.categories.items()
        }
        return self.task.measures(
            {
                name: {metric: percent(values) for metric, values in of_category.items()}
                for name, of_category in scores.items()
            }
        )

    def _hard_scores(self, category: JudgedCategory, rung: str) -> dict[str, np.ndarray]:
        mask = self.is_hard(category)
        scores = {metric: values[mask] for metric, values in category.scores[rung].items()}
        if "map" not in scores:
            return scores
        # What stands in the row of a group's first query is of all its queries.
        triplets = [query.triplet for query, is_hard in zip(category.queries, mask, strict=True) if is_hard]
        return scores | of_groups(scores["map"], triplets)

    def is_hard(self, category: JudgedCategory) -> np.ndarray:
        """A mask [queries] of a category's queries that no shortcut solves."""
        return ~np.any([category.solved[shortcut.name] for shortcut in self.shortcuts()], axis=0)

    def hard_queries(self) -> int:
        """The number of queries that no shortcut solves."""
        return sum(int(self.is_hard(category).sum()) for category in self.categories.values())

    def has_hard_queries(self) -> bool:
        """Whether shortcuts ranked and every category has such a query, so that there is a score on them."""
        return bool(self.shortcuts()) and all(self.is_hard(category).any() for category in self.categories.values())

    def headline(self) -> tuple[str, ...]:
        """Return the columns that a ladder shows: the data set's, as far as they are known."""
        known = self.measures()
        return tuple(name for name in self.task.headline if name in known)

    def intervals(self, cluster: str | None) -> dict[str, tuple[float, float]]:
        """Return the 95 % interval (low, high) of each measure; `cluster` "reference" draws references."""
        values = {name: category.scores[self.rung] for name, category in self.categories.items()}
        clusters = {
            name: [query.triplet.reference for query in category.queries] for name, category in self.categories.items()
        }
        return intervals(values, self.task.measures, clusters if cluster == "reference" else None)

    @property
    def repeats(self) -> bool:
        """Whether a soft protocol has no grades but 1 for the targets, so that it counts as the hard one does."""
        triplets = [query.triplet for category in self.categories.values() for query in category.queries]
        grades = [{name: grade for name, grade in triplet.graded if grade > 0} for triplet in triplets]
        hard = [dict.fromkeys(triplet.targets[:1], 1) for triplet in triplets]
        return self.protocol.soft and grades == hard

    def described(self) -> str:
        """Return data set, split, protocol, queries and galleries in a line."""
        categories = {
            name: ([query.triplet for query in category.queries], len(category.gallery))
            for name, category in self.categories.items()
        }
        return f"{self.task.name} {self.split}, {self.protocol.described(categories)}"

    def digest(self) -> str:
        """Return the SHA-256 of all that makes a score comparable: protocol, galleries and queries."""

        groups = {}

        def plain(triplet):
            graded = triplet.graded if self.protocol.soft else ()
            group = triplet.group
            if self.protocol.gallery == "group":
                # Thousands of queries may share a group of thousands: its names once, then its number.
                seen = len(groups)
                number = groups.setdefault(group, seen)
                group = group if number == seen else number
            return triplet.reference, triplet.captions, triplet.targets, group, graded, triplet.aspects

        queries = {
            name: [category.gallery, [[query.id, query.texts, plain(query.triplet)] for query in category.queries]]
            for name, category in self.categories.items()
        }
        rules = self.protocol._replace(name="")._asdict()
        # Digests of earlier versions, which did not have this rule, stay.
        if not rules["by_trapezoid"]:
            del rules["by_trapezoid"]
        return hashlib.sha256(json.dumps([self.task.name, self.split, [*rules.values()], queries]).encode()).hexdigest()

    @property
    def data(self) -> str:
        """Data set, split and the start of the digest, which a per-query file repeats in each row."""
        return f"{self.task.name}.{self.split}.{self.digest()[:12]}"


def percent(scores: np.ndarray) -> float:
    """Return the mean in percent of those of `scores` that are no NaN; NaN where all are."""
    counted = scores[~np.isnan(scores)]
    return 100 * float(counted.mean()) if len(counted) else math.nan


def text_of(judged: Judged, cluster: str | None) -> Iterator[str]:
    """Yield lines for a terminal: every measure with its interval, the ladder, and the score without shortcuts."""
    yield filled(judged.described(), indent="  ")
    yield ""
    within, measures = judged.intervals(cluster), judged.measures()
    rows = [
        [name, f"{value:.2f}", f"{within[name][0]:.2f}", f"{within[name][1]:.2f}"] for name, value in measures.items()
    ]
    yield text_table(["%", judged.label, "from", "to (95 %)"], rows)
    yield ""
    headline = judged.headline()
    yield text_table(["%", *headline], list(ladder(judged, headline)))
    if not judged.shortcuts():
        return
    queries = sum(len(category.queries) for category in judged.categories.values())
    shortcuts = " nor by ".join(shortcut.label for shortcut in judged.shortcuts())
    yield filled(
        f"no shortcut: only the {judged.hard_queries():,} of {queries:,} queries whose target is not among "
        f"the first {judged.protocol.at[0]} by {shortcuts}",
        longest=PROSE,
    )


def ladder(judged: Judged, headline: tuple[str, ...]) -> Iterator[list[str]]:
    """Yield rows of strings: chance, every rung, and the judged one without what a shortcut solves."""
    rows = [("chance", judged.chance), *((rung.label, judged.of_rung(rung.name)) for rung in judged.rungs())]
    if judged.has_hard_queries():
        rows.append((f"{judged.label}, no shortcut", judged.of_rung(judged.rung, hard=True)))
    for label, measures in rows:
        # What chance is worth is not known of every measure.
        yield [label, *(f"{measures[metric]:.2f}" if metric in measures else "–" for metric in headline)]


def _or_none(measures: Measures) -> dict[str, float | None]:
    """Return measures with None for NaN, which JSON does not have."""
    return {name: None if math.isnan(value) else value for name, value in measures.items()}


def _one_or_span(numbers: Sequence[int]) -> int | list[int]:
    """Return the number that all are, or the least and the greatest."""
    least, greatest = min(numbers), max(numbers)
    return least if least == greatest else [least, greatest]


def plain(judged: Judged, cluster: str | None) -> dict:
    """Return it as plain values, for JSON."""
    within, measures = judged.intervals(cluster), judged.measures()
    categories = judged.categories
    return {
        "protocol": judged.protocol.name,
        "gallery": judged.protocol.gallery,
        "reference": judged.protocol.reference,
        "captions": judged.protocol.captions,
        "targets": "soft" if judged.protocol.soft else "hard",
        "data": judged.data,
        "data_sha256": judged.digest(),
        "features_sha256": {name: category.features for name, category in categories.items()},
        "gallery_size": {name: len(category.gallery) for name, category in categories.items()},
        "ranked": {name: _one_or_span(category.ranked) for name, category in categories.items()},
        "queries": {name: len(category.queries) for name, category in categories.items()},
        "metrics": {
            name: {"percent": value, "low": within[name][0], "high": within[name][1]}
            for name, value in measures.items()
        },
        "ladder": {"chance": judged.chance, **{rung.name: judged.of_rung(rung.name) for rung in judged.rungs()}},
        "without_shortcuts": None
        if not judged.shortcuts()
        else {
            "queries": judged.hard_queries(),
            "solved_within": judged.protocol.at[0],
            "metrics": _or_none(judged.of_rung(judged.rung, hard=True)) if judged.has_hard_queries() else None,
        },
    }
