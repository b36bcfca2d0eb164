"""Pictures and triplets as torch takes them: the transforms, the published datasets, and the batches of training."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torchvision.transforms.functional as TF
from torch.utils.data import BatchSampler, Dataset, RandomSampler
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize, ToTensor

from src.base import distributed
from src.base.device import device
from src.base.errors import require_one_of
from src.base.files import PROJECT_ROOT, originals
from src.base.loading import Loader
from src.models.backbone import OPENAI_NORMALISATION, Normalisation, normalised
from src.pictures import strips
from src.pictures.cache import ImageCache
from src.pictures.opening import Each, opened, require_present
from src.pictures.padding import TRANSFORMS, require_affordable
from src.tasks.registry import TASKS
from src.tasks.triplets import Split, Triplet

base_path = PROJECT_ROOT
"""The folder that holds the data sets, models/ and submission/ where no option names another."""
MODES = ("classic", "relative")
"""Pictures, which a gallery is made of, and triplets, which queries are made of."""


# ---- transforms ----


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
        return TF.pad(image, [*border, *border], 0, "constant") if any(border) else image


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
        self.whole = Compose([pad, Resize(dim, interpolation=InterpolationMode.BICUBIC), CenterCrop(dim)])

    def __call__(self, image):
        border = self.pad.border(image)
        width, height = (side + 2 * added for side, added in zip(image.size, border, strict=True))
        require_affordable(width, height)
        # As torchvision's Resize has it.
        shorter = min(width, height)
        resized = tuple(int(self.dim * side / shorter) for side in (width, height))
        # Such as the padded square around a panorama, or a long strip whose shorter side grows.
        if max(width * height, resized[0] * resized[1]) > strips.WHOLE:
            return strips.shaped(image, border, resized, self.dim)
        return self.whole(image)


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
        square, normalised = _Square(_Pad(name, target_ratio), dim), (ToTensor(), Normalize(*normalisation))
        super().__init__([square, _to_rgb, *normalised])

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


# ---- pictures ----


class Pictures(Dataset):
    """Pictures by name, opened through a transform, or read from an image cache where there is one."""

    def __init__(self, paths: dict[str, Path], preprocess: Callable, cache: ImageCache | None = None):
        """Take picture files {name: file}."""
        self.paths, self.names = paths, list(paths)
        self.preprocess, self.cache = preprocess, cache

    def __len__(self):
        return len(self.names)

    def __getitem__(self, number):
        return self.names[number], self.images([number])[0]

    def images(self, numbers: Sequence[int]) -> torch.Tensor:
        """Return pictures [numbers, 3, dim, dim] by their numbers in `names`."""
        if self.cache is not None:
            return normalised(self.pixels(numbers), self.preprocess.normalisation)
        return torch.stack([opened(self._path(number), self.preprocess) for number in numbers])

    def pixels(self, numbers: Sequence[int]) -> torch.Tensor:
        """Return the bytes [numbers, dim, dim, 3] of pictures before they are normalised."""
        if self.cache is not None:
            return torch.from_numpy(self.cache.pixels(list(map(self._path, numbers))))
        pixels = [opened(self._path(number), self.preprocess.pixels) for number in numbers]
        return torch.from_numpy(np.stack(pixels))

    def _path(self, number):
        return self.paths[self.names[number]]


# ---- the published datasets ----


class _PublishedDataset(Dataset):
    """What both share: mode "classic" counts and opens pictures, mode "relative" triplets."""

    def __init__(self, splits: list[Split], mode: str, preprocess: Callable, opens: bool):
        """Take some splits; `opens` says whether triplets open pictures, so that all of them have to be there."""
        require_one_of(mode, MODES, "mode")
        self.mode, self.preprocess = mode, preprocess
        self.triplets = [triplet for split in splits for triplet in split.triplets]
        # All listed pictures have to be there, also those that no triplet names: a gap hints at a torn download.
        self.paths = {name: path for split in splits for name, path in split.pictures.items()}
        self.image_names = list(self.paths)
        if mode == "classic" or opens:
            require_present(self.paths.values())

    def __len__(self):
        return len(self.triplets if self.mode == "relative" else self.image_names)

    def __getitem__(self, index):
        if self.mode == "relative":
            return self._item(self.triplets[index])
        name = self.image_names[index]
        return name, self._image(name)

    def _image(self, name):
        return opened(self.paths[name], self.preprocess)

    def _item(self, triplet: Triplet):
        raise NotImplementedError


class FashionIQDataset(_PublishedDataset):
    """FashionIQ's pictures (mode "classic") or triplets (mode "relative") of some categories.

    Items: classic (image name, image); relative train (reference image, target image, [caption, caption]), val
    (reference name, target name, captions), test (reference name, reference image, captions).
    Raises InputError for an unknown split, category or mode, for faulty annotations and for missing pictures.
    """

    def __init__(self, split: str, dress_types: Sequence[str], mode: str, preprocess: Callable, data_path=base_path):
        splits = [TASKS["FashionIQ"].read(data_path, dress_type, split) for dress_type in dress_types]
        super().__init__(splits, mode, preprocess, opens=split != "val")
        self.split, self.dress_types = split, list(dress_types)

    def _item(self, triplet):
        captions = list(triplet.captions)
        if self.split == "train":
            return self._image(triplet.reference), self._image(triplet.targets[0]), captions
        if self.split == "val":
            return triplet.reference, triplet.targets[0], captions
        return triplet.reference, self._image(triplet.reference), captions


class CIRRDataset(_PublishedDataset):
    """CIRR's pictures (mode "classic") or triplets (mode "relative").

    Items: classic (image name, image); relative train (reference image, target image, caption), val (reference name,
    target name, caption, six group members), test1 (pair id, reference name, caption, six group members).
    Raises InputError for an unknown split or mode, for faulty annotations and for missing pictures.
    """

    def __init__(self, split: str, mode: str, preprocess: Callable, data_path=base_path):
        task = TASKS["CIRR"]
        super().__init__(list(task.read_all(data_path, split).values()), mode, preprocess, opens=split == "train")
        self.split = split

    def _item(self, triplet):
        (caption,), members = triplet.captions, list(triplet.group)
        if self.split == "train":
            return self._image(triplet.reference), self._image(triplet.targets[0]), caption
        if self.split == "val":
            return triplet.reference, triplet.targets[0], caption, members
        # A number, as other code expects it.
        return int(triplet.id), triplet.reference, caption, members


# ---- the batches of training ----


class Batch(NamedTuple):
    """A batch of training triplets, of which this process computes a share."""

    references: torch.Tensor
    """Rows [share] of the references, in `pixels` or, without these, in all pictures that the triplets name."""
    targets: torch.Tensor
    """Rows [share] of the targets, likewise."""
    captions: list[tuple[str, ...]]
    """The captions of all triplets of the batch, not of the share alone, since all of them draw."""
    pixels: torch.Tensor | None = None
    """Bytes [pictures, dim, dim, 3] of the share's pictures: a quarter of what they are when they are normalised."""
    all_targets: torch.Tensor | None = None
    """Rows [batch] of the targets of the whole batch, in all pictures that the triplets name."""


