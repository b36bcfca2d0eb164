"""What checkpoints tell of themselves, and that no file of weights is more than data."""

import pickle
import re

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cirr_test_submission
import clip_fine_tune
import combiner_train
import search
import validate
from combiner import CombiningOptions, RetrieverOptions, load_combined
from src.base.errors import InputError
from src.models.checkpoints import write_checkpoint
from src.models.facts import read_facts
from src.models.openai_clip import random_clip
from src.models.weights import read_weights
from src.training.resuming import KEYS, read_state
from src.training.state import STATE_FILE
from tests.support.commands import COMBINER, status_of, toy_options, toy_paths
from tests.support.touch import Touch
from utils import load_clip, load_retriever

SHORT = ["--num-epochs", "1", "--batch-size", "16", "--save-training"]


@pytest.fixture(scope="module")
def trained(world, tmp_path_factory):
    """Train both stages with --transform squarepad; return their checkpoints."""
    folder = tmp_path_factory.mktemp("trained")
    clip_fine_tune.main(["--dataset", "CIRR", *SHORT, *toy_options(world, folder), "--transform", "squarepad"])
    (tuned,) = folder.glob("models/*/saved_models/tuned_clip_0.pt")
    combiner_train.main([*SHORT, *COMBINER, *toy_paths(world, folder), "--clip-model-path", str(tuned)])
    (combiner,) = folder.glob("models/*/saved_models/combiner_0.pt")
    return tuned, combiner


def test_what_checkpoints_tell(trained, world):
    tuned, combiner = map(read_facts, trained)
    assert tuned["clip_model_name"] == combiner["clip_model_name"] == str(world / "small_clip.pt")
    assert tuned["transform"] == combiner["transform"] == "squarepad"
    assert (tuned["dataset"], tuned["seed"], tuned["target_ratio"]) == ("CIRR", 0, 1.25)
    assert (combiner["projection_dim"], combiner["hidden_dim"]) == (16, 32)
    assert 0 <= tuned["metrics"]["recall_at50"] <= 100
    assert set(torch.load(trained[0], weights_only=True)) == {"epoch", "CLIP", "facts"}


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("ViT-B/32", "ViT-B/32"),
        ("weights.safetensors", "{path}"),
        ("open_clip:ViT-B-32:weights.safetensors", "open_clip:ViT-B-32:{path}"),
        ("hf:me/clip:weights.safetensors", "hf:me/clip:weights.safetensors"),
        ("features:weights.safetensors", "features:weights.safetensors"),
    ],
)
def test_a_clip_that_facts_name_is_found(name, found, tmp_path):
    path = tmp_path / "combiner.pt"
    torch.save({"epoch": 0, "Combiner": {}, "facts": {"clip_model_name": name}}, path)
    assert read_facts(path)["clip_model_name"] == found.format(path=path)


@pytest.fixture
def judge(world, tmp_path, capsys):
    """Return a function that runs validate.py on checkpoints: what it prints, or the line that it ends with."""

    def run(*arguments):
        capsys.readouterr()
        status = status_of(validate.main, ["--dataset", "CIRR", *toy_paths(world, tmp_path), *arguments])
        captured = capsys.readouterr()
        if status == 0:
            return captured.out
        assert status == 2
        (line,) = captured.err.splitlines()
        return line

    return run


def test_validate_takes_what_checkpoints_tell(trained, world, judge):
    tuned, combiner = trained
    small = world / "small_clip.pt"
    everything = ["--clip-model-name", small, "--transform", "squarepad", *COMBINER]
    told = judge("--clip-model-path", tuned, "--combiner-path", combiner)
    assert "recall_at50" in told
    assert told == judge(*everything, "--clip-model-path", tuned, "--combiner-path", combiner)


def test_a_flag_that_contradicts_is_refused(trained, judge, small_clip, world, tmp_path):
    tuned, combiner = trained
    line = judge("--clip-model-path", tuned, "--transform", "targetpad")
    assert f"--transform targetpad: {tuned} was trained with --transform squarepad" in line
    both = ["--clip-model-path", tuned, "--combiner-path", combiner]
    assert "--projection-dim 16 --hidden-dim 32, not of 99" in judge(*both, "--hidden-dim", "99")
    small = ["--clip-model-name", world / "small_clip.pt"]
    assert f"{combiner}: was trained on another CLIP" in judge(*small, "--combiner-path", combiner)


def test_submission_takes_what_checkpoints_tell(trained, world, tmp_path):
    tuned, combiner = trained
    arguments = ["--clip-model-path", str(tuned), "--combiner-path", str(combiner), "--submission-name", "mine"]
    cirr_test_submission.main([*toy_paths(world, tmp_path), *arguments])
    assert len(list((tmp_path / "submission" / "CIRR").iterdir())) == 2


