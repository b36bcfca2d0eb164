"""Features in files, made by OpenAI's clip, are as good as the CLIP itself; what they cannot do is said in a line."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

import circo_test_submission
import cirr_test_submission
import clip_fine_tune
import combiner_train
import search
import validate
from src.apps.demo.engine import Engine
from src.apps.features import __main__ as features
from src.base.errors import InputError
from src.command.flags import RetrieverOptions
from src.models.registry import load_clip, model_label
from src.retrieval.retriever import load_retriever
from tests.support.circo_world import write_circo
from tests.support.commands import COMBINER, status_of, toy_paths
from tests.support.features import encode_lists
from tests.support.forks import only_run

SHORT = ["--num-epochs", "2", "--batch-size", "8", "--validation-frequency", "1", "--combiner-lr", "1e-3"]
SHORT += [*COMBINER, "--dropout", "0", "--save-training", "--save-best"]
OWN = "my_pictures"


def list_and_encode(folder, data_path, weights, *datasets):
    """Make the features of data sets with OpenAI's clip; return their --clip-model-name."""
    features.main(list(map(str, ["--dataset", *datasets, "--data-path", data_path, "--list", folder])))
    return encode_lists(folder, data_path, weights)


@pytest.fixture(scope="module")
def held(world, tmp_path_factory):
    """The --clip-model-name of the features of all data sets of the toy world."""
    folder = tmp_path_factory.mktemp("held") / "features"
    return list_and_encode(folder, world, world / "small_clip.pt", "CIRR", "FashionIQ", world / OWN)


@pytest.fixture
def clips(held, world):
    """The --clip-model-name of a CLIP, and of its features in files."""
    return str(world / "small_clip.pt"), held


@pytest.fixture
def copied(held, tmp_path):
    """A copy of the features, to be broken."""
    return shutil.copytree(held.removeprefix("features:"), tmp_path / "copied")


@pytest.fixture
def options(world, tmp_path):
    """Return a function from a data set and the name of a CLIP to the options of a command."""

    def of_command(dataset, clip):
        where = world / dataset if dataset == OWN else dataset
        paths = toy_paths(world, tmp_path / model_label(clip))
        return ["--dataset", str(where), *paths, "--transform", "clip", "--clip-model-name", clip]

    return of_command


@pytest.fixture
def train(forks, options, tmp_path):
    """Return a function that trains stage 2 from a formula's weights; it returns the run folder."""

    def run(dataset, clip, *arguments, processes=1):
        shutil.rmtree(tmp_path / model_label(clip), ignore_errors=True)
        flags = [*options(dataset, clip), *SHORT, *arguments]
        # Loading a CLIP draws random numbers, so a seed gives each of the two other first weights.
        status = forks.run("combiner_train", flags, processes=processes, without_luck=True)
        assert status == 0, forks.said()
        return only_run(tmp_path / model_label(clip))

    return run


def losses_of(run):
    return pd.read_csv(run / "train_metrics.csv")["train_epoch_loss"].tolist()


@pytest.mark.parametrize(
    ("dataset", "arguments", "processes"),
    [
        ("CIRR", [], 1),
        ("CIRR", ["--negatives", "bank"], 2),
        ("FashionIQ", [], 1),
        ("FashionIQ", ["--mask-same-target"], 2),
        (OWN, [], 1),
    ],
)
def test_stage_2_and_all_that_is_judged_are_those_of_the_clip(
    dataset, arguments, processes, clips, train, forks, tmp_path, world
):
    runs = [train(dataset, clip, *arguments, processes=processes) for clip in clips]
    first, second = map(losses_of, runs)
    assert first == pytest.approx(second, rel=1e-6)
    first, second = ((run / "validation_metrics.csv").read_text() for run in runs)
    assert first == second
    written = []
    for run in runs:
        # Its checkpoint names the CLIP or the features itself.
        (weights, *_) = sorted((run / "saved_models").iterdir())
        name = json.loads((run / "training_hyperparameters.json").read_text())["dataset"]
        flags = ["--dataset", name, *toy_paths(world, tmp_path), "--combiner-path", weights, "--protocol", "all"]
        assert forks.run("validate", [*flags, "--per-query", run / "queries.csv"]) == 0, forks.said()
        written.append((forks.said(stream="stdout"), (run / "queries.csv").read_text()))
    assert written[0] == written[1]


