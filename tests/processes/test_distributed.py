"""Any number of processes, and any --clip-bs, come to the same results."""

import itertools
import os
import re
import signal

import pandas as pd
import pytest
import torch
import torch.distributed

import validate
from src.base.files import write_json
from src.base.reading import read_json
from src.training.losses import contrastive_loss
from src.training.state import STATE_FILE
from tests.support.commands import ENDLESS, toy_options
from tests.support.forks import finished_runs, only_run
from tests.support.processes import assert_one_line, children_of, wait_for_end, wait_for_workers

# 14 is a multiple of neither 4 processes nor 8 pictures at once: shares and pieces differ in size.
RECIPE = ["--num-epochs", "3", "--batch-size", "14", "--validation-frequency", "1", "--seed", "2"]
STAGES = {
    "clip_fine_tune": ["--learning-rate", "1e-3"],
    "combiner_train": ["--combiner-lr", "1e-3", "--projection-dim", "64", "--hidden-dim", "64"],
}
PROJECTING = ["--gallery-projection", "32"]


def flags_of(command, dataset, world, output, *extra):
    return ["--dataset", dataset, *toy_options(world, output), *RECIPE, *STAGES[command], *extra]


@pytest.fixture(scope="module")
def alone(forks, world, tmp_path_factory):
    """Return a function from (command, dataset, flags) to the folder of a run of one process in whole batches."""
    return finished_runs(forks, flags_of, world, tmp_path_factory.mktemp)


def assert_alike(run, expected):
    ours, theirs = (pd.read_csv(folder / "train_metrics.csv") for folder in (run, expected))
    assert len(ours) >= 3
    pd.testing.assert_frame_equal(ours, theirs, rtol=1e-4, atol=0)
    assert (run / "validation_metrics.csv").read_text() == (expected / "validation_metrics.csv").read_text()


@pytest.mark.parametrize(
    ("command", "dataset", "processes", "extra"),
    [
        ("clip_fine_tune", "CIRR", 1, ["--clip-bs", "8"]),
        ("clip_fine_tune", "CIRR", 4, []),
        ("clip_fine_tune", "FashionIQ", 2, ["--clip-bs", "4"]),
        ("combiner_train", "CIRR", 4, ["--clip-bs", "8"]),
        ("combiner_train", "FashionIQ", 2, ["--clip-bs", "1"]),
    ],
)
def test_any_number_of_processes_and_pieces_train_alike(
    command, dataset, processes, extra, forks, alone, world, tmp_path
):
    expected = alone(command, dataset)
    flags = flags_of(command, dataset, world, tmp_path, *extra)
    assert forks.run(command, flags, processes=processes) == 0, forks.said()
    assert_alike(only_run(tmp_path), expected)


@pytest.mark.parametrize("encoder", ["text", "image"])
def test_one_encoder_learns_alike(encoder, forks, alone, world, tmp_path):
    expected = alone("clip_fine_tune", "CIRR", "--encoder", encoder)
    pieces = ["--encoder", encoder, "--clip-bs", "5", "--image-cache", tmp_path / "pixels"]
    flags = flags_of("clip_fine_tune", "CIRR", world, tmp_path, *pieces)
    assert forks.run("clip_fine_tune", flags, processes=2) == 0, forks.said()
    assert_alike(only_run(tmp_path), expected)


@pytest.mark.parametrize(
    ("command", "negatives"),
    [
        ("clip_fine_tune", ["--encoder", "text", "--negatives", "bank"]),
        ("clip_fine_tune", ["--mask-same-target"]),
        ("clip_fine_tune", ["--mask-same-target", "--loss", "gce"]),
        ("combiner_train", ["--negatives", "bank"]),
        ("combiner_train", ["--encoder", "text", "--learning-rate", "1e-4", "--frozen-epochs", "1"]),
        ("combiner_train", [*PROJECTING, "--negatives", "bank", "--encoder", "text", "--frozen-epochs", "1"]),
        ("combiner_train", PROJECTING),
    ],
)
def test_other_negatives_train_alike(command, negatives, forks, alone, world, tmp_path):
    expected = alone(command, "CIRR", *negatives)
    flags = flags_of(command, "CIRR", world, tmp_path, *negatives, "--clip-bs", "5")
    assert forks.run(command, flags, processes=4) == 0, forks.said()
    assert_alike(only_run(tmp_path), expected)


