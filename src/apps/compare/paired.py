"""Two models on the same queries: differences with their intervals, and tests that pair the queries."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.stats import binomtest

from src.evaluation.intervals import DRAWS, SEED, Values, chunks, intervals, mean_of


class Difference(NamedTuple):
    """What the second model gains over the first in one measure, in points."""

    first: float
    """The first model's percent."""
    second: float
    gain: float
    low: float
    """The 95 % interval of the gain begins here."""
    high: float
    p: float
    """How often chance alone would give such a gain, if the models did not differ."""
    test: str
    wins: int
    """Queries that the second model scores higher."""
    losses: int
    ties: int


def differences(first: Values, second: Values, measures: Callable) -> dict[str, Difference]:
    """Return the Difference of each measure; both score the same queries in the same order, NaN in the same places.

    A recall of one category has the exact McNemar test, whatever else the sign-flip randomisation.
    """
    gains = {
        name: {metric: second[name][metric] - scores for metric, scores in of.items()} for name, of in first.items()
    }
    within = intervals(gains, measures)
    flips = flip_p_values(gains, measures)
    means = [measures(_means(values), mean_of) for values in (first, second, gains)]
    # Each metric stands for itself, to see which ones a measure is made of.
    parts = measures({name: {metric: [(name, metric)] for metric in of} for name, of in gains.items()}, _joined)
    found = {}
    for name, (before, after, gain) in {name: [of[name] for of in means] for name in within}.items():
        of_queries = _of_queries(gains, parts[name])
        wins, losses, ties = (int((np.sign(of_queries) == sign).sum()) for sign in (1, -1, 0))
        is_exact = len(parts[name]) == 1 and np.isin(of_queries, (-1, 0, 1)).all()
        p, test = (mcnemar(wins, losses), "McNemar") if is_exact else (flips[name], "sign flips")
        found[name] = Difference(before, after, gain, *within[name], p, test, wins, losses, ties)
    return found


def _of_queries(gains: Values, parts: list[tuple[str, str]]) -> np.ndarray:
    """Return what each query that counts gains in the `parts` (category, metric) of a measure, added up."""
    added = []
    for name in dict.fromkeys(category for category, _ in parts):
        table = np.stack([gains[name][metric] for category, metric in parts if category == name])
        added.append(np.nansum(table, axis=0)[~np.isnan(table).all(axis=0)])
    # Fractions that cancel out leave their last bits.
    return np.round(np.concatenate(added), 9)


def _means(values: Values) -> dict[str, dict[str, float]]:
    return {name: {m: 100 * float(np.nanmean(scores)) for m, scores in of.items()} for name, of in values.items()}


def _joined(parts: list[list]) -> list:
    return [part for some in parts for part in some]


def mcnemar(wins: int, losses: int) -> float:
    """Return the exact two-sided p value of McNemar's test."""
    return float(binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


def flip_p_values(gains: Values, measures: Callable, draws: int = DRAWS, seed: int = SEED) -> dict[str, float]:
    """Return the two-sided p value of each measure, from 0 to 1, by flipping the signs of queries at random.

    A flip turns all gains of a query at once, as if the models had changed places on it. Smucker, Allan and Carterette
    (CIKM 2007) compare this test with others.
    """
    generator = np.random.default_rng(seed)
    flipped = {}
    for name, of in gains.items():
        flipped[name] = dict(zip(of, _flipped(np.stack(list(of.values()), axis=1), draws, generator), strict=True))
    drawn, seen = measures(flipped, mean_of), measures(_means(gains), mean_of)
    # Sums of the same gains in another order differ in their last bits.
    return {name: float((1 + (np.abs(of) >= abs(seen[name]) - 1e-9).sum()) / (1 + draws)) for name, of in drawn.items()}


def _flipped(table: np.ndarray, draws: int, generator: np.random.Generator) -> np.ndarray:
    """Return the mean gains [metrics, draws] in points of a table [queries, metrics] after random flips."""
    counted = (~np.isnan(table)).sum(axis=0)
    # How a flip ends depends only on how many queries of each distinct row keep their sign, which is binomial.
    rows, sizes = np.unique(np.nan_to_num(table), axis=0, return_counts=True)
    totals = []
    for some in chunks(draws, len(rows)):
        kept = generator.binomial(sizes, 0.5, size=(some, len(rows)))
        totals.append((2 * kept - sizes) @ rows)
    return 100 * np.concatenate(totals).T / counted[:, None]


def holm(p_values: list[float]) -> list[float]:
    """Return p values corrected for how many there are, by the method of Holm (1979)."""
    corrected, largest = [0.0] * len(p_values), 0.0
    for place, number in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[number]))
        corrected[number] = largest
    return corrected
