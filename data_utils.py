"""The front desk of data: the published pads, transforms and datasets, and what scripts need of pictures and tasks."""

from collections.abc import Callable, Sequence
from pathlib import Path

from torch.utils.data import Dataset

from src.base.errors import require_one_of
from src.base.files import PROJECT_ROOT
from src.pictures.data import read_data
from src.pictures.opening import opened
from src.pictures.pictures import Pictures
from src.pictures.presence import require_present
from src.pictures.transforms import SquarePad, TargetPad, make_transform, squarepad_transform, targetpad_transform
from src.tasks.protocol import Protocol
from src.tasks.registry import TASKS, find_task
from src.tasks.triplets import Split, Triplet

__all__ = [
    "TASKS",
    "CIRRDataset",
    "FashionIQDataset",
    "Pictures",
    "Protocol",
    "Split",
    "SquarePad",
    "TargetPad",
    "Triplet",
    "find_task",
    "make_transform",
    "read_data",
    "squarepad_transform",
    "targetpad_transform",
]

base_path = PROJECT_ROOT
"""The folder that holds the data sets, models/ and submission/ where no option names another."""
MODES = ("classic", "relative")
"""Pictures, which a gallery is made of, and triplets, which queries are made of."""


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
            require_present(splits)

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

    def __init__(
        self,
        split: str,
        dress_types: Sequence[str],
        mode: str,
        preprocess: Callable,
        data_path: Path | str = base_path,
    ):
        splits = [TASKS["FashionIQ"].read(Path(data_path), dress_type, split) for dress_type in dress_types]
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

    def __init__(self, split: str, mode: str, preprocess: Callable, data_path: Path | str = base_path):
        task = TASKS["CIRR"]
        super().__init__(list(task.read_all(Path(data_path), split).values()), mode, preprocess, opens=split == "train")
        self.split = split

    def _item(self, triplet):
        (caption,), members = triplet.captions, list(triplet.group)
        if self.split == "train":
            return self._image(triplet.reference), self._image(triplet.targets[0]), caption
        if self.split == "val":
            return triplet.reference, triplet.targets[0], caption, members
        # A number, as other code expects it.
        return int(triplet.id), triplet.reference, caption, members
