"""A run that is killed, at any moment and however often, ends as one that was not."""

import itertools
import json
import os
import random
import shutil
import signal
import time

import pytest
import torch

import clip_fine_tune
import combiner_train
import data_utils
from src.training.state import STATE_FILE
from tests.forks import children_of, finished_runs, only_run, wait_for_end

EPOCHS = 6
COMMON = ["--num-epochs", str(EPOCHS), "--batch-size", "16", "--save-training", "--seed", "3"]
STAGES = {
    "clip_fine_tune": [*COMMON, "--learning-rate", "1e-3"],
    "combiner_train": [*COMMON, "--combiner-lr", "1e-3", "--projection-dim", "64", "--hidden-dim", "64"],
}
MAIN = {"clip_fine_tune": clip_fine_tune.main, "combiner_train": combiner_train.main}


def contents(folder):
    """CSVs as text and weights as tensors: what a run is judged by."""
    tables = {path.name: path.read_text() for path in folder.glob("*.csv")}
    weights = {path.name: torch.load(path, weights_only=True) for path in (folder / "saved_models").iterdir()}
    return tables, weights


def assert_same(folder, expected):
    tables, weights = contents(folder)
    expected_tables, expected_weights = contents(expected)
    assert tables == expected_tables
    assert weights.keys() == expected_weights.keys()
    for name, saved in weights.items():
        key = "CLIP" if "CLIP" in saved else "Combiner"
        assert saved["epoch"] == expected_weights[name]["epoch"]
        assert all(torch.equal(tensor, expected_weights[name][key][part]) for part, tensor in saved[key].items()), name


@pytest.fixture(scope="module")
def whole_run(forks, world, tmp_path_factory):
    """The folder of a run that nobody disturbed: (command, dataset, saving best) → folder."""
    return finished_runs(forks, flags_of, world, tmp_path_factory.mktemp)


def flags_of(command, dataset, world, output, *extra):
    paths = ["--data-path", str(world), "--clip-model-name", str(world / "small_clip.pt"), "--num-workers", "0"]
    return ["--dataset", dataset, *paths, "--output-path", str(output), *STAGES[command], *extra]


def deaths():
    """Where to die, life after life: at some file operation, and in every third life inside a state's writing."""
    draws = random.Random(0)
    for life in itertools.count(1):
        yield {"writes": 2} if life % 3 == 0 else {"operations": draws.randint(8, 26)}


@pytest.mark.parametrize(
    ("command", "dataset", "extra", "workers"),
    [
        ("clip_fine_tune", "CIRR", (), "2"),
        ("clip_fine_tune", "FashionIQ", ("--save-best", "--encoder", "image"), "0"),
        ("combiner_train", "CIRR", ("--save-best",), "0"),
        ("combiner_train", "FashionIQ", (), "0"),
    ],
)
def test_killed_often_and_resumed_is_the_same_to_the_bit(
    command, dataset, extra, workers, forks, whole_run, world, tmp_path
):
    expected = whole_run(command, dataset, *extra)
    arguments = flags_of(command, dataset, world, tmp_path, *extra)
    statuses = []
    for death in itertools.islice(deaths(), 60):
        if list(tmp_path.glob("models/*/training_hyperparameters.json")):
            arguments = ["--resume", only_run(tmp_path)]
        else:
            shutil.rmtree(tmp_path / "models", ignore_errors=True)  # killed before there was a run to resume
        statuses.append(forks.run(command, [*arguments, "--num-workers", workers], output=str(tmp_path), **death))
        if statuses[-1] != -signal.SIGKILL:
            break
    assert statuses[-1] == 0, forks.said()
    assert len(statuses) > 5, statuses  # twenty kills at least over both stages and data sets
    assert_same(only_run(tmp_path), expected)
    left_over = [path for path in only_run(tmp_path).rglob(".*") if path.is_file()]
    assert left_over == []


