"""The transforms: pictures as tensors, padded, then prepared as CLIP does it."""

import numpy as np
import PIL.Image

from src.base.errors import require_one_of
from src.pictures.normalisation import OPENAI_NORMALISATION, Normalisation
from src.pictures.padding import TRANSFORMS, require_affordable
from src.pictures.torchvision import transforms as T

WHOLE = 2 * PIL.Image.MAX_IMAGE_PIXELS
"""Pixels up to which pictures are padded and resized whole: those up to which Pillow opens one."""


class _Pad:
    """Pad a picture with zeros, as the transform called `name` does."""

    def __init__(self, name: str, target_ratio: float | None = None):
        self.padding = TRANSFORMS[name]
        self.target_ratio = target_ratio

    def border(self, image) -> tuple[int, int]:
        """Return how many pixels are added at the left and the right each, and at the top and the bottom each."""
        return self.padding.border(*image.size, self.target_ratio)

    def __call__(self, image):
        border = self.border(image)
        return T.functional.pad(image, [*border, *border], 0, "constant") if any(border) else image


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


class _Square:
    """Pad a picture, resize its shorter side to `dim` and take the middle, whatever that needs in between."""

    def __init__(self, pad: _Pad, dim: int):
        self.pad, self.dim = pad, dim
        self.whole = T.Compose([pad, T.Resize(dim, interpolation=T.InterpolationMode.BICUBIC), T.CenterCrop(dim)])

    def __call__(self, image):
        border = self.pad.border(image)
        width, height = (side + 2 * added for side, added in zip(image.size, border, strict=True))
        require_affordable(width, height)
        # As torchvision's Resize has it.
        shorter = min(width, height)
        resized = tuple(int(self.dim * side / shorter) for side in (width, height))
        # Such as the padded square around a panorama, or a long strip whose shorter side grows.
        if max(width * height, resized[0] * resized[1]) > WHOLE:
            from src.pictures.strips import shaped  # late: hardly any picture is as large

            return shaped(image, border, resized, self.dim)
        return self.whole(image)


class Preprocess(T.Compose):
    """Pad, then CLIP's own preprocessing: a PIL picture to a tensor [3, dim, dim], normalised."""

    def __init__(self, name: str, target_ratio: float | None, dim: int, normalisation: Normalisation):
        self.dim, self.normalisation = dim, normalisation
        self._made_of = name, target_ratio, dim, normalisation
        ratio = {"target_ratio": target_ratio} if TRANSFORMS[name].takes_ratio else {}
        self.pixel_settings = {"transform": name, **ratio, "resolution": dim}
        """Plain values that distinguish `pixels` from any other's."""
        self.settings = self.pixel_settings | {"mean": list(normalisation.mean), "std": list(normalisation.std)}
        """Plain values that distinguish the tensors from any other's."""
        # The order is the published one: RGB comes after the resize, which palettes and alpha make visible.
        square, normalised = _Square(_Pad(name, target_ratio), dim), (T.ToTensor(), T.Normalize(*normalisation))
        super().__init__([square, _to_rgb, *normalised])

    def __reduce__(self):
        # By what it was made of: torchvision's classes, looked up by name, would import all of it in each worker.
        return type(self), self._made_of

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
