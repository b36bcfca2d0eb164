"""Batches larger than memory: run a module piece by piece, with the gradients of the whole (Gao et al. 2021)."""

import torch
from torch import Tensor, nn
from torch.func import functional_call


def in_pieces(module: nn.Module, rows: Tensor, size: int, learning: dict[str, nn.Parameter]) -> Tensor:
    """Return `module(rows)` [rows, dim], with the activations of `size` rows in memory at a time.

    `learning` {name: parameter} are the module's that get a gradient. Each piece is run twice: first for its features
    only, and again with a graph once the gradients of these are known. The result is exact as long as no row depends
    on another, so no batch norm may be in training mode.
    """
    pieces = rows.split(size)
    if not learning:
        return torch.cat([module(piece) for piece in pieces])
    return _InPieces.apply(module, pieces, tuple(learning), *learning.values())


class _InPieces(torch.autograd.Function):
    @staticmethod
    def forward(ctx, module, pieces, names, *weights):
        ctx.module, ctx.pieces, ctx.names = module, pieces, names
        ctx.save_for_backward(*weights)
        ctx.autocast = _autocast_now(weights[0].device.type)
        return torch.cat([module(piece) for piece in pieces])

    @staticmethod
    def backward(ctx, gradient):
        # Each piece adds to leaves that share the weights' memory, not to the weights, whose gradients
        # DistributedDataParallel must get once, when they are whole. They grow in fp32, also under autocast.
        leaves = {
            name: weight.detach().requires_grad_() for name, weight in zip(ctx.names, ctx.saved_tensors, strict=True)
        }
        of_pieces = gradient.split([len(piece) for piece in ctx.pieces])
        for piece, own in zip(ctx.pieces, of_pieces, strict=True):
            with torch.enable_grad(), torch.autocast(**ctx.autocast):
                features = functional_call(ctx.module, leaves, (piece,))
            features.backward(own)
        return None, None, None, *(leaf.grad for leaf in leaves.values())


def _autocast_now(device_type):
    enabled = torch.is_autocast_enabled(device_type)
    return {"device_type": device_type, "dtype": torch.get_autocast_dtype(device_type), "enabled": enabled}
