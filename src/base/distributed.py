"""Processes that work on one job, as torchrun starts them. One started otherwise is alone, and sets up nothing.

Every function is called by all processes, in the same order; alone, each does what its name says with one process.
"""

import contextlib
import functools
import os
import signal
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from src.base.errors import InputError, Stopped
from src.base.workers import end_with_parent

PATIENCE = timedelta(hours=6)
"""How long a process waits for another, which may decode or download for all. One that ended is noticed without it."""


def processes():
    """How many processes work on this job."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_first():
    """Whether this is the process that speaks and writes for all."""
    return not dist.is_initialized() or dist.get_rank() == 0


# ---- coming and going ----


def joining(main):
    """Let `main(argv)` run as one of torchrun's processes, if torchrun started it.

    The first process to fail says why and the others end in silence, those too that notice it by a broken connection.
    """

    @functools.wraps(main)
    def command(argv=None):
        if not dist.is_torchelastic_launched() or dist.is_initialized():
            return main(argv)
        _join()
        try:
            with _silence(), naming_lost_processes():
                result = main(argv)
        except (Exception, KeyboardInterrupt, Stopped) as error:
            if _is_first_to_fail():
                signal.signal(signal.SIGTERM, signal.SIG_IGN)  # which torchrun sends when another process ends before
                raise
            raise SystemExit(error.code if isinstance(error, Stopped) else 2) from None
        dist.destroy_process_group()
        return result

    return command


def _join():
    end_with_parent(signal.SIGTERM)  # torchrun itself may be killed
    if not torch.cuda.is_available():
        dist.init_process_group("gloo", timeout=PATIENCE)
        return
    number, cards = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if number >= cards:
        raise InputError(f"--nproc-per-node {os.environ['LOCAL_WORLD_SIZE']}: this machine has {cards} GPUs")
    torch.cuda.set_device(number)
    dist.init_process_group("cpu:gloo,cuda:nccl", timeout=PATIENCE)


@contextlib.contextmanager
def _silence():
    """Neither output nor progress bars of any process but the first."""
    with contextlib.ExitStack() as stack:
        if not is_first():
            nowhere = stack.enter_context(open(os.devnull, "w"))  # noqa: PTH123
            stack.enter_context(contextlib.redirect_stdout(nowhere))
            stack.enter_context(contextlib.redirect_stderr(nowhere))
        yield


def _is_first_to_fail():
    try:
        return dist.distributed_c10d._get_default_store().add("failed", 1) == 1
    except RuntimeError:  # whoever keeps the count is gone
        return True


@contextlib.contextmanager
def naming_lost_processes(last_words=None):
    """Raises InputError, with `last_words()`, for what torch makes of a connection to a process that has ended."""
    try:
        yield
    except RuntimeError as error:
        if not (isinstance(error, dist.DistError) or "third_party/gloo" in str(error)):
            raise
        more = "" if last_words is None else f"; {last_words()}"
        raise InputError(f"another process of this job has ended, killed or by an error of its own{more}") from None


@contextlib.contextmanager
def in_turn():
    """The first process of all, then the first of each machine, then the others, who find what those have made."""
    if processes() == 1:
        yield
        return
    turn = 0 if is_first() else 1 if os.environ["LOCAL_RANK"] == "0" else 2
    for _ in range(turn):
        _wait()
    yield
    for _ in range(2 - turn):
        _wait()


def _wait():
    dist.all_reduce(torch.zeros(1))  # on the CPU, since a card is kept busy by waiting


# ---- what is shared ----


def share(total):
    """The slice of `total` things that are this process's; the processes' sizes differ by one at most."""
    return _shares(total)[dist.get_rank() if dist.is_initialized() else 0]


def _shares(total):
    """Every process's share."""
    ends = [total * number // processes() for number in range(processes() + 1)]
    return [slice(*pair) for pair in zip(ends, ends[1:], strict=False)]


def broadcast(value):
    """The first process's `value`, of any kind; whatever the others give is not looked at."""
    if processes() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0, device=torch.device("cpu"))
    return values[0]


def summed(value):
    """The sum of a tensor over the processes."""
    if processes() == 1:
        return value
    value = value.clone()
    dist.all_reduce(value)
    return value


def shared_out(numbers, compute):
    """`compute(numbers)`, a tensor with a row for each number: each process computes a share, and all have it whole."""
    if processes() == 1 or not numbers:
        return compute(numbers)
    # Shares of one size, the last number repeated to fill them: nobody is without one, and all gather alike.
    size = -(-len(numbers) // processes())
    first = size * dist.get_rank()
    rows = compute([numbers[min(place, len(numbers) - 1)] for place in range(first, first + size)]).contiguous()
    return torch.cat(_everyones(rows))[: len(numbers)]


def _everyones(rows):
    """Every process's `rows`, which must be alike in shape."""
    everyones = [torch.empty_like(rows) for _ in range(processes())]
    dist.all_gather(everyones, rows)
    return everyones


def gathered(rows, total):
    """All processes' `rows` [`total`, dim], of which this one gave its `share`; gradients find their way back."""
    return rows if processes() == 1 else _Gather.apply(rows, total)


class _Gather(torch.autograd.Function):
    """Own rows to everyone's; backwards, the sum over all processes of what each found for one's own."""

    @staticmethod
    def forward(ctx, rows, total):
        ctx.total = total
        sizes = [rows.stop - rows.start for rows in _shares(total)]
        padded = rows.new_zeros(max(sizes), *rows.shape[1:])
        padded[: len(rows)] = rows
        return torch.cat([others[:size] for others, size in zip(_everyones(padded), sizes, strict=True)])

    @staticmethod
    def backward(ctx, gradient):
        gradient = gradient.contiguous().clone()  # summed in place, and it may be another's
        dist.all_reduce(gradient)
        return gradient[share(ctx.total)], None


def synchronised(module, total):
    """`module`, to be called with one's share of a batch of `total` rows; its gradients are sums over all processes.

    Its dropout draws what one process would draw for the whole batch: results do not depend on how many there are.
    """
    if processes() == 1:
        return module
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Dropout:
                setattr(parent, name, _ShareOfDropout(child.p, total))
    wrapped = DistributedDataParallel(module, gradient_as_bucket_view=True)
    wrapped.register_comm_hook(None, _sum)
    return wrapped


def _sum(_, bucket):
    """A sum, where DistributedDataParallel has a mean: gradients in fp16 are then as large as those of one process."""
    future = dist.all_reduce(bucket.buffer(), async_op=True).get_future()
    return future.then(lambda done: done.value()[0])


class _ShareOfDropout(nn.Dropout):
    """Dropout of one's share of a batch of `total` rows, with the draws that the whole batch would be given."""

    def __init__(self, p, total):
        super().__init__(p)
        self.total = total

    def forward(self, rows):
        if not self.training or self.p == 0:
            return rows
        return rows * super().forward(rows.new_ones(self.total, *rows.shape[1:]))[share(self.total)]
