"""The normalisation of pixels that a CLIP expects."""

import functools
from typing import NamedTuple

import torch
from torch import Tensor


class Normalisation(NamedTuple):
    """Mean and standard deviation of red, green and blue in the pictures that a CLIP was trained on."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


OPENAI_NORMALISATION = Normalisation((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


def normalised(pixels: Tensor, normalisation: Normalisation) -> Tensor:
    """Return images [pictures, 3, side, side], in memory channels last, of bytes [pictures, side, side, 3].

    Every value goes through the operations of ToTensor and Normalize, so the bits are theirs, whatever the device.
    """
    pictures, height, width, _ = pixels.shape
    lines = pixels.reshape(pictures * height, -1).to(torch.float32).div_(255)
    mean, std = (_repeated(channels, width, pixels.device) for channels in normalisation)
    return lines.sub_(mean).div_(std).view(pixels.shape).permute(0, 3, 1, 2)


@functools.cache
def _repeated(channels: tuple[float, float, float], width: int, device: torch.device) -> Tensor:
    # Kept, since a card would wait for them each time.
    return torch.tensor(channels).repeat(width).to(device)