@pytest.fixture(scope="module")
def whole_gradients(forks, tmp_path_factory):
    """Return {model: gradients} of one process that takes the whole batch at once."""
    folder = tmp_path_factory.mktemp("gradients")
    for model in ("combiner", "projecting", "resnet", "transformer"):
        assert forks.run("gradients", [folder / model, model, None, "fp64"]) == 0, forks.said()
    return {path.name: torch.load(path, weights_only=True) for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("model", "processes", "clip_bs"),
    [
        *((model, processes, None) for model in ("combiner", "projecting") for processes in (2, 4)),
        *itertools.product(["resnet", "transformer"], [1, 2, 4], [1, 8]),
        *itertools.product(["resnet", "transformer"], [2, 4], [None]),
    ],
)
def test_gradients_of_a_step_are_those_of_the_whole_batch(model, processes, clip_bs, forks, whole_gradients, tmp_path):
    """In float64, dropout included. 13 triplets divide into no equal shares or pieces."""
    assert forks.run("gradients", [tmp_path / "found", model, clip_bs, "fp64"], processes=processes) == 0, forks.said()
    found, expected = torch.load(tmp_path / "found", weights_only=True), whole_gradients[model]
    assert found.keys() == expected.keys()
    largest = max(gradient.norm() for gradient in expected.values())
    for name, gradient in expected.items():
        # The gradient of an attention's key bias is rounding alone: softmax does not see that bias.
        assert (found[name] - gradient).norm() <= 1e-6 * gradient.norm() + 1e-14 * largest, name


@pytest.mark.parametrize(("precision", "model"), [("bf16", "transformer"), ("fp16", "resnet")])
def test_half_precision_gradients_in_pieces_are_no_worse(precision, model, forks, tmp_path):
    """Pieces stray no further from fp32 than the whole batch does, in both kinds of autocast."""
    ways = {
        "exact": (1, None, "fp32"),
        "whole": (1, None, precision),
        "pieces": (1, 1, precision),
        "two": (2, 2, precision),
    }
    found = {}
    for way, (processes, *how) in ways.items():
        assert forks.run("gradients", [tmp_path / way, model, *how], processes=processes) == 0, forks.said()
        found[way] = torch.load(tmp_path / way, weights_only=True)
    norm = sum(gradient.square().sum() for gradient in found["exact"].values())
    whole, pieces, two = (
        sum((found[way][name] - exact).square().sum() for name, exact in found["exact"].items()) / norm
        for way in ("whole", "pieces", "two")
    )
    assert 0 < whole < 1
    assert max(pieces, two) < 1.5 * whole


def test_a_loss_in_pieces_is_the_whole_one(monkeypatch, device):
    features = torch.nn.functional.normalize(torch.randn(2, 10, 4, device=device), dim=-1)
    results = []
    for at_once in (10, 4):
        monkeypatch.setattr("src.training.losses.QUERIES_AT_ONCE", at_once)
        predicted, targets = features.clone().requires_grad_()
        loss = contrastive_loss(predicted[2:9], targets, labels=torch.arange(2, 9, device=device))
        results.append((loss, *torch.autograd.grad(loss, (predicted, targets))))
    for whole, pieces in zip(*results, strict=True):
        torch.testing.assert_close(pieces, whole)
    rows = 100 * features[0] @ features[1].T
    by_hand = torch.stack([rows[row].logsumexp(0) - rows[row, row] for row in range(2, 9)]).mean()
    torch.testing.assert_close(results[0][0], by_hand)


def test_a_batch_with_no_triplet_for_a_process_is_refused_once(forks, world, tmp_path):
    flags = flags_of("clip_fine_tune", "CIRR", world, tmp_path, "--batch-size", "3")
    assert forks.run("clip_fine_tune", flags, processes=4) == 2
    said = [line for number in range(4) for line in forks.said(number).splitlines()]
    assert said == ["error: --batch-size 3: smaller than the number of processes (4)"]


def test_a_failure_of_one_process_ends_all_with_its_message(forks, broken_world, world, tmp_path):
    torn = broken_world / "cirr_dataset" / "dev"
    torn = sorted(torn.iterdir())[-1]
    torn.write_bytes(torn.read_bytes()[:100])
    flags = ["--dataset", "CIRR", *toy_options(world, tmp_path), "--data-path", broken_world]
    assert forks.run("validate", flags, processes=2) == 2
    said = [line for number in range(2) for line in forks.said(number).splitlines() if "error" in line]
    assert len(said) == 1
    assert f"error: {torn}: cannot be read as a picture" in said[0]


def test_one_process_writes_and_speaks(forks, world, tmp_path):
    flags = flags_of("combiner_train", "CIRR", world, tmp_path, "--comet-offline", "--num-epochs", "1")
    assert forks.run("combiner_train", flags, processes=2) == 0, forks.said()
    assert len(list(only_run(tmp_path).glob("*.zip"))) == 1
    assert len(re.findall("^epoch 0:", forks.said(stream="stdout"), re.MULTILINE)) == 1
    assert forks.said(1) == forks.said(1, "stdout") == ""
    assert len(list((tmp_path / "features").rglob("*.npy"))) == 4  # pictures and captions, of training and validation


@pytest.mark.parametrize("dataset", ["CIRR", "FashionIQ"])
def test_judging_is_shared_out_and_its_features_are_kept(dataset, forks, world, tmp_path, capsys):
    flags = ["--dataset", dataset, *toy_options(world, tmp_path)]
    assert forks.run("validate", flags, processes=4) == 0, forks.said()
    printed = forks.said(stream="stdout")
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "features").rglob("*.npy")}
    validate.main(flags)
    assert capsys.readouterr().out == printed
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "features").rglob("*.npy")} == kept
    validate.main([*flags, "--no-feature-cache"])
    assert capsys.readouterr().out == printed
    assert not torch.distributed.is_initialized()


