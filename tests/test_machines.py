"""What breaks on other people's machines ends in one line, loses no epoch, and leaves nothing behind."""

import json
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
import threading
from argparse import Namespace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import Dataset

import clip_fine_tune
import combiner_train
import report
import validate
from data_utils import TripletImages, make_transform
from src.base import files
from src.base.errors import InputError
from src.base.loading import Loader
from src.base.memory import _MENTIONED
from src.models.openai_clip import small_clip as random_clip
from src.pictures.cache import ImageCache
from src.retrieval import ranking
from src.retrieval.row_store import file_key
from src.tasks.registry import TASKS
from src.training.state import STATE_FILE
from tests.commands import COMBINER, status_of, toy_options
from tests.forks import only_run
from tests.processes import PATIENCE, descendants_of, python, wait_for_end, wait_for_workers
from tests.splits import read_cirr
from utils import extract_caption_features, extract_index_features, load_clip
from validate import Validation

SHORT = ["--dataset", "CIRR", "--batch-size", "16", "--num-epochs", "1", "--learning-rate", "1e-3"]


def last_line(text):
    return text.splitlines()[-1].split("\r")[-1].strip()


def assert_one_line(done, *words):
    """Assert that a process ended as unusable input does, in a line with these words."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    line = last_line(done.stderr)
    assert "error: " in line
    assert all(word in line for word in words), line


# ---- workers ----


needs_mounts = pytest.mark.skipif(
    shutil.which("unshare") is None or subprocess.run(["unshare", "-m", "true"], check=False).returncode != 0,
    reason="needs the right to mount",
)


@needs_mounts
@pytest.mark.parametrize("command", ["clip_fine_tune", "validate"])
def test_a_small_shared_memory(command, world, tmp_path):
    extra = [*SHORT, "--save-training"] if command == "clip_fine_tune" else ["--dataset", "CIRR", "--no-feature-cache"]
    flags = [*extra, *toy_options(world, tmp_path), "--num-workers", "2"]
    mounted = f"mount -t tmpfs -o size=512k tmpfs /dev/shm && exec {sys.executable} {command}.py " + " ".join(flags)
    shell = ["unshare", "-m", "sh", "-c", mounted]
    options = {"cwd": files.PROJECT_ROOT, "capture_output": True, "text": True, "timeout": PATIENCE}
    done = subprocess.run(shell, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"}, **options)
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


def test_a_temporary_folder_with_a_long_path(world, tmp_path):
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    flags = [*SHORT, *toy_options(world, tmp_path), "--num-workers", "1"]
    done = python("clip_fine_tune.py", *flags, check=False, env=os.environ | {"TMPDIR": str(folder)})
    assert_one_line(done, "temporary folder's path is too long", "TMPDIR")


def test_too_few_open_files(world, tmp_path):
    flags = [*SHORT, *toy_options(world, tmp_path), "--num-workers", "30"]
    limit = partial(resource.setrlimit, resource.RLIMIT_NOFILE, (60, 60))
    done = python("clip_fine_tune.py", *flags, check=False, preexec_fn=limit)
    assert_one_line(done, "too many open files", "--num-workers")


class _Unsendable:
    def __reduce__(self):
        raise RuntimeError("no way to send this")


class _Things(Dataset):
    def __init__(self, make):
        self.make = make

    def __len__(self):
        return 4

    def __getitem__(self, number):
        return self.make()


def test_a_batch_that_cannot_be_sent():
    with pytest.raises(InputError, match="no way to send this; --num-workers 0 does without"):
        list(Loader(_Things(_Unsendable), 1, batch_size=None))


def test_memory_that_ends_in_a_worker():
    def fail():
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes.")

    with pytest.raises(InputError, match="the memory is full; fewer --num-workers"):
        list(Loader(_Things(fail), 1, batch_size=None))


def test_faults_of_a_dataset_keep_their_kind():
    def fail():
        raise RuntimeError("a fault of ours")

    with pytest.raises(RuntimeError, match="a fault of ours"):
        list(Loader(_Things(fail), 1, batch_size=None))


def test_training_and_validation_have_no_workers_at_the_same_time(options, monkeypatch):
    seen, original = [], Validation.metrics
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

    endless = [*SHORT, *toy_options(world, tmp_path / "endless"), "--num-workers", "1", "--num-epochs", "500"]
    with subprocess.Popen(
        [sys.executable, "-c", program, *map(str, endless)], cwd=files.PROJECT_ROOT, stderr=subprocess.DEVNULL
    ) as job:
        workers = wait_for_workers(job.pid, 2)
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


# ---- an epoch is never lost ----


def contents(run):
    weights = torch.load(next(run.glob("saved_models/*_1.pt")), weights_only=True)
    key = "CLIP" if "CLIP" in weights else "Combiner"
    return [(run / f"{name}_metrics.csv").read_text() for name in ("train", "validation")], weights[key]


@pytest.mark.parametrize(("script", "extra"), [(clip_fine_tune, []), (combiner_train, COMBINER)])
def test_an_epoch_outlives_the_failure_of_its_validation(script, extra, world, broken_world, options, tmp_path, capsys):
    rate = ["--learning-rate", "1e-3"] if script is clip_fine_tune else ["--combiner-lr", "1e-3"]
    flags = ["--dataset", "CIRR", *rate, "--batch-size", "16", "--num-epochs", "2", "--save-training", *extra]
    flags += ["--validation-frequency", "1", *options]
    script.main([*flags, "--output-path", str(tmp_path / "undisturbed")])

    picture = list(read_cirr(broken_world, "val").pictures.values())[3]
    whole = picture.read_bytes()
    picture.write_bytes(whole[:200])  # its first bytes are a picture's, so only decoding it finds out
    broken = [*flags, "--data-path", broken_world, "--output-path", tmp_path / "broken"]
    assert status_of(script.main, broken) == 2
    run = only_run(tmp_path / "broken")
    line = last_line(capsys.readouterr().err)
    assert f"{picture}: cannot be read as a picture" in line
    assert f"--resume {run} goes on from 1 finished epoch, with the validation of the last" in line
    assert len(pd.read_csv(run / "train_metrics.csv")) == 1

    picture.write_bytes(whole)
    assert status_of(script.main, ["--resume", run]) == 0, capsys.readouterr().err
    (tables, weights), (expected_tables, expected) = contents(run), contents(only_run(tmp_path / "undisturbed"))
    assert tables == expected_tables
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


# ---- before any work ----


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "an empty file; 1 of 70 pictures cannot be used (1: an empty file)"),
        (bytes(5000), "a file of zeros"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        (b"PK\x03\x04rest", "a ZIP archive"),
    ],
)
def test_pictures_that_are_none_at_first_sight(content, said, split, broken_world, capsys):
    picture = list(read_cirr(broken_world, split).pictures.values())[2]
    picture.write_bytes(content)
    flags = ["--dataset", "CIRR", "--data-path", broken_world, "--clip-model-name", "never looked for"]
    assert status_of(clip_fine_tune.main, flags) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {picture}: {said}")
    assert "check_data.py lists all" in line


def test_a_data_set_laid_out_a_little_differently(broken_world, capsys):
    dev = broken_world / "cirr_dataset" / "dev"
    flags = ["--dataset", "CIRR", "--data-path", broken_world]
    first = next(iter(read_cirr(broken_world, "val").pictures.values()))
    dev.rename(dev.parent / "cirr" / "dev")
    assert status_of(validate.main, flags) == 2
    assert f"30 of 30 are missing: {first.name}, " in (line := last_line(capsys.readouterr().err))
    assert f"; there is {dev.parent / 'cirr' / 'dev' / first.name} instead" in line
    (dev.parent / "cirr" / "dev").rename(dev)
    for picture in dev.iterdir():
        picture.rename(picture.with_suffix(".jpg"))
    assert status_of(validate.main, flags) == 2
    assert f"; there is {first.with_suffix('.jpg')} instead" in last_line(capsys.readouterr().err)


@pytest.mark.parametrize("script", [clip_fine_tune, combiner_train, validate])
def test_data_and_output_are_looked_at_before_clip(script, world, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    never = ["--dataset", "CIRR", "--clip-model-name", "never looked for", "--batch-size", "16"]
    flags = never[:4] if script is validate else never
    for extra, said in (
        (["--data-path", tmp_path], f"{tmp_path / 'cirr_dataset'}: no such folder"),
        (["--data-path", world, "--output-path", tmp_path / "file" / "run"], f"{tmp_path / 'file'}: is a file"),
    ):
        assert status_of(script.main, [*flags, *extra]) == 2
        assert said in last_line(capsys.readouterr().err)


# ---- file systems and terminals ----


def test_a_folder_that_cannot_be_synced(tmp_path, monkeypatch, capsys):
    sync = os.fsync

    def refuse(descriptor):
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):  # noqa: PTH112
            raise OSError(22, "Invalid argument")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse)
    monkeypatch.setattr(files, "_UNSYNCED", set())
    for name in ("a", "b"):
        files.write_json(tmp_path / name / "x.json", [1])
        assert json.loads((tmp_path / name / "x.json").read_text()) == [1]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{tmp_path / 'a'}: folders cannot be synced here (Invalid argument)")


@pytest.mark.parametrize("command", ["validate", "clip_fine_tune"])
def test_a_closed_pipe_ends_nothing(command, world, tmp_path):
    flags = [*SHORT, "--save-training"] if command == "clip_fine_tune" else ["--dataset", "CIRR"]
    started = [sys.executable, f"{command}.py", *flags, *toy_options(world, tmp_path)]
    reading, writing = os.pipe()
    os.close(reading)  # nobody reads from the beginning on
    with (tmp_path / "stderr").open("w") as stderr:
        done = subprocess.run(
            started, check=False, cwd=files.PROJECT_ROOT, stdout=writing, stderr=stderr, timeout=PATIENCE
        )
    os.close(writing)
    said = (tmp_path / "stderr").read_text()
    assert done.returncode == 0, said
    assert "Broken" not in said
    if command == "clip_fine_tune":
        assert (only_run(tmp_path) / "saved_models" / "tuned_clip_0.pt").is_file()


def test_a_full_disk_behind_the_output(world, tmp_path):
    with Path("/dev/full").open("w") as full:
        options = {"check": False, "stdout": full, "stderr": subprocess.PIPE, "capture_output": False}
        done = python("validate.py", "--dataset", "CIRR", *toy_options(world, tmp_path), **options)
    assert_one_line(done, "<stdout>: No space left on device")


def test_a_terminal_that_knows_ascii_alone(tmp_path):
    flags = ["--dataset", "CIRR", "--data-path", tmp_path / "größe"]
    done = python("validate.py", *flags, check=False, env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert_one_line(done, "gr\\xf6\\xdfe/cirr_dataset: no such folder")


def test_data_that_may_only_be_read(world, options):
    for path in (world / "cirr_dataset").rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        validate.main(["--dataset", "CIRR", *options])
    finally:
        for path in (world / "cirr_dataset").rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)


def test_a_picture_changed_within_its_old_times_has_another_key(tmp_path):
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"1234")
    key, status = file_key(picture), picture.stat()
    picture.write_bytes(b"5678")
    os.utime(picture, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert picture.stat().st_mtime_ns == status.st_mtime_ns
    assert file_key(picture) != key


# ---- runs ----


def test_a_run_has_one_owner(forks, world, tmp_path, capsys):
    endless = [*SHORT, *toy_options(world, tmp_path), "--save-training", "--num-epochs", "500"]
    (process,) = forks.start("clip_fine_tune", endless)
    forks.wait_for_file(tmp_path, f"models/*/{STATE_FILE}", process)
    run = only_run(tmp_path)
    assert status_of(clip_fine_tune.main, ["--resume", run]) == 2
    assert f"error: {run}: another process works on this run" in last_line(capsys.readouterr().err)
    os.kill(process, signal.SIGKILL)
    forks.wait()
    epochs = str(len(pd.read_csv(run / "train_metrics.csv")) + 2)
    assert status_of(clip_fine_tune.main, ["--resume", run, "--num-epochs", epochs]) == 0, capsys.readouterr().err
    assert not (run / ".lock").exists()


def test_a_run_can_be_used_from_anywhere(world, tmp_path, monkeypatch, capsys):
    shutil.copy(world / "small_clip.pt", tmp_path / "small.pt")
    (tmp_path / "data").symlink_to(world)
    monkeypatch.chdir(tmp_path)
    relative = ["--data-path", "data", "--output-path", "out", "--clip-model-name", "small.pt", "--num-workers", "0"]
    clip_fine_tune.main([*SHORT, *relative, "--save-training"])
    run = only_run(tmp_path / "out")
    tuned = run / "saved_models" / "tuned_clip_0.pt"
    monkeypatch.chdir("/")
    clip_fine_tune.main(["--resume", str(run), "--num-epochs", "2"])
    judging = ["--dataset", "CIRR", "--data-path", str(world), "--output-path", str(tmp_path), "--num-workers", "0"]
    validate.main([*judging, "--clip-model-path", str(tuned)])

    # The file of CLIP moves: it can be named anew, and another one cannot take its place.
    moved = ["--clip-model-name", str(tmp_path / "moved.pt")]
    (tmp_path / "small.pt").rename(tmp_path / "moved.pt")
    clip_fine_tune.main(["--resume", str(run), "--num-epochs", "3", *moved])
    validate.main([*judging, "--clip-model-path", str(tuned), *moved])
    report.main(["--run-folder", str(run), "--num-workers", "0", *moved])
    other = random_clip()
    torch.save(other.state_dict(), tmp_path / "other.pt")
    capsys.readouterr()
    more = ["--resume", run, "--num-epochs", "4", "--clip-model-name", tmp_path / "other.pt"]
    assert status_of(clip_fine_tune.main, more) == 2
    assert "the run has clip_weights " in last_line(capsys.readouterr().err)


# ---- Comet ----


class _IllServer(BaseHTTPRequestHandler):
    def answer(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        alive = "isAlive" in self.path
        if self.server.kind == "silence" and not alive:
            self.server.over.wait()
        page = b"<html>Please log in</html>" if self.server.kind == "login" else b"{}"
        self.send_response(500 if self.server.kind == "errors" and not alive else 200)
        self.send_header("Content-Type", "text/html" if self.server.kind == "login" else "application/json")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    do_GET = do_POST = do_PUT = answer

    def log_message(self, *_):
        pass


@pytest.fixture(params=["login", "errors", "silence"])
def ill_server(request):
    """Start a server that answers in Comet's place, and wrongly."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _IllServer)
    server.daemon_threads, server.kind, server.over = True, request.param, threading.Event()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/clientlib/"
    server.over.set()
    server.shutdown()


