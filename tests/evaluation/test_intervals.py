"""Intervals cover what they claim to, and are those of a plain bootstrap."""

import numpy as np
import pytest

from src.evaluation.intervals import intervals


def alone(means, mean):
    """Name the metrics of one category, as Task.measures does."""
    (of_category,) = means.values()
    return of_category


def average(means, mean):
    return {"average": mean([of["recall"] for of in means.values()])}


def coverage(truths, queries, measures, name, truth):
    generator = np.random.default_rng(0)
    covered = 0
    for repetition in range(2000):
        values = {
            category: {"recall": (generator.random(queries) < recall).astype(float)}
            for category, recall in truths.items()
        }
        low, high = intervals(values, measures, draws=1000, seed=repetition)[name]
        covered += low <= 100 * truth <= high
    return covered / 2000


def test_they_cover_the_truth():
    assert 0.93 <= coverage({"all": 0.45}, 400, alone, "recall", 0.45) <= 0.97


def test_they_cover_the_mean_of_categories():
    truths = {"dress": 0.3, "shirt": 0.4, "toptee": 0.5}
    assert 0.93 <= coverage(truths, 300, average, "average", 0.4) <= 0.97


@pytest.mark.parametrize("kind", ["whole", "fractional", "partly counted"])
def test_they_are_those_of_a_plain_bootstrap(kind):
    generator = np.random.default_rng(1)
    scores = generator.random(300)
    if kind == "whole":
        scores = (scores < 0.3).astype(float)
    if kind == "partly counted":
        scores[generator.random(300) < 0.5] = np.nan
    drawn = generator.integers(300, size=(10_000, 300))
    plain = np.percentile(100 * np.nanmean(scores[drawn], axis=1), [2.5, 97.5])
    assert intervals({"all": {"m": scores}}, alone)["m"] == pytest.approx(tuple(plain), abs=0.5)


def test_queries_of_one_reference_are_less_evidence():
    scores = np.repeat(np.random.default_rng(2).random(100) < 0.5, 4).astype(float)
    clusters = {"all": [f"reference {number // 4}" for number in range(400)]}
    low, high = intervals({"all": {"m": scores}}, alone)["m"]
    of_clusters = intervals({"all": {"m": scores}}, alone, clusters)["m"]
    assert of_clusters[1] - of_clusters[0] == pytest.approx(2 * (high - low), rel=0.1)


def test_the_same_scores_have_the_same_interval():
    values = {"all": {"m": np.random.default_rng(3).random(50)}}
    assert intervals(values, alone) == intervals(values, alone) != intervals(values, alone, seed=1)


@pytest.mark.parametrize(("scores", "interval"), [([1.0, 1.0, 1.0], (100, 100)), ([0.0], (0, 0))])
def test_scores_without_spread(scores, interval):
    assert intervals({"all": {"m": np.array(scores)}}, alone)["m"] == interval


def test_resamples_without_a_counted_query_are_left_out():
    scores = np.array([1.0, *[np.nan] * 19])
    assert intervals({"all": {"m": scores}}, alone)["m"] == (100, 100)
