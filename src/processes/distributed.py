"""Processes that work on one job, as torchrun starts them.

All processes call every function here, in the same order. A process that torchrun did not start sets nothing up, and
every function works with one process.
"""

import contextlib
import functools
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from src.base.errors import InputError, Stopped, in_a_line

BROKEN = (
    *("closed by peer", "reset by peer", "broken pipe", "likely closed", "failed to recv, got 0 bytes"),
    *("ncclremoteerror", "remote process exited"),
)
"""Words of gloo, NCCL and their store, in lower case, for a process that is gone."""

_patient = None
"""The group in which processes wait for hours; None is the one of all, where no cards are."""


def processes() -> int:
    """The number of processes of this job."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_first() -> bool:
    """Whether this is rank 0, which prints and writes for all."""
    return not dist.is_initialized() or dist.get_rank() == 0


# ---- coming and going ----


def joining(main: Callable) -> Callable:
    """Let `main(argv)` run as one of torchrun's processes, if torchrun started it.

    The first process to fail says why. The others end in silence, also those that only notice a broken connection.
    """

    @functools.wraps(main)
    def joined(argv=None):
        if dist.is_initialized():
            return main(argv)
        if not dist.is_torchelastic_launched():
            _mention_others()
            return main(argv)
        from src.processes import torchrun  # late: most commands run in one process

        global _patient  # noqa: PLW0603
        _patient = torchrun.join()
        try:
            with torchrun.silence(), naming_lost_processes():
                _wait()  # one that failed before all are connected would end the others with torch's words
                result = main(argv)
        except (Exception, KeyboardInterrupt, Stopped) as error:
            if torchrun.is_first_to_fail():
                # torchrun sends SIGTERM when another process ends, which must not cut this one's words off.
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                raise
            raise SystemExit(error.code if isinstance(error, Stopped) else 2) from None
        dist.destroy_process_group()
        return result

    return joined


def _mention_others() -> None:
    """Print a line when a batch system started several processes, each of which would do the whole work."""
    for number, size in (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS")):
        if os.environ.get(size, "1") not in ("", "1") and os.environ.get(number, "0") == "0":
            line = f"{size} is {os.environ[size]}, but torchrun did not start this process: it works alone"
            print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def naming_lost_processes() -> Iterator[None]:
    """Turn torch's error about an exchange between processes into an InputError.

    A broken connection means that another process has ended. Everything else keeps its own words.
    """
    try:
        yield
    except RuntimeError as error:
        if not (isinstance(error, dist.DistError) or "third_party/gloo" in str(error)):
            raise
        own = in_a_line(error, longest=500)
        if any(words in own.lower() for words in BROKEN):
            raise InputError("another process of this job has ended, killed or by an error of its own") from None
        raise InputError(f"the processes cannot exchange: {own}") from None


@contextlib.contextmanager
def in_turn() -> Iterator[None]:
    """Let rank 0 go first, then the first process of each machine, then the others, who find on disk what it made."""
    if processes() == 1:
        yield
        return
    turn = 0 if is_first() else 1 if os.environ["LOCAL_RANK"] == "0" else 2
    for _ in range(turn):
        _wait()
    yield
    for _ in range(2 - turn):
        _wait()


def _wait() -> None:
    dist.all_reduce(torch.zeros(1), group=_patient)  # on the CPU, since waiting keeps a card busy


# ---- what is shared ----


def share(total: int) -> slice:
    """This process's share of `total` things; shares differ in size by one at most."""
    return shares(total)[dist.get_rank() if dist.is_initialized() else 0]


def shares(total: int) -> list[slice]:
    """Every process's share of `total` things."""
    ends = [total * number // processes() for number in range(processes() + 1)]
    return [slice(*pair) for pair in zip(ends, ends[1:], strict=False)]


def broadcast(value):
    """Return the first process's `value`, of any kind. What the others give is not looked at."""
    if processes() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0, group=_patient, device=torch.device("cpu"))
    return values[0]


def shared_out(numbers: Sequence[int], compute: Callable[[Sequence[int]], Tensor]) -> Tensor:
    """Return `compute(numbers)`, a row for each number. Each process computes a share, and all get the whole."""
    if processes() == 1 or not numbers:
        return compute(numbers)
    return in_dealt_order(compute(dealt(numbers)))[: len(numbers)]


def dealt(numbers: Sequence[int]) -> list[int]:
    """Deal `numbers` in turn and return this process's part, padded with the last one so that all are as long."""
    first = dist.get_rank() if dist.is_initialized() else 0
    ends = range(first, first + processes() * -(-len(numbers) // processes()), processes())
    return [numbers[min(place, len(numbers) - 1)] for place in ends]


def in_dealt_order(rows: Tensor) -> Tensor:
    """Gather all processes' `rows`, equally many in each, in the order before `dealt`."""
    if processes() == 1:
        return rows
    return torch.stack(everyones(rows.contiguous()), dim=1).flatten(0, 1)


def everyones(rows: Tensor) -> list[Tensor]:
    """Return every process's `rows`, which must be alike in shape."""
    rows_of_all = [torch.empty_like(rows) for _ in range(processes())]
    dist.all_gather(rows_of_all, rows, group=_patient if rows.device.type == "cpu" else None)
    return rows_of_all
