"""A run that is killed, at any moment and however often, ends as one that was not."""

import itertools
import json
import os
import random
import shutil
import signal
import time

import pandas as pd
import pytest
import torch

import clip_fine_tune
import combiner_train
from src.base.errors import InputError
from src.command.training_flags import OPTIONS_FILE
from src.processes import loading
from src.training.loop import Training
from src.training.run import UNFINISHED, new_run_folder
from src.training.state import STATE_FILE, Keeper
from tests.support.commands import ENDLESS, status_of, toy_options
from tests.support.forks import finished_runs, only_run, runs_of
from tests.support.processes import wait_for_end, wait_for_workers

EPOCHS, FEW_EPOCHS = 6, 3
COMMON = ["--num-epochs", str(EPOCHS), "--batch-size", "16", "--save-training", "--seed", "3"]
STAGES = {
    "clip_fine_tune": [*COMMON, "--learning-rate", "1e-3"],
    "combiner_train": [*COMMON, "--combiner-lr", "1e-3", "--projection-dim", "64", "--hidden-dim", "64"],
}
MAIN = {"clip_fine_tune": clip_fine_tune.main, "combiner_train": combiner_train.main}


def contents(folder):
    """Read what a run is judged by: its CSVs as text, its weights as tensors."""
    tables = {path.name: path.read_text() for path in folder.glob("*.csv")}
    weights = {path.name: torch.load(path, weights_only=True) for path in (folder / "saved_models").iterdir()}
    return tables, weights


def assert_same(folder, expected):
    tables, weights = contents(folder)
    expected_tables, expected_weights = contents(expected)
    assert tables == expected_tables
    assert weights.keys() == expected_weights.keys()
    for name, saved in weights.items():
        assert saved["epoch"] == expected_weights[name]["epoch"]
        for key in saved.keys() & {"CLIP", "Combiner"}:
            same = (torch.equal(tensor, expected_weights[name][key][part]) for part, tensor in saved[key].items())
            assert all(same), name


@pytest.fixture(scope="module")
def whole_run(forks, world, tmp_path_factory):
    """Return a function from (command, dataset, flags) to the folder of a run that nobody disturbed."""
    return finished_runs(forks, flags_of, world, tmp_path_factory.mktemp)


def flags_of(command, dataset, world, output, *extra):
    return ["--dataset", dataset, *toy_options(world, output), *STAGES[command], *extra]


def deaths():
    """Yield where to die, life after life: at some file operation, in every third life in the middle of a state."""
    draws = random.Random(0)
    for life in itertools.count(1):
        yield {"writes": 2} if life % 3 == 0 else {"operations": draws.randint(8, 26)}


@pytest.mark.slow
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
        if runs_of(tmp_path):
            arguments = ["--resume", only_run(tmp_path)]
        statuses.append(forks.run(command, [*arguments, "--num-workers", workers], **death))
        if statuses[-1] != -signal.SIGKILL:
            break
    assert statuses[-1] == 0, forks.said()
    assert len(statuses) > 5, statuses  # twenty kills at least over both stages and data sets
    assert_same(only_run(tmp_path), expected)
    left_over = [path for path in only_run(tmp_path).rglob(".*") if path.is_file()]
    assert left_over == []


@pytest.mark.parametrize(
    ("number", "status", "operations"),
    [
        (signal.SIGINT, 130, range(1, 13, 2)),
        (signal.SIGTERM, 143, range(2, 13, 2)),
        (signal.SIGKILL, -signal.SIGKILL, range(1, 13)),
    ],
)
def test_a_run_that_is_stopped_before_its_first_step_goes_on(
    number, status, operations, forks, whole_run, world, tmp_path
):
    """At each file operation from the first one on, that is while the folder is made and filled."""
    expected = whole_run("clip_fine_tune", "CIRR", "--num-epochs", "1")
    without_folder = 0
    for operation in operations:
        output = tmp_path / str(operation)
        flags = flags_of("clip_fine_tune", "CIRR", world, output, "--num-epochs", "1")
        assert forks.run("clip_fine_tune", flags, operations=operation, signal=number) == status, forks.said()
        if number == signal.SIGKILL and not runs_of(output):
            without_folder += 1
            continue
        if number != signal.SIGKILL:
            line = f"stopped by {number.name}: --resume {only_run(output)} goes on from no finished epoch"
            assert forks.said().splitlines()[-1] == line
        if operation in (5, 6, 12):  # each is a training
            assert forks.run("clip_fine_tune", ["--resume", only_run(output)]) == 0, forks.said()
            assert_same(only_run(output), expected)
    assert without_folder < 8


