"""Two models on the same queries: what differs, whether chance explains it, and what cannot be compared."""

import csv
import functools
import io
import json
import math
import re
import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, permutation_test

import compare
import validate
from src.apps.compare.paired import differences, flip_p_values, holm, mcnemar
from src.evaluation.intervals import intervals
from src.tasks.registry import TASKS
from tests.evaluation.test_intervals import alone
from tests.support.browsers import DESK, PHONE, opened, require_pictures
from tests.support.commands import status_of, toy_options
from tests.support.processes import python

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


def test_sign_flips_of_a_mean_over_categories_are_scipys():
    generator = np.random.default_rng(3)
    gains = {"dress": generator.normal(0.2, 1, 40), "shirt": generator.normal(0.2, 1, 15)}
    gains["shirt"][:3] = np.nan

    def average(means, mean):
        return {"average": mean([of["m"] for of in means.values()])}

    p = flip_p_values({name: {"m": of} for name, of in gains.items()}, average)["average"]
    # What a query adds to the mean over categories depends on how many its category has.
    parts = np.concatenate([of[~np.isnan(of)] / np.isfinite(of).sum() for of in gains.values()])
    theirs = permutation_test(
        (parts,), np.sum, permutation_type="samples", n_resamples=9999, rng=np.random.default_rng(4)
    )
    assert p == pytest.approx(theirs.pvalue, abs=0.02)


def test_a_mean_of_equal_metrics_is_as_likely_as_each():
    gains = np.random.default_rng(5).choice([-1.0, 0.0, 1.0], size=200, p=[0.2, 0.5, 0.3])

    def with_mean(means, mean):
        return means["all"] | {"mean": mean([means["all"]["a"], means["all"]["b"]])}

    p = flip_p_values({"all": {"a": gains, "b": gains}}, with_mean)
    assert p["mean"] == p["a"] == p["b"]


def test_means_of_models_that_differ_by_nothing():
    """Recall at 10 and at 50 go together, which must not make their mean look more certain than it is."""
    generator, task, found = np.random.default_rng(6), TASKS["FashionIQ"], 0
    for _ in range(1000):
        gains = {}
        for category in task.categories:
            first, second = generator.random((2, 200))
            gains[category] = {f"recall_at{k}": (second < at) - 1.0 * (first < at) for k, at in ((10, 0.3), (50, 0.5))}
        found += flip_p_values(gains, task.measures, draws=1000)["average_recall"] <= 0.05
    assert 0.03 <= found / 1000 <= 0.07


def test_a_mean_counts_each_query_once():
    group, gallery = np.array([0, 1, 0, 1, 0.0]), np.array([0, 1, 1, 0, 0.0])
    first = {"rc2": {"group_recall_at1": np.zeros(5), "recall_at5": np.array([0, 0, 0, 1, 1.0])}}
    second = {"rc2": {"group_recall_at1": group, "recall_at5": gallery}}
    found = differences(first, second, TASKS["CIRR"].measures)
    assert [(of.wins, of.losses, of.ties) for of in found.values()] == [(2, 0, 3), (2, 2, 1), (2, 1, 2)]
    assert [of.test for of in found.values()] == ["McNemar", "McNemar", "sign flips"]
    assert [of.gain for of in found.values()] == pytest.approx([40, 0, 20])


def test_a_metric_counts_the_queries_that_have_it():
    first = {"all": {"m": np.array([0.0, np.nan, 1, 0])}}
    second = {"all": {"m": np.array([1.0, np.nan, 1, 0])}}
    of = differences(first, second, alone)["m"]
    assert (of.wins, of.losses, of.ties) == (1, 0, 2)
    assert (of.first, of.second, of.gain) == pytest.approx((100 / 3, 200 / 3, 100 / 3))


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]


# ---- the command ----


@pytest.fixture(scope="module")
def judge(world, tmp_path_factory):
    """Return a function that judges the toy world by a combining function, once, and gives its per-query file."""

    @functools.cache
    def path_of(rung, *arguments, dataset="CIRR"):
        folder = tmp_path_factory.mktemp("judged")
        function = ["--combining-function", rung, "--per-query", str(folder / f"{rung}.csv")]
        where = str(world / dataset) if dataset == "my_pictures" else dataset
        validate.main(["--dataset", where, *toy_options(world, folder), *function, *arguments])
        return folder / f"{rung}.csv"

    return path_of


@pytest.fixture
def judged(judge, tmp_path, capsys):
    """Return a function that gives the path of such a file, which a test may change."""

    def copy(*how, **options):
        number = len(list(tmp_path.glob("*.csv")))
        path = judge(*how, **options)
        capsys.readouterr()
        return shutil.copy(path, tmp_path / f"{path.stem}{number}.csv")

    return copy


