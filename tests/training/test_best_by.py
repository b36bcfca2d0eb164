"""--best-by: the column of validation_metrics.csv that picks the best weights of a run."""

import json

import pandas as pd
import pytest
import torch

import clip_fine_tune
import combiner_train
import report
from tests.support.commands import COMBINER, status_of

SHORT = ["--num-epochs", "3", "--batch-size", "12", "--validation-frequency", "1", "--save-training", "--save-best"]
PAPERS_MEAN = "mean(R@5+R_s@1)"
COLUMNS = {
    "CIRR": [
        *(f"group_recall_at{k}" for k in (1, 2, 3)),
        *(f"recall_at{k}" for k in (1, 5, 10, 50)),
        *(PAPERS_MEAN, "arithmetic_mean", "harmonic_mean", "geometric_mean"),
    ],
    "FashionIQ": [
        *(f"{category}_recall_at{k}" for category in ("dress", "toptee", "shirt") for k in (10, 50)),
        *("average_recall_at10", "average_recall_at50", "average_recall"),
    ],
    "my_pictures": [*(f"recall_at{k}" for k in (1, 5, 10, 50)), "mean_recall"],
}


def flags(dataset, world, options, *extra):
    name = str(world / dataset) if dataset == "my_pictures" else dataset
    return ["--dataset", name, *SHORT, *options, *extra]


@pytest.mark.parametrize(
    ("command", "rate", "dataset", "column", "file"),
    [
        (clip_fine_tune, "--learning-rate", "CIRR", PAPERS_MEAN, "tuned_clip_best.pt"),
        (clip_fine_tune, "--learning-rate", "FashionIQ", "average_recall_at10", "tuned_clip_best.pt"),
        (combiner_train, "--combiner-lr", "CIRR", "recall_at1", "combiner.pt"),
        (combiner_train, "--combiner-lr", "my_pictures", "recall_at5", "combiner.pt"),
    ],
)
def test_only_the_best_weights_by_that_column_are_kept(
    command, rate, dataset, column, file, options, world, run_folder, capsys
):
    sizes = COMBINER if command is combiner_train else []
    command.main(flags(dataset, world, options, rate, "1e-2", *sizes, "--best-by", column))
    said, run = capsys.readouterr(), run_folder()
    assert [path.name for path in (run / "saved_models").iterdir()] == [file]
    values = pd.read_csv(run / "validation_metrics.csv")[column]
    assert torch.load(run / "saved_models" / file, weights_only=True)["epoch"] == values.idxmax()
    assert f"  {file} of epoch {values.idxmax()}, {column} {values.max():.2f}\n" in said.err
    for value, line in zip(values, said.out.splitlines()[:-1], strict=True):
        assert f"  {column} {value:.2f} (" in line
    if command is clip_fine_tune:
        next_command = " ".join(said.err.partition("next:")[2].replace("\\\n", " ").split())
        assert f"--best-by {column}" in next_command.replace("'", "")
    if dataset == "CIRR":
        report.main(["--run-folder", str(run), "--num-workers", "0"])
        assert (run / "report.html").is_file()


@pytest.mark.parametrize("command", [clip_fine_tune, combiner_train])
@pytest.mark.parametrize(
    ("dataset", "column"),
    [("CIRR", "R@5"), ("CIRR", ""), ("CIRR", "average_recall"), ("FashionIQ", "arithmetic_mean"), ("my_pictures", "x")],
)
def test_an_unknown_column_is_refused_before_anything(
    command, dataset, column, options, world, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(command, "load_retriever", None)  # not reached
    assert status_of(command.main, flags(dataset, world, options, "--best-by", column)) == 2
    fault = f"{column!r} is not a column of {dataset}'s validation_metrics.csv (--best-by)"
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{fault}: it must be one of {', '.join(COLUMNS[dataset])}" in line
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("dataset", COLUMNS)
def test_the_columns_that_are_named_are_those_of_the_table(dataset, options, world, run_folder):
    combiner_train.main(flags(dataset, world, options, *COMBINER, "--num-epochs", "1"))
    assert list(pd.read_csv(run_folder() / "validation_metrics.csv")) == ["epoch", *COLUMNS[dataset]]


def test_a_resumed_run_keeps_its_column(options, world, run_folder, capsys):
    combiner_train.main(flags("CIRR", world, options, *COMBINER, "--best-by", PAPERS_MEAN, "--num-epochs", "1"))
    run = run_folder()
    capsys.readouterr()
    assert status_of(combiner_train.main, ["--resume", run, "--best-by", "recall_at1"]) == 2
    assert f"the run has --best-by {PAPERS_MEAN}, not recall_at1" in capsys.readouterr().err
    combiner_train.main(["--resume", str(run), "--num-epochs", "3"])
    values = pd.read_csv(run / "validation_metrics.csv")[PAPERS_MEAN]
    assert [path.name for path in (run / "saved_models").iterdir()] == ["combiner.pt"]
    kept = torch.load(run / "saved_models" / "combiner.pt", weights_only=True)
    assert (len(values), kept["epoch"]) == (3, values.idxmax())


def test_a_run_from_before_the_option_goes_on_as_published(options, world, run_folder, capsys):
    combiner_train.main(flags("CIRR", world, options, *COMBINER, "--num-epochs", "1"))
    run = run_folder()
    kept = json.loads((run / "training_hyperparameters.json").read_text())
    assert kept.pop("best_by") is None
    (run / "training_hyperparameters.json").write_text(json.dumps(kept))
    combiner_train.main(["--resume", str(run), "--num-epochs", "2"])
    names = {path.name for path in (run / "saved_models").iterdir()}
    assert names == {f"combiner_{kind}.pt" for kind in ("arithmetic", "harmonic", "geometric")}
    capsys.readouterr()
    assert status_of(combiner_train.main, ["--resume", run, "--best-by", "recall_at1"]) == 2
    assert "the run has --best-by None, not recall_at1" in capsys.readouterr().err
