"""What tests share: a small toy world, its CLIP, and the reference implementation's numbers."""

import json
import multiprocessing
import os
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch

import utils
from src.toy import write_world
from tests.support.commands import toy_options
from tests.support.forks import Forks, only_run

GOLDEN = Path(__file__).parent / "golden"
# The reference's own checkpoints and the pictures they were trained on are too large for this repository.
SHARED = Path(__file__).absolute().parents[2] / "shared"


def pytest_addoption(parser):
    help_text = "how tests start processes: fork, forkserver, spawn (default: as this Python and system do)"
    parser.addoption("--start-method", help=help_text)


def pytest_configure(config):
    multiprocessing.set_start_method(config.getoption("--start-method"), force=True)
    # Else each worker of a fork server would import torch, for seconds.
    multiprocessing.set_forkserver_preload(["src.training.train"])


def pytest_runtest_setup(item):
    """Skip what needs a card where there is none."""
    if item.get_closest_marker("gpu") is not None and not torch.cuda.is_available():
        pytest.skip("needs a card, and torch sees none")


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Compute in one thread: on tensors this small two wait for each other, the longer the busier the machine is."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def no_terminal():
    """Print as into a file: the width of the terminal that the tests run in changes nothing."""
    os.environ.pop("COLUMNS", None)


@pytest.fixture(scope="session", autouse=True)
def early_server(request):
    """Start the server of `forks` beside the first tests, where any test wants it: it imports for seconds."""
    if any("forks" in item.fixturenames for item in request.session.items):
        request.getfixturevalue("forks")


@pytest.fixture(autouse=True)
def no_comet_account(monkeypatch):
    """Hide the account of whoever runs the tests, so that they never log to it."""
    for variable in ("COMET_API_KEY", "COMET_WORKSPACE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("COMET_CONFIG", "/dev/null")


@pytest.fixture(scope="session")
def device():
    return utils.device


@pytest.fixture(scope="session")
def golden():
    """Return a function that reads the reference's numbers in tests/golden, by the name of their file."""
    return lambda name: json.loads((GOLDEN / f"{name}.json").read_text())


@pytest.fixture(scope="session")
def shared():
    if not (SHARED / "golden" / "tuned_clip.pt").is_file():
        pytest.skip("needs the reference's checkpoints and the pictures they were trained on")
    return SHARED


@pytest.fixture
def ir_measures():
    """The evaluator that others use; requirements/test.txt says where it cannot be had."""
    return pytest.importorskip("ir_measures", reason="needs ir_measures, which has no wheels for Linux on ARM")


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """Draw a folder with both data sets and small_clip.pt: 40 / 30 / 30 pictures and 48 / 24 / 33 queries."""
    folder = tmp_path_factory.mktemp("world")
    write_world(folder, pictures=(40, 30, 30), queries=(48, 24, 33))
    return folder


@pytest.fixture
def broken_world(world, tmp_path):
    """Copy the toy world to tmp_path, to be broken."""
    shutil.copytree(world / "cirr_dataset", tmp_path / "cirr_dataset")
    shutil.copytree(world / "fashionIQ_dataset", tmp_path / "fashionIQ_dataset")
    return tmp_path


@pytest.fixture(scope="session")
def small_clip(world):
    """Load the toy world's CLIP as a Backbone."""
    return utils.load_clip(str(world / "small_clip.pt"))


@pytest.fixture
def options(world, tmp_path):
    """Return the options that every command needs to run on the toy world and write to tmp_path."""
    return toy_options(world, tmp_path)


@pytest.fixture
def run_folder(tmp_path):
    """Return a function that gives the one run folder of tmp_path."""
    return partial(only_run, tmp_path)


@pytest.fixture(scope="session")
def forks(tmp_path_factory):
    forks = Forks(tmp_path_factory.mktemp("forks"))
    yield forks
    forks.end()
