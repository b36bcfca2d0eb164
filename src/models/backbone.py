"""Backbone: the interface of a CLIP, whichever library built it."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from src.models.facts import require_network
from src.models.weights import load_weights, read_weights, weights_digest
from src.pictures.normalisation import Normalisation

ENCODERS = ("image", "text")


class Backbone(ABC):
    """A CLIP: its encoders, its tokens, and what has to be known of its pictures and features.

    `model` is the network itself, whose state dict checkpoints keep. A family of CLIPs is one file of this folder that
    derives this class, and a line in the registry.
    """

    normalisation: Normalisation
    trims_captions: bool
    """Whether what follows the end of a caption changes nothing of its feature, so that batches may be cut there."""

    network: str = ""
    """What decides its features beside its weights, such as another activation; "" is as OpenAI's CLIPs."""

    def __init__(self, model: nn.Module):
        self.model = model

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.resolution} pixels, {self.dimension} dimensions)"

    @property
    def key(self) -> str:
        """The name under which checkpoints keep its weights: its model's class, as published."""
        return type(self.model).__name__

    @classmethod
    @abstractmethod
    def load(cls, name: str) -> "Backbone":
        """Load a CLIP in fp32 on the CPU; raises InputError when it cannot be had."""

    @property
    @abstractmethod
    def resolution(self) -> int:
        """Pixels of a side of the pictures it takes."""

    @property
    @abstractmethod
    def dimension(self) -> int:
        """Numbers of a feature."""

    @abstractmethod
    def tokenize(self, captions: Sequence[str]) -> Tensor:
        """Return tokens [captions, context]; a longer caption is cut, its last token the end of text."""

    @abstractmethod
    def ends(self, tokens: Tensor) -> Tensor:
        """Return the place [captions] of the end of text in tokens [captions, context]."""

    @abstractmethod
    def encode_images(self, images: Tensor) -> Tensor:
        """Return features [images, dimension], not normalised, of images [images, 3, resolution, resolution]."""

    @abstractmethod
    def encode_tokens(self, tokens: Tensor) -> Tensor:
        """Return features [captions, dimension], not normalised, of tokens [captions, any length]."""

    @abstractmethod
    def encoder_of(self, weight: str) -> str | None:
        """Return which of ENCODERS an entry of the model's state dict belongs to; None for neither."""

    def held(self, encoder: str, items: Sequence[Path | str]) -> Tensor | None:
        """Return features [items, dimension] that are at hand without encoding; None of a CLIP, which encodes.

        `items` are files of pictures or texts, as `encoder` says.
        """
        return None

    def require_live(self, what: str) -> None:
        """Raise InputError where it encodes nothing new, so that `what` cannot be done with it."""
        return

    def trimmed(self, tokens: Tensor) -> Tensor:
        """Return tokens without what follows the longest caption's end, where that changes nothing."""
        # A text tower that looks at all tokens, or takes the last one's feature, needs the padding too.
        return tokens[:, : self.ends(tokens).max() + 1] if self.trims_captions else tokens

    def weights_of(self, encoder: str) -> dict[str, Tensor]:
        """Return the part of the state dict that an encoder's features depend on."""
        # Of one encoder only: stage 1 with --encoder text must find the pictures' old features again.
        return {name: value for name, value in self.model.state_dict().items() if self.encoder_of(name) == encoder}

    def digest(self, encoder: str | None = None) -> str:
        """Return the SHA-256, in hexadecimal, of all that an encoder's features depend on; None is of both encoders."""
        weights = self.model.state_dict() if encoder is None else self.weights_of(encoder)
        return weights_digest(weights, self.network)

    def load_over(self, path: Path | str) -> None:
        """Load the weights of a stage-1 checkpoint over its own; raises InputError when they do not fit."""
        require_network(path, self.network)
        load_weights(self.model, read_weights(path, self.key), path)

    def let_learn(self, encoders: Sequence[str]) -> None:
        """Let the weights of `encoders` learn and freeze all others."""
        # Weights of neither encoder stay frozen: logit_scale is not a part of this loss.
        for name, weight in self.model.named_parameters():
            weight.requires_grad_(self.encoder_of(name) in encoders)

    def to(self, device: torch.device) -> "Backbone":
        """Move the model to a device, in eval mode, channels last in memory as convolutions want them."""
        # Changes no value, and makes a ResNet's convolutions faster.
        self.model.to(device, memory_format=torch.channels_last).eval()
        return self