@pytest.mark.slow
def test_a_strange_server_in_comets_place(ill_server, world, tmp_path):
    """In a process of its own: Comet's client logs to the stderr that it met first."""
    program = (
        "import sys; from src.command import comet; comet.COMET_PATIENCE = 1\n"
        "import clip_fine_tune; clip_fine_tune.main(sys.argv[1:])"
    )
    flags = [*SHORT, *toy_options(world, tmp_path), "--api-key", "k" * 32, "--workspace", "lab"]
    done = python("-c", program, *flags, env=os.environ | {"COMET_URL_OVERRIDE": ill_server})
    assert "Traceback" not in done.stderr
    assert "archive" in done.stderr
    assert len(list(only_run(tmp_path).glob("*.zip"))) == 1


# ---- files of something else ----


@pytest.mark.parametrize(
    "wrap",
    [
        lambda weights: {"epoch": 3, "CLIP": {f"module.{key}": value for key, value in weights.items()}},
        lambda weights: {f"_orig_mod.{key}": value for key, value in weights.items()},
        lambda weights: {f"_orig_mod.module.{key}": value for key, value in weights.items()},
        lambda weights: {"state_dict": {f"module.{key}": value for key, value in weights.items()}, "optimizer": {}},
        lambda weights: {"model_state_dict": weights},
        lambda weights: {"model": weights},
    ],
)
def test_weights_as_other_programs_wrap_them(wrap, world, tmp_path):
    weights = torch.load(world / "small_clip.pt", weights_only=True)
    torch.save(wrap(weights), tmp_path / "wrapped.pt")
    loaded = load_clip(str(tmp_path / "wrapped.pt")).model.state_dict()
    assert all(torch.equal(loaded[key].cpu(), value) for key, value in weights.items())