def flags_and_folder(command, world, output, *extra):
    """Finish a run in this process; give its folder."""
    MAIN[command](flags_of(command, "CIRR", world, output, *extra))
    return only_run(output)


@pytest.mark.parametrize(("command", "extra"), [("clip_fine_tune", ()), ("combiner_train", ("--save-best",))])
def test_a_finished_run_goes_on_with_more_epochs(command, extra, forks, whole_run, world, tmp_path):
    expected = whole_run(command, "CIRR", *extra)
    assert forks.run(command, [*flags_of(command, "CIRR", world, tmp_path, *extra), "--num-epochs", "2"]) == 0
    run = only_run(tmp_path)
    assert forks.run(command, ["--resume", run, "--num-epochs", EPOCHS]) == 0, forks.said()
    assert_same(run, expected)
    assert json.loads((run / "training_hyperparameters.json").read_text())["num_epochs"] == EPOCHS
    assert forks.run(command, ["--resume", run]) == 0, forks.said()
    assert_same(run, expected)


@pytest.fixture(scope="module")
def finished(world, tmp_path_factory):
    """The folder of a finished run of stage 1, not to be changed."""
    return flags_and_folder("clip_fine_tune", world, tmp_path_factory.mktemp("finished"), "--num-epochs", "1")


@pytest.fixture
def refused(capsys):
    """Run a command that has to end with one line and status 2; give the line."""

    def run(command, *arguments):
        with pytest.raises(SystemExit) as end:
            MAIN[command]([str(argument) for argument in arguments])
        assert end.value.code == 2
        return capsys.readouterr().err.splitlines()[-1]

    return run


def test_contradicting_flags_are_named(finished, refused):
    line = refused("clip_fine_tune", "--resume", finished, "--batch-size", "24", "--encoder", "text", "--seed", "3")
    assert f"--resume {finished}: the run has --batch-size 16, not 24, --encoder both, not text" in line
    assert "--seed" not in line
    assert "--num-epochs 0" not in refused("clip_fine_tune", "--resume", finished, "--learning-rate", "1")
    assert "not a run of this command" in refused("combiner_train", "--resume", finished)
    assert "no such file" in refused("clip_fine_tune", "--resume", finished.parent)


def test_other_data_and_fewer_epochs_are_refused_and_leave_the_run_alone(world, refused, tmp_path):
    run = flags_and_folder("clip_fine_tune", world, tmp_path, "--num-epochs", "2")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert "the run has finished 2 already" in refused("clip_fine_tune", "--resume", run, "--num-epochs", "1")
    other = shutil.copytree(world, tmp_path / "other")
    captions = other / "cirr_dataset" / "cirr" / "captions" / "cap.rc2.train.json"
    captions.write_text(json.dumps(json.loads(captions.read_text())[:-1]))
    assert "the run trains on 48 triplets, there are 47 now" in refused(
        "clip_fine_tune", "--resume", run, "--num-epochs", "3", "--data-path", other
    )
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_run_that_saved_nothing_cannot_go_on(world, refused, tmp_path):
    arguments = [flag for flag in flags_of("clip_fine_tune", "CIRR", world, tmp_path) if flag != "--save-training"]
    clip_fine_tune.main([*arguments, "--num-epochs", "1"])
    assert not (only_run(tmp_path) / STATE_FILE).exists()
    assert "without --save-training" in refused("clip_fine_tune", "--resume", only_run(tmp_path))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_a_run_that_can_go_on(number, status, forks, whole_run, world, tmp_path):
    expected = whole_run("clip_fine_tune", "CIRR")
    (process,) = forks.start("clip_fine_tune", flags_of("clip_fine_tune", "CIRR", world, tmp_path))
    while not list(tmp_path.glob(f"models/*/{STATE_FILE}")):
        time.sleep(0.01)
    os.kill(process, number)
    assert forks.wait() == [status], forks.said()
    last = forks.said().splitlines()[-1]
    assert f"stopped by {number.name}: --resume {only_run(tmp_path)} goes on from" in last
    assert forks.run("clip_fine_tune", ["--resume", only_run(tmp_path)]) == 0, forks.said()
    assert_same(only_run(tmp_path), expected)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_workers_end_with_their_process_and_not_before(number, status, forks, world, tmp_path):
    """A signal to the whole group, as Ctrl-C is one, and a death in which nothing can be said."""
    flags = flags_of("clip_fine_tune", "CIRR", world, tmp_path, "--num-epochs", "500", "--num-workers", "2")
    (process,) = forks.start("clip_fine_tune", flags, group=True)
    while not list(tmp_path.glob(f"models/*/{STATE_FILE}")):
        time.sleep(0.01)
    workers = children_of(process)
    assert len(workers) >= 2
    os.killpg(process, number)
    assert forks.wait() == [status], forks.said()
    wait_for_end(workers)
    if number == signal.SIGTERM:
        assert f"stopped by SIGTERM: --resume {only_run(tmp_path)} goes on from" in forks.said()
        assert "DataLoader worker" not in forks.said()


