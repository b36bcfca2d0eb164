"""A Combiner and the text encoder that learned along with it: one file, which every command loads whole."""

import json

import pandas as pd
import pytest
import torch

import cirr_test_submission
import clip_fine_tune
import combiner_train
import demo
import report
import search
import validate
from src.models.facts import read_facts
from src.models.weights import read_weights, weights_digest
from tests.support.commands import CIRR_RECALLS, COMBINER, status_of, toy_options, toy_paths
from tests.support.forks import only_run

SHORT = ["--batch-size", "16", "--save-training", "--validation-frequency", "1"]


@pytest.fixture(scope="module")
def run(world, tmp_path_factory):
    """Train both for three epochs, the first of the Combiner alone; return the run folder."""
    output = tmp_path_factory.mktemp("pair")
    along = ["--encoder", "text", "--learning-rate", "1e-3", "--frozen-epochs", "1", "--negatives", "bank"]
    rates = ["--combiner-lr", "1e-3", "--num-epochs", "3"]
    combiner_train.main([*toy_options(world, output), *COMBINER, *SHORT, *along, *rates])
    return only_run(output)


@pytest.fixture
def pair(run):
    return str(run / "saved_models" / "combiner_2.pt")


def test_a_checkpoint_holds_both(run, pair, world):
    assert set(torch.load(pair, weights_only=True)) == {"epoch", "Combiner", "CLIP", "facts"}
    before = read_weights(world / "small_clip.pt", "CLIP")
    first, last = (read_weights(run / "saved_models" / f"combiner_{epoch}.pt", "CLIP") for epoch in (0, 2))
    assert weights_digest(first) == weights_digest(before)
    changed = {name for name in before if not torch.equal(before[name], last[name])}
    assert changed == {name for name in before if not name.startswith("visual.") and name != "logit_scale"}
    assert read_facts(pair)["clip_weights"] == weights_digest(last)
    assert weights_digest(read_weights(pair, "Combiner")) != weights_digest(
        read_weights(run / "saved_models" / "combiner_0.pt", "Combiner")
    )


@pytest.mark.parametrize("named", [False, True], ids=["the Combiner alone", "the same file twice"])
def test_validate_gives_what_training_wrote(named, run, pair, world, tmp_path, capsys):
    tuned = ["--clip-model-path", pair] if named else []
    capsys.readouterr()
    validate.main(["--dataset", "CIRR", *toy_paths(world, tmp_path), "--combiner-path", pair, *tuned])
    printed = [float(line.split(" = ")[1]) for line in capsys.readouterr().out.splitlines()]
    assert printed == pd.read_csv(run / "validation_metrics.csv").iloc[-1][CIRR_RECALLS].tolist()


@pytest.mark.parametrize("function", ["sum", "text"])
def test_its_clip_answers_whatever_combines(function, pair, world, tmp_path, capsys):
    judge = ["--dataset", "CIRR", *toy_paths(world, tmp_path), "--combining-function", function]
    printed = []
    for option in ("--combiner-path", "--clip-model-path"):
        capsys.readouterr()
        validate.main([*judge, option, pair])
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]


def test_the_demo_loads_it_whole(pair, world, tmp_path):
    args = demo.make_parser().parse_args(
        ["--pictures", str(world / "my_pictures"), *toy_paths(world, tmp_path)[2:], "--combiner-path", pair]
    )
    engine = demo.load_engine(demo.settings(args), args.pictures, args.k, args.precision)
    assert read_facts(pair)["clip_weights"] == engine.retriever.backbone.digest()
    assert "combiner" in engine.functions


def test_another_clip_is_refused(pair, options, tmp_path, capsys):
    clip_fine_tune.main(["--dataset", "CIRR", *options, *SHORT, "--num-epochs", "1", "--learning-rate", "1e-3"])
    (tuned,) = tmp_path.glob("models/*/saved_models/tuned_clip_0.pt")
    judge = ["--dataset", "CIRR", *options, "--combiner-path", pair, "--clip-model-path", tuned]
    assert status_of(validate.main, judge) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert f"{pair}: was trained on another CLIP; --clip-model-path has to name the same file, or nothing" in line


def test_submission_search_and_report_load_both(run, pair, world, tmp_path, capsys):
    cirr_test_submission.main([*toy_paths(world, tmp_path), "--combiner-path", pair, "--submission-name", "alone"])
    both = ["--combiner-path", pair, "--clip-model-path", pair, "--submission-name", "both"]
    cirr_test_submission.main([*toy_paths(world, tmp_path), *both])
    folder = tmp_path / "submission" / "CIRR"
    alone, both = ((folder / f"recall_submission_{name}.json").read_bytes() for name in ("alone", "both"))
    assert alone == both

    def found(*checkpoints):
        pictures = world / "cirr_dataset" / "dev"
        asked = ["--pictures", pictures, "--caption", "in blue", "--json", tmp_path / "found.json"]
        clip = ["--clip-model-name", world / "small_clip.pt", "--output-path", tmp_path, "--num-workers", "0"]
        search.main([*map(str, (*asked, *clip)), *checkpoints])
        return json.loads((tmp_path / "found.json").read_text())

    texts = ["--combining-function", "text"]
    assert found("--combiner-path", pair) == found("--combiner-path", pair, "--clip-model-path", pair)
    assert found("--clip-model-path", pair, *texts) != found(*texts)

    capsys.readouterr()
    report.main(["--run-folder", str(run), "--output", str(tmp_path / "page.html"), "--num-workers", "0"])
    last = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Combiner")][0].split()
    assert last[1] == f"{pd.read_csv(run / 'validation_metrics.csv')['recall_at1'].iloc[-1]:.2f}"


@pytest.mark.parametrize(("flag", "value"), [("--learning-rate", "1e-3"), ("--frozen-epochs", "1")])
def test_a_flag_without_use_is_refused(flag, value, options, capsys):
    assert status_of(combiner_train.main, [*options, flag, value]) == 2
    assert f"error: {flag} is for --encoder text" in capsys.readouterr().err
