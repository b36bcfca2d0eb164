"""Pictures and triplets: the transforms, the two datasets, and the captions of FashionIQ."""

import copy

import numpy as np
import torch
import torchvision.transforms.functional as TF
from torch.utils.data import Dataset
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize, ToTensor

from annotations import read_cirr, read_fashioniq
from options import TRANSFORMS
from src.errors import require_one_of
from src.files import PROJECT_ROOT
from src.pictures import opened, require_affordable, require_present

MODES = ("classic", "relative")
"""Pictures, which a gallery is made of, and triplets, which queries are made of."""
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Of red, green and blue in the pictures that CLIP was trained on."""


class SquarePad:
    """Pad a picture with zeros to a square. `size`, the resolution padded for, does not change the padding."""

    def __init__(self, size):
        self.size = size

    def __call__(self, image):
        width, height = image.size
        return _pad(image, max(width, height), max(width, height))


class TargetPad:
    """Pad a picture with zeros until its sides' ratio is `target_ratio`; leave it alone below that (section 4.2).

    `size`, the resolution padded for, does not change the padding.
    """

    def __init__(self, target_ratio, size):
        self.target_ratio = target_ratio
        self.size = size

    def __call__(self, image):
        width, height = image.size
        if max(width, height) / min(width, height) < self.target_ratio:
            return image
        least_side = max(width, height) / self.target_ratio
        return _pad(image, least_side, least_side)


def _pad(image, least_width, least_height):
    width, height = image.size
    horizontal = max(int((least_width - width) / 2), 0)
    vertical = max(int((least_height - height) / 2), 0)
    require_affordable(width + 2 * horizontal, height + 2 * vertical)
    return TF.pad(image, [horizontal, vertical, horizontal, vertical], 0, "constant")


def _to_rgb(image):
    return image.convert("RGB")


class _Affordable:
    """Lets a picture through unless it is so long and thin that its shorter side resized to `dim` fills the memory."""

    def __init__(self, dim):
        self.dim = dim

    def __call__(self, image):
        shorter, longer = sorted(image.size)
        require_affordable(self.dim, self.dim * longer // shorter)
        return image


class Preprocess(Compose):
    """CLIP's preprocessing behind some padding or none: a PIL picture to a tensor [3, dim, dim], normalised.

    `facts` are plain values that tell it from any other.
    """

    def __init__(self, facts, dim, *padding):
        self.facts = facts
        resized = Resize(dim, interpolation=InterpolationMode.BICUBIC), CenterCrop(dim)
        super().__init__([*padding, _Affordable(dim), *resized, _to_rgb, ToTensor(), Normalize(MEAN, STD)])

    def pixels(self, image):
        """The first half: a PIL picture to bytes [dim, dim, 3]."""
        for transform in self.transforms[:-2]:
            image = transform(image)
        return np.array(image)

    @staticmethod
    def tensors(pixels):
        """The second half, for many at once: bytes [pictures, dim, dim, 3] to tensors [pictures, 3, dim, dim].

        The same operations on every value as ToTensor and Normalize, hence the same bits; in memory channels come last.
        """
        pictures, height, width, _ = pixels.shape
        lines = torch.from_numpy(pixels).reshape(pictures * height, -1).to(torch.float32).div_(255)
        lines.sub_(torch.tensor(MEAN).repeat(width)).div_(torch.tensor(STD).repeat(width))
        return lines.view(pixels.shape).permute(0, 3, 1, 2)


def clip_transform(dim):
    """CLIP's own preprocessing: a PIL picture to a tensor [3, dim, dim], normalised with CLIP's mean and std."""
    return Preprocess({"transform": "clip", "resolution": dim}, dim)


def squarepad_transform(dim):
    """SquarePad, then CLIP's own preprocessing."""
    return Preprocess({"transform": "squarepad", "resolution": dim}, dim, SquarePad(dim))


def targetpad_transform(target_ratio, dim):
    """TargetPad, then CLIP's own preprocessing."""
    facts = {"transform": "targetpad", "target_ratio": target_ratio, "resolution": dim}
    return Preprocess(facts, dim, TargetPad(target_ratio, dim))


def make_transform(name, target_ratio, dim):
    """The transform called `name`, one of TRANSFORMS; raises InputError for any other."""
    require_one_of(name, TRANSFORMS, "transform")
    if name == "clip":
        return clip_transform(dim)
    return squarepad_transform(dim) if name == "squarepad" else targetpad_transform(target_ratio, dim)


