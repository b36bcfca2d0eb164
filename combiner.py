"""The Combiner network, which fuses the features of a reference image and a relative caption, and its alternatives."""

import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.base.errors import InputError, shown
from src.command.combining import PUBLISHED_NETWORK, CombiningFunction
from src.command.flags import CombiningOptions, RetrieverOptions
from src.models.backbone import Backbone
from src.models.facts import NETWORK, holds_its_clip, read_facts
from src.models.parts import COMBINER
from src.models.weights import has_weights, is_in, load_weights, read_beside, read_weights
from src.retrieval.retriever import Retriever, as_trained, load_retriever
from utils import compared, device, element_wise_sum


class GalleryProjection(nn.Module):
    """x + W2 relu(W1 x): pictures of the gallery, features [pictures, dim], as a Combiner learned to compare them."""

    def __init__(self, clip_feature_dim: int, hidden_dim: int):
        super().__init__()
        self.hidden_layer = nn.Linear(clip_feature_dim, hidden_dim)
        self.dropout = nn.Dropout(0.2)
        self.output_layer = nn.Linear(hidden_dim, clip_feature_dim)
        # Training begins at pictures as CLIP gives them.
        nn.init.zeros_(self.output_layer.weight)
        nn.init.zeros_(self.output_layer.bias)

    def forward(self, gallery_features: Tensor) -> Tensor:
        return gallery_features + self.output_layer(self.dropout(F.relu(self.hidden_layer(gallery_features))))


class Combiner(nn.Module):
    """C(image, text): a learned mixture of both features plus a convex combination of them (paper, section 3.3).

    State-dict names and shapes are those of the published checkpoints, which have no projection of the gallery.
    """

    def __init__(
        self,
        clip_feature_dim: int,
        projection_dim: int,
        hidden_dim: int,
        dropout: float = 0.5,
        gallery_projection: int | None = None,
    ):
        """`clip_feature_dim` is CLIP's, 640 for RN50x4; `dropout` is the share of numbers that training sets to zero.

        `gallery_projection` is the size of the hidden layer of a GalleryProjection; None is without one.
        """
        super().__init__()
        self.text_projection_layer = nn.Linear(clip_feature_dim, projection_dim)
        self.image_projection_layer = nn.Linear(clip_feature_dim, projection_dim)
        self.combiner_layer = nn.Linear(2 * projection_dim, hidden_dim)
        self.output_layer = nn.Linear(hidden_dim, clip_feature_dim)
        # One module for the published three; dropout has no weights, so state dicts do not show it.
        self.dropout = nn.Dropout(dropout)
        self.dynamic_scalar = nn.Sequential(
            nn.Linear(2 * projection_dim, hidden_dim),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden_dim, 1),
            nn.Sigmoid(),
        )
        # Last, since the weights above are then those that a seed gives without it.
        self.gallery_projection = None
        if gallery_projection is not None:
            self.gallery_projection = GalleryProjection(clip_feature_dim, gallery_projection)

    @property
    def compared_features(self) -> GalleryProjection | None:
        """What pictures of the gallery are compared as; None is as CLIP gives them."""
        return self.gallery_projection

    def forward(self, image_features: Tensor, text_features: Tensor, target_features: Tensor) -> Tensor:
        """Return logits [queries, targets]: 100 times the cosine similarity of combined and target features.

        As published; training takes `combine_features` and a loss of its own.
        """
        combined_features = self.combine_features(image_features, text_features)
        compared_features = compared(self.combine_features, target_features)
        return 100 * combined_features @ F.normalize(compared_features, dim=-1).T

    def combine_features(self, image_features: Tensor, text_features: Tensor) -> Tensor:
        """Combine image and text features, both [queries, dim], to features [queries, dim], normalised."""
        projected_text = self.dropout(F.relu(self.text_projection_layer(text_features)))
        projected_image = self.dropout(F.relu(self.image_projection_layer(image_features)))
        both = torch.cat((projected_text, projected_image), dim=-1)  # text first, as in the published weights
        mixture = self.output_layer(self.dropout(F.relu(self.combiner_layer(both))))
        text_share = self.dynamic_scalar(both)
        return F.normalize(mixture + text_share * text_features + (1 - text_share) * image_features, dim=-1)

    @classmethod
    def sizes(cls, weights: dict[str, Tensor]) -> dict[str, int]:
        """Return the sizes that `__init__` takes of a network with these weights.

        Raises LookupError or ValueError for others.
        """
        # Of each part a layer or two fix all sizes; loading compares the rest.
        projection_dim, clip_feature_dim = weights["text_projection_layer.weight"].shape
        hidden_dim = weights["output_layer.weight"].shape[1]
        sizes = {"clip_feature_dim": clip_feature_dim, "projection_dim": projection_dim, "hidden_dim": hidden_dim}
        projection = weights.get("gallery_projection.output_layer.weight")
        return sizes if projection is None else sizes | {"gallery_projection": projection.shape[1]}


