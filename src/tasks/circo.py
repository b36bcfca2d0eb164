"""CIRCO: several targets for a query, among the 123,403 unlabelled pictures of COCO 2017. It has no training split."""

import functools
import sys
from pathlib import Path

from src.base.errors import repeated, require_one_of
from src.base.reading import read_json
from src.tasks.annotations import (
    entries_that,
    find_below,
    is_list_of_text,
    path_parts,
    read_entries,
    refuse,
    require_any,
    require_listed,
    stays_inside,
)
from src.tasks.protocol import Protocol
from src.tasks.task import Task
from src.tasks.triplets import Split, Triplet

PICTURES = 123_403
"""How many pictures COCO's list has."""
LISTING = Path("COCO2017_unlabeled", "annotations", "image_info_unlabeled2017.json")
FOLDER = Path("COCO2017_unlabeled", "unlabeled2017")
FIELDS = {"id": int, "reference_img_id": int, "relative_caption": str, "shared_concept": str}
PUBLISHED = Protocol(
    "searle", "keep", "full", at=(5, 10, 25, 50), captions="caption", map_at=(5, 10, 25, 50), aspect_map_at=10
)


class CIRCO(Task):
    """CIRCO as its evaluator counts, and two ways of other papers."""

    name = "CIRCO"
    short_name = "circo"
    folder = "CIRCO"
    annotations = "annotations"
    splits = ("val", "test")
    categories = ("circo",)  # it has none
    protocols = (
        PUBLISHED,
        PUBLISHED._replace(name="covr", reference="drop"),
        PUBLISHED._replace(name="magiclens", captions="concept"),
    )
    captions = {
        "caption": lambda triplet: [triplet.captions],
        "concept": lambda triplet: [tuple(f"find {triplet.concept} but {caption}" for caption in triplet.captions)],
    }
    means = {}
    headline = ("map_at5", "map_at10", "map_at25", "map_at50")
    best = {}

    def files(self, data_path: Path, category: str, split: str) -> tuple[Path, Path]:
        root = Path(data_path) / self.folder
        return root / self.annotations / f"{split}.json", find_below(root, LISTING)

    def categories_in(self, data_path: Path, split: str) -> list[str]:
        # All splits share the list of pictures.
        return [category for category in self.categories if self.files(data_path, category, split)[0].exists()]

    def read(self, data_path: Path, category: str, split: str) -> Split:
        require_one_of(split, self.splits, "CIRCO split")
        root = self.root(data_path)
        path, listing = self.files(data_path, category, split)
        pictures = _read_listing(listing, find_below(root, FOLDER))
        is_test = split == "test"
        entries = read_entries(path, FIELDS | ({} if is_test else {"target_img_id": int}))
        # Servers and evaluators find a query by its id.
        moved = [f"entry {number}" for number, entry in enumerate(entries) if entry["id"] != number]
        refuse(path, moved, len(entries), "entries whose id is not their place, counted from 0")
        if not is_test:
            _require_targets(path, entries)
        triplets = [_triplet(entry, is_test) for entry in entries]
        require_listed(path, listing, pictures, triplets)
        return Split(split, path, triplets, pictures)


def _read_listing(listing: Path, folder: Path) -> dict[str, Path]:
    """Return the pictures {COCO's id: file} in the list's order, which is the gallery's."""
    entries = read_json(listing, dict).get("images")
    entries = entries if isinstance(entries, list) else []
    require_any(listing, entries, "list of pictures under 'images'")
    faulty = entries_that(
        entries,
        lambda entry: (
            not isinstance(entry, dict)
            or type(entry.get("id")) is not int
            or not isinstance(entry.get("file_name"), str)
        ),
    )
    refuse(listing, faulty, len(entries), "entries without an id and a file_name")
    names = [entry["file_name"] for entry in entries]
    outside = [name for name in names if not stays_inside(name) or len(path_parts(name)) > 1]
    refuse(listing, outside, len(names), "file names outside the folder of pictures")
    ids = [entry["id"] for entry in entries]
    refuse(listing, repeated(ids), len(ids), "ids listed again")
    _mention_size(listing, len(ids))
    return {str(entry["id"]): folder / entry["file_name"] for entry in entries}


@functools.cache
def _mention_size(listing: Path, pictures: int) -> None:
    if pictures != PICTURES:
        line = f"lists {pictures:,} pictures, CIRCO's gallery has {PICTURES:,}: results do not compare with a paper's"
        print(f"{listing}: {line}", file=sys.stderr)


def _require_targets(path: Path, entries: list[dict]) -> None:
    """Raise InputError unless each entry has different targets, among them its own and not its reference."""

    def has_no_targets(entry):
        targets = entry.get("gt_img_ids")
        return not isinstance(targets, list) or any(type(name) is not int for name in targets)

    lacking = entries_that(entries, has_no_targets)
    refuse(path, lacking, len(entries), "entries without a list of ids under 'gt_img_ids'")
    for fault, is_faulty in (
        ("entries whose target_img_id is not in gt_img_ids", lambda e: e["target_img_id"] not in e["gt_img_ids"]),
        ("entries whose reference is a target", lambda e: e["reference_img_id"] in e["gt_img_ids"]),
        ("entries with a target twice", lambda e: repeated(e["gt_img_ids"])),
    ):
        refuse(path, entries_that(entries, is_faulty), len(entries), fault)

    def has_odd_aspects(entry):
        aspects = entry.get("semantic_aspects", [])
        return not isinstance(aspects, list) or not is_list_of_text(aspects, len(aspects))

    refuse(path, entries_that(entries, has_odd_aspects), len(entries), "entries whose semantic_aspects are no texts")


def _triplet(entry: dict, is_test: bool) -> Triplet:
    first = () if is_test else (entry["target_img_id"],)
    others = () if is_test else (name for name in entry["gt_img_ids"] if name not in first)
    return Triplet(
        reference=str(entry["reference_img_id"]),
        captions=(entry["relative_caption"],),
        targets=tuple(map(str, (*first, *others))),
        id=str(entry["id"]),
        concept=entry["shared_concept"],
        aspects=() if is_test else tuple(entry.get("semantic_aspects", ())),
    )
