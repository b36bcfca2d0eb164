"""Batches larger than memory: a module run piece by piece, its gradients those of the whole (Gao et al. 2021)."""

import torch
from torch.func import functional_call


def in_pieces(module, rows, size, learning):
    """`module(rows)` [rows, dim] with the activations of `size` rows in memory at a time; `size` None is all of them.

    `learning` {name: parameter} are those of the module's that get a gradient. Exact as long as no row's result depends
    on other rows. Each piece is run twice: once for its features alone, and again, with a graph, when the gradients of
    these are known.
    """
    if size is None or len(rows) <= size:
        return module(rows)
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
        # Leaves of their own, on the same memory: whatever waits for the weights' gradients (DistributedDataParallel)
        # gets them once, when they are whole. They grow in fp32, also under autocast.
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
