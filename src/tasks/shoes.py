"""Shoes: one caption a pair; the pair belongs to the split of its reference, which leaves the ranking."""

import functools
import sys
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from src.base.errors import first_ten, repeated, require_one_of
from src.base.folders import files_below
from src.base.reading import read_text
from src.tasks.annotations import is_name, path_parts, read_entries, refuse, require_any, stays_inside
from src.tasks.captions import drawn_texts
from src.tasks.protocol import Protocol
from src.tasks.task import Task
from src.tasks.triplets import Split, Triplet

LISTINGS = {"train": "train_im_names.txt", "val": "eval_im_names.txt"}
FIELDS = {"ReferenceImageName": str, "ImageName": str, "RelativeCaption": str}


class Shoes(Task):
    """Shoes as TG-CIR's program counts."""

    name = "Shoes"
    short_name = "shoes"
    folder = "shoes_dataset"
    annotations = ""
    splits = tuple(LISTINGS)
    categories = ("shoes",)  # it has none
    protocols = (Protocol("tg-cir", "drop", "full", at=(1, 10, 50), captions="caption"),)
    captions = {"caption": lambda triplet: [triplet.captions]}
    means = {"average_recall": ("recall_at1", "recall_at10", "recall_at50")}
    headline = ("recall_at1", "recall_at10", "recall_at50", "average_recall")
    best = {"": "average_recall"}

    def files(self, data_path: Path, category: str, split: str) -> tuple[Path, Path]:
        root = Path(data_path) / self.folder
        return root / "relative_captions_shoes.json", root / LISTINGS[split]

    def read(self, data_path: Path, category: str, split: str) -> Split:
        require_one_of(split, self.splits, "Shoes split")
        root = self.root(data_path)
        path, listing = self.files(data_path, category, split)
        pictures = _read_listing(listing, root)
        entries = read_entries(path, FIELDS)
        # The file has the pairs of both splits, and a few whose reference is in neither list.
        pairs = [
            _triplet(number, entry) for number, entry in enumerate(entries) if entry["ReferenceImageName"] in pictures
        ]
        unlisted = tuple(pair.targets[0] for pair in pairs if pair.targets[0] not in pictures)
        triplets = [pair for pair in pairs if pair.targets[0] in pictures]
        require_any(path, triplets, f"triplets of pictures that {listing.name} lists")
        _mention_left_out(path, listing, len(pairs), unlisted)
        return Split(split, path, triplets, pictures)

    def training_texts(self, captions: Sequence[str]) -> tuple[str, ...]:
        return drawn_texts(captions)


def _triplet(number: int, entry: dict) -> Triplet:
    return Triplet(
        reference=entry["ReferenceImageName"],
        captions=(entry["RelativeCaption"],),
        targets=(entry["ImageName"],),
        id=str(number),
        place=f"entry {number}",
        may_be_lost=True,  # as one of the published file's
    )


def _read_listing(listing: Path, root: Path) -> dict[str, Path]:
    names = [line.strip() for line in read_text(listing).split("\n") if line.strip()]
    outside = [name for name in names if not (is_name(name) and stays_inside(name) and len(path_parts(name)) == 1)]
    refuse(listing, outside, len(names), "lines that are no file names without folders")
    refuse(listing, repeated(names), len(names), "names listed again")
    require_any(listing, names, "pictures")
    listed, found = set(names), {}
    for file in sorted(files_below(root)):
        name = PurePosixPath(file).name
        if name in listed:
            found.setdefault(name, []).append(file)
    several = [" and ".join(files) for files in found.values() if len(files) > 1]
    refuse(listing, several, len(names), f"pictures that lie in several folders of {root.name}/, where one is expected")
    # One that is nowhere is missing from the data set's folder.
    return {name: root / found.get(name, [name])[0] for name in names}


@functools.cache
def _mention_left_out(path: Path, listing: Path, pairs: int, targets: tuple[str, ...]) -> None:
    if targets:
        left = f"{pairs - len(targets):,} remain without {len(targets)} whose target {listing.name} does not list"
        print(f"{path}: of {pairs:,} triplets {left}: {first_ten(targets)}", file=sys.stderr)