def test_a_run_goes_on_where_its_pictures_are_not(held, train, forks, broken_world):
    whole = train("CIRR", held)
    losses, validation = losses_of(whole), (whole / "validation_metrics.csv").read_text()
    for suffix in (".png", ".jpg"):
        for picture in broken_world.rglob(f"*{suffix}"):
            picture.unlink()
    moved = ["--data-path", broken_world]
    run = train("CIRR", held, *moved, "--num-epochs", "1", processes=2)
    assert forks.run("combiner_train", ["--resume", run, "--num-epochs", "2"]) == 0, forks.said()
    assert losses_of(run) == pytest.approx(losses, rel=1e-6)
    assert (run / "validation_metrics.csv").read_text() == validation


def test_a_shrunken_gallery_of_own_triplets_is_refused(held, world, options, tmp_path, capsys):
    folder = shutil.copytree(world / OWN, tmp_path / OWN)
    (folder / "gallery.val.txt").unlink()
    reference, *_ = (folder / "triplets.val.csv").read_text().splitlines()[1].split(",")
    (folder / reference).unlink()
    arguments = [*options("CIRR", held), "--dataset", folder]
    assert status_of(validate.main, arguments) == 2
    assert "no such picture" in capsys.readouterr().err


def test_submissions_are_those_of_the_clip(clips, options, world, tmp_path):
    small_clip, held = clips
    circo = write_circo(tmp_path / "data")
    of_circo = list_and_encode(tmp_path / "circo", circo, world / "small_clip.pt", "CIRCO")
    for main, name, data, features_of in (
        (cirr_test_submission.main, "CIRR/recall_submission_x.json", world, held),
        (cirr_test_submission.main, "CIRR/recall_subset_submission_x.json", world, held),
        (circo_test_submission.main, "CIRCO/submission_x.json", circo, of_circo),
    ):
        found = []
        for clip in (small_clip, features_of):
            _, _, *flags = options("", clip)
            main([*flags, "--data-path", str(data), "--submission-name", "x"])
            found.append((tmp_path / model_label(clip) / "submission" / name).read_text())
        assert found[0] == found[1], name


def test_the_references_clip_ranks_alike_from_files(shared, tmp_path):
    """On its validation pictures, since its training texts are many."""
    whole, data = shared / "data" / "emoji_cir" / "cirr_dataset", tmp_path / "data"
    clip = shared / "golden" / "tuned_clip.pt"
    for name in ("dev", "cirr/captions/cap.rc2.val.json", "cirr/image_splits/split.rc2.val.json"):
        place = data / "cirr_dataset" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(whole / name)
    found = []
    for name in (str(clip), list_and_encode(tmp_path / "features", data, clip, "CIRR")):
        flags = ["--dataset", "CIRR", *toy_paths(data, tmp_path), "--transform", "clip", "--clip-model-name", name]
        validate.main([*flags, "--per-query", str(tmp_path / "queries.csv"), "--protocol", "all"])
        found.append(pd.read_csv(tmp_path / "queries.csv", dtype=str))
        (tmp_path / "queries.csv").unlink()
    first, second = found
    # Scores that differ in their last bit may change places in 0.1 % of the answers, as the reference allows itself.
    assert (first["answers"] == second["answers"]).mean() >= 0.999
    pd.testing.assert_frame_equal(first.drop(columns="answers"), second.drop(columns="answers"))