def test_what_a_kill_left_of_a_folder_in_the_making_is_removed_later(tmp_path):
    models, now = tmp_path / "models", time.time()
    for name, age in (("old", 7200), ("new", 60)):
        (models / f"{UNFINISHED}{name}").mkdir(parents=True)
        os.utime(models / f"{UNFINISHED}{name}", (now - age, now - age))
    (models / "a_run").mkdir()
    folder = new_run_folder(models, "run", {"seed": 1})
    assert {path.name for path in models.iterdir()} == {f"{UNFINISHED}new", "a_run", folder.name}
    assert json.loads((folder / OPTIONS_FILE).read_text()) == {"seed": 1}


def test_runs_of_one_second_get_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr("src.training.run.time_stamp", lambda: "now")
    folders = [new_run_folder(tmp_path, "run", {"seed": seed}) for seed in range(3)]
    assert [folder.name for folder in folders] == ["run_now", "run_now_2", "run_now_3"]
    assert [json.loads((folder / OPTIONS_FILE).read_text())["seed"] for folder in folders] == [0, 1, 2]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "not a JSON file"),
        ('{"dataset": "CIRR", "num_ep', "not a JSON file"),
        ("[1]", "holds a list where a dict is expected"),
        ('{"encoder": "both", "num_epochs": "many"}', "num_epochs is 'many', which --num-epochs does not take"),
        ('{"encoder": "sideways"}', "encoder is 'sideways'"),
        ('{"batch_size": true}', "batch_size is True"),
        ('{"data_path": 5}', "data_path is 5"),
        ('{"save_training": "yes"}', "save_training is 'yes'"),
        ('{"extra_triplets": [1]}', "extra_triplets is [1]"),
        ('{"precision": ["auto"]}', "precision is ['auto']"),
        ('{"scale": 1e999}', "scale is inf"),
        ('{"clip_model_name": null}', "clip_model_name is None"),
    ],
)
def test_options_that_are_torn_or_of_other_kinds(content, words, refused, tmp_path):
    (tmp_path / OPTIONS_FILE).write_text(content)
    line = refused("clip_fine_tune", "--resume", tmp_path)
    assert f"{tmp_path}/{OPTIONS_FILE}: " in line
    assert words in line


def flags_and_folder(command, world, output, *extra):
    """Finish a run in this process; return its folder."""
    MAIN[command](flags_of(command, "CIRR", world, output, *extra))
    return only_run(output)


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        ("combiner_train", ("--save-best",)),
        ("clip_fine_tune", ("--save-best", "--best-by", "mean(R@5+R_s@1)")),
        ("clip_fine_tune", ("--encoder", "text", "--negatives", "bank", "--scale", "50")),
        ("combiner_train", ("--negatives", "bank", "--dropout", "0.2", "--loss", "gce", "--robustness", "0.4")),
        ("combiner_train", ("--encoder", "text", "--learning-rate", "1e-3", "--frozen-epochs", "3")),
        ("combiner_train", ("--gallery-projection", "--negatives", "bank")),
    ],
)
def test_a_finished_run_goes_on_with_more_epochs(command, extra, forks, whole_run, world, tmp_path):
    expected = whole_run(command, "CIRR", *extra, "--num-epochs", "4")
    assert forks.run(command, [*flags_of(command, "CIRR", world, tmp_path, *extra), "--num-epochs", "2"]) == 0
    run = only_run(tmp_path)
    assert forks.run(command, ["--resume", run, "--num-epochs", "4"]) == 0, forks.said()
    assert_same(run, expected)
    assert json.loads((run / "training_hyperparameters.json").read_text())["num_epochs"] == 4
    assert forks.run(command, ["--resume", run]) == 0, forks.said()
    assert_same(run, expected)


