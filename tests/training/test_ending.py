"""What a training says: where it writes, how it goes, what it kept and what comes next."""

import re
import shlex

import pandas as pd
import pytest

import cirr_test_submission
import clip_fine_tune
import combiner_train
import report
import validate
from src.tasks.registry import TASKS
from src.training.progress import validation_line
from tests.support.commands import COMBINER
from tests.support.forks import only_run

SHORT = ["--num-epochs", "3", "--batch-size", "12"]
COMMANDS = {
    "combiner_train.py": combiner_train.main,
    "validate.py": validate.main,
    "report.py": report.main,
    "cirr_test_submission.py": cirr_test_submission.main,
}


def commands_in(said):
    """Return the commands that a training printed: {script: its arguments}."""
    lines = said.partition("\nnext:\n")[2].splitlines()
    words = [shlex.split(line) for line in lines if line.startswith("  python ")]
    return {script.rpartition("/")[2]: arguments for _, script, *arguments in words}


@pytest.mark.parametrize("dataset", ["CIRR", "FashionIQ", "my_pictures"])
def test_what_both_stages_print_at_their_end_runs(dataset, options, world, tmp_path, capsys):
    name = str(world / dataset) if dataset == "my_pictures" else dataset
    clip_fine_tune.main(["--dataset", name, "--learning-rate", "1e-3", *SHORT, *options, "--save-training"])
    (script, arguments), *others = commands_in(capsys.readouterr().err).items()
    assert (script, others) == ("combiner_train.py", [])
    stage_1 = only_run(tmp_path)
    combiner_train.main([*arguments, "--num-epochs", "2", *COMBINER])
    found = commands_in(capsys.readouterr().err)
    stage_2 = next(folder for folder in (tmp_path / "models").iterdir() if folder != stage_1)
    submits = ["cirr_test_submission.py"] if dataset == "CIRR" else []
    assert list(found) == ["validate.py", "report.py", *submits]
    for script, arguments in found.items():
        COMMANDS[script](arguments)
    assert (stage_2 / "report.html").is_file()


def test_a_training_says_where_it_writes_how_it_goes_and_what_it_kept(options, run_folder, capsys):
    save = ["--save-training", "--save-best"]
    clip_fine_tune.main(["--dataset", "CIRR", "--learning-rate", "1e-3", *SHORT, *options, *save])
    said, run = capsys.readouterr(), run_folder()
    assert f"run folder: {run}\n" in said.err
    *epochs, last = said.out.splitlines()
    assert last == str(run)
    losses = pd.read_csv(run / "train_metrics.csv")["train_epoch_loss"]
    means = pd.read_csv(run / "validation_metrics.csv")["arithmetic_mean"]
    verdicts = ["first", *("improved" if mean > means[:n].max() else "not above" for n, mean in enumerate(means) if n)]
    for epoch, (line, verdict) in enumerate(zip(epochs, verdicts, strict=True)):
        assert line.startswith(
            f"epoch {epoch}: loss {losses[epoch]:.4f}  arithmetic_mean {means[epoch]:.2f} ({verdict}"
        )
        assert len(line) <= 100
    table = pd.read_csv(run / "validation_metrics.csv")
    for kind in ("arithmetic", "harmonic", "geometric"):
        best = table[f"{kind}_mean"].idxmax()
        value = table[f"{kind}_mean"][best]
        assert f"  tuned_clip_{kind}.pt of epoch {best}, {kind}_mean {value:.2f}\n" in said.err


def test_a_training_that_keeps_nothing_says_so(options, capsys):
    clip_fine_tune.main(["--dataset", "CIRR", *SHORT, *options, "--num-epochs", "1"])
    said = capsys.readouterr().err
    assert "no weights were kept; --save-training keeps them" in said
    assert "next:" not in said


@pytest.mark.parametrize("columns", [None, 80, 200])
@pytest.mark.parametrize("mark", ["", "  (not comparable: without 3 pictures)"])
@pytest.mark.parametrize("dataset", ["CIRR", "FashionIQ"])
def test_a_validation_is_a_line_that_fits(dataset, mark, columns, monkeypatch):
    if columns:
        monkeypatch.setenv("COLUMNS", str(columns))
    task = TASKS[dataset]
    metric = next(iter(task.best.values()))

    def row(epoch, value):
        return dict.fromkeys(task.headline, 100.0) | {"epoch": epoch, metric: value}

    rows = [row(0, 90.0), row(30, 98.76), row(290, 97.0)]
    line = validation_line(290, 12.34567, rows, task, mark)
    assert line.startswith(f"epoch 290: loss 12.3457  {metric} 97.00 (not above 98.76 of epoch 30)")
    assert line.endswith(mark)
    assert len(line) <= max(min(columns or 100, 100), len(re.match(r"[^)]*\)", line)[0]) + len(mark))
    assert "(improved)" in validation_line(30, 1, rows[:2], task, mark)
    assert "(first)" in validation_line(0, 1, rows[:1], task, mark)
