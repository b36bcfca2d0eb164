"""FashionIQ: three categories with a gallery each, two captions a pair; the reference stays in the ranking."""

from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from src.base.errors import repeated, require_one_of
from src.base.files import read_json
from src.tasks.triplets import (
    Protocol,
    Split,
    Task,
    Triplet,
    entries_that,
    is_list_of_text,
    is_name,
    path_parts,
    read_entries,
    refuse,
    require_any,
    require_listed,
    stays_inside,
)

PRINTED_ORDER = ("shirt", "dress", "toptee")
"""The published validation prints the categories in another order than training logs them."""


class FashionIQ(Task):
    """FashionIQ as published, and the three galleries that papers count on."""

    name = "FashionIQ"
    short_name = "fiq"
    folder = "fashionIQ_dataset"
    annotations = ""
    splits = ("train", "val", "test")
    # In the published order of training, which the columns of the CSVs follow.
    categories = ("dress", "toptee", "shirt")
    protocols = (
        Protocol("clip4cir", reference="keep", gallery="full", at=(10, 50)),
        Protocol("covr", reference="drop", gallery="full", at=(10, 50)),
        Protocol("val", reference="drop", gallery="val", at=(10, 50)),
    )
    headline = ("average_recall_at10", "average_recall_at50")
    best = {"": "average_recall"}

    def read(self, data_path: Path, category: str, split: str) -> Split:
        require_one_of(category, self.categories, "FashionIQ category")
        require_one_of(split, self.splits, "FashionIQ split")
        root = self.root(data_path)
        path, listing = self.files(data_path, category, split)
        pictures = _read_listing(listing, root / "images")
        is_test = split == "test"
        entries = read_entries(path, {"candidate": str} | ({} if is_test else {"target": str}))
        faulty = entries_that(entries, lambda entry: not is_list_of_text(entry.get("captions"), 2))
        refuse(path, faulty, len(entries), "entries without two captions")
        triplets = [
            Triplet(
                reference=entry["candidate"],
                captions=tuple(entry["captions"]),
                targets=() if is_test else (entry["target"],),
            )
            for entry in entries
        ]
        require_listed(path, listing, pictures, triplets)
        return Split(split, path, triplets, pictures)

    def query_text(self, captions: Sequence[str]) -> str:
        return joined_captions(*map(cleaned_caption, captions))

    def training_texts(self, captions: Sequence[str]) -> tuple[str, ...]:
        first, second = map(cleaned_caption, captions)
        # The published draw has these four in this order: below .25 the first, and so on.
        return joined_captions(first, second), joined_captions(second, first), first.capitalize(), second.capitalize()

    def columns(self, recalls: dict[str, dict[str, float]]) -> dict[str, float]:
        named = {f"{category}_{name}": value for category, of in recalls.items() for name, value in of.items()}
        at10, at50 = _averages(recalls)
        return named | {"average_recall_at10": at10, "average_recall_at50": at50, "average_recall": (at10 + at50) / 2}

    def printed(self, recalls: dict[str, dict[str, float]]) -> dict[str, float]:
        named = {
            # The published print-out says recallat10 where the columns say recall_at10.
            f"{category}_{name.replace('_at', 'at')}": value
            for category in PRINTED_ORDER
            for name, value in recalls[category].items()
        }
        at10, at50 = _averages(recalls)
        return named | {"average recall10": at10, "average recall50": at50}


def _averages(recalls: dict[str, dict[str, float]]) -> tuple[float, float]:
    """Return the mean recall@10 and recall@50 of the categories."""
    return tuple(mean(of[name] for of in recalls.values()) for name in ("recall_at10", "recall_at50"))


def cleaned_caption(caption: str) -> str:
    """Return a caption without the punctuation that annotators put around it."""
    return caption.strip(".?, ")


def joined_captions(first: str, second: str) -> str:
    """Return two cleaned captions as one sentence: "First and second" (paper, section 4.1)."""
    return f"{first.capitalize()} and {second}"


def _read_listing(listing: Path, folder: Path) -> dict[str, Path]:
    names = read_json(listing, list)
    refuse(listing, entries_that(names, lambda name: not is_name(name)), len(names), "entries without a name")
    # Pictures lie flat in one folder, so a name is never a path.
    outside = [name for name in names if not stays_inside(name) or len(path_parts(name)) > 1]
    refuse(listing, outside, len(names), "names outside the data set's folder")
    refuse(listing, repeated(names), len(names), "names listed again")
    require_any(listing, names, "pictures")
    return {name: folder / f"{name}.jpg" for name in names}
