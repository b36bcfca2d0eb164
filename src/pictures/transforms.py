"""The transforms: pictures as tensors, padded, then prepared as CLIP does it."""

import numpy as np
import torchvision.transforms.functional as TF
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize, ToTensor

from src.base.errors import require_one_of
from src.pictures.normalisation import OPENAI_NORMALISATION, Normalisation
from src.pictures.opening import require_affordable
from src.pictures.padding import TRANSFORMS


class _Pad:
    """Pad a picture with zeros, as the transform called `name` does."""

    def __init__(self, name: str, target_ratio: float | None = None):
        self.least_side, _ = TRANSFORMS[name]
        self.target_ratio = target_ratio

    def __call__(self, image):
        width, height = image.size
        least_side = self.least_side(width, height, self.target_ratio)
        if least_side is None:
            return image
        # Half the difference is rounded down on each side, so a result may be a pixel short of square, as published.
        horizontal, vertical = (max(int((least_side - side) / 2), 0) for side in (width, height))
        require_affordable(width + 2 * horizontal, height + 2 * vertical)
        return TF.pad(image, [horizontal, vertical, horizontal, vertical], 0, "constant")


class SquarePad(_Pad):
    """Pad a picture with zeros to a square. `size`, the resolution padded for, does not change the padding."""

    def __init__(self, size: int):
        super().__init__("squarepad")
        self.size = size


class TargetPad(_Pad):
    """Pad a picture with zeros until its sides' ratio is `target_ratio`; leave it alone below that (section 4.2).

    `size`, the resolution padded for, does not change the padding.
    """

    def __init__(self, target_ratio: float, size: int):
        super().__init__("targetpad", target_ratio)
        self.size = size


def _to_rgb(image):
    return image.convert("RGB")


class _Affordable:
    """Let a picture through unless it is so long and thin that its shorter side resized to `dim` fills the memory."""

    def __init__(self, dim: int):
        self.dim = dim

    def __call__(self, image):
        # Resize makes the shorter side `dim` long before the crop takes the middle.
        shorter, longer = sorted(image.size)
        require_affordable(self.dim, self.dim * longer // shorter)
        return image


class Preprocess(Compose):
    """CLIP's preprocessing behind a padding: a PIL picture to a tensor [3, dim, dim], normalised."""

    def __init__(self, name: str, target_ratio: float | None, dim: int, normalisation: Normalisation):
        self.dim, self.normalisation = dim, normalisation
        ratio = {"target_ratio": target_ratio} if TRANSFORMS[name].takes_ratio else {}
        self.pixel_settings = {"transform": name, **ratio, "resolution": dim}
        """Plain values that tell `pixels` from any other's."""
        self.settings = self.pixel_settings | {"mean": list(normalisation.mean), "std": list(normalisation.std)}
        """Plain values that tell the tensors from any other's."""
        # The order is the published one: RGB comes behind the resize, which palettes and alpha make visible.
        resized = Resize(dim, interpolation=InterpolationMode.BICUBIC), CenterCrop(dim)
        normalised = ToTensor(), Normalize(*normalisation)
        super().__init__([_Pad(name, target_ratio), _Affordable(dim), *resized, _to_rgb, *normalised])

    def pixels(self, image) -> np.ndarray:
        """Do the first half of the work on a PIL picture: its bytes [dim, dim, 3], not normalised."""
        for transform in self.transforms[:-2]:
            image = transform(image)
        return np.array(image)


def make_transform(
    name: str, target_ratio: float | None, dim: int, normalisation: Normalisation = OPENAI_NORMALISATION
) -> Preprocess:
    """Make the transform called `name` for pictures of `dim` pixels; raises InputError for an unknown name."""
    require_one_of(name, tuple(TRANSFORMS), "transform")
    return Preprocess(name, target_ratio, dim, normalisation)


def squarepad_transform(dim: int) -> Preprocess:
    """Make SquarePad, then CLIP's own preprocessing."""
    return make_transform("squarepad", None, dim)


def targetpad_transform(target_ratio: float, dim: int) -> Preprocess:
    """Make TargetPad, then CLIP's own preprocessing."""
    return make_transform("targetpad", target_ratio, dim)