def test_gains_wins_and_losses(judged, tmp_path, capsys, world):
    first, second = judged("image"), judged("sum")
    page = tmp_path / "page.html"
    compare.main(
        [*map(str, (first, second)), "--json", str(tmp_path / "c.json"), "--page", str(page)]
        + ["--data-path", str(world)]
    )
    printed = capsys.readouterr().out
    assert f"{second.stem} beside {first.stem}: CIRR val, protocol clip4cir, 24 queries\n" in printed
    assert max(map(len, printed.splitlines()[:-1])) <= 110  # the last names the page
    (told,) = json.loads((tmp_path / "c.json").read_text())["comparisons"]
    for name, of in told["differences"].items():
        assert of["second"] - of["first"] == pytest.approx(of["gain"])
        assert of["low"] <= of["gain"] <= of["high"]
        assert of["wins"] + of["losses"] + of["ties"] == 24
        if name == "recall_at5":
            assert of["gain"] == pytest.approx(100 * (of["wins"] - of["losses"]) / 24)
            assert of["test"] == "McNemar"
    assert set(told["differences"]) >= {"recall_at1", "group_recall_at3", "mean(R@5+R_s@1)"}
    ratios = [abs(math.log(after / before)) for before, after in (query["ranks"] for query in told["moved_most"])]
    assert ratios == sorted(ratios, reverse=True)
    text = page.read_text()
    assert text.count('<div class="query">') == len(ratios)
    # A target that neither model has among its five stands apart.
    missed = sum(min(query["ranks"]) > 5 for query in told["moved_most"])
    assert missed
    assert text.count("<img") == len(ratios) * (1 + 2 * 5) + missed
    found = sum(rank <= 5 for query in told["moved_most"] for rank in query["ranks"])
    assert text.count('class="target"') == found + missed
    assert not re.search(r'(src|href)="http', text)


@pytest.mark.parametrize("turned", [False, True])
def test_protocols_that_only_one_file_has_are_left_out(turned, judged, tmp_path, capsys):
    few, all_of_them = judged("image", dataset="FashionIQ"), judged("sum", "--protocol", "all", dataset="FashionIQ")
    files = (all_of_them, few) if turned else (few, all_of_them)
    compare.main([*map(str, files), "--json", str(tmp_path / "c.json")])
    left_out = f"Left out: protocol covr, val, searle, which {few.stem} does not have."
    assert left_out in " ".join(capsys.readouterr().out.split())
    told = json.loads((tmp_path / "c.json").read_text())
    assert told["left_out"] == [left_out]
    assert [comparison["protocol"] for comparison in told["comparisons"]] == ["clip4cir"]


def test_files_that_share_different_protocols_with_the_first(judged, tmp_path, capsys):
    """Each is compared under what it has, and p values are corrected for those who have it."""
    every = judged("sum", "--protocol", "all", dataset="FashionIQ")
    one, two = judged("image", dataset="FashionIQ"), judged("image", "--protocol", "val", dataset="FashionIQ")
    compare.main([*map(str, (every, one, two)), "--json", str(tmp_path / "c.json")])
    told = json.loads((tmp_path / "c.json").read_text())
    assert [comparison["protocol"] for comparison in told["comparisons"]] == ["clip4cir", "val"]
    assert told["p_values"] == "uncorrected"
    assert "Holm" not in capsys.readouterr().out


def test_a_metric_that_only_one_file_has_is_left_out(judged, tmp_path, capsys):
    first, second = judged("image", dataset="my_pictures"), judged("sum", dataset="my_pictures")
    with second.open(newline="") as file:
        rows = [[*row, "further" if number == 0 else "1"] for number, row in enumerate(csv.reader(file))]
    with second.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    compare.main([str(first), str(second)])
    left_out = f"Left out: metric further, which {first.stem} does not have."
    assert left_out in " ".join(capsys.readouterr().out.split())


def test_a_protocol_that_says_the_same_is_not_printed_again(judged, tmp_path, capsys):
    """The toy world grades no picture but the target."""
    first, second = judged("image", "--protocol", "all"), judged("sum", "--protocol", "all")
    compare.main([*map(str, (first, second)), "--json", str(tmp_path / "c.json")])
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.count("protocol clip4cir, 24 queries") == 1
    assert "protocol soft, 24 queries" not in printed
    same = f"Left out for {second.stem}: protocol soft, under which each query scores as under clip4cir."
    assert same in printed
    told = json.loads((tmp_path / "c.json").read_text())
    assert same in told["left_out"]
    assert [comparison["protocol"] for comparison in told["comparisons"]] == ["clip4cir"]


@pytest.mark.parametrize("columns", ["80", "100"])
def test_it_fits_the_terminal(columns, judged, monkeypatch, capsys):
    first, second = judged("image"), judged("sum")
    monkeypatch.setenv("COLUMNS", columns)
    compare.main([str(first), str(second)])
    assert max(map(len, capsys.readouterr().out.splitlines())) <= int(columns)