def _save(content):
    return lambda path: torch.save(content, path)


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (_save({"epoch": np.int64(3), "CLIP": {}}), "scalar, which is code; save it again with tensors"),
        (_save({"args": Namespace(a=1)}), "it needs argparse.Namespace, which is code"),
        (_save(torch.nn.Linear(1, 1)), "it needs torch.nn.modules.linear.Linear, which is code"),
        (_save({"vision_model.embeddings.class_embedding": torch.ones(2)}), "a model of Hugging Face"),
        (lambda path: path.write_text("<!DOCTYPE html><html></html>"), "a web page; download the file again"),
        (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid"), "`git lfs pull`"),
        (lambda path: path.write_bytes(b"\x1f\x8b" + bytes(30)), "a gzip archive; unpack it"),
        (
            lambda path: path.write_bytes((20).to_bytes(8, "little") + b'{"a":1}' + bytes(30)),
            "cannot be read as weights",
        ),
        (lambda path: path.write_text("just some text, of no use to anybody"), "cannot be read as weights"),
    ],
)
def test_files_that_are_something_else(write, said, tmp_path):
    path = tmp_path / "file.pt"
    write(path)
    with pytest.raises(InputError) as raised:
        load_clip(str(path))
    (line,) = str(raised.value).splitlines()
    assert line.startswith(f"{path}: ")
    assert said in line