@pytest.mark.parametrize(
    ("main", "arguments", "fault"),
    [
        (clip_fine_tune.main, ["--batch-size", "8"], "an encoder that learns needs a CLIP"),
        (combiner_train.main, [*SHORT, "--encoder", "text"], "an encoder that learns needs a CLIP"),
        (validate.main, ["--clip-model-path", "CLIP"], "over which no weights can be loaded"),
        (search.main, ["--pictures", "PICTURES", "--caption", "in red"], "a search needs a CLIP"),
    ],
)
def test_what_encodes_is_refused(main, arguments, fault, held, options, world, tmp_path, capsys):
    places = {"CLIP": str(world / "small_clip.pt"), "PICTURES": str(world / OWN)}
    flags = options("CIRR", held)
    if main is search.main:
        flags = ["--output-path", str(tmp_path), "--clip-model-name", held]
    assert status_of(main, [*flags, *(places.get(argument, argument) for argument in arguments)]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert fault in line
    assert held in line
    assert not list(tmp_path.rglob("training_state.pt"))


def test_the_demo_is_refused_before_its_page(held, tmp_path):
    with pytest.raises(InputError, match="a search needs a CLIP"):
        Engine(load_retriever(RetrieverOptions(held, feature_cache=None)), {}, tmp_path, None)


def spoil(change):
    """Return a function that changes the array of a folder's file."""

    def spoiled(folder, name):
        rows = np.load(folder / name)
        np.save(folder / name, change(rows))

    return spoiled


def with_row(number, value):
    def change(rows):
        rows[number] = value
        return rows

    return spoil(change)


def as_text(folder, name):
    (folder / name).write_text("0.1, 0.2\n")


FAULTS = {
    "few": (spoil(lambda rows: rows[:-2]), "and 158, counted from 0, are lacking, of the 159 that NAME lists"),
    "many": (spoil(lambda rows: np.concatenate([rows, rows[:1]])), "rows for the"),
    "nan": (with_row([3, 7], np.nan), "rows 3, 7, counted from 0, are not finite (NaN or infinite)"),
    "infinite": (with_row(0, np.inf), "row 0, counted from 0, is not finite"),
    "zeros": (with_row(12, 0), "row 12, counted from 0, is all zeros"),
    "double": (spoil(lambda rows: rows.astype(np.float64)), "holds float64, expected float16 or float32"),
    "numbers": (spoil(lambda rows: rows.astype(np.int32)), "holds int32, expected float16 or float32"),
    "foreign order": (spoil(lambda rows: rows.astype(">f4")), "holds >f4, expected float16 or float32"),
    "objects": (spoil(lambda rows: rows.astype(object)), "not a .npy file"),
    "flat": (spoil(lambda rows: rows.ravel()), "expected [lines, numbers of a feature]"),
    "narrow": (spoil(lambda rows: rows[:, :-1]), "features of different sizes"),
    "text": (as_text, "not a .npy file"),
    "empty": (lambda folder, name: (folder / name).write_bytes(b""), "not a .npy file"),
    "torn": (lambda folder, name: (folder / name).write_bytes((folder / name).read_bytes()[:-9]), "not a .npy file"),
    "none": (lambda folder, name: (folder / name).unlink(), "no such file; expected features of the"),
    "folder": (lambda folder, name: ((folder / name).unlink(), (folder / name).mkdir()), "it is a folder, not a file"),
}


@pytest.mark.parametrize("name", ["pictures", "texts"])
@pytest.mark.parametrize("kind", FAULTS)
def test_a_faulty_file_is_named(kind, name, copied):
    spoiled, fault = FAULTS[kind]
    spoiled(copied, f"{name}.npy")
    with pytest.raises(InputError) as error:
        load_clip(f"features:{copied}")
    lines = len((copied / f"{name}.txt").read_text().splitlines())
    fault = fault.replace("158", str(lines - 1)).replace("159", str(lines)).replace("NAME", f"{name}.txt")
    assert fault.removeprefix("and ") in str(error.value)
    assert str(copied) in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_not_listed_is_named(copied, options, capsys):
    for name, main, arguments in (("texts", combiner_train.main, SHORT), ("pictures", validate.main, [])):
        path = copied / f"{name}.txt"
        lines = path.read_text().splitlines()
        at = next(number for number, line in enumerate(lines) if name == "texts" or "dev" in line)
        path.write_text("".join(f"{'not ' if number == at else ''}{line}\n" for number, line in enumerate(lines)))
        assert status_of(main, [*options("CIRR", f"features:{copied}"), *arguments]) == 2
        said = capsys.readouterr().err.splitlines()[-1]
        assert f"{path}: lacks 1 of " in said
        assert f": {lines[at]}; list them in another folder" in said


@pytest.mark.parametrize(("kind", "scale"), [(np.float16, 1), (np.float32, 7), (np.float16, 0.5)])
def test_any_type_and_length_of_features_is_read(kind, scale, copied, held):
    whole = load_clip(held)
    for name in ("pictures", "texts"):
        spoil(lambda rows: (scale * rows[:, :48]).astype(kind))(copied, f"{name}.npy")
    backbone = load_clip(f"features:{copied}")
    assert backbone.dimension == 48
    texts = (copied / "texts.txt").read_text().splitlines()[5:2:-1]
    found, expected = (clip.held("text", texts) for clip in (backbone, whole))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, scale * expected[:, :48], rtol=1e-3, atol=1e-3 * scale)


def test_digests_tell_features_apart(copied, held, small_clip):
    whole = load_clip(held)
    assert load_clip(f"features:{copied}").digest() == whole.digest()  # wherever it lies
    with_row(0, 1)(copied, "texts.npy")
    changed = load_clip(f"features:{copied}")
    assert changed.digest("image") == whole.digest("image")
    assert changed.digest("text") != whole.digest("text")
    assert len({changed.digest(), whole.digest(), small_clip.digest()}) == 3


def test_white_space_in_a_text_does_not_count(held):
    backbone = load_clip(held)
    text = next(line for line in (backbone.folder / "texts.txt").read_text().splitlines() if " " in line)
    assert torch.equal(backbone.held("text", [f" {text} ".replace(" ", "\n ")]), backbone.held("text", [text]))
