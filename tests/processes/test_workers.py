"""Worker processes that cannot start, load or send what they loaded end a command in one line, and leave nothing."""

import multiprocessing.util
import os
import pickle
import shutil
import subprocess
import sys

import pytest
import torch
from torch.utils.data import Dataset

import clip_fine_tune
from src.base import files
from src.base.errors import InputError
from src.evaluation.validation import Validation
from src.pictures.cache import ImageCache
from src.pictures.transforms import make_transform
from src.processes import workers
from src.processes.loading import Loader
from src.tasks.registry import TASKS
from src.training.batches import TripletImages
from tests.support.commands import ENDLESS, toy_options
from tests.support.forks import only_run
from tests.support.processes import (
    PATIENCE,
    assert_one_line,
    descendants_of,
    last_line,
    python,
    wait_for_end,
    wait_for_workers,
)

pytestmark = pytest.mark.workers
SHORT = ["--dataset", "CIRR", "--batch-size", "16", "--num-epochs", "1", "--learning-rate", "1e-3"]


needs_mounts = pytest.mark.skipif(
    shutil.which("unshare") is None or subprocess.run(["unshare", "-m", "true"], check=False).returncode != 0,
    reason="needs the right to mount",
)


@needs_mounts
@pytest.mark.parametrize("command", ["clip_fine_tune", "validate"])
def test_a_small_shared_memory(command, forks, world, tmp_path):
    extra = [*SHORT, "--save-training"] if command == "clip_fine_tune" else ["--dataset", "CIRR", "--no-feature-cache"]
    done = forks.done(command, [*extra, *toy_options(world, tmp_path), "--num-workers", "2"], shm=2**19)
    assert_one_line(done, "/dev/shm, is full", "--num-workers 0")


@pytest.mark.slow
@needs_mounts
def test_a_full_temporary_folder(world, tmp_path):
    """Only sockets and scratch files go there: a run does without room for any."""
    flags = " ".join([*SHORT, *toy_options(world, tmp_path), "--num-workers", "1"])
    (tmp_path / "tmp").mkdir()
    mounted = f"mount -t tmpfs -o size=4k tmpfs {tmp_path}/tmp && head -c 4096 /dev/zero > {tmp_path}/tmp/full; "
    run = f"TMPDIR={tmp_path}/tmp exec {sys.executable} clip_fine_tune.py {flags}"
    options = {"cwd": files.PROJECT_ROOT, "capture_output": True, "text": True, "timeout": PATIENCE}
    done = subprocess.run(["unshare", "-m", "sh", "-c", mounted + run], check=False, **options)
    assert "Traceback" not in done.stderr
    assert done.returncode == 0 or "error: " in last_line(done.stderr)


def test_a_temporary_folder_with_a_long_path(forks, world, tmp_path):
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    flags = [*SHORT, *toy_options(world, tmp_path), "--num-workers", "1"]
    done = forks.done("clip_fine_tune", flags, env={"TMPDIR": str(folder)})
    if hasattr(multiprocessing.util, "_get_base_temp_dir"):  # a newer Python takes another folder
        assert done.returncode == 0, done.stderr
    else:
        assert_one_line(done, "temporary folder's path is too long", "TMPDIR")


def test_too_few_open_files(forks, world, tmp_path):
    flags = [*SHORT, *toy_options(world, tmp_path), "--num-workers", "30"]
    assert_one_line(forks.done("clip_fine_tune", flags, files=60), "too many open files", "--num-workers")


class _Unsendable:
    def __reduce__(self):
        raise RuntimeError("no way to send this")


def _fail(words):
    raise RuntimeError(words)


class _Things(Dataset):
    def __init__(self, make, *arguments):
        self.make, self.arguments = make, arguments

    def __len__(self):
        return 4

    def __getitem__(self, number):
        return self.make(*self.arguments)


def test_a_batch_that_cannot_be_sent():
    with pytest.raises(InputError, match="no way to send this; --num-workers 0 does without"):
        list(Loader(_Things(_Unsendable), 1, batch_size=None))


