"""The mean of the weights of several CLIPs of one network."""

import sys
from collections.abc import Sequence

import torch
from torch import Tensor

from src.base.errors import InputError, in_a_line
from src.base.hub import is_on_hub, local_file
from src.models.backbone import Backbone
from src.models.facts import told_by_checkpoints
from src.models.parts import COMBINER
from src.models.registry import load_backbone
from src.models.weights import FACTS, is_in, load_weights

COUNTERS = "num_batches_tracked"
"""Whole numbers that training counts in a ResNet, on which no feature depends."""


def mixture(places: Sequence[str], shares: Sequence[float], clip_model_name: str | None = None) -> dict:
    """Return the checkpoint of CLIPs that are mixed with `shares`, which sum to 1.

    Checkpoints are loaded over the CLIP `clip_model_name`, None the one that each was trained from. Raises InputError
    for CLIPs of different networks, and for those that see pictures differently.
    """
    first, mean, options, parts = None, {}, {}, []
    for place, share in zip(places, shares, strict=True):
        backbone, told = _load(place, clip_model_name)
        first = first or backbone
        _require_one_network(backbone, place, first, places[0])
        _require_one_transform(told, place, options)
        _add(mean, backbone.model.state_dict(), share, place)
        parts.append({"clip": place, "weights": backbone.digest(), "share": share})
    facts = {"clip_model_name": clip_model_name or places[0]} | options | {"mixed": parts}
    if first.network:
        facts["clip_network"] = first.network
    weights = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in mean.items()}
    return {first.key: weights, FACTS: facts}


def _load(place: str, clip_model_name: str | None) -> tuple[Backbone, dict]:
    """Load a CLIP on the CPU, in fp32; return it, and the options that its checkpoint was trained with."""
    is_file = is_on_hub(place) or local_file(place).is_file()
    told = told_by_checkpoints([place], {}, ()) if is_file else {}
    over = clip_model_name or told.get("clip_model_name")
    backbone = load_backbone(over if is_file and over else place)
    if is_file and over:
        backbone.load_over(place)
    backbone.require_live("a mixture")
    if is_file and is_in(place, COMBINER):
        print(f"{place}: the Combiner in it is not used", file=sys.stderr)
    return backbone, told


def _require_one_network(backbone: Backbone, place: str, first: Backbone, first_place: str) -> None:
    """Raise InputError unless a CLIP differs from the first one only in the values of its weights."""
    if backbone.network != first.network:
        theirs, ours = (in_a_line(network) if network else "OpenAI's" for network in (backbone.network, first.network))
        raise InputError(f"{place}: another network than {first_place} ({theirs}, not {ours})")
    if backbone.normalisation != first.normalisation:
        raise InputError(f"{place}: normalises pictures otherwise than {first_place}")
    if backbone is not first:  # whose own weights were added already
        load_weights(first.model, backbone.model.state_dict(), place)


def _require_one_transform(told: dict, place: str, options: dict) -> None:
    """Raise InputError where a checkpoint was `told` another transform than those before it, whose `options` it joins.

    The CLIP that they were trained from may have had several names.
    """
    for name, value in told.items():
        if options.setdefault(name, value) != value and name != "clip_model_name":
            flag = f"--{name.replace('_', '-')}"
            raise InputError(f"{place}: was trained with {flag} {value}, one before it with {flag} {options[name]}")


def _add(mean: dict[str, Tensor], weights: dict[str, Tensor], share: float, place: str) -> None:
    """Add a share of `weights` to their mean, in fp64; whole numbers are the first one's."""
    for name, tensor in weights.items():
        if tensor.is_floating_point():
            part = tensor.double() * share
            mean[name] = mean[name] + part if name in mean else part
        elif not torch.equal(mean.setdefault(name, tensor.clone()), tensor) and not name.endswith(COUNTERS):
            raise InputError(f"{place}: {name} holds other whole numbers than the first one's, which have no mean")
