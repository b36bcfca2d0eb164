"""Checks that this device computes what a processor computes, as differences with limits.

Whole trainings run on a toy world, with a small random CLIP (ResNet): in this process, in one that sees no card, and in
one under torchrun, which uses NCCL on a card. Without a card they compare the processor with itself.
"""

import contextlib
import io
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor, nn

import clip_fine_tune
import combiner_train
from src.base.errors import InputError
from src.base.files import PROJECT_ROOT
from src.models.backbone import Backbone
from src.models.openai_clip import random_clip
from src.toy import write_world
from src.training.resuming import read_state
from utils import device

CPU = torch.device("cpu")
CLIP = "small_resnet.pt"
RATE = "1e-3"  # of stage 1: high enough for five steps to show a wrong gradient
STEPS, MOST_SKIPPED = 5, 7  # steps that count; further ones that GradScaler may skip until it has found its scale
TRIPLETS = 16  # in the toy world: an epoch is one step, so the mean loss of an epoch is that of a step


class Check(NamedTuple):
    """How much two ways to compute one result differ, and how much they may."""

    what: str
    difference: float
    limit: float

    @property
    def holds(self) -> bool:
        return self.difference <= self.limit  # False for NaN

    def __str__(self):
        verdict = "holds" if self.holds else "FAILS"
        return f"check: {self.what} differ by {self.difference:.2g}, limit {self.limit:g}: {verdict}"


def checks(backbone: Backbone, folder: Path) -> Iterator[Check]:
    """Yield every Check of this device: features of `backbone`, and trainings that write to `folder`."""
    yield from features(backbone, device, CPU)
    yield from runs(folder)


def features(backbone: Backbone, one: torch.device, other: torch.device) -> Iterator[Check]:
    """Compare features of random pictures and of captions on two devices; `backbone` is left on `one`."""
    draws = torch.Generator().manual_seed(0)
    images = torch.randn(4, 3, *[backbone.resolution] * 2, generator=draws)
    tokens = backbone.trimmed(backbone.tokenize(["a red dress", "the same, but shorter and without the belt"]))
    found = []
    with torch.inference_mode():
        for place in (other, one):
            backbone.to(place)
            found.append((backbone.encode_images(images.to(place)), backbone.encode_tokens(tokens.to(place))))
    for what, theirs, ours in zip(("image features", "text features"), *found, strict=True):
        yield Check(f"{what}, {one.type} and {other.type},", relative(ours, theirs), 1e-4)


def runs(folder: Path) -> Iterator[Check]:
    """Compare trainings that have to give the same losses or weights."""
    write_toy(folder)
    first = ["--learning-rate", RATE, "--precision", "fp32"]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1"]
    with ThreadPoolExecutor() as pool:
        apart = pool.submit(run_apart, first, folder, "without a card", env={"CUDA_VISIBLE_DEVICES": ""})
        joined = pool.submit(run_apart, first, folder, "under torchrun", torchrun)
        whole = run(clip_fine_tune.main, first, folder, "whole")
        halved = run(clip_fine_tune.main, [*first[:-1], "fp16"], folder, "halved", epochs=STEPS + MOST_SKIPPED)
    apart, joined = apart.result(), joined.result()

    steps = f"losses of {STEPS} steps"
    yield Check(f"{steps} in fp32, {device.type} and cpu,", relative(losses(whole), losses(apart)), 1e-3)
    under = moved(losses(halved))[:STEPS]
    yield Check(f"{steps} under fp16 autocast, and of the cpu in fp32,", relative(under, losses(apart)), 2e-2)
    again = run(clip_fine_tune.main, first, folder, "again")
    yield Check("weights of stage 1 and of the same once more", largest(again, whole), 0)
    resumed = run_in_two(clip_fine_tune.main, first, folder, "resumed")
    yield Check("weights of stage 1 and of the same resumed", largest(resumed, whole), 0)
    second = ["--combiner-lr", "1e-3", "--projection-dim", "64", "--hidden-dim", "64"]
    whole_second = run(combiner_train.main, second, folder, "second")
    resumed = run_in_two(combiner_train.main, second, folder, "second resumed")
    yield Check("weights of stage 2 and of the same resumed", largest(resumed, whole_second), 0)
    engine = "NCCL" if device.type == "cuda" else "gloo"
    yield Check(f"weights of stage 1 by one process, without and with {engine},", largest(joined, whole), 1e-6)