def test_more_processes_than_queries(forks, broken_world, world, tmp_path):
    """Every process has something to encode, even where there is less than that."""
    annotations = broken_world / "cirr_dataset" / "cirr"
    captions, listing = annotations / "captions/cap.rc2.test1.json", annotations / "image_splits/split.rc2.test1.json"
    (triplet, *_), paths = read_json(captions, list), read_json(listing, dict)
    write_json(captions, [triplet])
    write_json(listing, {name: paths[name] for name in triplet["img_set"]["members"]})
    for processes, folder in ((1, "one"), (4, "four")):
        flags = [*toy_options(world, tmp_path / folder), "--data-path", broken_world, "--submission-name", "a"]
        assert forks.run("cirr_test_submission", flags, processes=processes) == 0, forks.said()
    one, four = ((tmp_path / folder / "submission" / "CIRR").iterdir() for folder in ("one", "four"))
    assert [path.read_bytes() for path in sorted(one)] == [path.read_bytes() for path in sorted(four)]


@pytest.mark.parametrize(("command", "dataset"), [("clip_fine_tune", "CIRR"), ("combiner_train", "FashionIQ")])
def test_resume_with_another_number_of_processes(command, dataset, forks, alone, world, tmp_path):
    flags = flags_of(command, dataset, world, tmp_path, "--num-epochs", "1", "--save-training")
    assert forks.run(command, flags, processes=4) == 0, forks.said()
    for processes, epochs in ((2, 2), (1, 3)):
        flags = ["--resume", only_run(tmp_path), "--num-epochs", epochs]
        assert forks.run(command, flags, processes=processes) == 0, forks.said()
    assert_alike(only_run(tmp_path), alone(command, dataset))


@pytest.fixture
def job(forks, world, tmp_path):
    """Start two processes with a worker each, on their way through more epochs than will be, as torchrun starts them.

    Return torchrun's number and theirs.
    """
    flags = flags_of("clip_fine_tune", "CIRR", world, tmp_path, *ENDLESS, "--num-workers", "1")
    torchrun = ["--standalone", "--nproc-per-node", "2", "clip_fine_tune.py", *flags]
    (pid,) = forks.start("torchrun", torchrun)
    forks.wait_for_file(tmp_path, f"models/*/{STATE_FILE}", pid)
    return pid, children_of(pid)


@pytest.mark.workers
def test_a_killed_process_ends_the_job_which_goes_on_with_fewer(job, forks, alone, world, tmp_path):
    _, processes = job
    workers = [worker for process in processes for worker in wait_for_workers(process, 1)]
    os.kill(processes[1], signal.SIGKILL)
    assert forks.wait() == [1]
    wait_for_end([*processes, *workers])
    said, run = forks.said(), only_run(tmp_path)
    way_on = rf"--resume {run} goes on from \d+ finished"
    ends = rf"(another process of this job has ended, [^;]*; |stopped by SIGTERM: ){way_on} epochs?(, with [^;]*)?$"
    assert re.search(ends, said, re.MULTILINE), said
    epochs = ["--num-workers", "0", "--num-epochs", len(pd.read_csv(run / "train_metrics.csv")) + 2]
    assert forks.run("clip_fine_tune", ["--resume", run, *epochs]) == 0, forks.said()
    assert_alike(run, alone("clip_fine_tune", "CIRR", *epochs))


@pytest.mark.workers
def test_a_killed_torchrun_takes_its_processes_along(job, forks, tmp_path):
    torchrun, processes = job
    os.kill(torchrun, signal.SIGKILL)
    assert forks.wait() == [-signal.SIGKILL]
    wait_for_end(processes)
    assert f"stopped by SIGTERM: --resume {only_run(tmp_path)} goes on from" in forks.said()


# ---- torchrun and batch systems ----


ODD = {"RANK": "a", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "-1"}
ODD |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "p"}


@pytest.mark.parametrize(
    ("variables", "names"),
    [({"RANK": "0"}, "LOCAL_RANK, WORLD_SIZE,"), (ODD, "RANK, LOCAL_WORLD_SIZE, MASTER_PORT not")],
)
def test_half_or_odd_of_what_torchrun_sets(variables, names, forks, world, tmp_path):
    flags = ["--dataset", "CIRR", *toy_options(world, tmp_path)]
    done = forks.done("validate", flags, env=variables | {"TORCHELASTIC_RUN_ID": "x"})
    assert_one_line(done, f"TORCHELASTIC_RUN_ID is set, but {names}", "torchrun")


@pytest.mark.parametrize("names", [("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS")])
def test_several_processes_that_torchrun_did_not_start(names, options, monkeypatch, capsys):
    monkeypatch.setenv(names[0], "0")
    monkeypatch.setenv(names[1], "4")
    validate.main(["--dataset", "CIRR", *options])
    assert f"{names[1]} is 4, but torchrun did not start this process: it works alone" in capsys.readouterr().err
