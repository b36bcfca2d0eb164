"""Combining functions at work: the features they predict, and those they compare pictures by."""

from collections.abc import Callable

from torch import Tensor, nn

from src.models.weights import weights_digest

Fusion = Callable[[Tensor, Tensor], Tensor]
"""(image features, text features), both [queries, dim] → predicted features [queries, dim], or [factors, queries, dim]
whose similarities are multiplied."""


def predict(function: Fusion, image_features: Tensor, text_features: Tensor) -> Tensor:
    """Return predicted features [factors, queries, dim] of what goes together, both [queries, dim]."""
    predicted = function(image_features, text_features)
    return predicted if predicted.ndim == 3 else predicted[None]


def gallery_side(function: Fusion) -> Callable[[Tensor], Tensor] | None:
    """Return what `function` compares pictures as, features [pictures, dim] → features; None where it says nothing.

    A function says it with an attribute `compared_features`, a network's method with another method of that name. This
    is the one place that looks for it.
    """
    return getattr(getattr(function, "__self__", function), "compared_features", None)


def gallery_side_digest(function: Fusion) -> str | None:
    """Return the SHA-256 of all that what `function` compares pictures as depends on; None where it says nothing."""
    side = gallery_side(function)
    if side is None:
        return None
    network = side if isinstance(side, nn.Module) else getattr(side, "__self__", None)
    weights = network.state_dict() if isinstance(network, nn.Module) else {}
    return weights_digest(weights, getattr(side, "__qualname__", type(side).__qualname__))


def compared(function: Fusion, gallery_features: Tensor) -> Tensor:
    """Return what pictures with `gallery_features` [pictures, dim] are compared as: these, if nothing else is said."""
    side = gallery_side(function)
    return gallery_features if side is None else side(gallery_features)
