"""GeneCIS: a picture and a condition of a word or two; each template brings the few pictures that are ranked."""

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path

from src.base.crops import crop_of
from src.base.errors import first_ten, require_one_of
from src.tasks.annotations import entries_that, find_below, is_whole_number, read_entries, refuse
from src.tasks.protocol import Protocol
from src.tasks.task import Task
from src.tasks.triplets import Split, Triplet

MORE = 0.7
"""How much of its width a box grows to the left of the object, and of its height upwards; it ends as much after."""
TOO_FAR = 1e8
"""Pixels that no picture has; neither NaN nor an infinity is below."""
COCO, GENOME = ("val2017",), ("VG_100K", "VG_100K_2")
"""Folders of pictures, as COCO's and Visual Genome's archives call them."""


class GeneCIS(Task):
    """GeneCIS as its program counts. It has no training split."""

    name = "GeneCIS"
    short_name = "genecis"
    folder = "genecis"
    annotations = ""
    splits = ("val",)  # as commands call what is judged; it has no other
    categories = ("focus_attribute", "change_attribute", "focus_object", "change_object")
    protocols = (Protocol("genecis", "keep", "group", at=(1, 2, 3), captions="caption"),)
    captions = {"caption": lambda triplet: [triplet.captions]}
    means = {
        "attribute_recall_at1": ("focus_attribute_recall_at1", "change_attribute_recall_at1"),
        "object_recall_at1": ("focus_object_recall_at1", "change_object_recall_at1"),
        "average_recall_at1": ("attribute_recall_at1", "object_recall_at1"),
    }
    headline = tuple(means)
    best = {}

    def files(self, data_path: Path, category: str, split: str) -> tuple[Path, Path]:
        path = Path(data_path) / self.folder / f"{category}.json"
        return path, path  # which also has the galleries

    def read_all(self, data_path: Path, split: str) -> dict[str, Split]:
        # Half of the tasks need only COCO's 5,000 pictures.
        there = self.categories_in(data_path, split)
        lacking = tuple(category for category in self.categories if category not in there)
        splits = {category: self.read(data_path, category, split) for category in there or self.categories}
        _mention_lacking(self.root(data_path), lacking)
        return splits

    def read(self, data_path: Path, category: str, split: str) -> Split:
        require_one_of(split, self.splits, "GeneCIS split")
        require_one_of(category, self.categories, "GeneCIS task")
        root = self.root(data_path)
        path, _ = self.files(data_path, category, split)
        entries = read_entries(path, {"condition": str})
        if category.endswith("object"):
            is_picture, called, kind, folders = _is_coco, _coco_name, "a val_image_id", COCO
        else:
            is_picture, called, kind, folders = _is_genome, _genome_name, "an image_id and an instance_bbox", GENOME
        _require_pictures(path, entries, is_picture, kind)
        triplets, files = [], {}
        file = _finder(root, folders)
        for entry in entries:
            reference, *gallery = (called(one) for one in (entry["reference"], entry["target"], *entry["gallery"]))
            files |= {name: file(*of) for name, of in (reference, *gallery) if name not in files}
            group = tuple(dict.fromkeys(name for name, _ in gallery))
            triplets.append(Triplet(reference[0], (entry["condition"],), group[:1], group))
        again = [number for number, entry in enumerate(entries) if len(triplets[number].group) <= len(entry["gallery"])]
        _mention_again(path, len(entries), tuple(again))
        return Split(split, path, triplets, files)


def _require_pictures(path: Path, entries: list[dict], is_picture: Callable[[object], bool], kind: str) -> None:
    def has_odd(entry):
        gallery = entry.get("gallery")
        pictures = [entry.get("reference"), entry.get("target"), *(gallery if isinstance(gallery, list) else [])]
        return not isinstance(gallery, list) or not gallery or not all(map(is_picture, pictures))

    fault = f"entries without a reference, a target and a gallery of pictures that have {kind}"
    refuse(path, entries_that(entries, has_odd), len(entries), fault)


def _is_coco(picture: object) -> bool:
    return isinstance(picture, dict) and is_whole_number(picture.get("val_image_id")) and picture["val_image_id"] >= 0


def _coco_name(picture: dict) -> tuple[str, tuple]:
    """Return what a picture is called, and what its file is made of: its name, and a box."""
    file = f"{picture['val_image_id']:012d}.jpg"
    return file, (file, None)


def _is_genome(picture: object) -> bool:
    if not isinstance(picture, dict) or not is_whole_number(picture.get("image_id")) or picture["image_id"] < 0:
        return False
    box = picture.get("instance_bbox")
    are_numbers = isinstance(box, list) and len(box) == 4 and all(type(side) in (int, float) for side in box)
    return are_numbers and all(abs(side) < TOO_FAR for side in box) and box[2] > 0 and box[3] > 0


def _genome_name(picture: dict) -> tuple[str, tuple]:
    """Return what a picture is called, and what its file is made of: its name, and the box around the object."""
    file = f"{picture['image_id']}.jpg"
    x, y, width, height = picture["instance_bbox"]
    # From the left edge of what is cropped, as in the published program: a box cut off at 0 ends later.
    left, top = max(0, x - MORE * width), max(0, y - MORE * height)
    right, bottom = left + (1 + MORE) * width, top + (1 + MORE) * height
    box = round(left), round(top), round(right) - round(left), round(bottom) - round(top)
    return crop_of(Path(file), box).name, (file, box)


def _finder(root: Path, folders: tuple[str, ...]) -> Callable[[str, tuple | None], Path]:
    """Return what makes a path of a file's name and a box, in the first of the folders that has the file."""
    found = [find_below(root, Path(folder)) for folder in folders]
    names = {folder: frozenset(os.listdir(folder)) if folder.is_dir() else frozenset() for folder in found}  # noqa: PTH208

    def path_of(file, box):
        path = next((folder for folder in found if file in names[folder]), found[0]) / file
        return path if box is None else crop_of(path, box)

    return path_of


@functools.cache
def _mention_lacking(root: Path, categories: tuple[str, ...]) -> None:
    if categories:
        line = (
            f"has no {first_ten([f'{category}.json' for category in categories])}: judged without, and without a mean"
        )
        print(f"{root}: {line}", file=sys.stderr)


@functools.cache
def _mention_again(path: Path, total: int, numbers: tuple[int, ...]) -> None:
    if numbers:
        line = f"{len(numbers)} of {total} galleries name a picture twice, which is ranked once: {first_ten(numbers)}"
        print(f"{path}: {line}", file=sys.stderr)
