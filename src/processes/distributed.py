"""Processes that work on one job, as torchrun starts them.

All processes call every function here, in the same order. A process that torchrun did not start is alone: it sets
nothing up, and every function does its work with one process.
"""

import contextlib
import functools
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from src.base.errors import InputError, Stopped, in_a_line, one_line_errors
from src.processes.workers import end_with_parent

PATIENCE = timedelta(hours=6)
"""How long a process waits for one that decodes or downloads for all. A dead process is noticed at once."""
OF_CARDS = timedelta(minutes=10)
"""How long cards wait for each other. NCCL does not notice a dead process."""
BROKEN = (
    *("closed by peer", "reset by peer", "broken pipe", "likely closed", "failed to recv, got 0 bytes"),
    *("ncclremoteerror", "remote process exited"),
)
"""Words of gloo, NCCL and their store, in lower case, for a process that is gone."""


_patient = None
"""The group in which processes wait for PATIENCE; None is the one of all, where no cards are."""


def processes() -> int:
    """Return how many processes work on this job."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_first() -> bool:
    """Whether this is the process that speaks and writes for all."""
    return not dist.is_initialized() or dist.get_rank() == 0


# ---- coming and going ----


def command(main: Callable) -> Callable:
    """Make `main(argv)` a command, alone or as one of torchrun's processes, whose errors are one line."""
    return one_line_errors(joining(main))


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
        _join()
        try:
            with _silence(), naming_lost_processes():
                result = main(argv)
        except (Exception, KeyboardInterrupt, Stopped) as error:
            if _is_first_to_fail():
                # torchrun sends SIGTERM when another process ends, which must not cut this one's words off.
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                raise
            raise SystemExit(error.code if isinstance(error, Stopped) else 2) from None
        dist.destroy_process_group()
        return result

    return joined


NEEDED = "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"
"""Variables that torchrun sets for each of its processes."""


