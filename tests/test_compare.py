"""Two models on the same queries: what differs, whether chance explains it, and what cannot be compared."""

import json
import math
import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, permutation_test

import compare
import validate
from src.evaluation.intervals import intervals
from src.evaluation.paired import differences, flip_p_values, holm, mcnemar
from tests.commands import status_of


def alone(means, mean):
    """Name the metrics of one category, as Task.measures does."""
    (of_category,) = means.values()
    return of_category


# ---- tests and intervals ----


def test_the_exact_test_is_scipys():
    for wins in range(15):
        for losses in range(15):
            tail = sum(math.comb(wins + losses, k) for k in range(min(wins, losses) + 1)) / 2 ** (wins + losses)
            assert mcnemar(wins, losses) == pytest.approx(min(1, 2 * tail))
            if wins + losses:
                assert mcnemar(wins, losses) == pytest.approx(binomtest(wins, wins + losses).pvalue)


def test_models_that_differ_by_nothing():
    """Chance alone is found to be something in at most 5 % of cases; the interval of the gain holds 0 in 95 %."""
    generator = np.random.default_rng(0)
    nothing_found = zero_inside = 0
    for repetition in range(2000):
        first, second = (generator.random((2, 300)) < 0.45).astype(float)
        gains = second - first
        nothing_found += mcnemar(int((gains > 0).sum()), int((gains < 0).sum())) > 0.05
        low, high = intervals({"all": {"m": gains}}, alone, draws=1000, seed=repetition)["m"]
        zero_inside += low <= 0 <= high
    assert nothing_found / 2000 >= 0.95
    assert 0.93 <= zero_inside / 2000 <= 0.97


def test_sign_flips_are_scipys():
    gains = np.random.default_rng(1).normal(0.2, 1, 40).round(1)
    p = flip_p_values({"all": {"m": gains}}, alone)["m"]
    theirs = permutation_test(
        (gains,), np.mean, permutation_type="samples", n_resamples=9999, rng=np.random.default_rng(2)
    )
    assert p == pytest.approx(theirs.pvalue, abs=0.02)


def test_a_mean_of_metrics_that_differ_by_nothing():
    """R@10 and R@50 belong to one query: flipped apart, their mean seems to differ in more cases than it may."""
    generator = np.random.default_rng(3)
    rejected = 0
    for repetition in range(600):
        ranks = generator.geometric(0.04, (2, 300))
        gains = {f"recall_at{k}": np.subtract(*(ranks <= k).astype(float)) for k in (10, 50)}
        mean_alone = {"all": gains}
        p = flip_p_values(mean_alone, lambda values, mean: {"m": mean(list(values["all"].values()))}, 1000, repetition)
        rejected += p["m"] <= 0.05
    assert rejected / 600 <= 0.07


def test_a_query_counts_once_in_a_mean():
    first = {"all": {"a": np.zeros(4), "b": np.zeros(4)}}
    second = {"all": {"a": np.array([1.0, 1, 0, -1]), "b": np.array([1.0, -1, 0, 0])}}
    found = differences(first, second, lambda values, mean: {"m": mean(list(values["all"].values()))})["m"]
    # The first gains, the second neither, the third neither, the last loses.
    assert (found.wins, found.losses) == (1, 1)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]


# ---- the command ----


@pytest.fixture
def judged(options, tmp_path, capsys):
    """Judge the toy world by picture, by caption and by both; return a function that gives a file's path."""

    def judge(rung, *arguments, dataset="CIRR"):
        path = tmp_path / f"{rung}{len(list(tmp_path.glob('*.csv')))}.csv"
        function = ["--combining-function", rung, "--per-query", str(path)]
        validate.main(["--dataset", dataset, *options, *function, *arguments])
        capsys.readouterr()
        return path

    return judge


def test_gains_wins_and_losses(judged, tmp_path, capsys, world):
    first, second = judged("image"), judged("sum")
    page = tmp_path / "page.html"
    compare.main(
        [*map(str, (first, second)), "--json", str(tmp_path / "c.json"), "--page", str(page)]
        + ["--data-path", str(world)]
    )
    printed = capsys.readouterr().out
    assert "protocol clip4cir" in printed
    (told,) = json.loads((tmp_path / "c.json").read_text())["comparisons"]
    for name, of in told["differences"].items():
        assert of["second"] - of["first"] == pytest.approx(of["gain"])
        assert of["low"] <= of["gain"] <= of["high"]
        if name == "recall_at5":
            assert of["gain"] == pytest.approx(100 * (of["wins"] - of["losses"]) / 24)
            assert of["test"] == "McNemar"
    assert set(told["differences"]) >= {"recall_at1", "group_recall_at3", "mean(R@5+R_s@1)"}
    ratios = [abs(math.log(after / before)) for before, after in (query["ranks"] for query in told["moved_most"])]
    assert ratios == sorted(ratios, reverse=True)
    assert page.read_text().count('<div class="query">') == 2 * len(ratios)
    assert not re.search(r'(src|href)="http', page.read_text())


def test_a_model_beside_itself(judged, tmp_path, capsys):
    path = judged("sum", dataset="FashionIQ")
    compare.main([str(path), str(path), str(path), "--json", str(tmp_path / "c.json")])
    assert "Holm" in capsys.readouterr().out
    for comparison in json.loads((tmp_path / "c.json").read_text())["comparisons"]:
        assert comparison["moved_most"] == []
        for of in comparison["differences"].values():
            assert (of["gain"], of["low"], of["high"], of["p"], of["wins"]) == (0, 0, 0, 1, 0)


def test_what_cannot_be_compared(judged, tmp_path, capsys):
    first = judged("sum")
    soft, other = judged("sum", "--protocol", "soft"), judged("sum", dataset="FashionIQ")
    lines = first.read_text().splitlines(keepends=True)
    changed = {
        "lost": ([*lines[:5], *lines[6:]], "lacks 1 queries of"),
        "twice": ([*lines, lines[-1]], "stands there twice"),
        "torn": ([*lines[:-1], lines[-1][:40]], "line 25: has another number of cells"),
        "data": ([line.replace("CIRR.val.", "CIRR.val.0") for line in lines], "is of CIRR.val.0"),
        "empty": ([], "it has no column query"),
        "headed": (lines[:1], "holds no queries"),
    }
    for name, (content, fault) in changed.items():
        (tmp_path / f"{name}.csv").write_text("".join(content))
        changed[name] = tmp_path / f"{name}.csv", fault
    cases = [*changed.values(), (soft, "has protocols soft"), (other, "has metrics recall_at10, recall_at50")]
    for path, fault in [*cases, (tmp_path / "nowhere.csv", "no such file")]:
        assert status_of(compare.main, [first, path]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert fault in line
        assert str(path) in line
    assert status_of(compare.main, [first]) == 2


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 4000), inserted=st.text(max_size=8))
def test_a_torn_file_never_ends_in_a_traceback(cut, inserted, judged, tmp_path):
    whole = next(iter(tmp_path.glob("sum*.csv")), None) or judged("sum")
    text = whole.read_text()
    torn = tmp_path / "torn.txt"
    torn.write_text(text[:cut] + inserted + text[cut + 3 :], encoding="utf-8", errors="surrogatepass")
    assert status_of(compare.main, [whole, torn]) in (0, 2)
