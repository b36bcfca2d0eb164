"""Exchange of features, losses and gradients between the processes of a training."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from src.processes.distributed import everyones, share, shares


def summed(value: Tensor) -> Tensor:
    """Return the sum of a tensor over all processes."""
    if not dist.is_initialized():
        return value
    value = value.clone()
    dist.all_reduce(value)
    return value


def gathered(rows: Tensor, total: int) -> Tensor:
    """Gather all processes' `rows` [`total`, dim], of which this one has its `share`, with gradients."""
    return _Gather.apply(rows, total) if dist.is_initialized() else rows


class _Gather(torch.autograd.Function):
    """From own rows to everyone's. Backwards it sums what all processes found for one's own rows."""

    @staticmethod
    def forward(ctx, rows, total):
        ctx.total = total
        sizes = [rows.stop - rows.start for rows in shares(total)]
        padded = rows.new_zeros(max(sizes), *rows.shape[1:])
        padded[: len(rows)] = rows
        return torch.cat([others[:size] for others, size in zip(everyones(padded), sizes, strict=True)])

    @staticmethod
    def backward(ctx, gradient):
        gradient = gradient.contiguous().clone()  # it is summed in place, and autograd may use it elsewhere too
        dist.all_reduce(gradient)
        return gradient[share(ctx.total)], None


def synchronised(module: nn.Module, total: int, some_wait: bool = False) -> nn.Module:
    """Return `module`, to be called with one's share of a batch of `total` rows, with gradients summed over processes.

    `some_wait` says that some weights learn only in later steps.
    Its dropout draws what one process would draw for the whole batch, so results do not depend on their number.
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


@contextmanager
def undivided() -> Iterator[None]:
    """Let modules take the same rows in every process, as those of a bank, and not their share of a batch."""
    _ShareOfDropout.divides = False
    try:
        yield
    finally:
        _ShareOfDropout.divides = True


class _ShareOfDropout(nn.Dropout):
    """Dropout for one's share of a batch of `total` rows, with the draws that the whole batch would get."""

    divides = True
    """Whether rows are a share; all processes draw the same for rows that all of them have."""

    def __init__(self, p: float, total: int):
        super().__init__(p)
        self.total = total

    def forward(self, rows):
        if not self.training or self.p == 0:
            return rows
        if not self.divides:
            return super().forward(rows)
        drawn = super().forward(rows.new_ones(self.total, *rows.shape[1:]))
        return rows * drawn[share(self.total)].clone()  # a view would keep the whole batch's until the backward pass