@pytest.mark.parametrize("command", ["clip_fine_tune", "combiner_train"])
@pytest.mark.parametrize(
    ("torn", "validated"),
    [(None, [2]), *((torn, [1, 2]) for torn in ("1,50.0\n", "1,x", f"1,{'5' * 200_000}\n", f"1{',NaN' * 11}\n"))],
    ids=["whole", "short", "no number", "a long field", "NaN"],
)
def test_a_validation_whose_row_is_there_is_not_made_again(command, torn, validated, world, tmp_path, monkeypatch):
    """The state was written before the second validation; the table has its row, and that of an epoch that is lost."""
    extra = "--save-best", "--num-epochs", "3", "--validation-frequency", "1"
    expected = flags_and_folder(command, world, tmp_path / "whole", *extra)
    epochs, validate = [], Training.validate

    def failing(training, validation):
        epochs.append(training.state.next_epoch - 1)
        if epochs[-1] == 1 and not runs_of(tmp_path / "run")[0].joinpath(STATE_FILE).exists():
            raise InputError("no more")
        return validate(training, validation)

    monkeypatch.setattr(Training, "validate", failing)
    monkeypatch.setattr(Keeper, "save_state", only_at_once(Keeper.save_state))
    assert status_of(MAIN[command], flags_of(command, "CIRR", world, tmp_path / "run", *extra)) == 2
    run, rows = only_run(tmp_path / "run"), (expected / "validation_metrics.csv").read_text().splitlines(keepends=True)
    (run / "validation_metrics.csv").write_text("".join(rows if torn is None else [*rows[:2], torn]))
    del epochs[:]
    assert status_of(MAIN[command], ["--resume", run]) == 0
    assert epochs == validated
    assert_same(run, expected)


def only_at_once(save_state):
    """Return `save_state` for epochs that are too short for a state."""
    return lambda keeper, at_once=False: save_state(keeper, at_once) if at_once else None


@pytest.fixture(scope="module")
def finished(world, tmp_path_factory):
    """Return the folder of a finished run of stage 1, not to be changed."""
    return flags_and_folder("clip_fine_tune", world, tmp_path_factory.mktemp("finished"), "--num-epochs", "1")


@pytest.fixture
def refused(capsys):
    """Return a function that runs a command, which has to end with status 2, and returns its last line."""

    def run(command, *arguments):
        assert status_of(MAIN[command], arguments) == 2
        return capsys.readouterr().err.splitlines()[-1]

    return run


def test_contradicting_flags_are_named(finished, refused):
    line = refused("clip_fine_tune", "--resume", finished, "--batch-size", "24", "--encoder", "text", "--seed", "3")
    assert f"--resume {finished}: the run has --batch-size 16, not 24, --encoder both, not text" in line
    assert "--seed" not in line
    assert "--num-epochs 0" not in refused("clip_fine_tune", "--resume", finished, "--learning-rate", "1")
    assert "a run of another command" in refused("combiner_train", "--resume", finished)
    assert "not a run folder" in refused("clip_fine_tune", "--resume", finished.parent)


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


def test_a_run_from_before_an_option_has_its_default(world, refused, tmp_path):
    run = flags_and_folder("combiner_train", world, tmp_path, "--num-epochs", "1")
    path = run / "training_hyperparameters.json"
    path.write_text(json.dumps({name: of for name, of in json.loads(path.read_text()).items() if name != "dropout"}))
    assert "--dropout 0.5, not 0.2" in refused("combiner_train", "--resume", run, "--dropout", "0.2")
    combiner_train.main(["--resume", str(run), "--num-epochs", "2"])
    assert json.loads(path.read_text())["dropout"] == 0.5


