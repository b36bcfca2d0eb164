"""Two models on the same queries: differences with their intervals, and tests that pair the queries."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.stats import binomtest

from src.evaluation.intervals import DRAWS, SEED, Values, intervals, mean_of


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


def differences(first: Values, second: Values, measures: Callable) -> dict[str, Difference]:
    """Return the Difference of each measure; both are scores of the same queries in the same order.

    A recall of one category has the exact McNemar test, whatever else the sign-flip randomisation.
    """
    gains = {
        name: {metric: second[name][metric] - scores for metric, scores in of.items()} for name, of in first.items()
    }
    within = intervals(gains, measures)
    flips = flip_p_values(gains, measures)
    means = [measures(_means(values), mean_of) for values in (first, second, gains)]
    exact = measures({name: {metric: [scores] for metric, scores in of.items()} for name, of in gains.items()}, _joined)
    found = {}
    for name, (before, after, gain) in {name: [of[name] for of in means] for name in within}.items():
        parts = exact[name]
        wins, losses = (int(sum((sign * part > 0).sum() for part in parts)) for sign in (1, -1))
        is_exact = len(parts) == 1 and set(np.unique(parts[0][~np.isnan(parts[0])])) <= {-1.0, 0.0, 1.0}
        p, test = (mcnemar(wins, losses), "McNemar") if is_exact else (flips[name], "sign flips")
        found[name] = Difference(before, after, gain, *within[name], p, test, wins, losses)
    return found


def _means(values: Values) -> dict[str, dict[str, float]]:
    return {name: {m: 100 * float(np.nanmean(scores)) for m, scores in of.items()} for name, of in values.items()}


def _joined(parts: list[list]) -> list:
    return [scores for part in parts for scores in part]


def mcnemar(wins: int, losses: int) -> float:
    """Return the exact two-sided p value of McNemar's test."""
    return float(binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


def flip_p_values(gains: Values, measures: Callable, draws: int = DRAWS, seed: int = SEED) -> dict[str, float]:
    """Return the two-sided p value of each measure by flipping the signs of the queries' gains at random."""
    generator = np.random.default_rng(seed)
    # How a flip ends depends only on how many gains of each size become positive, which is binomial.
    flipped = {
        name: {metric: _flipped(scores, draws, generator) for metric, scores in of.items()}
        for name, of in gains.items()
    }
    drawn, seen = measures(flipped, mean_of), measures(_means(gains), mean_of)
    # Sums of the same gains in another order differ in their last bits.
    return {name: float((1 + (np.abs(of) >= abs(seen[name]) - 1e-9).sum()) / (1 + draws)) for name, of in drawn.items()}


def _flipped(scores: np.ndarray, draws: int, generator: np.random.Generator) -> np.ndarray:
    """Return the mean gain [draws] in points after random flips."""
    sizes, counts = np.unique(np.abs(scores[~np.isnan(scores)]), return_counts=True)
    positive = generator.binomial(counts, 0.5, size=(draws, len(counts)))
    return 100 * ((2 * positive - counts) @ sizes) / counts.sum()


def holm(p_values: list[float]) -> list[float]:
    """Return p values corrected for how many there are, by Holm's method."""
    corrected, largest = [0.0] * len(p_values), 0.0
    for place, number in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[number]))
        corrected[number] = largest
    return corrected
