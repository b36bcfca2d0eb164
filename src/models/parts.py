"""Parts of a file of weights: the CLIP and the Combiner in it, whatever other programs put around them."""

from collections.abc import Collection, Iterator
from itertools import islice
from pathlib import Path
from types import UnionType

from torch import Tensor

from src.base.errors import InputError, first_ten, in_a_line

CLIP = "logit_scale"
"""The weight by which a CLIP is found. What stands before its name stands before all of a CLIP's."""
TOWERS = "visual.", "vision_model."
"""What a CLIP's names go on with: OpenAI's and open_clip's, and Hugging Face's."""
COMBINER = "text_projection_layer.weight"
"""The weight by which a Combiner is found."""
COMBINER_WEIGHTS = {
    f"{layer}.{kind}"
    for layer in (
        *("text_projection_layer", "image_projection_layer", "combiner_layer", "output_layer"),
        *("dynamic_scalar.0", "dynamic_scalar.3"),
    )
    for kind in ("weight", "bias")
}
PROJECTION_WEIGHTS = {
    f"gallery_projection.{layer}.{kind}" for layer in ("hidden_layer", "output_layer") for kind in ("weight", "bias")
}
"""Of a Combiner that compares the gallery's pictures through a projection."""
MOST = 100
"""How many networks of a kind are looked at, since each is compared with all names."""
TEMPERATURES = "logit_scale", "logit_bias"
"""Names of numbers that training scales all similarities with: no ranking depends on them."""
OF_TRAINING = "optim", "callbacks", "rng"
"""Parts of keys under which a training keeps what it goes on with: no answer depends on that."""


def state_dicts(content: object, kind: type | UnionType = Tensor) -> dict[str, Tensor]:
    """Return all weights in nested dicts: those of {"model": {"clip": {"visual.proj": …}}} as model.clip.visual.proj.

    What is no state dict is left out: epochs, metrics. `kind` is what its values are.
    """
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        return {}
    if content and all(isinstance(value, kind) for value in content.values()):
        return dict(content)
    inner = {key: state_dicts(value, kind) for key, value in content.items() if not _is_of_training(key, value)}
    return {f"{key}.{name}": tensor for key, weights in inner.items() for name, tensor in weights.items()}


def _is_of_training(key: object, value: object) -> bool:
    is_optimizer = isinstance(value, dict) and "param_groups" in value
    return is_optimizer or any(part in str(key).lower() for part in OF_TRAINING)


def outside(content: object, name: str = "", is_looked_at: bool = True) -> Iterator[str]:
    """Yield the names of tensors in nested dicts and lists that `state_dicts` leaves out, but for single numbers."""
    if isinstance(content, Tensor):
        if content.numel() > 1:
            yield name
        return
    if isinstance(content, dict):
        is_looked_at = is_looked_at and all(isinstance(key, str) for key in content)
        if is_looked_at and all(isinstance(value, Tensor) for value in content.values()):
            return
        inner = content.items()
    else:
        is_looked_at = False
        inner = enumerate(content) if isinstance(content, (list, tuple, set)) else ()
    for key, value in inner:
        if not _is_of_training(key, value):
            yield from outside(value, f"{name}.{key}" if name else str(key), is_looked_at)


def beginnings(names: Collection[str], mark: str) -> list[str]:
    """Return what stands before the names of each network with the weight `mark` at its root: "", "clip."."""
    found = (name.removesuffix(mark) for name in names if name == mark or name.endswith(f".{mark}"))
    few = list(islice(found, MOST))
    if mark != CLIP:
        return few
    # A training may have a temperature beside its CLIP.
    return [start for start in few if any(name.startswith(tuple(start + tower for tower in TOWERS)) for name in names)]


def divide(names: Collection[str], mark: str) -> dict[str | None, list[str]]:
    """Return {beginning: names of its network} of CLIPs, Combiners and networks with a `mark`; None: of none of these.

    A network in another one is not a part of that.
    """
    known = {beginning for kind in (CLIP, COMBINER, mark) for beginning in beginnings(names, kind)}
    innermost_first = sorted(known, key=len, reverse=True)
    divided = {}
    for name in names:
        owner = next((beginning for beginning in innermost_first if name.startswith(beginning)), None)
        divided.setdefault(owner, []).append(name)
    return divided


def take(content: object, name: str, mark: str, path: Path | str, is_own: bool = False) -> dict[str, Tensor] | None:
    """Return the weights in a file's `content` of the network called `name` that has a `mark`, under their own names.

    None where there is no such network. Raises InputError where there are several, or where weights of something else
    lie beside it, without which it would give other results. `is_own`: the file is a checkpoint of this code, whose
    metadata name what belongs together.
    """
    weights = state_dicts(content)
    found = beginnings(weights, mark)
    if not found:
        return None
    if len(found) > 1 and f"{name}." not in found:
        raise InputError(f"{path}: holds several {name}s ({first_ten(found)}); save the one that is meant by itself")
    beginning = f"{name}." if f"{name}." in found else found[0]
    divided = divide(weights, mark)
    taken = divided.pop(beginning)
    strays = [full for full in divided.pop(None, ()) if full.rpartition(".")[2] not in TEMPERATURES]
    strays += outside(content)
    for other, names in divided.items():
        strays += [] if _is_for_another_option(other, names, mark) else names
    if strays and not is_own:
        what = f"{len(strays):,} other weight{'s' if len(strays) > 1 else ''} ({in_a_line(strays[0])})"
        without = f"without which results would be others; a file of only the {name} is needed"
        raise InputError(f"{path}: beside a {name} it holds {what}, {without}")
    return {full.removeprefix(beginning): weights[full] for full in taken}


def _is_for_another_option(beginning: str, names: Collection[str], mark: str) -> bool:
    """Whether another option takes these weights than the one that asks for a network with this `mark`."""
    own = {name.removeprefix(beginning) for name in names}
    if COMBINER in own:
        return mark != COMBINER and own in (COMBINER_WEIGHTS, COMBINER_WEIGHTS | PROJECTION_WEIGHTS)
    return mark != CLIP and CLIP in own
