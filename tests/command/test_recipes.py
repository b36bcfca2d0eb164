"""Ways to train by name: the options they set, flags that win, and every place that says which it was."""

import json
import zipfile

import pytest

import clip_fine_tune
import combiner_train
import report
from src.models.facts import read_facts
from tests.support.commands import status_of, toy_options
from tests.support.forks import only_run

TYPED = {
    (clip_fine_tune, "published"): "--num-epochs 100 --batch-size 128 --learning-rate 2e-6 --validation-frequency 1",
    (clip_fine_tune, "spn4cir"): "--encoder text --negatives bank --scale 50 --num-epochs 3 --learning-rate 2e-5 "
    "--batch-size 256",
    (combiner_train, "published"): "--num-epochs 300 --batch-size 4096 --combiner-lr 2e-5 --clip-bs 32 "
    "--validation-frequency 1",
    (combiner_train, "projection"): "--encoder text --negatives bank --dropout .2 --gallery-projection "
    "--frozen-epochs 1 --validation-frequency 1",
}


def chosen(command, flags):
    args = vars(command.parse(["--dataset", "CIRR", *flags]))
    return {name: value for name, value in args.items() if name not in ("recipe", "given")}


@pytest.mark.parametrize(("command", "recipe"), TYPED)
def test_a_recipe_is_the_command_that_its_source_gives(command, recipe):
    typed = chosen(command, TYPED[command, recipe].split())
    assert chosen(command, ["--recipe", recipe]) == typed
    beside = ["--batch-size", "77", "--transform", "clip"]
    assert chosen(command, [*beside, "--recipe", recipe]) == typed | {"batch_size": 77, "transform": "clip"}


def test_a_recipe_of_another_stage_is_refused(options, capsys):
    assert status_of(combiner_train.main, [*options, "--recipe", "spn4cir"]) == 2
    assert "argument --recipe: invalid choice: 'spn4cir'" in capsys.readouterr().err


def test_a_flag_that_a_recipe_cannot_go_with_is_refused(options, capsys):
    both = ["--dataset", "CIRR", *options, "--recipe", "spn4cir", "--encoder", "both"]
    assert status_of(clip_fine_tune.main, both) == 2
    assert "--negatives bank: --encoder both cannot use it" in capsys.readouterr().err


def test_every_result_says_its_recipe(world, tmp_path, capsys):
    beside = ["--batch-size", "16", "--num-epochs", "1", "--save-training", "--comet-offline"]
    clip_fine_tune.main(["--dataset", "CIRR", *toy_options(world, tmp_path), "--recipe", "spn4cir", *beside])
    lacks = "--recipe spn4cir: goes on from a tuned CLIP, which --clip-model-path names; from untuned weights this is"
    assert lacks in capsys.readouterr().err
    run = only_run(tmp_path)
    kept = json.loads((run / "training_hyperparameters.json").read_text())
    assert (kept["recipe"], kept["negatives"], kept["batch_size"]) == ("spn4cir", "bank", 16)
    said = "spn4cir, but --num-epochs 1, --batch-size 16"
    assert read_facts(run / "saved_models" / "tuned_clip_0.pt")["recipe"] == said
    (archive,) = run.glob("*.zip")
    with zipfile.ZipFile(archive) as logged:
        assert '"recipe"' in logged.read("messages.json").decode()

    clip_fine_tune.main(["--resume", str(run), "--num-epochs", "3"])
    assert read_facts(run / "saved_models" / "tuned_clip_2.pt")["recipe"] == "spn4cir, but --batch-size 16"
    tuned = ["--clip-model-path", str(run / "saved_models" / "tuned_clip_2.pt"), "--recipe", "spn4cir", *beside]
    capsys.readouterr()
    clip_fine_tune.main(["--dataset", "CIRR", *toy_options(world, tmp_path / "tuned"), *tuned])
    assert "goes on from a tuned CLIP" not in capsys.readouterr().err
    report.main(["--run-folder", str(run), "--num-workers", "0"])
    assert "Recipe spn4cir, but --batch-size 16." in (run / "report.html").read_text()
    capsys.readouterr()
    assert status_of(clip_fine_tune.main, ["--resume", run, "--recipe", "published"]) == 2
    assert "the run has --recipe spn4cir, not published" in capsys.readouterr().err
