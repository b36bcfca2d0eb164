"""Unusable input: one line on stderr that names the culprit, exit status 2, and nothing written."""

import json
import shutil

import pytest
import torch

import cirr_test_submission
import clip_fine_tune
import combiner_train
import validate
from combiner import Combiner
from src.base.files import PROJECT_ROOT
from tests.support.commands import COMBINER, status_of
from tests.support.processes import python
from utils import save_model

FINE_TUNE = clip_fine_tune, ["--dataset", "CIRR", "--batch-size", "16", "--num-epochs", "1"]
TRAIN = combiner_train, ["--batch-size", "16", *COMBINER, "--num-epochs", "1"]
VALIDATE = validate, ["--dataset", "CIRR"]
SUBMIT = cirr_test_submission, []
EVERY = [FINE_TUNE, TRAIN, VALIDATE, SUBMIT]


@pytest.fixture
def refused(options, tmp_path, capsys):
    """Return a function that runs a command with some options more and returns the one line it ends with."""

    def run(command, *extra):
        script, arguments = command
        capsys.readouterr()
        before = sorted(tmp_path.rglob("*"))
        assert status_of(script.main, [*arguments, *options, *extra]) == 2
        assert sorted(tmp_path.rglob("*")) == before, "nothing may be written"
        captured = capsys.readouterr()
        assert captured.out == ""
        (line,) = captured.err.splitlines()
        assert line.startswith("error: ")
        return line

    return run


@pytest.mark.parametrize("command", EVERY, ids=lambda command: command[0].__name__)
@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (["--data-path", "/nowhere"], ["/nowhere/cirr_dataset: no such folder", "--data-path"]),
        (["--clip-model-name", "RN51"], ["RN51", "RN50", "ViT-L/14"]),
        (["--transform", "squarpad"], ["squarpad", "clip", "squarepad", "targetpad"]),
        (["--target-ratio", "0.5"], ["--target-ratio", "not a number of 1 or more"]),
        (["--target-ratio", "nan"], ["--target-ratio", "not a number of 1 or more"]),
        (["--precision", "fp8"], ["fp8", "bf16"]),
        (["--num-workers", "-1"], ["--num-workers", "whole number of 0 or more"]),
        (["--no-such-flag"], ["--no-such-flag", "--help"]),
    ],
)
def test_options_of_every_command(command, extra, said, refused):
    line = refused(command, *extra)
    assert all(word in line for word in said), line


@pytest.mark.parametrize(
    ("command", "extra", "said"),
    [
        (FINE_TUNE, ["--dataset", "CIFAR"], ["CIFAR", "CIRR", "FashionIQ"]),
        (FINE_TUNE, ["--encoder", "audio"], ["audio", "both", "text", "image"]),
        (FINE_TUNE, ["--batch-size", "49"], ["--batch-size 49", "the training set (48 triplets)"]),
        (FINE_TUNE, ["--batch-size", "0"], ["--batch-size", "above 0"]),
        (FINE_TUNE, ["--learning-rate", "fast"], ["--learning-rate", "'fast'"]),
        (TRAIN, ["--batch-size", "49"], ["--batch-size 49", "the training set (48 triplets)"]),
        (TRAIN, ["--hidden-dim", "0"], ["--hidden-dim", "'0' is not a whole number above 0 and below 2147483648"]),
        (TRAIN, ["--gallery-projection", str(2**31)], ["--gallery-projection", "above 0 and below 2147483648"]),
        (TRAIN, ["--clip-model-path", "/nowhere.pt"], ["/nowhere.pt: no such file"]),
        (VALIDATE, ["--clip-model-path", "/nowhere.pt"], ["/nowhere.pt: no such file"]),
        (VALIDATE, ["--combiner-path", "/nowhere.pt"], ["/nowhere.pt: no such file"]),
        (VALIDATE, ["--clip-model-path", "hf:lab"], ["--clip-model-path: hf:lab: hf:OWNER/NAME[:FILE] is expected"]),
        (VALIDATE, ["--combiner-path", "hf:a/b:../c"], ["hf:a/b:../c: hf:OWNER/NAME[:FILE] is expected"]),
        (VALIDATE, ["--clip-model-name", "hf:a/b/c"], ["hf:a/b/c: hf:OWNER/NAME[:FILE] is expected"]),
        (VALIDATE, ["--combining-function", "mean"], ["mean", "sum", "combiner"]),
        (VALIDATE, ["--combining-function", "combiner"], ["needs --combiner-path"]),
        (SUBMIT, ["--combining-function", "combiner"], ["needs --combiner-path"]),
        (SUBMIT, ["--submission-name", "a/b"], ["--submission-name: 'a/b' is not a part of a file name"]),
        (FINE_TUNE, ["--resume", "/nowhere"], ["--resume /nowhere: no such folder"]),
        (TRAIN, ["--resume", "/nowhere"], ["--resume /nowhere: no such folder"]),
    ],
)
def test_options_of_one_command(command, extra, said, refused):
    line = refused(command, *extra)
    assert all(word in line for word in said), line