def test_search_takes_what_checkpoints_tell(trained, world, tmp_path):
    tuned, combiner = trained
    paths = ["--output-path", tmp_path, "--num-workers", 0, "--pictures", world / "my_pictures", "--caption", "red"]
    paths += ["--clip-model-path", tuned, "--combiner-path", combiner]
    everything = ["--clip-model-name", world / "small_clip.pt", "--transform", "squarepad", *COMBINER]
    for name, options in (("told", []), ("said", everything)):
        search.main([str(part) for part in (*paths, *options, "--json", tmp_path / name)])
    assert (tmp_path / "told").read_text() == (tmp_path / "said").read_text()


def test_python_takes_what_checkpoints_tell(trained, world):
    small, (tuned, combiner) = str(world / "small_clip.pt"), trained
    both = CombiningOptions(combiner_path=str(combiner))
    for retriever in (
        load_retriever(RetrieverOptions(small, str(tuned), feature_cache=None)),
        load_combined(RetrieverOptions(small, tuned, feature_cache=None), both),
    ):
        assert retriever.preprocess.settings["transform"] == "squarepad"
    line = f"--transform targetpad: {tuned} was trained with --transform squarepad"
    with pytest.raises(InputError, match=re.escape(line)):
        load_combined(RetrieverOptions(small, tuned, "targetpad", feature_cache=None), both)


def test_stage_1_goes_on_from_a_checkpoint_and_takes_what_it_tells(trained, world, tmp_path):
    tuned, _ = trained
    still = ["--learning-rate", "1e-30", "--clip-model-path", str(tuned)]
    clip_fine_tune.main(["--dataset", "CIRR", *SHORT, *still, *toy_paths(world, tmp_path)])
    (again,) = tmp_path.glob("models/*/saved_models/tuned_clip_0.pt")
    before, after = (read_weights(path, "CLIP") for path in (tuned, again))
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert read_facts(again)["transform"] == "squarepad"


def test_stage_2_takes_what_stage_1_tells(trained, world, tmp_path, capsys):
    tuned, _ = trained
    with pytest.raises(SystemExit):
        combiner_train.main(["--data-path", str(world), "--clip-model-path", str(tuned), "--transform", "clip"])
    assert f"{tuned} was trained with --transform squarepad" in capsys.readouterr().err


# ---- hostile files ----

LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.builds(torch.zeros, st.integers(0, 3))
)
NAMES = st.text(max_size=8) | st.sampled_from(("CLIP", "facts", "visual.proj", "visual.conv1.weight"))
CONTENTS = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | st.just("CLIP"), inner, max_size=3)
    ),
    max_leaves=8,
)
FEW = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def assert_data_or_refused(read, path):
    """Read something, or be refused in one line that begins with the file."""
    try:
        read(path)
    except InputError as error:
        assert str(error).startswith(str(path))
        assert len(str(error).splitlines()) == 1


READERS = (lambda path: read_weights(path, "CLIP"), lambda path: load_clip(str(path)), read_facts)


@FEW
@given(content=CONTENTS)
def test_checkpoints_of_anything(content, tmp_path):
    path = tmp_path / "any.pt"
    torch.save(content, path)
    for read in READERS:
        assert_data_or_refused(read, path)
    path.rename(tmp_path / STATE_FILE)
    assert_data_or_refused(lambda path: read_state(path.parent), tmp_path / STATE_FILE)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Return the bytes of a whole checkpoint of a very small CLIP."""
    path = tmp_path_factory.mktemp("saved") / "clip.pt"
    torch.save(random_clip(8, 16, 1, 64, 8, 8, 16, 8, 1, 1).state_dict(), path)
    return path.read_bytes()


@FEW
@given(data=st.data())
def test_torn_and_mutated_checkpoints(data, saved, tmp_path):
    content = bytearray(saved)
    del content[data.draw(st.integers(0, len(saved))) :]
    for _ in range(data.draw(st.integers(0, 4)) if content else 0):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "torn.pt"
    path.write_bytes(content)
    for read in READERS:
        assert_data_or_refused(read, path)


@FEW
@given(data=st.data())
def test_mutated_whole_checkpoints(data, tmp_path):
    path = tmp_path / STATE_FILE
    write_checkpoint(path, dict.fromkeys(KEYS) | {"weights": {"a": torch.ones(3)}, "run": {"rows": [1, 2.5, "x"]}})
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    assert_data_or_refused(lambda path: read_state(path.parent), path)


@pytest.mark.parametrize("write", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_no_code_runs(write, tmp_path):
    path = tmp_path / "hostile.pt"
    write({"epoch": 0, "CLIP": {"a": Touch(tmp_path / "touched")}, "facts": Touch(tmp_path / "touched")}, path)
    for read in (lambda path: read_weights(path, "CLIP"), lambda path: load_clip(str(path))):
        with pytest.raises(InputError, match=r"hostile.pt: cannot be read as weights"):
            read(path)
    assert_data_or_refused(read_facts, path)
    with pytest.raises(InputError):
        read_state(path.rename(tmp_path / STATE_FILE).parent)
    assert not (tmp_path / "touched").exists()
