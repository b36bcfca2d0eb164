"""A run that is killed, at any moment and however often, ends as one that was not."""

import itertools
import json
import random
import shutil
import signal
import subprocess
import sys

import pytest
import torch

import clip_fine_tune
import combiner_train
from src.files import PROJECT_ROOT

EPOCHS = 6
COMMON = ["--num-epochs", str(EPOCHS), "--batch-size", "16", "--save-training", "--seed", "3"]
STAGES = {
    "clip_fine_tune": [*COMMON, "--learning-rate", "1e-3"],
    "combiner_train": [*COMMON, "--combiner-lr", "1e-3", "--projection-dim", "64", "--hidden-dim", "64"],
}
MAIN = {"clip_fine_tune": clip_fine_tune.main, "combiner_train": combiner_train.main}

# A process that imports everything once and then forks: one child for each order it reads. It tells how each ended.
# A child kills itself with SIGKILL at the n-th file operation in its run folder ("operations"), or in the middle of
# writing its n-th state ("writes"); it has no file above so many bytes ("limit").
SERVER = """
import glob, itertools, json, os, resource, signal, sys, threading, time
import clip_fine_tune, combiner_train, comet_ml, torch
torch.set_num_threads(1)

def die(): os.kill(os.getpid(), signal.SIGKILL)

def die_at_operation(n):
    operations = itertools.count(1)
    def hook(event, arguments):
        if event in ("open", "os.rename") and "/models/" in str(arguments[0]) and next(operations) == n:
            die()
    sys.addaudithook(hook)

def die_while_writing(n, output):
    seen = set()
    def watch():
        while True:
            for path in glob.glob(output + "/models/*/.training_state.pt.*"):
                try:
                    status = os.stat(path)
                except OSError:
                    continue
                seen.add(status.st_ino)
                if len(seen) >= n and status.st_size > 100_000:
                    die()
            time.sleep(0.0005)
    threading.Thread(target=watch, daemon=True).start()

def child(order):
    os.dup2(os.open(os.devnull, os.O_RDWR), 1)
    os.dup2(os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    if "operations" in order: die_at_operation(order["operations"])
    if "writes" in order: die_while_writing(order["writes"], order["output"])
    if "limit" in order: resource.setrlimit(resource.RLIMIT_FSIZE, (order["limit"], resource.RLIM_INFINITY))
    {"clip_fine_tune": clip_fine_tune, "combiner_train": combiner_train}[order["command"]].main(order["arguments"])

for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        status = 0
        try:
            child(json.loads(line))
        except SystemExit as end:
            status = end.code
        except BaseException:
            import traceback
            traceback.print_exc()
            status = 1
        sys.stderr.flush()
        os._exit(status)
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


class Forks:
    """Commands as processes of their own, started without the seconds that importing torch takes."""

    def __init__(self, folder):
        self.log = folder / "stderr"
        self.server = subprocess.Popen(
            [sys.executable, "-c", SERVER], cwd=PROJECT_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def start(self, command, arguments, **order):
        """Start a command; gives its process."""
        order |= {"command": command, "arguments": [str(argument) for argument in arguments], "log": str(self.log)}
        self.server.stdin.write(json.dumps(order) + "\n")
        self.server.stdin.flush()
        return int(self.server.stdout.readline())

    def wait(self):
        """The status that the command ended with, minus the signal's number where one killed it."""
        return int(self.server.stdout.readline())

    def run(self, command, arguments, **order):
        """The status that a command ends with."""
        self.start(command, arguments, **order)
        return self.wait()

    def said(self):
        return self.log.read_text()


@pytest.fixture(scope="module")
def forks(tmp_path_factory):
    forks = Forks(tmp_path_factory.mktemp("forks"))
    yield forks
    forks.server.stdin.close()
    forks.server.wait()


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


def only_run(folder):
    (run,) = (folder / "models").iterdir()
    return run


@pytest.fixture(scope="module")
def whole_run(forks, world, tmp_path_factory):
    """The folder of a run that nobody disturbed: (command, dataset, saving best) → folder."""
    finished = {}

    def folder_of(command, dataset, *extra):
        if (command, dataset, extra) not in finished:
            output = tmp_path_factory.mktemp("whole")
            flags = flags_of(command, dataset, world, output, *extra)
            assert forks.run(command, flags) == 0, forks.said()
            finished[command, dataset, extra] = only_run(output)
        return finished[command, dataset, extra]

    return folder_of


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
        ("clip_fine_tune", "CIRR", (), "0"),
        ("clip_fine_tune", "FashionIQ", ("--save-best",), "2"),
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
    assert len(statuses) > 5, statuses
    assert_same(only_run(tmp_path), expected)
    left_over = [path for path in only_run(tmp_path).rglob(".*") if path.is_file()]
    assert left_over == []
