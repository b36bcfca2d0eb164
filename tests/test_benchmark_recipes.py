"""python -m benchmarks.recipes: its figures by hand, and real trainings on very little."""

import numpy as np
import pytest

from benchmarks import recipes
from benchmarks.recipes import WAYS, Trained, line
from tests.commands import status_of


def trained(best, last, *queries, seconds=()):
    return Trained(best, last, {"rc2": {"recall_at1": np.array(queries, dtype=float)}}, list(seconds))


@pytest.fixture
def one_measure(monkeypatch):
    """Leave of CIRR's measures those that made-up scores have."""
    monkeypatch.setattr(recipes.CIRR, "means", {})


def test_a_row_by_hand(one_measure):
    """Each of two queries gains 1 with one of two seeds, so no resample of queries can gain anything but 50.

    An interval over unpaired queries, or over both seeds' queries as four, would be wider.
    """
    published = [trained(50, 40, 1, 0, seconds=(1, 2)), trained(50, 45, 0, 1, seconds=(3,))]
    other = [trained(100, 90, 1, 1, seconds=(7, 1)), trained(99, 80, 1, 1, seconds=(3,))]
    assert line("bank", other, published) == "| bank | 99.50 | 100.00, 99.00 | 85.00 | +50.00 | +50.00 to +50.00 | 3 |"
    assert line("published", published, published) == "| published | 50.00 | 50.00, 50.00 | 42.50 | – | – | 2 |"


def test_the_interval_is_that_of_the_queries(one_measure):
    """Of 400 queries a tenth gains: the interval is about 10 ± 1.96 · √(.1 · .9 / 400), times 100."""
    published, other = trained(0, 0, *np.zeros(400)), trained(10, 10, *(np.arange(400) < 40))
    gain, interval = line("bank", [other], [published]).split(" | ")[4:6]
    low, high = map(float, interval.split(" to "))
    assert gain == "+10.00"
    assert (low, high) == pytest.approx((10 - 2.94, 10 + 2.94), abs=0.5)


def test_every_way_is_trained_and_asked(world, tmp_path, capsys):
    """What the queries got with the saved weights is what the trainings said of their best epochs."""
    clip = world / "small_clip.pt"
    data = ["--data-path", world, "--clip-model-name", clip, "--clip-model-path", clip]
    length = ["--seeds", "2", "--num-epochs", "4", "--batch-size", "16"]
    assert status_of(recipes.main, [*data, *length, "--output", tmp_path / "recipes.md"]) == 0
    table = (tmp_path / "recipes.md").read_text()
    assert table in capsys.readouterr().out
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()[2:]]
    assert [row[0] for row in rows] == list(WAYS)
    means = [float(row[1]) for row in rows]
    for row, best in zip(rows, means, strict=True):
        assert np.mean([float(seed) for seed in row[2].split(", ")]) == pytest.approx(best, abs=0.01)
        assert float(row[3]) <= best
        assert float(row[6]) > 0
    for row, best in zip(rows[1:], means[1:], strict=True):
        assert float(row[4]) == pytest.approx(best - means[0], abs=0.02)
        low, high = map(float, row[5].split(" to "))
        assert low <= float(row[4]) <= high


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--clip-model-name", "RN50"], "--data-path and --clip-model-name need each other"),
        (["--data-path", "nowhere"], "--data-path and --clip-model-name need each other"),
        (["--data-path", "nowhere", "--clip-model-name", "CLIP"], "nowhere/cirr_dataset: no such folder"),
        (["--seeds", "0"], "is not a whole number above 0"),
    ],
)
def test_bad_input(flags, words, world, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    flags = [world / "small_clip.pt" if flag == "CLIP" else flag for flag in flags]
    assert status_of(recipes.main, [*flags, "--output", tmp_path / "a.md"]) == 2
    assert words in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "a.md").exists()