def image_only(image_features: Tensor, text_features: Tensor) -> Tensor:
    """Return the image features, normalised: a shortcut that ignores the caption."""
    return F.normalize(image_features, dim=-1)


def text_only(image_features: Tensor, text_features: Tensor) -> Tensor:
    """Return the text features, normalised: a shortcut that ignores the reference."""
    return F.normalize(text_features, dim=-1)


def product(image_features: Tensor, text_features: Tensor) -> Tensor:
    """Return both [2, queries, dim], normalised: what the picture and what the caption find, multiplied."""
    return torch.stack((image_only(image_features, text_features), text_only(image_features, text_features)))


def sum_of_cosines(image_features: Tensor, text_features: Tensor) -> Tensor:
    """Return the sum of both as unit vectors, normalised: it ranks by the sum of both cosine similarities (i-CIR)."""
    return F.normalize(image_only(image_features, text_features) + text_only(image_features, text_features), dim=-1)


COMBINING_FUNCTIONS = (
    CombiningFunction("text", "caption only", text_only, is_shortcut=True),
    CombiningFunction("image", "picture only", image_only, is_shortcut=True),
    CombiningFunction("product", "product", product, is_listed=False),
    CombiningFunction("cosines", "sum of cosines", sum_of_cosines, is_listed=False, is_usual=False),
    CombiningFunction("sum", "sum", element_wise_sum, in_words="sum of both"),
    CombiningFunction("combiner", "Combiner", Combiner),
)
"""All there are, weakest first, as a ladder shows them: one more takes a line here and nothing elsewhere.

A network's class is written in this file and has Combiner's `__init__` (sizes that it does not need may be ignored),
`sizes` and `combine_features`. It may also have `compared_features`, features [pictures, dim] → what queries are
compared with, where that is not the pictures' features themselves.
"""


def find(name: str) -> CombiningFunction:
    """Return the line called `name`; raises InputError when there is none."""
    lines = {line.name: line for line in COMBINING_FUNCTIONS}
    if name not in lines:
        raise InputError(f"{shown(name)}: not a combining function; it must be one of {', '.join(lines)}")
    return lines[name]


def line_of(function: Callable[[Tensor, Tensor], Tensor]) -> CombiningFunction:
    """Return the line of a function or of a network's `combine_features`; raises InputError for one that has none."""
    network = getattr(function, "__self__", None)
    is_networks = isinstance(network, nn.Module) and function == getattr(network, "combine_features", None)
    listed = type(network) if is_networks else function
    for line in COMBINING_FUNCTIONS:
        if line.function is listed:
            return line
    name = getattr(listed, "__qualname__", type(listed).__name__)
    raise InputError(f"{name}: has no name in tables; a line of COMBINING_FUNCTIONS in combiner.py gives it one")


def network_in(path: Path | str) -> CombiningFunction:
    """Return the line of the network whose weights a checkpoint holds; the published code's checkpoints do not name it.

    Raises InputError for a network that is not there.
    """
    name = read_facts(path).get(NETWORK, PUBLISHED_NETWORK)
    networks = [line for line in COMBINING_FUNCTIONS if line.is_network]
    for line in networks:
        if line.name == name:
            return line
    known = ", ".join(line.name for line in networks)
    raise InputError(f"{path}: holds the network {shown(str(name))}, but combiner.py has {known}")


def new_network(
    name: str | None,
    clip_feature_dim: int,
    projection_dim: int,
    hidden_dim: int,
    dropout: float,
    gallery_projection: int | None = None,
) -> nn.Module:
    """Return the network called `name`, to be trained, on the device; None is the first of the table.

    Raises InputError where a `gallery_projection` is asked for and the network is not a Combiner.
    """
    line = next(line for line in COMBINING_FUNCTIONS if line.is_network) if name is None else find(name)
    sizes = clip_feature_dim, projection_dim, hidden_dim, dropout
    if gallery_projection is None:
        return line.function(*sizes).to(device)
    if line.function is not Combiner:
        raise InputError(f"--gallery-projection is for --network {PUBLISHED_NETWORK}, not {line.name}")
    return Combiner(*sizes, gallery_projection).to(device)


def network_facts(network: nn.Module) -> dict[str, str]:
    """Return the fact that names a checkpoint's network; the published one needs none."""
    name = line_of(network.combine_features).name
    return {} if name == PUBLISHED_NETWORK else {NETWORK: name}


def default_name(combiner_path: Path | str | None) -> str:
    """Return what combines where nothing else is asked for: the network of a checkpoint of stage 2, else the sum."""
    return "sum" if combiner_path is None else network_in(combiner_path).name


