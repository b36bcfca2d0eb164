"""The annotation files of both datasets, read and checked against each other before any work; no picture is opened."""

import re
from pathlib import Path
from typing import NamedTuple

from src.errors import InputError, first_ten, repeated, require_one_of
from src.files import read_json

DRESS_TYPES = ("dress", "toptee", "shirt")
CIRR_SPLITS = ("train", "val", "test1")
FASHIONIQ_SPLITS = ("train", "val", "test")
GROUP_SIZE = 6
HALF_PAIRS = re.compile("[\ud800-\udfff]")
"""Of surrogates, which JSON can escape one by one; no file name, tokenizer or terminal takes them."""
NOT_IN_NAMES = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""What controls a terminal or breaks a line, and halves of surrogate pairs."""


class Split(NamedTuple):
    """A split as annotated.

    The published files keep every rule that is checked here; only CIRR's training captions were not at hand to try.
    """

    path: Path
    """Of the captions file."""
    triplets: list
    """As in the file; those of CIRR's test1 and FashionIQ's test have no target."""
    pictures: dict
    """{name: path of the picture}, in the order of the image split."""
    needed: list
    """The names without whose pictures a triplet is lost, for each of `triplets`."""


def read_cirr(data_path, split):
    """A Split of CIRR; raises InputError for the first kind of fault in its two files."""
    require_one_of(split, CIRR_SPLITS, "CIRR split")
    folder = dataset_folder(data_path, "cirr_dataset")
    listing = folder / "cirr" / "image_splits" / f"split.rc2.{split}.json"
    pictures = _cirr_pictures(listing, folder)
    path = folder / "cirr" / "captions" / f"cap.rc2.{split}.json"
    fields = {"reference": str, "caption": str} | ({"pairid": int} if split == "test1" else {"target_hard": str})
    triplets = _read_triplets(path, fields)
    _require_groups(path, triplets)

    endpoints = [[triplet[field] for field in ("reference", "target_hard") if field in fields] for triplet in triplets]
    groups = [triplet["img_set"]["members"] for triplet in triplets]
    _require_listed(path, listing, pictures, endpoints, groups)
    _require_members(path, endpoints, groups)
    if split == "test1":
        pair_ids = [triplet["pairid"] for triplet in triplets]
        refuse(path, repeated(pair_ids), len(triplets), "triplets with the pair id of another")
    return Split(path, triplets, pictures, endpoints if split == "train" else groups)


def read_fashioniq(data_path, dress_type, split):
    """A Split of one category of FashionIQ; raises InputError for the first kind of fault in its two files."""
    require_one_of(dress_type, DRESS_TYPES, "FashionIQ category")
    require_one_of(split, FASHIONIQ_SPLITS, "FashionIQ split")
    folder = dataset_folder(data_path, "fashionIQ_dataset")
    listing = folder / "image_splits" / f"split.{dress_type}.{split}.json"
    pictures = _fashioniq_pictures(listing, folder / "images")
    path = folder / "captions" / f"cap.{dress_type}.{split}.json"
    fields = {"candidate": str} | ({} if split == "test" else {"target": str})
    triplets = _read_triplets(path, fields)

    faulty = [number for number, triplet in enumerate(triplets) if not _is_list_of_text(triplet.get("captions"), 2)]
    refuse(path, _entries(faulty), len(triplets), "entries without two captions")
    endpoints = [[triplet[field] for field in fields] for triplet in triplets]
    _require_listed(path, listing, pictures, endpoints)
    return Split(path, triplets, pictures, endpoints)


def dataset_folder(data_path, name):
    """The folder of a dataset; raises InputError when there is none."""
    folder = Path(data_path) / name
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; --data-path names the folder that holds {name}/")
    return folder


def refuse(path, culprits, of, fault):
    """Raise InputError when there are `culprits`: how many `of` all, the fault they share, and the first ten."""
    if culprits:
        raise InputError(f"{path}: {len(culprits)} of {of} {fault}: {first_ten(culprits)}")


def _cirr_pictures(listing, folder):
    relative_paths = read_json(listing, dict)
    faulty = [name for name, path in relative_paths.items() if not _is_name(name) or not _is_text(path)]
    refuse(listing, faulty, len(relative_paths), "entries that are no name and path")
    outside = [path for path in relative_paths.values() if not _stays_inside(path)]
    refuse(listing, outside, len(relative_paths), "paths that are none inside the dataset's folder")
    return _require_any(listing, {name: folder / path for name, path in relative_paths.items()}, "pictures")


def _fashioniq_pictures(listing, folder):
    names = read_json(listing, list)
    faulty = [number for number, name in enumerate(names) if not _is_name(name)]
    refuse(listing, _entries(faulty), len(names), "entries that are no name")
    outside = [name for name in names if not _stays_inside(name) or len(_parts(name)) > 1]
    refuse(listing, outside, len(names), "names that are none of a file in the dataset's folder")
    refuse(listing, repeated(names), len(names), "names listed again")
    return _require_any(listing, {name: folder / f"{name}.jpg" for name in names}, "pictures")


def _read_triplets(path, fields):
    """The triplets of a captions file, each with `fields` {name: type}."""
    triplets = read_json(path, list)
    faulty = [number for number, triplet in enumerate(triplets) if not isinstance(triplet, dict)]
    refuse(path, _entries(faulty), len(triplets), "entries that are no object")
    for field, kind in fields.items():
        right = _is_text if kind is str else _is_whole_number
        faulty = [number for number, triplet in enumerate(triplets) if not right(triplet.get(field))]
        refuse(path, _entries(faulty), len(triplets), f"entries without a {field!r} that is a {kind.__name__}")
    return _require_any(path, triplets, "triplets")


def _require_any(path, content, what):
    if not content:
        raise InputError(f"{path}: holds no {what}")
    return content


def _require_groups(path, triplets):
    """Raise InputError unless each of CIRR's triplets has six distinct names in img_set.members."""
    groups = [triplet.get("img_set") for triplet in triplets]
    members = [group.get("members") if isinstance(group, dict) else None for group in groups]
    faulty = [
        number
        for number, names in enumerate(members)
        if not _is_list_of_text(names, GROUP_SIZE) or len(set(names)) < GROUP_SIZE
    ]
    refuse(path, _entries(faulty), len(triplets), f"entries without an img_set of {GROUP_SIZE} different members")


