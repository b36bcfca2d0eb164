"""What breaks on other people's machines ends in one line, loses no epoch, and leaves nothing behind."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from argparse import Namespace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import clip_fine_tune
import combiner_train
import report
import validate
from src.base import files
from src.base.errors import InputError
from src.base.row_store import file_key
from src.models.openai_clip import small_clip as random_clip
from src.training.state import STATE_FILE
from tests.support.commands import COMBINER, ENDLESS, status_of, toy_options
from tests.support.forks import only_run
from tests.support.processes import PATIENCE, assert_one_line, last_line, python
from tests.support.splits import read_cirr
from tests.training.test_resume import assert_same
from utils import load_clip

SHORT = ["--dataset", "CIRR", "--batch-size", "16", "--num-epochs", "1", "--learning-rate", "1e-3"]


# ---- an epoch is never lost ----


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
    assert_same(run, only_run(tmp_path / "undisturbed"))


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
    assert "check_data.py --output FILE.json lists all" in line


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
    (process,) = forks.start("clip_fine_tune", [*SHORT, *toy_options(world, tmp_path), *ENDLESS])
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
        (_save({"epoch": np.int64(3), "CLIP": {}}), "scalar, which is code; save it again with only tensors"),
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