class _PicturesAndTriplets(Dataset):
    """What both datasets share: mode "classic" counts and opens pictures, mode "relative" triplets."""

    decoded, decoded_keys = None, ()
    """A RowStore of what `preprocess.pixels` gave, and the key in it of each of `image_names`; see image_cache."""

    def __init__(self, splits, mode, preprocess, skipping, opens):
        """`opens`: whether pictures will be opened, so that all of the splits' have to be there."""
        self.mode, self.preprocess = mode, preprocess
        if skipping is not None:
            splits = [skipping.usable(split, preprocess) for split in splits]
        self.triplets = [triplet for split in splits for triplet in split.triplets]
        self.image_names = [name for split in splits for name in split.pictures]
        self._paths = {name: path for split in splits for name, path in split.pictures.items()}
        if opens:
            require_present(self._paths.values())

    def path(self, image_name):
        """The file of a picture."""
        return self._paths[image_name]

    def __len__(self):
        return len(self.triplets if self.mode == "relative" else self.image_names)

    def __getitem__(self, index):
        if self.mode == "relative":
            return self._item(self.triplets[index])
        name = self.image_names[index]
        return name, self._image(name) if self.decoded is None else self.images([index])[0]

    def images(self, numbers):
        """Pictures [numbers, 3, dim, dim] by their numbers in `image_names`."""
        if self.decoded is None:
            return torch.stack([self._image(self.image_names[number]) for number in numbers])
        return self.preprocess.tensors(self.decoded.read([self.decoded_keys[number] for number in numbers]))

    def pixels(self, number):
        """Bytes [dim, dim, 3] of the picture of this number, as `preprocess` leaves them before it normalises."""
        return opened(self.path(self.image_names[number]), self.preprocess.pixels)

    def triplet_names(self):
        """(reference name, target name, caption or captions) of each training triplet."""
        return [tuple(triplet[field] for field in self.fields) for triplet in self.triplets]

    def pictures(self):
        """The pictures that the training triplets name, each once, as a dataset in mode "classic"."""
        pictures = copy.copy(self)
        pictures.mode = "classic"
        pictures.image_names = list(dict.fromkeys(name for names in self.triplet_names() for name in names[:2]))
        return pictures

    def _image(self, image_name):
        return opened(self.path(image_name), self.preprocess)


class FashionIQDataset(_PicturesAndTriplets):
    """FashionIQ's pictures (mode "classic") or triplets (mode "relative") of some categories.

    Items: classic (image name, image); relative train (reference image, target image, [caption, caption]), val
    (reference name, target name, captions), test (reference name, reference image, captions).
    Raises InputError for an unknown split, category or mode, for faulty annotations and for missing pictures.
    """

    fields = ("candidate", "target", "captions")

    def __init__(self, split, dress_types, mode, preprocess, data_path=PROJECT_ROOT, skipping=None):
        require_one_of(mode, MODES, "mode")
        splits = [read_fashioniq(data_path, dress_type, split) for dress_type in dress_types]
        super().__init__(splits, mode, preprocess, skipping, opens=mode == "classic" or split != "val")
        self.split, self.dress_types = split, list(dress_types)

    def _item(self, triplet):
        reference, captions = triplet["candidate"], triplet["captions"]
        if self.split == "train":
            return self._image(reference), self._image(triplet["target"]), captions
        if self.split == "val":
            return reference, triplet["target"], captions
        return reference, self._image(reference), captions


class CIRRDataset(_PicturesAndTriplets):
    """CIRR's pictures (mode "classic") or triplets (mode "relative").

    Items: classic (image name, image); relative train (reference image, target image, caption), val (reference name,
    target name, caption, six group members), test1 (pair id, reference name, caption, six group members).
    Raises InputError for an unknown split or mode, for faulty annotations and for missing pictures.
    """

    fields = ("reference", "target_hard", "caption")

    def __init__(self, split, mode, preprocess, data_path=PROJECT_ROOT, skipping=None):
        require_one_of(mode, MODES, "mode")
        opens = mode == "classic" or split == "train"
        super().__init__([read_cirr(data_path, split)], mode, preprocess, skipping, opens)
        self.split = split

    def _item(self, triplet):
        reference, caption, members = triplet["reference"], triplet["caption"], triplet["img_set"]["members"]
        if self.split == "train":
            return self._image(reference), self._image(triplet["target_hard"]), caption
        if self.split == "val":
            return reference, triplet["target_hard"], caption, members
        return triplet["pairid"], reference, caption, members


class TripletRows(Dataset):
    """The training triplets as rows of their pictures. Its items are batches, each asked for with a list of numbers.

    An item: reference rows [share], target rows [share], and the captions of the whole batch as they are annotated.
    """

    share = slice(None)
    """Which triplets of each batch are this process's."""

    def __init__(self, training_set):
        self.pictures = training_set.pictures()
        row = {name: row for row, name in enumerate(self.pictures.image_names)}
        triplets = training_set.triplet_names()
        self.rows = torch.tensor(
            [[row[reference] for reference, _, _ in triplets], [row[name] for _, name, _ in triplets]]
        )
        self.captions = [captions for _, _, captions in triplets]

    def __len__(self):
        return len(self.captions)

    def __getitem__(self, numbers):
        references, targets = self.rows[:, numbers[self.share]]
        return references, targets, [self.captions[number] for number in numbers]


class TripletImages(TripletRows):
    """The same with the pictures opened, each once even when many triplets of the batch share it.

    An item: images [pictures, 3, dim, dim], then a TripletRows item whose rows are those of the images.
    """

    def __getitem__(self, numbers):
        references, targets, captions = super().__getitem__(numbers)
        distinct, (references, targets) = torch.stack((references, targets)).unique(return_inverse=True)
        return self.pictures.images(distinct.tolist()), references, targets, captions


def training_variants(captions):
    """The four training captions of a FashionIQ pair: "A and b", "B and a", "A", "B" (section 4.1)."""
    first, second = map(cleaned_caption, captions)
    return joined_captions(first, second), joined_captions(second, first), first.capitalize(), second.capitalize()


def joined_captions(first, second):
    """FashionIQ's two cleaned captions as one sentence, "A and b": what validation asks, and training sometimes."""
    return f"{first.capitalize()} and {second}"


def cleaned_caption(caption):
    """A FashionIQ caption without the punctuation its annotators put around it."""
    return caption.strip(".?, ")
