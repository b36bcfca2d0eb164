"""What the reference implementation computed on real pictures, with its own checkpoints."""

import json
import shutil

import pandas as pd
import pytest

import cirr_test_submission
import clip_fine_tune
import combiner_train
import validate
from combiner import Combiner
from tests.formula import fill_with_sines

pytestmark = pytest.mark.usefixtures("shared")


@pytest.fixture
def checkpoints(shared, tmp_path):
    folder = shared / "golden"
    clip = ["--clip-model-name", str(folder / "tiny_clip.pt"), "--clip-model-path", str(folder / "tuned_clip.pt")]
    combiner = ["--combiner-path", str(folder / "combiner.pt"), "--projection-dim", "256", "--hidden-dim", "512"]
    machine = ["--output-path", str(tmp_path), "--num-workers", "0"]
    return {"sum": [*clip, *machine], "combiner": [*clip, *machine, *combiner]}


@pytest.mark.parametrize("dataset", ["CIRR", "FashionIQ"])
@pytest.mark.parametrize("function", ["sum", "combiner"])
def test_validate_prints_the_references_numbers(dataset, function, golden, checkpoints, shared, capsys):
    data = ["--data-path", str(shared / "data" / "emoji_cir")]
    validate.main(["--dataset", dataset, "--combining-function", function, *checkpoints[function], *data])
    printed = [line.split(" = ") for line in capsys.readouterr().out.splitlines()]
    expected = golden("validation")["results"][f"{dataset} {function}"]
    assert [name for name, _ in printed] == list(expected)
    for name, value in printed:
        assert float(value) == pytest.approx(expected[name], abs=1e-4), name


def test_submission_is_the_references(checkpoints, shared, tmp_path):
    data = ["--data-path", str(shared / "data" / "emoji_cir")]
    cirr_test_submission.main(["--submission-name", "golden", *checkpoints["combiner"], *data])
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
    """The folder of pictures with its CIRR captions cut to those of tests/golden/training.json."""
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
def test_fine_tuning_follows_the_reference(encoder, golden, shared, cut_data, run_folder, tmp_path):
    recipe = ["--dataset", "CIRR", "--encoder", encoder, "--learning-rate", "1e-3", *RECIPE]
    tiny_clip = ["--clip-model-name", str(shared / "golden" / "tiny_clip.pt")]
    clip_fine_tune.main([*recipe, *tiny_clip, *cut_data, "--output-path", str(tmp_path)])
    assert_followed(run_folder(), golden("training")[f"clip_fine_tune_{encoder}"])


def test_combiner_training_follows_the_reference(golden, checkpoints, cut_data, run_folder, monkeypatch):
    def combiner_without_luck(*dimensions):
        combiner = Combiner(*dimensions)
        combiner.dropout.p = combiner.dynamic_scalar[2].p = 0
        fill_with_sines(combiner, 0.05)
        return combiner

    monkeypatch.setattr(combiner_train, "Combiner", combiner_without_luck)
    recipe = ["--projection-dim", "64", "--hidden-dim", "128", "--combiner-lr", "1e-3", *RECIPE]
    combiner_train.main([*recipe, *checkpoints["sum"], *cut_data])
    assert_followed(run_folder(), golden("training")["combiner_train_no_dropout"])
