"""One of torchrun's processes: how it joins the others, keeps silent and fails."""

import contextlib
import os
import signal
from collections.abc import Iterator
from datetime import timedelta

import torch
import torch.distributed as dist

from src.base.errors import InputError
from src.processes.workers import end_with_parent

PATIENCE = timedelta(hours=6)
"""How long a process waits for one that decodes or downloads for all. A dead process is noticed at once."""
OF_CARDS = timedelta(minutes=10)
"""How long cards wait for each other. NCCL does not notice a dead process."""

NEEDED = "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"
"""Variables that torchrun sets for each of its processes."""


def join() -> dist.ProcessGroup | None:
    """Join the other processes; return the group to wait in for PATIENCE, None for the one of all.

    Raises InputError where torchrun did not set its variables, or the machine has too few cards.
    """
    values = {name: os.environ.get(name, "") for name in NEEDED}
    lacking = [name for name, value in values.items() if not value or (name != "MASTER_ADDR" and not value.isdecimal())]
    if lacking:
        raise InputError(f"TORCHELASTIC_RUN_ID is set, but {', '.join(lacking)} not: start the command with torchrun")
    end_with_parent(signal.SIGTERM)  # torchrun itself may be killed
    if not torch.cuda.is_available():
        dist.init_process_group("gloo", timeout=PATIENCE)
        return None
    number, cards = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if number >= cards:
        raise InputError(f"--nproc-per-node {os.environ['LOCAL_WORLD_SIZE']}: this machine has {cards} GPUs")
    torch.cuda.set_device(number)
    dist.init_process_group("cpu:gloo,cuda:nccl", timeout=OF_CARDS)
    return dist.new_group(backend="gloo", timeout=PATIENCE)


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Let only rank 0 print and show progress bars."""
    with contextlib.ExitStack() as stack:
        if dist.get_rank() != 0:
            nowhere = stack.enter_context(open(os.devnull, "w"))  # noqa: PTH123
            stack.enter_context(contextlib.redirect_stdout(nowhere))
            stack.enter_context(contextlib.redirect_stderr(nowhere))
        yield


def is_first_to_fail() -> bool:
    """Whether no other process of this job has failed before."""
    try:
        return dist.distributed_c10d._get_default_store().add("failed", 1) == 1
    except RuntimeError:  # the process that keeps the count is gone
        return True