def write_toy(folder: Path) -> None:
    """Write a toy world, and the random weights of a small CLIP whose visual tower is a ResNet."""
    write_world(folder, (TRIPLETS, 12, 12), (TRIPLETS, 8, 8))
    torch.manual_seed(0)
    model = random_clip(64, 64, (1, 1, 1, 1), 8, None, 77, 49408, 64, 1, 1)
    for name, weights in model.named_parameters():
        if name.endswith("bn3.weight"):  # with zeros a block gets no gradients
            nn.init.ones_(weights)
    torch.save(model.state_dict(), folder / CLIP)


def options(world: Path, name: str, epochs: int = STEPS) -> list[str]:
    """Return the options of every run: CIRR's triplets of the toy world in one batch, and an output folder `name`."""
    paths = ["--data-path", str(world), "--output-path", str(world / name), "--clip-model-name", str(world / CLIP)]
    steps = ["--batch-size", str(TRIPLETS), "--num-epochs", str(epochs), "--validation-frequency", str(STEPS)]
    return ["--dataset", "CIRR", *paths, *steps, "--num-workers", "0", "--no-feature-cache", "--save-training"]


def run(main: Callable, more: list[str], world: Path, name: str, epochs: int = STEPS) -> Path:
    """Run a training in this process; return its run folder."""
    call(main, [*options(world, name, epochs), *more])
    return next((world / name / "models").iterdir())


def run_in_two(main: Callable, more: list[str], world: Path, name: str) -> Path:
    """Run a training that stops after its third epoch and is resumed; return its run folder."""
    folder = run(main, more, world, name, epochs=3)
    call(main, ["--resume", str(folder), "--num-epochs", str(STEPS)])
    return folder


def call(main: Callable, argv: list[str]) -> None:
    """Run a command silently; raises InputError with its error if it fails."""
    output = io.StringIO()
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            main(argv)
    except SystemExit:
        raise InputError(error_in(output.getvalue())) from None


def run_apart(more: list[str], world: Path, name: str, launcher: Sequence[str] = (), env: Mapping = {}) -> Path:
    """Run stage 1 in a new process; return its run folder. Raises InputError with its error if it fails."""
    command = [sys.executable, *launcher, "clip_fine_tune.py", *options(world, name), *more]
    # The same number of threads as here: other sums are rounded differently, and Adam magnifies small differences.
    env = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())} | env
    ran = subprocess.run(command, cwd=PROJECT_ROOT, env=env, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise InputError(error_in(ran.stderr))
    return next((world / name / "models").iterdir())


def error_in(output: str) -> str:
    """Find the line that says why a command failed: its last error, since torchrun's own report follows below."""
    lines = [line.split("\r")[-1].strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    return (errors or lines or ["a command of the checks failed without a message"])[-1].removeprefix("error: ")


def losses(folder: Path) -> Tensor:
    """Read the mean losses [epochs] of a run."""
    return torch.tensor(pd.read_csv(folder / "train_metrics.csv")["train_epoch_loss"].to_numpy())


def moved(losses: Tensor) -> Tensor:
    """Drop losses equal to the one before: GradScaler skipped the step between them."""
    return losses[losses.diff(prepend=torch.zeros(1)).abs() > 1e-4 * losses]


def relative(ours: Tensor, theirs: Tensor) -> float:
    """Divide the norm of the difference by that of `theirs`; NaN if shapes differ."""
    ours, theirs = (tensor.detach().to(CPU, torch.float64) for tensor in (ours, theirs))
    return ((ours - theirs).norm() / theirs.norm()).item() if ours.shape == theirs.shape else math.nan


def largest(one: Path, other: Path) -> float:
    """Compute the largest difference of a weight between two runs."""
    ours, theirs = (read_state(folder)["weights"] for folder in (one, other))
    return max((ours[name].double() - theirs[name].double()).abs().max().item() for name in theirs)
