"""FashionIQ: three categories with a gallery each, two captions a pair; the reference stays in the ranking."""

import string
from collections.abc import Sequence
from pathlib import Path

from src.base.errors import repeated, require_one_of
from src.base.reading import read_json
from src.tasks.annotations import (
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
from src.tasks.captions import cleaned_caption, drawn_texts, joined_captions
from src.tasks.protocol import Protocol
from src.tasks.task import Task
from src.tasks.triplets import Split, Triplet

CATEGORIES = ("dress", "toptee", "shirt")
"""In the published order of training, which the columns of the CSVs follow."""
PRINTED_ORDER = ("shirt", "dress", "toptee")
"""The published validation prints the categories in another order than training logs them."""
BLANKS = str.maketrans(dict.fromkeys(string.punctuation, " "))
"""{punctuation: a blank} for `str.translate`"""


class FashionIQ(Task):
    """FashionIQ as published, and the three galleries that papers count on."""

    name = "FashionIQ"
    short_name = "fiq"
    folder = "fashionIQ_dataset"
    annotations = ""
    splits = ("train", "val", "test")
    categories = CATEGORIES
    protocols = (
        Protocol("clip4cir", "keep", "full", at=(10, 50), captions="joined"),
        Protocol("covr", "drop", "full", at=(10, 50), captions="joined"),
        Protocol("val", "drop", "val", at=(10, 50), captions="cleaned"),
        Protocol("searle", "keep", "full", at=(10, 50), captions="both-avg"),
    )
    captions = {
        "joined": lambda triplet: [(_joined(triplet.captions),)],
        "both-avg": lambda triplet: [(_joined(triplet.captions), _joined(triplet.captions[::-1]))],
        "both-two": lambda triplet: [(_joined(triplet.captions),), (_joined(triplet.captions[::-1]),)],
        "single-two": lambda triplet: [(cleaned_caption(caption),) for caption in triplet.captions],
        "cleaned": lambda triplet: [(" and ".join(map(_words_alone, triplet.captions)),)],
    }
    means = {
        **{f"average_recall_at{k}": tuple(f"{category}_recall_at{k}" for category in CATEGORIES) for k in (10, 50)},
        "average_recall": ("average_recall_at10", "average_recall_at50"),
    }
    headline = ("average_recall_at10", "average_recall_at50")
    names_protocol = False
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

    def training_texts(self, captions: Sequence[str]) -> tuple[str, ...]:
        return drawn_texts(captions)

    def printed(self, recalls: dict[str, dict[str, float]]) -> dict[str, float]:
        named = {
            # The published print-out says recallat10 where the columns say recall_at10.
            f"{category}_{name.replace('_at', 'at')}": value
            for category in PRINTED_ORDER
            for name, value in recalls[category].items()
        }
        measures = self.measures(recalls)
        averages = {f"average recall{k}": measures.get(f"average_recall_at{k}") for k in (10, 50)}
        return named | {name: value for name, value in averages.items() if value is not None}


def _joined(captions: Sequence[str]) -> str:
    return joined_captions(*map(cleaned_caption, captions))


def _words_alone(caption: str) -> str:
    """Return a caption in lower case, without ASCII's punctuation."""
    # As TG-CIR and DQU-CIR, which keep other punctuation. They also mend spelling by a list, which is not done here.
    return " ".join(caption.lower().translate(BLANKS).split())


def _read_listing(listing: Path, folder: Path) -> dict[str, Path]:
    names = read_json(listing, list)
    refuse(listing, entries_that(names, lambda name: not is_name(name)), len(names), "entries without a name")
    # Pictures lie flat in one folder, so a name is never a path.
    outside = [name for name in names if not stays_inside(name) or len(path_parts(name)) > 1]
    refuse(listing, outside, len(names), "names outside the data set's folder")
    refuse(listing, repeated(names), len(names), "names listed again")
    require_any(listing, names, "pictures")
    return {name: folder / f"{name}.jpg" for name in names}
