"""--skip-missing: what falls out, that it is said, and that every result of it bears a mark."""

import json
import re

import pandas as pd
import pytest

import cirr_test_submission
import clip_fine_tune
import combiner_train
import report
import validate
from src.base.errors import InputError
from src.pictures.pictures import Pictures
from src.pictures.skipping import Skipping
from src.pictures.transforms import make_transform
from tests.support.commands import COMBINER, status_of
from tests.support.splits import read_cirr, read_fashioniq

TRANSFORM = make_transform("clip", None, 8)
MARK = r"  \(not comparable: without \d+ of \d+ pictures, \d+ of \d+ triplets\)$"
TRAINING = ["--batch-size", "8", "--num-epochs", "1", "--save-training", "--skip-missing"]


@pytest.fixture
def gaps(broken_world):
    """Take a picture from each CIRR split of the toy world, and tear one of FashionIQ's validation dresses."""
    for split in ("train", "val", "test1"):
        read = read_cirr(broken_world, split)
        read.pictures[read.triplets[0].reference].unlink()
    dresses = read_fashioniq(broken_world, "dress", "val")
    torn = dresses.pictures[dresses.triplets[0].targets[0]]
    torn.write_bytes(torn.read_bytes()[:300])
    return broken_world


@pytest.fixture
def arguments(options, gaps):
    """Return the options of every command, on the toy world with gaps."""
    return [*options, "--data-path", str(gaps)]


@pytest.mark.parametrize("workers", [0, 2])
def test_pictures_and_what_names_them_fall_out(workers, gaps, capsys):
    skipping = Skipping(True, workers)
    whole = read_cirr(gaps, "val")
    lost = whole.triplets[0].reference
    usable = [skipping.usable(whole, TRANSFORM) for _ in range(2)][1]
    assert list(usable.pictures) == [name for name in whole.pictures if name != lost]
    assert usable.triplets == [triplet for triplet in whole.triplets if lost not in triplet.group]

    fallen_out = len(whole.triplets) - len(usable.triplets)
    line = capsys.readouterr().err.splitlines()[-1].split("\r")[-1]
    assert line.startswith(
        f"{whole.path}: --skip-missing leaves out 1 of 30 pictures and {fallen_out} of 24 triplets: "
    )
    assert line.endswith(f": {whole.pictures[lost].name} (No such file or directory)")
    assert skipping.remarks == {"not comparable": f"without 1 of 30 pictures, {fallen_out} of 24 triplets"}


def test_training_needs_no_groups(gaps):
    whole = read_cirr(gaps, "train")
    lost = whole.triplets[0].reference
    triplets = Skipping(True).usable(whole, TRANSFORM).triplets
    named = [lost in (triplet.reference, *triplet.targets) for triplet in whole.triplets]
    assert len(triplets) == named.count(False)
    assert any(lost in triplet.group for triplet in triplets)


def test_an_unreadable_picture_falls_out_too(gaps, capsys):
    skipping = Skipping(True)
    usable = skipping.usable(read_fashioniq(gaps, "dress", "val"), TRANSFORM)
    gallery = Pictures(usable.pictures, TRANSFORM)
    assert all(gallery[number][1].shape == (3, 8, 8) for number in range(len(gallery)))
    assert "leaves out 1 of " in capsys.readouterr().err


def test_without_gaps_nothing_changes(world, options, tmp_path, capsys):
    outputs = []
    for extra in ([], ["--skip-missing"]):
        validate.main(["--dataset", "FashionIQ", *options, *extra])
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1]
    combiner_train.main([*TRAINING, *COMBINER, *options])
    assert "not comparable" not in capsys.readouterr().out
    (folder,) = (tmp_path / "models").iterdir()
    for table in ("train_metrics", "validation_metrics"):
        assert "not comparable" not in pd.read_csv(folder / f"{table}.csv").columns


def test_nothing_left(gaps):
    for picture in (gaps / "cirr_dataset" / "dev").iterdir():
        picture.unlink()
    with pytest.raises(
        InputError, match="--skip-missing leaves nothing, without 30 of 30 pictures and 24 of 24 triplets"
    ):
        Skipping(True).usable(read_cirr(gaps, "val"), TRANSFORM)


@pytest.mark.parametrize("dataset", ["CIRR", "FashionIQ"])
def test_every_printed_metric_is_marked(dataset, arguments, capsys):
    validate.main(["--dataset", dataset, "--skip-missing", *arguments])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == {"CIRR": 7, "FashionIQ": 8}[dataset]
    assert all(re.search(rf"^[\w ]+ = [\d.]+{MARK}", line) for line in lines)


def test_a_submission_is_marked_and_its_files_are_right(arguments, tmp_path, gaps, capsys):
    cirr_test_submission.main(["--skip-missing", "--submission-name", "mine", *arguments])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert all(re.search(MARK, line) for line in lines)
    submission = json.loads((tmp_path / "submission" / "CIRR" / "recall_subset_submission_mine.json").read_text())
    usable = Skipping(True).usable(read_cirr(gaps, "test1"), TRANSFORM)
    assert set(submission) == {"version", "metric", *(triplet.id for triplet in usable.triplets)}


@pytest.mark.parametrize(("script", "extra"), [(clip_fine_tune, ["--dataset", "CIRR"]), (combiner_train, [*COMBINER])])
def test_rows_and_reports_are_marked(script, extra, arguments, run_folder, capsys):
    script.main([*TRAINING, *extra, *arguments])
    *_, epoch, folder = capsys.readouterr().out.splitlines()
    assert re.search(MARK, epoch)
    assert folder == str(run_folder())
    for table in ("train_metrics", "validation_metrics"):
        rows = pd.read_csv(run_folder() / f"{table}.csv")
        assert rows["not comparable"].str.fullmatch(r"without 2 of 70 pictures, \d+ of 72 triplets").all()

    assert status_of(report.main, ["--run-folder", run_folder(), "--num-workers", "0"]) == 2
    assert "no such picture" in capsys.readouterr().err
    report.main(["--run-folder", str(run_folder()), "--num-workers", "0", "--skip-missing"])
    for text in (capsys.readouterr().out, (run_folder() / "report.html").read_text()):
        assert f"Not comparable: {run_folder().name} was made without 2 of 70 pictures" in text
        assert "Not comparable: this page was made without 1 of 30 pictures" in text


@pytest.mark.parametrize("script", [clip_fine_tune, combiner_train, validate, cirr_test_submission])
def test_gaps_are_refused_without_it(script, arguments, tmp_path, capsys):
    dataset = [] if script is cirr_test_submission else ["--dataset", "CIRR"]
    training = ["--batch-size", "8"] if script in (clip_fine_tune, combiner_train) else []
    assert status_of(script.main, [*dataset, *training, *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    # A training reads two splits, and a picture of each is missing.
    missing, of = (2, 70) if script in (clip_fine_tune, combiner_train) else (1, 30)
    assert f"no such picture; {missing} of {of} are missing: " in line
    assert "--skip-missing" in line
    assert not (tmp_path / "features").exists()
