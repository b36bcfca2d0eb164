"""A small toy world, its CLIP, and the reference implementation's numbers."""

import json
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch

import utils
from src.toy import write_world
from tests.forks import Forks, only_run

GOLDEN = Path(__file__).parent / "golden"
# The reference's own checkpoints and the pictures they were trained on are too large for this repository.
SHARED = Path(__file__).absolute().parents[2] / "shared"


@pytest.fixture(scope="session", autouse=True)
def two_threads():
    torch.set_num_threads(2)


@pytest.fixture(autouse=True)
def no_comet_account(monkeypatch):
    """Tests never log to the account of whoever runs them."""
    for variable in ("COMET_API_KEY", "COMET_WORKSPACE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("COMET_CONFIG", "/dev/null")


@pytest.fixture(scope="session")
def device():
    return utils.device


@pytest.fixture(scope="session")
def golden():
    """The reference's numbers in tests/golden, by the name of their file."""
    return lambda name: json.loads((GOLDEN / f"{name}.json").read_text())


@pytest.fixture(scope="session")
def shared():
    if not (SHARED / "golden" / "tuned_clip.pt").is_file():
        pytest.skip("needs the reference's checkpoints and the pictures they were trained on")
    return SHARED


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """A folder with both datasets, 40 / 30 / 30 pictures and 48 / 24 / 33 queries, and small_clip.pt."""
    folder = tmp_path_factory.mktemp("world")
    write_world(folder, pictures=(40, 30, 30), queries=(48, 24, 33))
    return folder


@pytest.fixture
def broken_world(world, tmp_path):
    """A copy of the toy world to break, in tmp_path."""
    shutil.copytree(world / "cirr_dataset", tmp_path / "cirr_dataset")
    shutil.copytree(world / "fashionIQ_dataset", tmp_path / "fashionIQ_dataset")
    return tmp_path


@pytest.fixture(scope="session")
def small_clip(world):
    """A Backbone."""
    return utils.load_clip(str(world / "small_clip.pt"))


@pytest.fixture
def options(world, tmp_path):
    """The options that every command needs to run on the toy world and write to tmp_path."""
    paths = ["--data-path", str(world), "--output-path", str(tmp_path)]
    return [*paths, "--clip-model-name", str(world / "small_clip.pt"), "--num-workers", "0"]


@pytest.fixture
def run_folder(tmp_path):
    """The one run folder of tmp_path."""

    return partial(only_run, tmp_path)


@pytest.fixture(scope="session")
def forks(tmp_path_factory):
    forks = Forks(tmp_path_factory.mktemp("forks"))
    yield forks
    forks.end()