def test_json_may_begin_with_a_mark(broken_world):
    captions = read_cirr(broken_world, "val").path
    captions.write_bytes(b"\xef\xbb\xbf" + captions.read_bytes())
    assert len(read_cirr(broken_world, "val").triplets) == 24


# ---- torchrun and batch systems ----


def test_half_of_what_torchrun_sets(world, tmp_path):
    flags = ["validate.py", "--dataset", "CIRR", *toy_options(world, tmp_path)]
    done = python(*flags, check=False, env=os.environ | {"TORCHELASTIC_RUN_ID": "x", "RANK": "0"})
    assert_one_line(done, "TORCHELASTIC_RUN_ID is set, but LOCAL_RANK, WORLD_SIZE,", "torchrun")


@pytest.mark.parametrize("names", [("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS")])
def test_several_processes_that_torchrun_did_not_start(names, options, monkeypatch, capsys):
    monkeypatch.setenv(names[0], "0")
    monkeypatch.setenv(names[1], "4")
    validate.main(["--dataset", "CIRR", *options])
    assert f"{names[1]} is 4, but torchrun did not start this process: it works alone" in capsys.readouterr().err


# ---- memory ----


@pytest.fixture
def little_memory(small_clip, monkeypatch):
    """Let CLIP's encoders run out of memory, as torch says it, with more rows than a number that can be set."""
    clip_class, most = type(small_clip.model), {"encode_image": 1000, "encode_text": 1000}

    def limited(name, encode):
        def encode_few(self, rows):
            if len(rows) > most[name]:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB.")
            return encode(self, rows)

        return encode_few

    for name in most:
        monkeypatch.setattr(clip_class, name, limited(name, getattr(clip_class, name)))
    _MENTIONED.clear()
    return most.update


