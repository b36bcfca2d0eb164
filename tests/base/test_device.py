"""Where commands compute, what they say of it, and what of a card's faults reaches the user."""

import re
import warnings

import pytest
import torch
import torch.distributed as dist

import clip_fine_tune
import combiner_train
import validate
from src.base.device import _unused_card, device_line, without_code
from src.base.errors import InputError
from src.processes import distributed, gradients
from src.retrieval.precision import resolved
from src.training.resuming import read_state
from src.training.state import STATE_FILE
from tests.support.commands import COMBINER, status_of, toy_options
from tests.support.forks import only_run
from tests.support.pretended_card import PretendedCard

BUILT = ["sm_75", "sm_80", "sm_90a", "compute_90"]
SHORT = ["--num-epochs", "1", "--batch-size", "16", "--save-training"]


@pytest.mark.parametrize(
    ("capability", "runs"),
    [((7, 5), True), ((8, 6), True), ((9, 0), True), ((12, 0), True), ((7, 0), False), ((6, 1), False)],
)
def test_a_card_that_this_torch_was_not_built_for(capability, runs):
    said = without_code("GTX 1080", capability, BUILT)
    assert (said == "") == runs
    own = "sm_{}{}".format(*capability)
    assert runs or said.startswith(f"GTX 1080 is not used: this torch has no code for it ({own}); https://pytorch.org")


def test_cards_of_other_makers_are_not_judged_by_nvidias_names():
    assert without_code("Instinct", (9, 4), ["gfx942"]) == ""


def test_a_driver_that_is_too_old_keeps_torchs_words():
    doubt = "CUDA initialization: The NVIDIA driver on your system is too old (found version 11040). Please update it."
    assert _unused_card([doubt]) == doubt.removeprefix("CUDA initialization: ")


@pytest.mark.parametrize(("capability", "emulates"), [((7, 5), True), ((8, 0), False)])
def test_bf16_on_a_card_that_emulates_it(capability, emulates, monkeypatch):
    with PretendedCard().inserted(monkeypatch):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
        assert device_line("bf16", 1).endswith("it only emulates bf16, fp16 and fp32 are faster") == emulates
        assert device_line("fp16", 1) == "computing on a pretended card in fp16, 1 process"


def test_frozen_buffers_are_not_sent():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        warnings.simplefilter("error")  # which pytest takes back
        wrapped = gradients.synchronised(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2)), total=4)
        assert not wrapped.will_sync_module_buffers()
    finally:
        dist.destroy_process_group()


def test_every_command_says_first_where_it_computes(world, tmp_path, capsys):
    options = ["--dataset", "CIRR", *toy_options(world, tmp_path)]
    said = []
    for main, more in ((clip_fine_tune.main, SHORT), (combiner_train.main, [*SHORT, *COMBINER]), (validate.main, [])):
        main([*options, *more])
        said.append(capsys.readouterr().err.splitlines()[0].split("\r")[0])
    assert said == 3 * [device_line("fp32", 1)]


def test_what_is_said_without_a_card():
    if torch.cuda.is_available():
        pytest.skip("there is a card")
    assert re.fullmatch(
        r"computing on the processor( \(.* is not used: .*\))? in bf16, 2 processes", device_line("bf16", 2)
    )
    assert resolved("auto", training=True) == "fp32"


@pytest.mark.parametrize("command", [clip_fine_tune.main, combiner_train.main])
def test_a_run_keeps_its_precision(command, world, tmp_path, capsys):
    more = [] if command is clip_fine_tune.main else COMBINER
    command(["--dataset", "CIRR", *toy_options(world, tmp_path), *SHORT, *more, "--precision", "bf16"])
    run = only_run(tmp_path)
    before = (run / STATE_FILE).read_bytes()
    assert status_of(command, ["--resume", run, "--num-epochs", 2, "--precision", "fp32"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.endswith(f"{STATE_FILE}: the run has precision bf16, not fp32; --precision bf16 goes on with it")
    assert (run / STATE_FILE).read_bytes() == before
    # A run from before this was kept takes any.
    content = read_state(run)
    del content["facts"]["precision"]
    torch.save(content, run / STATE_FILE)
    assert status_of(command, ["--resume", run, "--num-epochs", 2, "--precision", "fp32"]) == 0


NCCL = "NCCL error in: ProcessGroupNCCL.cpp:1, unhandled cuda error, NCCL version 2.29\n{}: {}\nLast error:\n{}"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            RuntimeError("[/third_party/gloo/pair.cc:534] Connection closed by peer [::1]:9"),
            "another process of this job",
        ),
        (dist.DistNetworkError("failed to recv, got 0 bytes"), "another process of this job has ended"),
        (
            dist.DistBackendError(NCCL.format("ncclRemoteError", "A call failed", "a remote process exited")),
            "another process of this job has ended",
        ),
        (
            dist.DistBackendError(
                NCCL.format("ncclUnhandledCudaError", "Call failed", "Cuda failure 'invalid device'")
            ),
            "the processes cannot exchange: NCCL error in: .* Cuda failure 'invalid device'",
        ),
        (
            RuntimeError("[/third_party/gloo/x.cc:1] Timed out waiting 600000ms"),
            "cannot exchange: .* Timed out waiting",
        ),
    ],
)
def test_only_a_broken_connection_is_a_lost_process(error, words):
    with pytest.raises(InputError, match=words), distributed.naming_lost_processes():
        raise error


def test_other_faults_are_no_faults_of_exchange():
    with pytest.raises(RuntimeError, match="^CUDA error: an illegal"), distributed.naming_lost_processes():
        raise RuntimeError("CUDA error: an illegal memory access was encountered")


@pytest.mark.gpu
def test_fp32_is_fp32_on_a_card():
    draws = torch.Generator().manual_seed(0)
    images, weights = torch.randn(4, 64, 32, 32, generator=draws), torch.randn(64, 64, 3, 3, generator=draws)
    exact = torch.nn.functional.conv2d(images.double(), weights.double())
    found = torch.nn.functional.conv2d(images.cuda(), weights.cuda()).cpu()
    assert (found - exact).norm() < 1e-6 * exact.norm()  # with TF32 3e-4


def test_no_rounding_of_factors_is_allowed():
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32
