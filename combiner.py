"""The Combiner network, which fuses the features of a reference image and a relative caption, and its alternatives."""

import pkgutil
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.base.errors import InputError
from src.command.flags import COMBINING_FUNCTIONS, CombiningOptions, RetrieverOptions
from src.models.backbone import Backbone
from src.models.facts import holds_its_clip, read_facts
from src.models.weights import load_weights, read_weights
from src.retrieval.retriever import Retriever, load_retriever
from utils import device


class Combiner(nn.Module):
    """C(image, text): a learned mixture of both features plus a convex combination of them (paper, section 3.3).

    State-dict names and shapes are those of the published checkpoints. `clip_feature_dim` is CLIP's, 640 for RN50x4.
    `dropout` is the share of numbers that training sets to zero.
    """

    def __init__(self, clip_feature_dim: int, projection_dim: int, hidden_dim: int, dropout: float = 0.5):
        super().__init__()
        self.text_projection_layer = nn.Linear(clip_feature_dim, projection_dim)
        self.image_projection_layer = nn.Linear(clip_feature_dim, projection_dim)
        self.combiner_layer = nn.Linear(2 * projection_dim, hidden_dim)
        self.output_layer = nn.Linear(hidden_dim, clip_feature_dim)
        # One module for three places, as published; dropout has no weights, so state dicts do not show it.
        self.dropout = nn.Dropout(dropout)
        self.dynamic_scalar = nn.Sequential(
            nn.Linear(2 * projection_dim, hidden_dim),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden_dim, 1),
            nn.Sigmoid(),
        )

    def forward(self, image_features: Tensor, text_features: Tensor, target_features: Tensor) -> Tensor:
        """Return logits [queries, targets]: 100 times the cosine similarity of combined and target features."""
        combined_features = self.combine_features(image_features, text_features)
        return 100 * combined_features @ F.normalize(target_features, dim=-1).T

    def combine_features(self, image_features: Tensor, text_features: Tensor) -> Tensor:
        """Combine image and text features, both [queries, dim], to features [queries, dim], normalised."""
        projected_text = self.dropout(F.relu(self.text_projection_layer(text_features)))
        projected_image = self.dropout(F.relu(self.image_projection_layer(image_features)))
        both = torch.cat((projected_text, projected_image), dim=-1)  # text first, as in the published weights
        mixture = self.output_layer(self.dropout(F.relu(self.combiner_layer(both))))
        text_share = self.dynamic_scalar(both)
        return F.normalize(mixture + text_share * text_features + (1 - text_share) * image_features, dim=-1)


def image_only(image_features: Tensor, text_features: Tensor) -> Tensor:
    """Return the image features, normalised: a shortcut that ignores the caption."""
    return F.normalize(image_features, dim=-1)


def text_only(image_features: Tensor, text_features: Tensor) -> Tensor:
    """Return the text features, normalised: a shortcut that ignores the reference."""
    return F.normalize(text_features, dim=-1)


def product(image_features: Tensor, text_features: Tensor) -> tuple[Tensor, Tensor]:
    """Return both, normalised, whose similarities are multiplied: what a picture alone and a caption alone find."""
    return image_only(image_features, text_features), text_only(image_features, text_features)


def load_combining_function(
    name: str | None,
    combiner_path: Path | None,
    backbone: Backbone,
    projection_dim: int | None = None,
    hidden_dim: int | None = None,
) -> Callable[[Tensor, Tensor], Tensor]:
    """Load the function (image features, text features) → predicted features called `name`.

    One of COMBINING_FUNCTIONS; None is the Combiner when there is a `combiner_path`, else the sum. Says on stderr what
    is not used. Raises what `load_combiner` raises.
    """
    name = name or ("sum" if combiner_path is None else "combiner")
    # The registry of names is read without torch, so it holds addresses instead of functions.
    function = pkgutil.resolve_name(COMBINING_FUNCTIONS[name])
    if function is load_combiner:
        return load_combiner(combiner_path, backbone, projection_dim, hidden_dim).combine_features
    unused = {
        "the Combiner of --combiner-path": combiner_path,
        "--projection-dim": projection_dim,
        "--hidden-dim": hidden_dim,
    }
    for flag, value in unused.items():
        if value is not None:
            print(f"--combining-function {name}: {flag} {value} is not used", file=sys.stderr)
    return function


def load_combined(options: RetrieverOptions, combining: CombiningOptions) -> Retriever:
    """Load a retriever with its combining function; raises InputError when something cannot be loaded."""
    name, path, *dimensions = combining
    retriever = load_retriever(with_clip_of_pair(options, path))
    return retriever.combining_by(load_combining_function(name, path, retriever.backbone, *dimensions))


def with_clip_of_pair(options: RetrieverOptions, combiner_path: Path | None) -> RetrieverOptions:
    """Return options with the CLIP that a Combiner's checkpoint may hold beside it, where no other is asked for."""
    # Whatever combines: this CLIP's features mean something else without its weights.
    is_needed = options.clip_model_path is None and holds_its_clip(combiner_path)
    return options._replace(clip_model_path=combiner_path) if is_needed else options


def load_combiner(
    path: Path | None, backbone: Backbone, projection_dim: int | None = None, hidden_dim: int | None = None
) -> Combiner:
    """Load the Combiner of a stage-2 checkpoint, in eval mode on the device; its dimensions are the checkpoint's.

    Raises InputError when there is no `path`, or its Combiner has other dimensions than those given, takes other
    features, or was trained on another CLIP than `backbone`.
    """
    if path is None:
        raise InputError("--combining-function combiner needs --combiner-path, a checkpoint of stage 2")
    weights = read_weights(path, Combiner.__name__)
    dimensions = _dimensions(weights, path, backbone.dimension, projection_dim, hidden_dim)
    # Published checkpoints do not tell; any CLIP of the right size must do then.
    trained_on = read_facts(path).get("clip_weights")
    if trained_on not in (None, backbone.digest()):
        named = "the one it was trained on"
        if holds_its_clip(path):
            named = "the same file, or nothing: this Combiner and the CLIP beside it learned together"
        raise InputError(f"{path}: was trained on another CLIP; --clip-model-path has to name {named}")
    combiner = Combiner(*dimensions)
    load_weights(combiner, weights, path)
    return combiner.to(device).eval()


def _dimensions(weights, path, clip_feature_dim, projection_dim, hidden_dim):
    """Return CLIP's, projection and hidden dimension of a Combiner's weights; the last two must be those given."""
    # Two layers fix all four sizes; `load_weights` compares the rest.
    layers = [weights.get(f"{layer}.weight") for layer in ("text_projection_layer", "output_layer")]
    if any(layer is None or layer.ndim != 2 for layer in layers):
        raise InputError(f"{path}: not the weights of a Combiner")
    (projection, feature), (_, hidden) = (layer.shape for layer in layers)
    if feature != clip_feature_dim:
        raise InputError(
            f"{path}: a Combiner of {feature} dimensions, but this CLIP's features have {clip_feature_dim}"
        )
    if projection_dim not in (None, projection) or hidden_dim not in (None, hidden):
        fitting = f"--projection-dim {projection} --hidden-dim {hidden}"
        given = " and ".join(str(dim) for dim in (projection_dim, hidden_dim) if dim is not None)
        raise InputError(f"{path}: a Combiner of {fitting}, not of {given}")
    return feature, projection, hidden