@pytest.mark.parametrize("size", [DESK, PHONE])
def test_the_page_has_gains_and_losses_apart(judged, tmp_path, world, browser, size):
    files = judged("image"), judged("sum")
    page, json_file = tmp_path / "page.html", tmp_path / "c.json"
    compare.main([*map(str, files), "--json", str(json_file), "--page", str(page), "--data-path", str(world)])
    (told,) = json.loads(json_file.read_text())["comparisons"]
    gains = [tuple(query["ranks"]) for query in told["moved_most"] if query["ranks"][1] < query["ranks"][0]]
    losses = [tuple(query["ranks"]) for query in told["moved_most"] if query["ranks"][1] > query["ranks"][0]]
    assert gains
    assert losses
    with opened(browser, page.as_uri(), size) as page:
        require_pictures(page)
        change = f"rank in {files[0].stem} → rank in {files[1].stem}"
        assert page.locator("h3").all_inner_texts() == [f"Gains: {change}", f"Losses: {change}"]
        remarks = page.locator(".query > div:not(.answers) > .rank").all_inner_texts()
        shown = [tuple(map(int, re.search(r"rank (\d+) → (\d+)", remark).groups())) for remark in remarks]
        assert shown == [*gains, *losses]
        assert page.locator("nav a").count() == 2