def _mention_others() -> None:
    """Say it when a batch system started several processes, each of which would do the whole work alone."""
    for number, size in (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS")):
        if os.environ.get(size, "1") not in ("", "1") and os.environ.get(number, "0") == "0":
            said = f"{size} is {os.environ[size]}, but torchrun did not start this process: it works alone"
            print(said, file=sys.stderr, flush=True)


def _join() -> None:
    told = {name: os.environ.get(name, "") for name in NEEDED}
    lacking = [name for name, value in told.items() if not value or (name != "MASTER_ADDR" and not value.isdecimal())]
    if lacking:
        raise InputError(f"TORCHELASTIC_RUN_ID is set, but {', '.join(lacking)} not: start the command with torchrun")
    end_with_parent(signal.SIGTERM)  # torchrun itself may be killed
    if not torch.cuda.is_available():
        dist.init_process_group("gloo", timeout=PATIENCE)
        return
    number, cards = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if number >= cards:
        raise InputError(f"--nproc-per-node {os.environ['LOCAL_WORLD_SIZE']}: this machine has {cards} GPUs")
    torch.cuda.set_device(number)
    dist.init_process_group("cpu:gloo,cuda:nccl", timeout=OF_CARDS)
    global _patient  # noqa: PLW0603
    _patient = dist.new_group(backend="gloo", timeout=PATIENCE)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Let no process but the first print anything or show a progress bar."""
    with contextlib.ExitStack() as stack:
        if not is_first():
            nowhere = stack.enter_context(open(os.devnull, "w"))  # noqa: PTH123
            stack.enter_context(contextlib.redirect_stdout(nowhere))
            stack.enter_context(contextlib.redirect_stderr(nowhere))
        yield


def _is_first_to_fail() -> bool:
    try:
        return dist.distributed_c10d._get_default_store().add("failed", 1) == 1
    except RuntimeError:  # whoever keeps the count is gone
        return True


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
    """Let the first process of all go first, then the first of each machine, then the others.

    Whoever comes later finds on disk what those before have made there.
    """
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
    """Return which of `total` things are this process's; the shares differ in size by one at most."""
    return _shares(total)[dist.get_rank() if dist.is_initialized() else 0]


def _shares(total: int) -> list[slice]:
    ends = [total * number // processes() for number in range(processes() + 1)]
    return [slice(*pair) for pair in zip(ends, ends[1:], strict=False)]


def broadcast(value):
    """Return the first process's `value`, of any kind. What the others give is not looked at."""
    if processes() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0, group=_patient, device=torch.device("cpu"))
    return values[0]


def summed(value: Tensor) -> Tensor:
    """Return the sum of a tensor over all processes."""
    if not dist.is_initialized():
        return value
    value = value.clone()
    dist.all_reduce(value)
    return value


def shared_out(numbers: Sequence[int], compute: Callable[[Sequence[int]], Tensor]) -> Tensor:
    """Return `compute(numbers)`, a row for each number. Each process computes a share, and all get the whole."""
    if processes() == 1 or not numbers:
        return compute(numbers)
    # Pad all shares to the same size with the last index, so that every process has work and all_gather shapes match.
    size = -(-len(numbers) // processes())
    first = size * dist.get_rank()
    rows = compute([numbers[min(place, len(numbers) - 1)] for place in range(first, first + size)]).contiguous()
    return torch.cat(_everyones(rows))[: len(numbers)]


def dealt(numbers: Sequence[int]) -> list[int]:
    """Return this process's part of `numbers`, dealt in turn; all parts are as long, the last number fills them up."""
    first = dist.get_rank() if dist.is_initialized() else 0
    ends = range(first, first + processes() * -(-len(numbers) // processes()), processes())
    return [numbers[min(place, len(numbers) - 1)] for place in ends]


def in_dealt_order(rows: Tensor) -> Tensor:
    """Return all processes' `rows`, as long in each, in the order that `dealt` dealt them in."""
    if processes() == 1:
        return rows
    return torch.stack(_everyones(rows.contiguous()), dim=1).flatten(0, 1)


def _everyones(rows: Tensor) -> list[Tensor]:
    """Return every process's `rows`, which must be alike in shape."""
    everyones = [torch.empty_like(rows) for _ in range(processes())]
    dist.all_gather(everyones, rows, group=_patient if rows.device.type == "cpu" else None)
    return everyones


def gathered(rows: Tensor, total: int) -> Tensor:
    """Return all processes' `rows` [`total`, dim], of which this one gives its `share`, with gradients."""
    return _Gather.apply(rows, total) if dist.is_initialized() else rows


class _Gather(torch.autograd.Function):
    """From own rows to everyone's. Backwards it sums what all processes found for one's own rows."""

    @staticmethod
    def forward(ctx, rows, total):
        ctx.total = total
        sizes = [rows.stop - rows.start for rows in _shares(total)]
        padded = rows.new_zeros(max(sizes), *rows.shape[1:])
        padded[: len(rows)] = rows
        return torch.cat([others[:size] for others, size in zip(_everyones(padded), sizes, strict=True)])

    @staticmethod
    def backward(ctx, gradient):
        gradient = gradient.contiguous().clone()  # it is summed in place, and autograd may use it elsewhere too
        dist.all_reduce(gradient)
        return gradient[share(ctx.total)], None


def synchronised(module: nn.Module, total: int, some_wait: bool = False) -> nn.Module:
    """Return `module`, to be called with one's share of a batch of `total` rows, with gradients summed over processes.

    `some_wait` says that some weights learn in later steps alone.
    Its dropout draws what one process would draw for the whole batch, so results do not depend on how many there are.
    """
    # One process of torchrun's goes this way too: so a machine with one card can show that the way is right.
    if not dist.is_initialized():
        return module
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Dropout:
                setattr(parent, name, _ShareOfDropout(child.p, total))
    # Buffers never change: batch norms are frozen, and masks are constant.
    options = {"broadcast_buffers": False, "find_unused_parameters": some_wait}
    with warnings.catch_warnings():
        # The newer name of this option is one that older torch does not know.
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
        wrapped = DistributedDataParallel(module, gradient_as_bucket_view=True, **options)
    wrapped.register_comm_hook(None, _sum)
    return wrapped


def _sum(_, bucket):
    """Sum gradients where DistributedDataParallel takes their mean: fp16 ones stay as large as one process's."""
    future = dist.all_reduce(bucket.buffer(), async_op=True).get_future()
    return future.then(lambda done: done.value()[0])


class _ShareOfDropout(nn.Dropout):
    """Dropout for one's share of a batch of `total` rows, with the draws that the whole batch would get."""

    def __init__(self, p: float, total: int):
        super().__init__(p)
        self.total = total

    def forward(self, rows):
        if not self.training or self.p == 0:
            return rows
        drawn = super().forward(rows.new_ones(self.total, *rows.shape[1:]))
        return rows * drawn[share(self.total)].clone()  # a view would keep the whole batch's until the backward pass