@pytest.mark.parametrize("limit", [2_000, 100_000, 14_000_000])
def test_a_full_disk_is_named_and_leaves_the_old_files_whole(limit, forks, whole_run, world, tmp_path):
    """A limit on the size of files: the CSVs fit, then neither, then the weights but not the state."""
    expected = whole_run("clip_fine_tune", "CIRR")
    output = tmp_path / "run"
    assert forks.run("clip_fine_tune", flags_of("clip_fine_tune", "CIRR", world, output, "--num-epochs", "1")) == 0
    run = only_run(output)
    state = (run / STATE_FILE).read_bytes()
    assert forks.run("clip_fine_tune", ["--resume", run, "--num-epochs", EPOCHS], limit=limit) == 2
    line = forks.said().splitlines()[-1]
    assert line.startswith(f"error: {run}/")
    assert "File too large" in line or "it needs 0.0" in line, line
    assert (run / STATE_FILE).read_bytes() == state
    assert forks.run("clip_fine_tune", ["--resume", run, "--num-epochs", EPOCHS]) == 0, forks.said()
    assert_same(run, expected)


def test_a_disk_without_room_is_refused_before_training(world, refused, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=10_000_000))
    line = refused("clip_fine_tune", *flags_of("clip_fine_tune", "CIRR", world, tmp_path))
    assert "the weights need 0." in line
    assert "its disk has 0.01 GB free" in line
    assert not list(tmp_path.glob("models/*/*.csv"))


def test_a_dead_worker_is_named(world, refused, tmp_path, monkeypatch):
    monkeypatch.setattr(data_utils, "opened", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    arguments = flags_of("clip_fine_tune", "CIRR", world, tmp_path, "--num-workers", "1")
    line = refused("clip_fine_tune", *arguments)
    assert "DataLoader worker (pid" in line
    assert f"Fewer --num-workers, or 0, take less memory. --resume {only_run(tmp_path)} goes on" in line


def test_a_loss_that_is_not_finite_stops_the_run(world, refused, tmp_path):
    arguments = flags_of("clip_fine_tune", "CIRR", world, tmp_path, "--learning-rate", "1e30")
    line = refused("clip_fine_tune", *arguments)
    assert "epoch 0, step 1: the loss is nan" in line
    assert f"--resume {only_run(tmp_path)} goes on from no finished epoch" in line
    assert not (only_run(tmp_path) / "saved_models").exists()


def test_the_comet_experiment_goes_on(world, tmp_path):
    run = flags_and_folder("clip_fine_tune", world, tmp_path, "--num-epochs", "1", "--comet-offline")
    clip_fine_tune.main(["--resume", str(run), "--num-epochs", "2"])
    archives = sorted(path.name for path in run.glob("*.zip"))
    assert len(archives) == 2
    assert len({name[:32] for name in archives}) == 1, "both hold the same experiment"