def test_memory_that_ends_in_a_worker():
    words = "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes."
    with pytest.raises(InputError, match="the memory is full; fewer --num-workers"):
        list(Loader(_Things(_fail, words), 1, batch_size=None))


def test_faults_of_a_dataset_keep_their_kind():
    with pytest.raises(RuntimeError, match="a fault of ours"):
        list(Loader(_Things(_fail, "a fault of ours"), 1, batch_size=None))


def test_training_and_validation_have_no_workers_at_the_same_time(options, monkeypatch):
    seen, original = [], Validation.metrics
    list(Loader([0], 1))  # starts what stays, such as a fork server
    before = set(descendants_of(os.getpid()))

    def looking(*arguments):
        seen.append(set(descendants_of(os.getpid())) - before)
        return original(*arguments)

    monkeypatch.setattr(Validation, "metrics", looking)
    clip_fine_tune.main([*SHORT, "--num-epochs", "2", *options, "--num-workers", "2"])
    assert seen == [set(), set()]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_other_ways_of_starting_workers(method, world, tmp_path, options):
    """Train the same, and leave no worker behind a killed process."""
    clip_fine_tune.main([*SHORT, *options, "--output-path", str(tmp_path / "fork")])
    program = (
        f"import multiprocessing, sys; multiprocessing.set_start_method({method!r})\n"
        "import clip_fine_tune; clip_fine_tune.main(sys.argv[1:])"
    )
    cached = ["--num-workers", "1", "--image-cache", tmp_path / "pixels"]
    python("-c", program, *SHORT, *toy_options(world, tmp_path / method), *cached)
    losses = [(only_run(tmp_path / name) / "train_metrics.csv").read_text() for name in ("fork", method)]
    assert losses[0] == losses[1]

    endless = [*SHORT, *toy_options(world, tmp_path / "endless"), *ENDLESS, "--num-workers", "1"]
    with subprocess.Popen(
        [sys.executable, "-c", program, *map(str, endless)], cwd=files.PROJECT_ROOT, stderr=subprocess.DEVNULL
    ) as job:
        workers = wait_for_workers(job.pid, 2)
        job.kill()
    wait_for_end(workers)


@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_workers_of_a_killed_check_end(method, world):
    picture = next((world / "cirr_dataset" / "dev").iterdir())
    program = (
        "import multiprocessing, pathlib, sys; multiprocessing.set_start_method(sys.argv[1])\n"
        "from src.pictures.kinds import look_at_all; look_at_all([pathlib.Path(sys.argv[2])] * 300_000, 2)"
    )
    command = [sys.executable, "-c", program, method, picture]
    with subprocess.Popen(command, cwd=files.PROJECT_ROOT, stderr=subprocess.DEVNULL) as job:
        workers = wait_for_workers(job.pid, 2 if method == "fork" else 4)  # the server and its tracker too
        job.kill()
    wait_for_end(workers)


def test_what_workers_are_sent_is_small(world, tmp_path):
    preprocess = make_transform("targetpad", 1.25, 288)
    splits = list(TASKS["CIRR"].read_all(world, "train").values())
    cache = ImageCache(tmp_path, preprocess)
    cache.fill(list(splits[0].pictures.values()), num_workers=0)
    plain, cached = TripletImages(splits, preprocess), TripletImages(splits, preprocess, cache)
    sent = pickle.dumps(cached)
    assert len(sent) < len(pickle.dumps(plain)) + 50_000  # forty pictures have ten megabytes
    assert torch.equal(pickle.loads(sent)[[3, 5]].pixels, plain[[3, 5]].pixels)


@pytest.mark.parametrize(
    ("fault", "said"), [(BrokenPipeError(32, "Broken pipe"), ""), (ValueError("a fault"), "a fault")]
)
def test_a_worker_is_silent_about_an_employer_that_stopped(fault, said, capsys):
    """Threads of multiprocessing hand their exceptions to sys.excepthook."""
    workers._unless_left(sys.__excepthook__, type(fault), fault, None)
    printed = capsys.readouterr().err
    assert said in printed
    assert bool(said) == bool(printed)