class TripletRows(Dataset):
    """Training triplets as rows of their pictures. Its items are Batches, each asked for with a list of numbers."""

    def __init__(
        self,
        splits: Sequence[Split],
        preprocess: Callable,
        cache: ImageCache | None = None,
        share: slice = slice(None),
        distinct: bool = False,
    ):
        """`share` says which triplets of each batch are this process's, `distinct` that equal files are one row."""
        triplets = [triplet for split in splits for triplet in split.triplets]
        paths = {name: path for split in splits for name, path in split.pictures.items()}
        # Only named pictures are opened or encoded, in the order of the triplets.
        named = dict.fromkeys(name for triplet in triplets for name in (triplet.reference, triplet.targets[0]))
        named = {name: paths[name] for name in named}
        first = _first_of_equals(named) if distinct else {name: name for name in named}
        kept = {name: path for name, path in named.items() if first[name] == name}
        self.pictures = Pictures(kept, preprocess, cache)
        self.captions = [triplet.captions for triplet in triplets]
        self.share = share
        row = {name: row for row, name in enumerate(kept)}
        ends = [triplet.reference for triplet in triplets], [triplet.targets[0] for triplet in triplets]
        self.rows = torch.tensor([[row[first[name]] for name in names] for names in ends])

    def __len__(self):
        return len(self.captions)

    def __getitem__(self, numbers: list[int]) -> Batch:
        references, targets = self.rows[:, numbers[self.share]]
        return Batch(references, targets, [self.captions[number] for number in numbers], None, self.rows[1, numbers])