def _require_listed(path, listing, pictures, endpoints, groups=()):
    for number, role in enumerate(("reference", "target")):
        unlisted = [names[number] for names in endpoints if len(names) > number and names[number] not in pictures]
        refuse(path, unlisted, len(endpoints), f"triplets with a {role} that {listing.name} does not list")
    unlisted = [name for members in groups for name in members if name not in pictures]
    refuse(path, unlisted, GROUP_SIZE * len(groups), f"group members that {listing.name} does not list")


def _require_members(path, endpoints, groups):
    """Raise InputError unless reference and target are two of their group."""
    same = [names[0] for names in endpoints if len(set(names)) < len(names)]
    refuse(path, same, len(endpoints), "triplets whose target is their reference")
    for number, role in enumerate(("reference", "target")):
        pairs = zip(endpoints, groups, strict=True)
        outside = [names[number] for names, members in pairs if len(names) > number and names[number] not in members]
        refuse(path, outside, len(endpoints), f"triplets with a {role} that is no member of their group")


def _entries(numbers):
    return [f"entry {number}" for number in numbers]


def _is_text(value):
    return isinstance(value, str) and (value.isascii() or HALF_PAIRS.search(value) is None)


def _is_list_of_text(value, length):
    return isinstance(value, list) and len(value) == length and all(map(_is_text, value))


def _is_whole_number(value):
    return type(value) is int  # a bool is an int too


def _is_name(value):
    return isinstance(value, str) and value != "" and NOT_IN_NAMES.search(value) is None


def _stays_inside(path):
    """Whether a relative path leads to a file below where it starts, on every system."""
    parts = _parts(path)
    starts_elsewhere = parts[0] == "" or re.match("[A-Za-z]:", path) is not None
    leads_down = ".." not in parts and any(part not in ("", ".") for part in parts)
    return leads_down and not starts_elsewhere and NOT_IN_NAMES.search(path) is None


def _parts(path):
    return path.replace("\\", "/").split("/")  # either slash parts names on some system