def test_encoding_is_halved(little_memory, small_clip, world, capsys):
    pictures = [(str(number), torch.randn(3, 64, 64)) for number in range(30)]
    captions = [f"a {'very ' * number}red dress" for number in range(30)]
    whole = extract_index_features(pictures, small_clip)[0], extract_caption_features(captions, small_clip)
    capsys.readouterr()
    little_memory(encode_image=7, encode_text=7)
    halved = extract_index_features(pictures, small_clip)[0], extract_caption_features(captions, small_clip)
    for ours, expected in zip(halved, whole, strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)
    said = capsys.readouterr().err
    assert said.count("the memory is full with 30 pictures at once: they are taken in halves") == 1
    assert said.count("the memory is full with 30 captions at once") == 1
    little_memory(encode_image=0)
    with pytest.raises(InputError, match=r"the memory is full with one of the pictures, \[3, 64, 64\]"):
        extract_index_features(pictures, small_clip)


def test_ranking_is_halved(monkeypatch, capsys):
    _MENTIONED.clear()
    gallery, queries = torch.randn(50, 8), torch.randn(40, 8)
    targets = torch.arange(40)
    whole = ranking.rank_targets(queries, gallery, targets)
    new_empty = torch.Tensor.new_empty

    def little(self, *size):
        if size[0] > 10:
            raise RuntimeError(
                "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory"
            )
        return new_empty(self, *size)

    monkeypatch.setattr(torch.Tensor, "new_empty", little)
    assert torch.equal(ranking.rank_targets(queries, gallery, targets), whole)
    assert "10 are ranked at once" in capsys.readouterr().err


