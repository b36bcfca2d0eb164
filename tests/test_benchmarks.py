"""python -m benchmarks and the scripts of benchmarks/: they run, and measure what they say."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import benchmarks.__main__ as benchmark
from benchmarks.measure import alternate
from benchmarks.results import table
from benchmarks.steps import CombinerSteps
from src.base.files import PROJECT_ROOT
from src.evaluation.per_query import COLUMNS
from src.tasks.registry import TASKS
from tests.support.commands import CIRR_RECALLS, status_of
from tests.support.processes import PATIENCE


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
    assert "'scaling' is not a case: it must be one of combiner_epochs, " in capsys.readouterr().err


def test_a_bank_has_as_many_negatives_as_pictures():
    """A random query finds its target less easily among 2,000 pictures than among 32, and a step holds all logits."""
    steps = CombinerSteps(2000, 640, 16, 32)
    assert steps.step("bank", 32) > steps.step("batch", 32) + 1
    large = CombinerSteps(40_000, 640, 16, 32)
    ways = {name: (lambda name=name: large.step(name, 256)) for name in ("batch", "bank")}
    measured = alternate(ways, 1, warm_up=True)
    if measured["bank"].peak_bytes is not None:  # where the system can say
        assert measured["bank"].peak_bytes > measured["batch"].peak_bytes + 4 * 256 * 40_000


STAND_IN = f"""#!{sys.executable}
import os, sys
from pathlib import Path

script, *options = sys.argv[1:]
value = dict(zip(options, options[1:], strict=False)).get
way, _, seed = Path(value("--output-path", "")).name.partition("-")
if script == "combiner_train.py":
    run = Path(value("--output-path"), "models", "run")
    run.mkdir(parents=True)
    (run / "validation_metrics.csv").write_text("epoch,recall_at1\\n0,40\\n1,50\\n2,45\\n")
elif script == "validate.py":
    assert value("--combiner-path").endswith("/models/run/saved_models/combiner_1.pt")
    assert ("--clip-model-path" in options) == (not way.startswith("along"))
    rows = ["{",".join((*COLUMNS, "solved_by_sum", *CIRR_RECALLS))}"]
    for query in "01":
        scores = 7 * [str(int(way != "published" or query == seed))]
        cells = [query, "rc2", "clip4cir", "CIRR.val.a", "b", "in red", "c", "1", "1", "c", ""]
        rows.append(",".join([*cells, *scores]))
    Path(value("--per-query")).write_text("\\n".join(rows))
else:
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def run_recipes(*arguments, script="recipes.sh", **settings):
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHON": sys.executable} | settings
    command = [PROJECT_ROOT / "benchmarks" / script, *arguments]
    streams = {"capture_output": True, "text": True, "timeout": 2 * PATIENCE}  # for a dozen processes
    return subprocess.run(command, check=False, cwd=PROJECT_ROOT, env=env, **streams)


def test_recipes_are_compared_by_the_mean_over_their_seeds(tmp_path):
    """Each of two queries gains 1 with one of two seeds, so no resample of queries can gain anything but 50.

    An interval over unpaired queries, or over both seeds' queries as four, would be wider.
    """
    (tmp_path / "python").write_text(STAND_IN)
    (tmp_path / "python").chmod(0o755)
    ran = run_recipes(tmp_path / "out", "DATA", "CLIP", "TUNED", SEEDS="0 1", PYTHON=str(tmp_path / "python"))
    assert ran.returncode == 0, ran.stderr
    assert "bank: R@1 of each seed's best epoch 50.00, 50.00, of its last 45.00, 45.00" in ran.stdout
    for way in ("bank", "dropout", "projection", "along", "along_projection"):
        table = ran.stdout.partition(f"{way} beside published: CIRR val")[2]
        (row,) = (line.split() for line in table.splitlines()[:12] if line.startswith("recall_at1 "))
        assert row[1:6] == ["50.00", "100.00", "+50.00", "+50.00", "+50.00"]


@pytest.mark.parametrize("script", ["recipes.sh", "noise.sh", "unlikely.sh"])
@pytest.mark.parametrize("arguments", [["out"], [".", "DATA", "CLIP", "TUNED"]])
def test_recipes_with_bad_arguments(arguments, script):
    ran = run_recipes(*arguments, script=script)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "needs OUTPUT (a new folder), DATA_PATH, CLIP_MODEL_NAME and TUNED_CLIP" in ran.stderr


@pytest.mark.slow
def test_recipes_are_trained_and_judged(world, tmp_path):
    """What validate.py finds with the chosen weights is what the training found in its best epoch."""
    clip, output = world / "small_clip.pt", tmp_path / "out"
    ran = run_recipes(output, world, clip, clip, SEEDS="0", EPOCHS="2", BATCH_SIZE="16")
    assert ran.returncode == 0, ran.stderr
    for way in ("published", "bank", "dropout", "projection", "along", "along_projection"):
        (metrics,) = output.glob(f"{way}-0/models/*/validation_metrics.csv")
        best = pd.read_csv(metrics).recall_at1.max()
        assert 100 * pd.read_csv(output / f"{way}.csv").recall_at1.mean() == pytest.approx(best, abs=1e-4)


@pytest.mark.parametrize("where", ["anywhere", "group"])
def test_wrong_targets_are_those_that_are_named(where, world, tmp_path):
    captions = Path("cirr_dataset", "cirr", "captions", "cap.rc2.train.json")
    right = json.loads((world / captions).read_text())
    command = [sys.executable, PROJECT_ROOT / "benchmarks" / "wrong_targets.py", where, tmp_path, world, "0", "50"]
    subprocess.run(command, check=True, capture_output=True)
    for share, least, most in (("0", 0, 0), ("50", 18, 24)):
        rows = json.loads((tmp_path / share / captions).read_text())
        wrong = json.loads((tmp_path / share / "wrong.json").read_text())
        known = {row["pairid"]: row for row in right}
        differ = [
            number for number, row in enumerate(rows) if row["target_hard"] != known[row["pairid"]]["target_hard"]
        ]
        assert wrong == differ
        assert least <= len(wrong) <= most
        for number in wrong if where == "group" else ():
            assert rows[number]["target_hard"] in known[rows[number]["pairid"]]["img_set"]["members"]
        splits = TASKS["CIRR"].read_all(tmp_path / share, "train")  # which refuses what no command takes
        assert len(splits["rc2"].triplets) == 48


@pytest.mark.slow
def test_wrong_targets_are_counted_among_the_least_likely(world, tmp_path):
    clip, output = world / "small_clip.pt", tmp_path / "out"
    ran = run_recipes(output, world, clip, clip, script="unlikely.sh", SEEDS="0", EPOCHS="1", BATCH_SIZE="16")
    assert ran.returncode == 0, ran.stderr
    counted = re.findall(r"^(\w+), (\w+), seed 0: (\d+\.\d) % of the first 2 are wrong$", ran.stdout, re.MULTILINE)
    assert [names for *names, _ in counted] == [
        [where, way] for where in ("anywhere", "group") for way in ("batch", "gce", "bank")
    ]
    assert {percent for *_, percent in counted} <= {"0.0", "50.0", "100.0"}
