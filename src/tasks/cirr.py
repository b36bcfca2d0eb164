"""CIRR: six similar pictures a group, one caption a pair; the reference leaves the ranking."""

from collections.abc import Sequence
from pathlib import Path
from statistics import geometric_mean, harmonic_mean, mean

from src.base.errors import repeated, require_one_of
from src.base.reading import read_json
from src.tasks.annotations import (
    entries_that,
    is_list_of_text,
    is_name,
    is_text,
    read_entries,
    refuse,
    require_any,
    require_listed,
    stays_inside,
)
from src.tasks.captions import drawn_texts
from src.tasks.protocol import SOFT, Protocol
from src.tasks.task import Task
from src.tasks.triplets import Split, Triplet

GROUP_SIZE = 6
PUBLISHED = Protocol("clip4cir", "drop", "full", at=(1, 5, 10, 50), captions="caption", group_at=(1, 2, 3))


class CIRR(Task):
    """CIRR as published."""

    name = "CIRR"
    short_name = "cirr"
    folder = "cirr_dataset"
    annotations = "cirr"
    splits = ("train", "val", "test1")
    categories = ("rc2",)  # it has none; its files begin with the version of its annotations
    protocols = PUBLISHED, PUBLISHED._replace(name=SOFT, soft=True)
    captions = {"caption": lambda triplet: [triplet.captions]}
    means = {"mean(R@5+R_s@1)": ("group_recall_at1", "recall_at5")}
    headline = ("recall_at1", "recall_at5", "recall_at10", "group_recall_at1")
    submission = "cirr_test_submission.py", "https://cirr.cecs.anu.edu.au/"
    names_protocol = False
    best = {f"_{kind}": f"{kind}_mean" for kind in ("arithmetic", "harmonic", "geometric")}

    def read(self, data_path: Path, category: str, split: str) -> Split:
        require_one_of(split, self.splits, "CIRR split")
        root = self.root(data_path)
        path, listing = self.files(data_path, category, split)
        pictures = _read_listing(listing, root)
        # Only the server needs ids, and only a test split has no targets.
        is_test = split == "test1"
        fields = {"reference": str, "caption": str} | ({"pairid": int} if is_test else {"target_hard": str})
        entries = read_entries(path, fields)
        _require_groups(path, entries, are_needed=split != "train")
        faulty = entries_that(entries, lambda entry: not _are_grades(entry.get("target_soft", {})))
        refuse(path, faulty, len(entries), "entries whose target_soft is not {name: number}")
        triplets = [_triplet(entry, is_test) for entry in entries]
        require_listed(path, listing, pictures, triplets)
        _require_members(path, triplets)
        if is_test:
            ids = [triplet.id for triplet in triplets]
            refuse(path, repeated(ids), len(ids), "triplets with the pair id of another")
        return Split(split, path, triplets, pictures)

    def training_texts(self, captions: Sequence[str]) -> tuple[str, ...]:
        return drawn_texts(captions)

    def columns(self, recalls: dict[str, dict[str, float]]) -> dict[str, float]:
        (named,) = recalls.values()
        # The three means of the seven recalls pick the published checkpoints.
        seven = list(named.values())
        return self.measures(recalls) | {
            "arithmetic_mean": mean(seven),
            "harmonic_mean": harmonic_mean(seven),
            # Before Python 3.13 statistics refuses a zero, which makes the mean zero.
            "geometric_mean": geometric_mean(seven) if all(seven) else 0.0,
        }

    def printed(self, recalls: dict[str, dict[str, float]]) -> dict[str, float]:
        (named,) = recalls.values()
        return named


def _read_listing(listing: Path, root: Path) -> dict[str, Path]:
    relative = read_json(listing, dict)
    faulty = [name for name, path in relative.items() if not is_name(name) or not is_text(path)]
    refuse(listing, faulty, len(relative), "entries without a name and a path")
    outside = [path for path in relative.values() if not stays_inside(path)]
    refuse(listing, outside, len(relative), "paths outside the data set's folder")
    require_any(listing, relative, "pictures")
    # Paths start at the data set's folder, not at the file that lists them.
    return {name: root / path for name, path in relative.items()}


def _triplet(entry: dict, is_test: bool) -> Triplet:
    """Return the Triplet of an entry. A test split has no targets."""
    pair_id = entry.get("pairid")
    return Triplet(
        reference=entry["reference"],
        captions=(entry["caption"],),
        targets=() if is_test else (entry["target_hard"],),
        group=tuple(entry["img_set"]["members"]) if entry.get("img_set") else (),
        id=str(pair_id) if type(pair_id) is int else "",
        graded=tuple(entry.get("target_soft", {}).items()),
    )


def _are_grades(value) -> bool:
    return isinstance(value, dict) and all(type(grade) in (int, float) and -1 <= grade <= 1 for grade in value.values())


def _require_groups(path: Path, entries: list[dict], are_needed: bool) -> None:
    """Raise InputError unless each entry has six different names in img_set.members, or no img_set and needs none."""

    def has_no_group(entry):
        group = entry.get("img_set")
        if group is None and not are_needed:
            return False  # training looks at no group, and extended training files have none
        members = group.get("members") if isinstance(group, dict) else None
        return not is_list_of_text(members, GROUP_SIZE) or len(set(members)) < GROUP_SIZE

    fault = f"entries without an img_set of {GROUP_SIZE} different members"
    refuse(path, entries_that(entries, has_no_group), len(entries), fault)


def _require_members(path: Path, triplets: list[Triplet]) -> None:
    """Raise InputError unless reference and target are two of their group, where there is one."""
    # The reference leaves the ranking, so such a target could never be found.
    same = [triplet.reference for triplet in triplets if triplet.reference in triplet.targets]
    refuse(path, same, len(triplets), "triplets whose target is their reference")
    grouped = [triplet for triplet in triplets if triplet.group]
    for role, outside in (
        ("reference", [triplet.reference for triplet in grouped if triplet.reference not in triplet.group]),
        ("target", [name for triplet in grouped for name in triplet.targets if name not in triplet.group]),
    ):
        refuse(path, outside, len(triplets), f"triplets with a {role} outside their group")
