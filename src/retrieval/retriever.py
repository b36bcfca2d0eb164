"""A CLIP, its image transform and a combining function."""

import copy
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor

from src.command.flags import RetrieverOptions
from src.models.backbone import ENCODERS, Backbone
from src.models.facts import told_by_checkpoints
from src.models.registry import load_clip
from src.pictures.padding import USUAL_RATIO, USUAL_TRANSFORM
from src.pictures.pictures import Pictures
from src.pictures.skipping import Skipping
from src.pictures.transforms import make_transform
from src.retrieval.encoder import Encoder
from src.retrieval.gallery import Gallery
from src.tasks.triplets import Split

if TYPE_CHECKING:
    from src.pictures.cache import ImageCache


def element_wise_sum(image_features: Tensor, text_features: Tensor) -> Tensor:
    """Return predicted features [queries, dim], normalised: the sum of both as CLIP gives them (paper, section 3.2)."""
    return F.normalize(image_features + text_features, dim=-1)


class Retriever:
    """An Encoder, which has the CLIP, an image transform, a combining function, and what skips and keeps pictures."""

    def __init__(
        self,
        encoder: Encoder,
        preprocess: Callable,
        skipping: Skipping,
        image_cache: "ImageCache | None" = None,
        combining_function: Callable[[Tensor, Tensor], Tensor] = element_wise_sum,
    ):
        self.encoder, self.preprocess = encoder, preprocess
        self.skipping, self.image_cache = skipping, image_cache
        self.combining_function = combining_function

    def __repr__(self) -> str:
        function = getattr(self.combining_function, "__qualname__", type(self.combining_function).__name__)
        return f"{type(self).__name__}({self.backbone!r}, {function})"

    @property
    def backbone(self) -> Backbone:
        return self.encoder.backbone

    def combining_by(self, function: Callable[[Tensor, Tensor], Tensor]) -> "Retriever":
        """Return this retriever with another combining function; both share every feature."""
        other = copy.copy(self)
        other.combining_function = function
        return other

    def usable(self, split: Split) -> Split:
        """Return the split without what --skip-missing leaves out."""
        return self.skipping.usable(split, self.preprocess)

    def pictures(self, paths: Mapping[str, Path | str]) -> Pictures:
        """Return the picture files {name: file}, to be opened with this transform."""
        return Pictures(paths, self.preprocess, self.image_cache)

    def keep_decoded(self, galleries: Iterable[Pictures]) -> None:
        """Add to the image cache, where there is one, what it lacks of the pictures of `galleries`."""
        if self.image_cache is not None:
            paths = dict.fromkeys(path for pictures in galleries for path in pictures.paths.values())
            self.image_cache.fill(list(paths), self.encoder.num_workers)

    def gallery(self, pictures: Pictures, unlisted: Collection[str] = ()) -> Gallery:
        """Return pictures as a gallery: their features and names, and which of these the split's list does not have."""
        return Gallery(self.encoder.pictures(pictures), pictures.names, unlisted=unlisted)


def as_trained(options: RetrieverOptions, combiner_path: Path | str | None = None) -> RetrieverOptions:
    """Fill in the transform that the options do not name: the one that checkpoints were trained with, else the usual.

    Raises InputError for a named one that contradicts a checkpoint.
    """
    named = {name: value for name, value in options._asdict().items() if value is not None}
    known = {"transform": USUAL_TRANSFORM, "target_ratio": USUAL_RATIO}
    known |= told_by_checkpoints((options.clip_model_path, combiner_path), named, named)
    return options._replace(**{name: value for name, value in known.items() if name not in named})


def load_retriever(
    options: RetrieverOptions,
    frozen: Sequence[str] = ENCODERS,
    batch_size: int = 32,
    skipping: Skipping | None = None,
) -> Retriever:
    """Load what the options name: CLIP, in fp32 and eval mode on the device, its transform, and what keeps features.

    `frozen` and `batch_size` are Encoder's; `skipping` is another retriever's, which has tried the same pictures. The
    sum combines. Raises InputError when something cannot be loaded.
    """
    options = as_trained(options)
    backbone = load_clip(options.clip_model_name, options.clip_model_path)
    if set(frozen) != set(ENCODERS):
        backbone.require_live("an encoder that learns")
    encoder = Encoder(backbone, frozen, options.feature_cache, options.num_workers, batch_size)
    preprocess = make_transform(options.transform, options.target_ratio, backbone.resolution, backbone.normalisation)
    image_cache = None
    if options.image_cache is not None:
        from src.pictures.cache import ImageCache  # late: most commands decode as they go

        image_cache = ImageCache(Path(options.image_cache), preprocess)
    skipping = skipping or Skipping(options.skip_missing, options.num_workers)
    return Retriever(encoder, preprocess, skipping, image_cache)
