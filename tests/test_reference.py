"""What the reference implementation computed on real pictures, with its own checkpoints: in one process, and in two."""

import json
import shutil

import pandas as pd
import pytest

pytestmark = pytest.mark.usefixtures("shared")


@pytest.fixture(params=[1, 2])
def finish(request, forks):
    """Return a function that runs a command, in one process or two, to a good end and returns what it printed."""

    def run(command, *arguments, **order):
        assert forks.run(command, arguments, processes=request.param, **order) == 0, forks.said()
        return forks.said(stream="stdout")

    return run


@pytest.fixture
def checkpoints(shared, tmp_path):
    """Return {combining function: options} that name the reference's checkpoints."""
    folder = shared / "golden"
    clip = ["--clip-model-name", str(folder / "tiny_clip.pt"), "--clip-model-path", str(folder / "tuned_clip.pt")]
    combiner = ["--combiner-path", str(folder / "combiner.pt"), "--projection-dim", "256", "--hidden-dim", "512"]
    machine = ["--output-path", str(tmp_path), "--num-workers", "0"]
    return {"sum": [*clip, *machine], "combiner": [*clip, *machine, *combiner]}


@pytest.mark.parametrize("dataset", ["CIRR", "FashionIQ"])
@pytest.mark.parametrize("function", ["sum", "combiner"])
def test_validate_prints_the_references_numbers(dataset, function, golden, checkpoints, shared, finish):
    data = ["--data-path", str(shared / "data" / "emoji_cir")]
    said = finish("validate", "--dataset", dataset, "--combining-function", function, *checkpoints[function], *data)
    printed = [line.split(" = ") for line in said.splitlines()]
    expected = golden("validation")["results"][f"{dataset} {function}"]
    assert [name for name, _ in printed] == list(expected)
    for name, value in printed:
        assert float(value) == pytest.approx(expected[name], abs=1e-4), name


def test_submission_is_the_references(checkpoints, shared, finish, tmp_path):
    data = ["--data-path", str(shared / "data" / "emoji_cir")]
    finish("cirr_test_submission", "--submission-name", "golden", *checkpoints["combiner"], *data)
    for metric in ("recall", "recall_subset"):
        name = f"{metric}_submission_golden.json"
        ours, theirs = (
            json.loads((folder / name).read_text())
            for folder in (tmp_path / "submission" / "CIRR", shared / "golden" / "submission")
        )
        assert list(ours) == list(theirs)
        assert (ours.pop("version"), ours.pop("metric")) == (theirs.pop("version"), theirs.pop("metric"))
        same = [a == b for pair in theirs for a, b in zip(ours[pair], theirs[pair], strict=True)]
        assert sum(same) / len(same) >= 0.999


@pytest.fixture
def cut_data(shared, golden, tmp_path):
    """Return options for the reference's pictures, with their CIRR captions cut to those that it was trained on."""
    whole = shared / "data" / "emoji_cir" / "cirr_dataset"
    cut = tmp_path / "data" / "cirr_dataset"
    shutil.copytree(whole / "cirr", cut / "cirr")
    for pictures in ("train", "dev"):
        (cut / pictures).symlink_to(whole / pictures)
    for split in ("train", "val"):
        path = cut / "cirr" / "captions" / f"cap.rc2.{split}.json"
        triplets = json.loads(path.read_text())
        path.unlink()
        path.write_text(json.dumps(triplets[: golden("training")[f"{split}_entries"]]))
    return ["--data-path", str(cut.parent)]


def assert_followed(folder, expected):
    training, validation = (pd.read_csv(folder / f"{name}_metrics.csv") for name in ("train", "validation"))
    assert training["train_epoch_loss"].tolist() == pytest.approx(expected["train_epoch_loss"], rel=1e-4)
    expected = pd.DataFrame(expected["validation"])
    assert list(validation.columns) == list(expected.columns)
    pd.testing.assert_frame_equal(validation, expected, check_dtype=False, rtol=0, atol=1e-4)


RECIPE = ["--num-epochs", "5", "--batch-size", "48", "--validation-frequency", "1", "--num-workers", "0"]


@pytest.mark.parametrize("encoder", ["both", "text", "image"])
def test_fine_tuning_follows_the_reference(encoder, golden, shared, cut_data, run_folder, finish, tmp_path):
    recipe = ["--dataset", "CIRR", "--encoder", encoder, "--learning-rate", "1e-3", *RECIPE]
    tiny_clip = ["--clip-model-name", shared / "golden" / "tiny_clip.pt"]
    finish("clip_fine_tune", *recipe, *tiny_clip, *cut_data, "--output-path", tmp_path)
    assert_followed(run_folder(), golden("training")[f"clip_fine_tune_{encoder}"])


def test_combiner_training_follows_the_reference(golden, checkpoints, cut_data, run_folder, finish):
    recipe = ["--projection-dim", "64", "--hidden-dim", "128", "--combiner-lr", "1e-3", *RECIPE]
    finish("combiner_train", *recipe, "--dropout", "0", *checkpoints["sum"], *cut_data, without_luck=True)
    assert_followed(run_folder(), golden("training")["combiner_train_no_dropout"])
