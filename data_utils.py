"""Pictures and triplets: the transforms, the two datasets, and the captions of FashionIQ."""

import copy
import struct
from pathlib import Path

import PIL.Image
import torchvision.transforms.functional as TF
from torch.utils.data import Dataset
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize, ToTensor

from src.errors import InputError
from src.files import PROJECT_ROOT, read_json

DRESS_TYPES = ("dress", "toptee", "shirt")
GROUP_SIZE = 6
TRANSFORMS = ("clip", "squarepad", "targetpad")


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
    return TF.pad(image, [horizontal, vertical, horizontal, vertical], 0, "constant")


def _to_rgb(image):
    return image.convert("RGB")


def clip_transform(dim):
    """CLIP's own preprocessing: a PIL picture to a tensor [3, dim, dim], normalised with CLIP's mean and std."""
    return Compose(
        [
            Resize(dim, interpolation=InterpolationMode.BICUBIC),
            CenterCrop(dim),
            _to_rgb,
            ToTensor(),
            Normalize((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
        ]
    )


def squarepad_transform(dim):
    """SquarePad, then CLIP's own preprocessing."""
    return Compose([SquarePad(dim), *clip_transform(dim).transforms])


def targetpad_transform(target_ratio, dim):
    """TargetPad, then CLIP's own preprocessing."""
    return Compose([TargetPad(target_ratio, dim), *clip_transform(dim).transforms])


def make_transform(name, target_ratio, dim):
    """The transform called `name`, one of TRANSFORMS; raises InputError for any other."""
    _require(name, TRANSFORMS, "transform")
    if name == "clip":
        return clip_transform(dim)
    return squarepad_transform(dim) if name == "squarepad" else targetpad_transform(target_ratio, dim)


class _PicturesAndTriplets(Dataset):
    """What both datasets share: mode "classic" counts and opens pictures, mode "relative" triplets."""

    def __len__(self):
        return len(self.triplets if self.mode == "relative" else self.image_names)

    def __getitem__(self, index):
        if self.mode == "relative":
            return self._item(self.triplets[index])
        return self.image_names[index], self._image(self.image_names[index])

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
        return _preprocessed(self.path(image_name), self.preprocess)


class FashionIQDataset(_PicturesAndTriplets):
    """FashionIQ's pictures (mode "classic") or triplets (mode "relative") of some categories.

    Items: classic (image name, image); relative train (reference image, target image, [caption, caption]), val
    (reference name, target name, captions), test (reference name, reference image, captions).
    Raises InputError for an unknown split, category or mode, for faulty annotations and for missing pictures.
    """

    fields = ("candidate", "target", "captions")

    def __init__(self, split, dress_types, mode, preprocess, data_path=PROJECT_ROOT):
        _require(split, ("train", "val", "test"), "FashionIQ split")
        _require(mode, ("relative", "classic"), "mode")
        for dress_type in dress_types:
            _require(dress_type, DRESS_TYPES, "FashionIQ category")
        self.split, self.dress_types, self.mode, self.preprocess = split, list(dress_types), mode, preprocess
        self.folder = _dataset_folder(data_path, "fashionIQ_dataset")

        self.triplets, self.image_names = [], []
        for dress_type in dress_types:
            self.image_names += read_json(self.folder / "image_splits" / f"split.{dress_type}.{split}.json", list)
            self.triplets += self._read_triplets(dress_type)
        _require_pictures(map(self.path, self._names_to_open()))

    def _read_triplets(self, dress_type):
        path = self.folder / "captions" / f"cap.{dress_type}.{self.split}.json"
        fields = {"candidate": str, "captions": list} | ({} if self.split == "test" else {"target": str})
        triplets = _read_triplets(path, fields)
        for number, triplet in enumerate(triplets):
            if [type(caption) for caption in triplet["captions"]] != [str, str]:
                raise InputError(f"{path}: entry {number} must have two captions, not {triplet['captions']}")
        return triplets

    def _names_to_open(self):
        if self.mode == "classic":
            return self.image_names
        if self.split == "train":
            return self.pictures().image_names
        return [triplet["candidate"] for triplet in self.triplets] if self.split == "test" else []

    def path(self, image_name):
        """The file of a picture."""
        return self.folder / "images" / f"{image_name}.jpg"

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

    def __init__(self, split, mode, preprocess, data_path=PROJECT_ROOT):
        _require(split, ("train", "val", "test1"), "CIRR split")
        _require(mode, ("relative", "classic"), "mode")
        self.split, self.mode, self.preprocess = split, mode, preprocess
        self.folder = _dataset_folder(data_path, "cirr_dataset")

        self.triplets = self._read_triplets()
        splits_file = self.folder / "cirr" / "image_splits" / f"split.rc2.{split}.json"
        self.name_to_relpath = read_json(splits_file, dict)
        self.image_names = list(self.name_to_relpath)
        unlisted = [name for name in self._names_to_open() if name not in self.name_to_relpath]
        if unlisted:
            raise InputError(f"{splits_file}: does not list {unlisted[0]}, which a triplet of {split} names")
        _require_pictures(map(self.path, self._names_to_open()))

    def _read_triplets(self):
        path = self.folder / "cirr" / "captions" / f"cap.rc2.{self.split}.json"
        fields = {"reference": str, "caption": str, "img_set": dict}
        triplets = _read_triplets(path, fields | ({"pairid": int} if self.split == "test1" else {"target_hard": str}))
        for number, triplet in enumerate(triplets):
            if len(set(triplet["img_set"].get("members", ()))) != GROUP_SIZE:
                raise InputError(f"{path}: entry {number} has no img_set of {GROUP_SIZE} different members")
        return triplets

    def _names_to_open(self):
        if self.mode == "classic":
            return self.image_names
        return self.pictures().image_names if self.split == "train" else []

    def path(self, image_name):
        """The file of a picture."""
        return self.folder / self.name_to_relpath[image_name]

    def _item(self, triplet):
        reference, caption, members = triplet["reference"], triplet["caption"], triplet["img_set"]["members"]
        if self.split == "train":
            return self._image(reference), self._image(triplet["target_hard"]), caption
        if self.split == "val":
            return reference, triplet["target_hard"], caption, members
        return triplet["pairid"], reference, caption, members


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


def _require(value, allowed, what):
    if value not in allowed:
        raise InputError(f"{value!r} is no {what}: it must be one of {', '.join(allowed)}")


def _dataset_folder(data_path, name):
    folder = Path(data_path) / name
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; --data-path names the folder that holds {name}/")
    return folder


def _read_triplets(path, fields):
    """The triplets of a captions file, each with `fields` {name: type}."""
    triplets = read_json(path, list)
    for number, triplet in enumerate(triplets):
        for field, kind in fields.items():
            if not isinstance(triplet, dict) or not isinstance(triplet.get(field), kind):
                raise InputError(f"{path}: entry {number} has no {field!r} that is a {kind.__name__}")
    return triplets


def _require_pictures(paths):
    paths = dict.fromkeys(paths)
    missing = [path for path in paths if not path.is_file()]
    if missing:
        others = f" (and {len(missing) - 1} more of {len(paths)})" if len(missing) > 1 else ""
        raise InputError(f"{missing[0]}: no such picture{others}")


def _preprocessed(path, preprocess):
    try:
        with PIL.Image.open(path) as image:
            return preprocess(image)
    # What Pillow raises for a broken picture depends on its format.
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, PIL.Image.DecompressionBombError) as error:
        fault = " ".join(str(error).replace(str(path), "the file").split())
        raise InputError(f"{path}: cannot be read as a picture ({fault})") from None