@pytest.fixture
def files(tmp_path, world):
    """Write files that are not what their option wants; return their folder."""
    (tmp_path / "text.pt").write_text("not weights")
    (tmp_path / "empty.pt").write_bytes(b"")
    whole = (world / "small_clip.pt").read_bytes()
    (tmp_path / "torn.pt").write_bytes(whole[: len(whole) // 2])
    torch.save([1, 2], tmp_path / "list.pt")
    save_model("combiner", 0, Combiner(64, 8, 8), tmp_path)
    save_model("narrow", 0, Combiner(32, 8, 8), tmp_path)
    narrower = torch.load(world / "small_clip.pt", weights_only=True)
    narrower["text_projection"] = narrower["text_projection"][:, :32]
    torch.save({"epoch": 1, "CLIP": narrower}, tmp_path / "other_clip.pt")
    del narrower["ln_final.weight"]
    torch.save({"epoch": 1, "CLIP": narrower}, tmp_path / "no_clip.pt")
    for file in (tmp_path / "saved_models").iterdir():
        shutil.move(file, tmp_path)
    return tmp_path


@pytest.mark.parametrize("option", ["--clip-model-name", "--clip-model-path", "--combiner-path"])
@pytest.mark.parametrize("file", ["text.pt", "empty.pt", "torn.pt", "list.pt"])
def test_files_that_are_no_weights(option, file, files, refused):
    assert file in refused(VALIDATE, option, files / file)


@pytest.mark.parametrize(
    ("option", "file", "said"),
    [
        ("--clip-model-name", "combiner.pt", "weights of a CLIP are expected"),
        ("--clip-model-name", "no_clip.pt", "not the weights of a CLIP"),
        ("--clip-model-path", "combiner.pt", "weights of a CLIP are expected"),
        ("--clip-model-path", "other_clip.pt", "text_projection is [64, 32], not [64, 64]"),
        ("--clip-model-path", "no_clip.pt", "do not fit this CLIP"),
        ("--combiner-path", "other_clip.pt", "weights of a Combiner are expected"),
        ("--combiner-path", "narrow.pt", "32 dimensions, but this CLIP's features have 64"),
    ],
)
def test_weights_of_another_model(option, file, said, files, refused):
    line = refused(VALIDATE, option, files / file)
    assert file in line
    assert said in line


@pytest.mark.parametrize("command", [FINE_TUNE, TRAIN], ids=["clip_fine_tune", "combiner_train"])
@pytest.mark.parametrize("split", ["train", "dev"])
def test_a_missing_picture_stops_a_training_before_it_starts(command, split, broken_world, refused):
    for picture in (broken_world / "cirr_dataset" / split).iterdir():
        picture.unlink()
    line = refused(command, "--data-path", broken_world)
    assert f"/{split}/" in line
    assert "no such picture" in line


@pytest.mark.parametrize(
    ("command", "split"),
    [(FINE_TUNE, "train"), (FINE_TUNE, "val"), (TRAIN, "train"), (TRAIN, "val"), (VALIDATE, "val"), (SUBMIT, "test1")],
)
def test_contradictory_annotations_stop_a_command_before_it_encodes_anything(command, split, broken_world, refused):
    captions = broken_world / "cirr_dataset" / "cirr" / "captions" / f"cap.rc2.{split}.json"
    triplets = json.loads(captions.read_text())
    triplets[7]["reference"] = "gone"
    captions.write_text(json.dumps(triplets))
    line = refused(command, "--data-path", broken_world)
    fault = f"1 of {len(triplets)} triplets with a reference that split.rc2.{split}.json does not list: gone"
    assert line == f"error: {captions}: {fault}"


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.workers
def test_a_broken_picture_is_named_also_from_a_worker(workers, options, broken_world, tmp_path, forks):
    picture = next((broken_world / "cirr_dataset" / "test1").iterdir())
    picture.write_bytes(b"no picture")
    flags = [*options, "--data-path", broken_world, "--num-workers", workers]
    # In a process of its own: in this one, torch would wait seconds for workers that an exception still refers to.
    assert forks.run("cirr_test_submission", flags) == 2
    line = forks.said().splitlines()[-1].split("\r")[-1]
    assert f"error: {picture}: cannot be read as a picture" in line
    assert not (tmp_path / "submission").exists()


def test_a_folder_that_cannot_be_written(options, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    script, arguments = TRAIN
    assert status_of(script.main, [*arguments, *options, "--output-path", tmp_path / "file"]) == 2
    assert f"error: {tmp_path / 'file'}" in capsys.readouterr().err


@pytest.mark.parametrize("script", ["clip_fine_tune", "combiner_train", "validate", "cirr_test_submission"])
def test_real_processes(script, tmp_path):
    """A shell sees what main() says: one line and exit status 2."""
    refused = python(PROJECT_ROOT / f"{script}.py", "--transfrm", check=False, cwd=tmp_path)
    assert refused.returncode == 2
    assert refused.stdout == ""
    (line,) = refused.stderr.splitlines()
    assert line.startswith("error: ")