def test_a_missing_picture_is_named(judged, broken_world, capsys):
    first, second = judged("image"), judged("sum")
    for picture in (broken_world / "cirr_dataset" / "dev").iterdir():
        picture.unlink()
    page = broken_world / "page.html"
    assert status_of(compare.main, [first, second, "--page", page, "--data-path", broken_world]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(broken_world / "cirr_dataset" / "dev") in line
    assert not page.exists()


def test_a_model_beside_itself(judged, tmp_path, capsys):
    path = judged("sum", dataset="FashionIQ")
    compare.main([str(path), str(path), str(path), "--json", str(tmp_path / "c.json")])
    assert "Holm" in capsys.readouterr().out
    told = json.loads((tmp_path / "c.json").read_text())
    assert told["p_values"] == "Holm"
    for comparison in told["comparisons"]:
        assert comparison["moved_most"] == []
        for of in comparison["differences"].values():
            assert (of["gain"], of["low"], of["high"], of["p"], of["wins"]) == (0, 0, 0, 1, 0)


def test_rows_and_columns_in_another_order(judged, tmp_path, capsys):
    path = judged("sum")
    with path.open(newline="") as file:
        rows = [row[::-1] for row in csv.reader(file)]
    (tmp_path / "copy").mkdir()
    other = tmp_path / "copy" / path.name
    with other.open("w", newline="") as file:
        csv.writer(file).writerows([rows[0], *rows[:0:-1]])
    compare.main([str(path), str(other), "--json", str(tmp_path / "c.json")])
    # Two files of one stem are told apart by their paths.
    assert f"{other} beside {path}: " in capsys.readouterr().out
    (told,) = json.loads((tmp_path / "c.json").read_text())["comparisons"]
    assert {(of["wins"], of["losses"], of["ties"]) for of in told["differences"].values()} == {(0, 0, 24)}


def test_what_a_terminal_cannot_show(judged, tmp_path, capsys):
    first, second = judged("image"), judged("sum")
    for path in (first, second):
        with path.open(newline="") as file:
            header, *rows = csv.reader(file)
        for row in rows:
            row[header.index("caption")] = "in\ntwo \x1b[31m lines"
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([header, *rows])
    compare.main([str(first), str(second)])
    printed = capsys.readouterr().out
    assert "in two" in printed
    assert "\x1b" not in printed


def test_it_needs_no_torch():
    code = "import sys, compare; sys.exit('torch' in sys.modules)"
    assert python("-c", code, check=False).returncode == 0


def changed_cell(lines, number, column, value):
    """Return the lines of a CSV file with another cell in line `number`, which counts from 1."""
    rows = list(csv.reader(lines))
    rows[number - 1][rows[0].index(column)] = value
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().splitlines(keepends=True)


def test_what_cannot_be_compared(judged, tmp_path, capsys):
    first = judged("sum")
    soft, other = judged("sum", "--protocol", "soft"), judged("sum", dataset="FashionIQ")
    lines = first.read_text().splitlines(keepends=True)
    changed = {
        "lost": ([*lines[:5], *lines[6:]], "lacks 1 of the 24 queries of"),
        "twice": ([*lines, lines[-1]], "line 26: query 23 of rc2 stands in it twice"),
        "torn": ([*lines[:-1], lines[-1][:40]], "line 25: has another number of cells"),
        "data": (
            [line.replace("CIRR.val.", "CIRR.val.0") for line in lines],
            "is of other data (protocol clip4cir): its 24 queries",
        ),
        "split": ([line.replace("CIRR.val.", "CIRR.") for line in lines], "line 2: 'CIRR."),
        "two": (changed_cell(lines, 7, "data", "CIRR.val.0"), "line 7: its protocol has rows of two data sets"),
        "empty": ([], "it has no column query"),
        "headed": (lines[:1], "holds no queries"),
        "uneven": (changed_cell(lines, 7, "recall_at5", ""), "counts other queries for recall_at5"),
        "unquoted": ([*lines[:6], lines[6].replace(",", ',"a"b,', 1)], "line 7: not a CSV file"),
    }
    for name, (content, fault) in changed.items():
        (tmp_path / f"{name}.csv").write_text("".join(content))
        changed[name] = tmp_path / f"{name}.csv", fault
    (tmp_path / "bytes.csv").write_bytes("".join(lines[:3]).encode() + b"\xff\xfe")
    changed["bytes"] = tmp_path / "bytes.csv", "line 4: not UTF-8"
    cases = [*changed.values(), (soft, "has protocols soft"), (other, "is of FashionIQ val, but")]
    for path, fault in [*cases, (tmp_path / "nowhere.csv", "no such file")]:
        assert status_of(compare.main, [first, path]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert fault in line
        assert str(path) in line
    assert status_of(compare.main, [first]) == 2


@pytest.mark.parametrize("column", ["rank", "group_rank", "recall_at1"])
@pytest.mark.parametrize("value", ["1.5", "-1", "x", "nan", "inf", "1e308", "9" * 400])
def test_cells_that_are_no_such_number(column, value, judged, tmp_path, capsys):
    path = judged("sum")
    path.write_text("".join(changed_cell(path.read_text().splitlines(keepends=True), 9, column, value)))
    assert status_of(compare.main, [path, path]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{path}, line 9: " in line
    assert f"is not a {column}" in line


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("group_recall_at1", "group_recall_at9", "has no group_recall_at1, which CIRR's means are made of"),
        ("recall_at10", "recall_at1", "has two columns called recall_at1"),
        (",rc2,", ",rc1,", "has rc1, but CIRR has rc2"),
    ],
)
def test_files_that_lack_a_part(old, new, fault, judged, capsys):
    """Such a file is refused beside itself too: no measure could be made of it."""
    path = judged("sum")
    text = path.read_text()
    path.write_text(re.sub(rf"(?<=,){old}(?=,)" if "," not in old else old, new, text))
    assert status_of(compare.main, [path, path]) == 2
    assert fault in capsys.readouterr().err


def test_a_metric_that_no_query_counts_for(judged, capsys):
    path = judged("sum")
    lines = path.read_text().splitlines(keepends=True)
    for number in range(2, 26):
        lines = changed_cell(lines, number, "recall_at5", "")
    path.write_text("".join(lines))
    assert status_of(compare.main, [path, path]) == 2
    assert "has a recall_at5" in capsys.readouterr().err


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 4000), inserted=st.text(max_size=8))
def test_a_torn_file_never_ends_in_a_traceback(cut, inserted, judged, tmp_path):
    whole = next(iter(tmp_path.glob("sum*.csv")), None) or judged("sum")
    text = whole.read_text()
    torn = tmp_path / "torn.txt"
    torn.write_text(text[:cut] + inserted + text[cut + 3 :], encoding="utf-8", errors="surrogatepass")
    for first in (whole, torn):
        assert status_of(compare.main, [first, torn]) in (0, 2)


def test_what_a_spreadsheet_makes_of_a_file(judged, tmp_path, capsys):
    path = judged("sum")
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    for name, delimiter in (("semicolons", ";"), ("tabs", "\t")):
        other = tmp_path / f"{name}.csv"
        with other.open("w", newline="", encoding="utf-8-sig") as file:
            csv.writer(file, delimiter=delimiter).writerows([*rows, [""] * len(rows[0])])
        compare.main([str(path), str(other)])
        assert f"{name} beside {path.stem}: CIRR val" in capsys.readouterr().out
    other.write_text("\n".join(f"{line}," for line in path.read_text().splitlines()))
    assert status_of(compare.main, [path, other]) == 2
    assert "has a column without a title" in capsys.readouterr().err


def test_files_that_cannot_be_written_are_found_first(judged, world, tmp_path, capsys):
    path = judged("sum")
    page = ["--page", tmp_path / "c.html"]
    for arguments, fault in [
        (["--json", tmp_path], f"{tmp_path}: is a folder, expected a file"),
        ([*page, "--json", tmp_path / "c.html"], "c.html: is asked for twice, each output needs a file of its own"),
        ([*page, "--data-path", tmp_path / "none"], "no such folder"),
    ]:
        assert status_of(compare.main, [path, path, *arguments]) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert fault in said.err
