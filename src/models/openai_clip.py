"""OpenAI's CLIP through its own library, which wants an old setuptools and rounds weights to fp16."""

import contextlib
import sys
import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType

import packaging.version
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from src.base.bars import Bar
from src.base.errors import InputError, in_a_line
from src.base.hub import beside, is_on_hub, repository_and_file
from src.models.backbone import Backbone
from src.models.facts import read_facts, require_network
from src.models.weights import load_weights, read_weights
from src.pictures.normalisation import OPENAI_NORMALISATION
from src.pictures.torchvision import import_transforms


@contextlib.contextmanager
def _standing_in_for_pkg_resources() -> Iterator[None]:
    """Let an import of `pkg_resources` give a module that has only `packaging`."""
    # clip takes only that from it. setuptools 82 dropped pkg_resources, and importing an older one warns.
    name = "pkg_resources"
    real = sys.modules.get(name)
    sys.modules[name] = ModuleType(name)
    sys.modules[name].packaging = packaging
    try:
        yield
    finally:
        # Out again, since others ask by importing it whether it is there.
        del sys.modules[name]
        if real is not None:
            sys.modules[name] = real


import_transforms()  # before clip, which would import all of torchvision
with _standing_in_for_pkg_resources():
    import clip
    from clip.model import CLIP, build_model

# For downloads: its own would fill a file with carriage returns.
clip.clip.tqdm = partial(Bar, desc="downloading CLIP")


NAMES = clip.available_models()
"""The published CLIPs, which clip downloads."""
OPEN_CLIPS = "open_clip_config.json"
"""What lies beside weights of open_clip, which have OpenAI's names, but often another activation and other heads."""


class OpenAIClip(Backbone):
    """A CLIP of OpenAI's library: by its published name, or from a file of its weights."""

    normalisation = OPENAI_NORMALISATION
    trims_captions = True  # the text tower is causal, and the feature is taken at the end of the text

    @classmethod
    def load(cls, name: str) -> "OpenAIClip":
        return cls(_load_named(name) if name in NAMES else _load_file(name))

    def load_over(self, path: Path | str) -> None:
        if not self.network:
            _refuse_open_clips(path)
        super().load_over(path)

    @property
    def resolution(self) -> int:
        return self.model.visual.input_resolution

    @property
    def dimension(self) -> int:
        return self.model.visual.output_dim

    def tokenize(self, captions: Sequence[str]) -> Tensor:
        context = getattr(self.model, "context_length", 77)  # a TorchScript CLIP does not say its context
        return clip.tokenize(captions, context, truncate=True)

    def ends(self, tokens: Tensor) -> Tensor:
        return tokens.argmax(dim=-1)  # the end of text has the highest number of the vocabulary

    def encode_images(self, images: Tensor) -> Tensor:
        return self.model.encode_image(images)

    def encode_tokens(self, tokens: Tensor) -> Tensor:
        # clip makes the numbers of the captions on the CPU; a card would wait for them.
        with contextlib.nullcontext() if tokens.device.type == "cpu" else tokens.device:
            return self.model.encode_text(tokens)

    def to(self, device: torch.device) -> "OpenAIClip":
        super().to(device)
        # Plain tensors, which no module moves; clip would copy them in each layer of each pass.
        for block in self.model.transformer.resblocks:
            block.attn_mask = block.attn_mask.to(device)
        return self

    def encoder_of(self, weight: str) -> str | None:
        if weight == "logit_scale":  # no part of a feature, nor of the loss
            return None
        return "image" if weight.startswith("visual.") else "text"


def random_clip(*size) -> CLIP:
    """Make a CLIP of random weights.

    `size`: dimensions of its features; resolution, layers, width and patch size of its visual tower (four numbers of
    layers and None make a ResNet); context, vocabulary, width, heads and layers of its text tower.
    """
    # The library's own class, so that state dicts have the published names.
    return CLIP(*size)


def small_clip() -> CLIP:
    """Make a random CLIP for 64-pixel pictures, with half a million weights beside its vocabulary's."""
    return random_clip(64, 64, 2, 64, 16, 77, 49408, 64, 1, 2)


def _load_named(name: str) -> CLIP:
    """Load one of OpenAI's models, downloaded to clip's cache at its first use."""
    try:
        # clip's own loader would run the archive's code. Its download compares the file's SHA-256.
        path = clip.clip._download(clip.clip._MODELS[name], str(Path("~/.cache/clip").expanduser()))
    except (OSError, RuntimeError) as error:
        fault = f"cannot be downloaded ({in_a_line(error)}); a file of CLIP weights will do too"
        raise InputError(f"{name}: {fault}") from None
    return built(read_weights(path, CLIP.__name__), path)


def _load_file(path: str) -> CLIP:
    """Load the CLIP whose weights a file holds."""
    _refuse_open_clips(path)
    weights = read_weights(path, CLIP.__name__)
    try:
        require_network(Path(path), OpenAIClip.network)
    except InputError as error:
        raise InputError(f"{error}; --clip-model-path takes it") from None
    return built(weights, path)


def _refuse_open_clips(place: Path | str) -> None:
    config = beside(place, OPEN_CLIPS)
    # Of a checkpoint of this code its own facts are compared.
    if config is None or read_facts(place):
        return
    source = f"hf-hub:{repository_and_file(place)[0]}" if is_on_hub(place) else f"local-dir:{config.parent}"
    fault = f"open_clip's weights by the {OPEN_CLIPS} beside them, which OpenAI's network may read wrongly"
    raise InputError(f"{place}: {fault}; --clip-model-name open_clip:{source} takes them")


class _WithoutNumbers(TorchFunctionMode):
    """Gives tensors only their shapes: where they have no numbers, none are drawn and none are scaled."""

    def __torch_function__(self, function, types, arguments=(), options=None):
        options = options or {}
        # For these torch would import its compiler, which takes a second.
        if function.__name__ in ("div", "mul", "normal_", "triu_"):
            return (*arguments, *options.values())[0]
        if function.__name__ == "randn":
            return torch.empty(*arguments, **options)
        return function(*arguments, **options)


def built(weights: dict[str, Tensor], path: Path | str) -> CLIP:
    """Return the CLIP of `weights`, read from `path`; its shape is read from them. Raises InputError for others."""
    try:
        with torch.device("meta"), _WithoutNumbers(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            build_model(dict(weights))  # without memory: sizes that do not fit together may ask for any amount
        model = build_model(dict(weights)).float()
    except Exception as error:  # what build_model raises for the weights of something else may be anything
        raise InputError(f"{path}: not the weights of a CLIP ({in_a_line(error)})") from None
    load_weights(model, weights, path)  # again: build_model rounded them to fp16
    return model