def test_stage_1_finds_the_pieces_that_fit(little_memory, options, tmp_path, capsys):
    clip_fine_tune.main([*SHORT, *options, "--output-path", str(tmp_path / "whole")])
    little_memory(encode_image=5, encode_text=5)
    clip_fine_tune.main([*SHORT, *options, "--output-path", str(tmp_path / "pieces"), "--no-feature-cache"])
    said = capsys.readouterr().err
    assert said.count("CLIP takes") == 1
    assert "--batch-size 16: the memory is full; CLIP takes 4 pictures or captions at once (--clip-bs 4 saves" in said
    whole, pieces = (
        pd.read_csv(only_run(tmp_path / name) / "train_metrics.csv")["train_epoch_loss"] for name in ("whole", "pieces")
    )
    assert pieces.tolist() == pytest.approx(whole.tolist(), rel=1e-4)


def test_pieces_given_by_hand_are_kept(little_memory, options, tmp_path, capsys):
    little_memory(encode_image=5, encode_text=5)
    flags = [*SHORT, *options, "--clip-bs", "8", "--save-training"]
    assert status_of(clip_fine_tune.main, flags) == 2
    line = last_line(capsys.readouterr().err)
    assert "--clip-bs 8: the memory is full; --clip-bs 4 fits" in line
    assert f"--resume {only_run(tmp_path)} goes on from no finished epoch" in line


def test_where_nothing_helps(little_memory, options, tmp_path, capsys):
    little_memory(encode_image=0)
    assert status_of(clip_fine_tune.main, [*SHORT, *options]) == 2
    line = last_line(capsys.readouterr().err)
    assert "--batch-size 16: the memory is full (CUDA out of memory." in line
    assert "; not even one picture at a time fits; " in line


def test_memory_that_ends_later_keeps_the_last_epoch(options, tmp_path, monkeypatch, capsys):
    steps = []
    backward = torch.Tensor.backward

    def once(self, *arguments, **more):
        steps.append(1)
        if len(steps) == 5:  # in the second epoch of three steps
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory")
        return backward(self, *arguments, **more)

    monkeypatch.setattr(torch.Tensor, "backward", once)
    assert status_of(clip_fine_tune.main, [*SHORT, *options, "--save-training", "--num-epochs", "2"]) == 2
    line = last_line(capsys.readouterr().err)
    assert "the memory is full" in line
    assert f"--resume {only_run(tmp_path)} goes on from 1 finished epoch" in line
    assert status_of(clip_fine_tune.main, ["--resume", only_run(tmp_path)]) == 0
    assert len(pd.read_csv(Path(only_run(tmp_path)) / "train_metrics.csv")) == 2
