"""Intervals of metrics: a percentile bootstrap over queries, within each category."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

DRAWS, SEED = 10_000, 0
CONFIDENCE = 0.95
DRAWN_AT_ONCE = 2**21
"""Counts held in memory at a time, some 50 MB with what is made of them."""
Values = dict[str, dict[str, np.ndarray]]
"""{category: {metric: what each query scores, from 0 to 1, NaN where the metric does not count it}}"""


def intervals(
    values: Values,
    measures: Callable,
    clusters: dict[str, Sequence[str]] | None = None,
    draws: int = DRAWS,
    seed: int = SEED,
) -> dict[str, tuple[float, float]]:
    """Return the 95 % interval (low, high) of each measure, in percent, by the percentile bootstrap (Efron, 1979).

    `measures` is Task.measures. `clusters` {category: cluster of each query} draws whole clusters instead of queries.
    """
    resampled = resamples(values, measures, clusters, draws, seed)
    tail = 100 * (1 - CONFIDENCE) / 2
    # A resample in which a metric counts no query has no mean.
    return {name: tuple(np.nanpercentile(draw, [tail, 100 - tail]).tolist()) for name, draw in resampled.items()}


def resamples(
    values: Values, measures: Callable, clusters: dict[str, Sequence[str]] | None, draws: int, seed: int
) -> dict[str, np.ndarray]:
    """Return each measure, in percent, of `draws` resamples: {measure: [draws]}."""
    generator = np.random.default_rng(seed)
    means = {}
    for category, of_category in values.items():
        table = np.stack([np.asarray(scores, dtype=np.float64) for scores in of_category.values()], axis=1)
        means[category] = dict(
            zip(of_category, _means(table, (clusters or {}).get(category), draws, generator), strict=True)
        )
    return measures(means, mean_of)


def mean_of(arrays: list[np.ndarray]) -> np.ndarray:
    """Return the mean of arrays, value by value, as Task.measures takes it."""
    return sum(arrays) / len(arrays)


def _means(table, clusters, draws, generator) -> np.ndarray:
    """Return the mean [metrics, draws] in percent of each resample of a table [queries, metrics]."""
    counted = ~np.isnan(table)
    units = np.concatenate([np.where(counted, table, 0), counted], axis=1)
    if clusters is not None:
        _, cluster = np.unique(np.asarray(clusters), return_inverse=True)
        sums = np.zeros((cluster.max() + 1, units.shape[1]))
        np.add.at(sums, cluster, units)
        units = sums
    # A resample's mean depends only on how often each distinct row was drawn. There are few: CIRR's seven recalls
    # make some twenty.
    rows, sizes = np.unique(units, axis=0, return_counts=True)
    metrics, means = table.shape[1], []
    for at_once in chunks(draws, len(rows)):
        counts = generator.multinomial(len(units), sizes / len(units), size=at_once)
        totals = counts @ rows
        with np.errstate(invalid="ignore"):
            means.append(100 * totals[:, :metrics] / totals[:, metrics:])
    return np.concatenate(means).T


def chunks(draws: int, rows: int) -> Iterator[int]:
    """Yield how many of `draws` to make at a time, when each counts `rows` rows."""
    at_once = max(1, DRAWN_AT_ONCE // rows)
    for start in range(0, draws, at_once):
        yield min(at_once, draws - start)