def _first_of_equals(paths: dict[str, Path]) -> dict[str, str]:
    """Return {name: the first name with the same bytes}; one process of a job reads the files for all."""
    return distributed.broadcast(originals(paths) if distributed.is_first() else None)


class TripletImages(TripletRows):
    """The same with the pictures opened, each once even when many triplets of the batch share it."""

    def __getitem__(self, numbers: list[int]) -> Batch:
        batch, needed = self.planned(numbers)
        return batch._replace(pixels=self.pictures.pixels(needed))

    def planned(self, numbers: list[int]) -> tuple[Batch, list[int]]:
        """Return the batch without its pictures, and their numbers in `pictures`, in the order of its rows."""
        batch = super().__getitem__(numbers)
        # Half of a batch's pictures may be another triplet's too: each goes through CLIP once.
        distinct, (references, targets) = torch.stack((batch.references, batch.targets)).unique(return_inverse=True)
        return batch._replace(references=references, targets=targets), distinct.tolist()


class TripletLoader:
    """Shuffled full batches of triplets, in an order that follows from `seed` alone.

    Each of `num_workers` processes opens a part of each batch, and two parts of each may wait: two batches, however
    many workers there are. So the first batch of an epoch comes as early as all of them can open it.
    """

    def __init__(self, triplets: TripletRows, batch_size: int, num_workers: int, seed: int):
        self.triplets, self.num_workers = triplets, num_workers
        # Its own generator: the order must not depend on what else draws, and --resume puts it back.
        self.draws = torch.Generator().manual_seed(seed)
        self.batches = BatchSampler(RandomSampler(triplets, generator=self.draws), batch_size, drop_last=True)

    def __len__(self):
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        if not isinstance(self.triplets, TripletImages):
            yield from map(self.triplets.__getitem__, self.batches)
            return
        planned = [(batch, self._parts(needed)) for batch, needed in map(self.triplets.planned, self.batches)]
        parts = [part for _, of_batch in planned for part in of_batch]
        loaded = iter(Loader(Each(self.triplets.pictures.pixels, parts), self.num_workers, batch_size=None))
        for batch, of_batch in planned:
            yield batch._replace(pixels=_joined([next(loaded) for _ in of_batch]))

    def _parts(self, needed: list[int]) -> list[list[int]]:
        size = -(-len(needed) // max(1, self.num_workers))
        return [needed[start : start + size] for start in range(0, len(needed), size)]


def _joined(parts: list[torch.Tensor]) -> torch.Tensor:
    """Return parts of a batch as a whole; for a card in memory that it can read while it computes."""
    pinned = device.type == "cuda"
    if len(parts) == 1 and not pinned:
        return parts[0]
    whole = torch.empty(sum(map(len, parts)), *parts[0].shape[1:], dtype=parts[0].dtype, pin_memory=pinned)
    return torch.cat(parts, out=whole)