def load_combining_function(
    name: str | None,
    combiner_path: Path | str | None,
    backbone: Backbone,
    projection_dim: int | None = None,
    hidden_dim: int | None = None,
) -> Callable[[Tensor, Tensor], Tensor]:
    """Load the function (image features, text features) → predicted features called `name`.

    One of COMBINING_FUNCTIONS; None is `default_name`. Says on stderr what is not used. Raises what `load_network`
    raises.
    """
    line = find(name or default_name(combiner_path))
    if line.is_network:
        return load_network(combiner_path, backbone, line.name, projection_dim, hidden_dim).combine_features
    unused = {
        "the Combiner of --combiner-path": combiner_path,
        "--projection-dim": projection_dim,
        "--hidden-dim": hidden_dim,
    }
    for flag, value in unused.items():
        if value is not None:
            print(f"--combining-function {line.name}: {flag} {value} is not used", file=sys.stderr)
    return line.function


def load_combined(options: RetrieverOptions, combining: CombiningOptions | None = None) -> Retriever:
    """Load a retriever with its combining function, the sum unless `combining` says another.

    Raises InputError when something cannot be loaded.
    """
    combining = combining or CombiningOptions()
    options = as_trained(with_clip_of_pair(options, combining.combiner_path), combining.combiner_path)
    retriever = load_retriever(options)
    path = options.clip_model_path
    if combining.combiner_path is None and path is not None and is_in(path, COMBINER):
        print(f"{path}: the Combiner in it is not used; --combiner-path {path} takes it", file=sys.stderr)
    dimensions = combining.projection_dim, combining.hidden_dim
    function = load_combining_function(combining.name, combining.combiner_path, retriever.backbone, *dimensions)
    return retriever.combining_by(function)


def with_clip_of_pair(options: RetrieverOptions, combiner_path: Path | str | None) -> RetrieverOptions:
    """Return options with the CLIP that a Combiner's checkpoint may hold beside it, where no other is asked for."""
    # Whatever combines: this CLIP's features mean something else without its weights.
    is_needed = options.clip_model_path is None and holds_its_clip(combiner_path)
    return options._replace(clip_model_path=combiner_path) if is_needed else options


def load_network(
    path: Path | str | None,
    backbone: Backbone,
    name: str | None = None,
    projection_dim: int | None = None,
    hidden_dim: int | None = None,
) -> nn.Module:
    """Load the network of a stage-2 checkpoint, in eval mode on the device; its dimensions are the checkpoint's.

    Raises InputError when there is no `path`, its network is not the one called `name` or has other dimensions than
    those given, takes other features, or was trained on another CLIP than `backbone`.
    """
    if path is None:
        raise InputError(f"--combining-function {name} needs --combiner-path, a checkpoint of stage 2")
    line = network_in(path)
    if name not in (None, line.name):
        raise InputError(f"--combining-function {name}: {path} holds another network, {line.name}")
    weights = read_weights(path, line.function.__name__, COMBINER if line.name == PUBLISHED_NETWORK else None)
    sizes = _sizes(
        line, weights, path, backbone.dimension, {"projection_dim": projection_dim, "hidden_dim": hidden_dim}
    )
    # Published checkpoints do not record it; any CLIP of the right size must do then.
    trained_on = read_facts(path).get("clip_weights")
    if trained_on not in (None, backbone.digest()):
        named = "the one it was trained on, or --clip-model-name the features"
        if holds_its_clip(path):
            named = f"the same file, or nothing: this {line.label} belongs to the CLIP beside it"
        raise InputError(f"{path}: was trained on another CLIP; --clip-model-path has to name {named}")
    if trained_on is None:
        _require_clip_beside(path, backbone)
    network = line.function(**sizes)
    load_weights(network, weights, path)
    return network.to(device).eval()


def _require_clip_beside(path, backbone):
    """Raise InputError where a file holds a CLIP beside the network, and `backbone` has other weights than that."""
    beside = read_beside(path)
    if beside is not None and not has_weights(backbone.model, beside):
        taken = f"--clip-model-path {path} takes it"
        raise InputError(f"{path}: holds a CLIP too, and it is another one than was loaded; {taken}")


def _sizes(line, weights, path, clip_feature_dim, given):
    """Return the sizes of a network's weights, of which those `given` {name: size or None} must be the same."""
    kind = line.function.__name__
    try:
        sizes = line.function.sizes(weights)
    except (LookupError, ValueError):
        raise InputError(f"{path}: not the weights of a {kind}") from None
    if sizes["clip_feature_dim"] != clip_feature_dim:
        dimensions = f"{sizes['clip_feature_dim']} dimensions, but this CLIP's features have {clip_feature_dim}"
        raise InputError(f"{path}: a {kind} of {dimensions}")
    given = {name: size for name, size in given.items() if size is not None}
    if any(sizes.get(name) != size for name, size in given.items()):
        own = [f"--{name.replace('_', '-')} {size}" for name, size in sizes.items() if name != "clip_feature_dim"]
        dimensions = f"{' '.join(own) or 'other sizes'}, not of {' and '.join(map(str, given.values()))}"
        raise InputError(f"{path}: a {kind} of {dimensions}")
    return sizes
