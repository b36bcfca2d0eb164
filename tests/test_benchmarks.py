"""python -m benchmarks and benchmarks/recipes.sh: they run, and measure what they say."""

import os
import subprocess
import sys

import pandas as pd
import pytest

import benchmarks.__main__ as benchmark
from benchmarks.measure import alternate
from benchmarks.results import table
from benchmarks.steps import CombinerSteps
from src.base.files import PROJECT_ROOT
from tests.commands import status_of
from tests.processes import PATIENCE


@pytest.mark.slow
def test_all_cases_run(tmp_path):
    """On so little data the figures mean nothing, but the cases' own comparisons of plain and fast results hold."""
    benchmark.main(["--quick", "--output", str(tmp_path)])
    assert {path.name for path in tmp_path.iterdir()} == {"results.json", "table.md", "curves.png"}


def test_named_cases_are_only_printed(tmp_path, capsys):
    assert status_of(benchmark.main, ["bank", "pieces", "--quick", "--output", tmp_path / "results"]) == 0
    rows = capsys.readouterr().out.partition("\n\n")[0].splitlines()
    assert rows[:2] == table([]).splitlines()
    assert [row.split(",")[0] for row in rows[2:]] == ["| stage 2", "| stage 1"]
    assert not (tmp_path / "results").exists()


def test_an_unknown_case_is_named(capsys):
    assert status_of(benchmark.main, ["ranking", "scaling"]) == 2
    assert "'scaling' is no case: it must be one of combiner_epochs, " in capsys.readouterr().err


def test_a_bank_has_as_many_negatives_as_pictures():
    """A random query finds its target less easily among 2,000 pictures than among 32, and a step holds all logits."""
    steps = CombinerSteps(2000, 640, 16, 32)
    assert steps.step("bank", 32) > steps.step("batch", 32) + 1
    large = CombinerSteps(40_000, 640, 16, 32)
    ways = {name: (lambda name=name: large.step(name, 256)) for name in ("batch", "bank")}
    measured = alternate(ways, 1, warm_up=True)
    if measured["bank"].peak_bytes is not None:  # where the system can say
        assert measured["bank"].peak_bytes > measured["batch"].peak_bytes + 4 * 256 * 40_000


@pytest.mark.slow
def test_recipes_are_compared_by_the_mean_over_their_seeds(world, tmp_path):
    """What validate.py finds with the chosen weights is what the training found in its best epochs."""
    settings = {"PYTHON": sys.executable, "SEEDS": "0 1", "EPOCHS": "2", "BATCH_SIZE": "16", "OMP_NUM_THREADS": "1"}
    clip = world / "small_clip.pt"
    command = [PROJECT_ROOT / "benchmarks" / "recipes.sh", tmp_path, world, clip, clip]
    streams = {"capture_output": True, "text": True, "timeout": PATIENCE}
    ran = subprocess.run(command, check=True, cwd=PROJECT_ROOT, env=os.environ | settings, **streams)
    for way in ("published", "bank", "dropout", "along"):
        metrics = [pd.read_csv(path) for path in tmp_path.glob(f"{way}-?/models/*/validation_metrics.csv")]
        best = sum(epochs.recall_at1.max() for epochs in metrics) / 2
        assert 100 * pd.read_csv(tmp_path / f"{way}.csv").recall_at1.mean() == pytest.approx(best, abs=1e-4)
        assert way == "published" or f"{way} beside published: CIRR val" in ran.stdout