def test_a_run_that_saved_nothing_cannot_go_on(world, refused, tmp_path):
    arguments = [flag for flag in flags_of("clip_fine_tune", "CIRR", world, tmp_path) if flag != "--save-training"]
    clip_fine_tune.main([*arguments, "--num-epochs", "1"])
    assert not (only_run(tmp_path) / STATE_FILE).exists()
    assert "without --save-training" in refused("clip_fine_tune", "--resume", only_run(tmp_path))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_a_run_that_can_go_on(number, status, forks, whole_run, world, tmp_path):
    (process,) = forks.start("clip_fine_tune", flags_of("clip_fine_tune", "CIRR", world, tmp_path, *ENDLESS))
    forks.wait_for_file(tmp_path, f"models/*/{STATE_FILE}", process)
    os.kill(process, number)
    assert forks.wait() == [status], forks.said()
    last = forks.said().splitlines()[-1]
    assert f"stopped by {number.name}: --resume {only_run(tmp_path)} goes on from" in last
    run = only_run(tmp_path)
    finished = len(pd.read_csv(run / "train_metrics.csv"))  # many, where the machine was busy with something else
    epochs = ("--num-epochs", str(max(FEW_EPOCHS, finished)))
    assert forks.run("clip_fine_tune", ["--resume", run, *epochs]) == 0, forks.said()
    assert_same(run, whole_run("clip_fine_tune", "CIRR", *epochs, "--save-best"))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGKILL, -9)])
@pytest.mark.workers
def test_workers_end_with_their_process_and_not_before(number, status, forks, world, tmp_path):
    """A signal to the whole group, as Ctrl-C sends one, and a death that leaves no time for words."""
    flags = flags_of("clip_fine_tune", "CIRR", world, tmp_path, *ENDLESS, "--num-workers", "2")
    (process,) = forks.start("clip_fine_tune", flags, group=True)
    forks.wait_for_file(tmp_path, f"models/*/{STATE_FILE}", process)
    workers = wait_for_workers(process, 2)
    os.killpg(process, number)
    assert forks.wait() == [status], forks.said()
    wait_for_end(workers)
    if number == signal.SIGTERM:
        assert f"stopped by SIGTERM: --resume {only_run(tmp_path)} goes on from" in forks.said()
        assert "DataLoader worker" not in forks.said()


@pytest.mark.parametrize("limit", [2_000, 100_000, 14_000_000])
def test_a_full_disk_is_named_and_leaves_the_old_files_whole(limit, forks, whole_run, world, tmp_path):
    """Under a limit on the size of files: of the weights next to nothing fits, a part, or all but not the state."""
    epochs = "--num-epochs", str(FEW_EPOCHS)
    expected = whole_run("clip_fine_tune", "CIRR", *epochs)
    output = tmp_path / "run"
    assert forks.run("clip_fine_tune", flags_of("clip_fine_tune", "CIRR", world, output, "--num-epochs", "1")) == 0
    run = only_run(output)
    state = (run / STATE_FILE).read_bytes()
    assert forks.run("clip_fine_tune", ["--resume", run, *epochs], limit=limit) == 2
    line = forks.said().splitlines()[-1]
    assert line.startswith(f"error: {run}/")
    assert "File too large" in line or "it needs 0.0" in line, line
    assert (run / STATE_FILE).read_bytes() == state
    assert forks.run("clip_fine_tune", ["--resume", run, *epochs]) == 0, forks.said()
    assert_same(run, expected)


def test_a_disk_without_room_is_refused_before_training(world, refused, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=10_000_000))
    line = refused("clip_fine_tune", *flags_of("clip_fine_tune", "CIRR", world, tmp_path))
    assert "the weights need 0." in line
    assert "its disk has 0.01 GB free" in line
    assert not list(tmp_path.glob("models/*/*.csv"))


def _die(number, employer):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.workers
def test_a_dead_worker_is_named(world, refused, tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "start_worker", _die)
    arguments = flags_of("clip_fine_tune", "CIRR", world, tmp_path, "--num-workers", "1")
    line = refused("clip_fine_tune", *arguments)
    assert "DataLoader worker (pid" in line
    assert "Fewer --num-workers, or 0, take less memory" in line
    assert f"--resume {only_run(tmp_path)} goes on" in line


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
