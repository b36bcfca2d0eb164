"""Shoes: one caption a pair; the pair belongs to the split of its reference, which leaves the ranking."""

import functools
import sys
from collections.abc import Collection, Sequence
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
    """Shoes as TG-CIR's program counts, and as VAL's does."""

    name = "Shoes"
    short_name = "shoes"
    folder = "shoes_dataset"
    annotations = ""
    splits = tuple(LISTINGS)
    categories = ("shoes",)  # it has none
    protocols = (
        Protocol("tg-cir", "drop", "full", at=(1, 10, 50), captions="caption"),
        Protocol("val", "drop", "all", at=(1, 10, 50), captions="twice"),
    )
    captions = {
        "caption": lambda triplet: [] if triplet.unlisted else [triplet.captions],
        "twice": lambda triplet: [triplet.captions] * _times_listed(triplet),
    }
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
        # The file has the pairs of both splits, and a few with a picture that is in neither list.
        pairs = [_triplet(number, entry) for number, entry in enumerate(entries)]
        triplets = [pair for pair in pairs if pair.reference in pictures and pair.targets[0] in pictures]
        require_any(path, triplets, f"triplets of pictures that {listing.name} lists")
        targets = [pair.targets[0] for pair in pairs if pair.reference in pictures and pair.targets[0] not in pictures]
        _mention_left_out(path, listing, len(triplets) + len(targets), tuple(targets))
        if split == "train":
            return Split(split, path, triplets, pictures)
        triplets, others = _with_unlisted(path, pairs, pictures, root)
        return Split(split, path, triplets, pictures | others)

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


def _times_listed(triplet: Triplet) -> int:
    """Return how often VAL's program asks a triplet: once for each picture of the list that is an end of it."""
    return 1 if triplet.unlisted or triplet.reference in triplet.targets else 2


def _with_unlisted(
    path: Path, pairs: list[Triplet], pictures: dict[str, Path], root: Path
) -> tuple[list[Triplet], dict[str, Path]]:
    """Return pairs with at least one end in the list, and the files {name: file} of ends that are not.

    A line says which are left out as there is no file.
    """
    marked = []
    for pair in pairs:
        ends = dict.fromkeys((pair.reference, *pair.targets))
        unlisted = tuple(name for name in ends if name not in pictures)
        if len(unlisted) < len(ends):
            marked.append(pair._replace(unlisted=unlisted))
    files = _files_called({name for pair in marked for name in pair.unlisted}, root)
    lacking = tuple(name for pair in marked for name in pair.unlisted if name not in files)
    _mention_without_file(path, lacking)
    return [pair for pair in marked if files.keys() >= {*pair.unlisted}], files


def _files_called(names: Collection[str], root: Path) -> dict[str, Path]:
    """Return the file of each of `names` that lies in some folder below the data set's; InputError if in several."""
    found = {}
    for file in sorted(files_below(root)):
        name = PurePosixPath(file).name
        if name in names:
            found.setdefault(name, []).append(file)
    several = [" and ".join(files) for files in found.values() if len(files) > 1]
    refuse(root, several, len(names), f"pictures that lie in several folders of {root.name}/, where one is expected")
    return {name: root / file for name, (file,) in found.items()}


def _read_listing(listing: Path, root: Path) -> dict[str, Path]:
    names = [line.strip() for line in read_text(listing).split("\n") if line.strip()]
    outside = [name for name in names if not (is_name(name) and stays_inside(name) and len(path_parts(name)) == 1)]
    refuse(listing, outside, len(names), "lines that are no file names without folders")
    refuse(listing, repeated(names), len(names), "names listed again")
    require_any(listing, names, "pictures")
    files = _files_called(set(names), root)
    # One that is nowhere is missing from the data set's folder.
    return {name: files.get(name, root / name) for name in names}


@functools.cache
def _mention_left_out(path: Path, listing: Path, pairs: int, targets: tuple[str, ...]) -> None:
    if targets:
        asked = (
            f"tg-cir asks {pairs - len(targets):,}, without {len(targets)} whose target {listing.name} does not list"
        )
        print(f"{path}: of {pairs:,} triplets {asked}: {first_ten(targets)}", file=sys.stderr)


@functools.cache
def _mention_without_file(path: Path, names: tuple[str, ...]) -> None:
    if names:
        line = f"val does not ask {len(names)} triplets, as there is no file of a picture that no list has"
        print(f"{path}: {line}: {first_ten(names)}", file=sys.stderr)
