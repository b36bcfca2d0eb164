"""A collection on disk, in forms that other tools read.

features.npy holds normalised features [pictures, dim] in fp32 or fp16, items.jsonl a line for each picture in the same
order, meta.json what the features depend on.
"""

import hashlib
import json
import os
import warnings
from pathlib import Path

import numpy as np
import torch

from src.base.errors import InputError, in_a_line, shown
from src.base.files import file_digest, read_json, read_text, replacing, write_json
from src.retrieval.collection import Collection, pieces
from src.retrieval.row_store import write_header
from src.tasks.triplets import HALF_PAIRS

FORMAT = 1
FEATURES, ITEMS, META = "features.npy", "items.jsonl", "meta.json"
ROWS_AT_ONCE = 2**14


def write_index(folder: Path, collection: Collection, depends_on: dict, half: bool) -> None:
    """Write a collection whose pictures are at hand; `depends_on` are plain values that tell its features from others.

    Files of an older index are replaced one by one, and meta.json, which describes the others, last. What another
    program had open stays what it was. Raises InputError for an index of other features.
    """
    require_own(folder, depends_on)
    known = _items_of(folder)
    items = [
        item_of(name, os.path.join(collection.folder, name), length, known)  # noqa: PTH118, in less than half the time
        for name, length in zip(collection.names, collection.lengths.flatten().tolist(), strict=True)
    ]
    dtype = np.dtype(np.float16 if half else np.float32)
    with replacing(folder / FEATURES) as unfinished, unfinished.open("wb") as file:
        # Rows some at a time, since a copy of all may not fit into memory.
        write_header(file, tuple(collection.unit.shape), dtype)
        for rows in pieces(len(collection), ROWS_AT_ONCE):
            file.write(np.ascontiguousarray(collection.unit[rows].cpu().numpy().astype(dtype)).data)
    lines = "".join(_line(item) for item in items)
    with replacing(folder / ITEMS) as unfinished:
        unfinished.write_text(lines, encoding="utf-8")
    meta = {
        "format": FORMAT,
        "pictures": len(items),
        "folder": str(collection.folder.absolute()),
        "depends_on": depends_on,
    }
    write_json(folder / META, meta | {"items_sha256": _digest(lines)}, indent=1)


def open_index(folder: Path, depends_on: dict) -> Collection:
    """Return the collection of an index, with its features on disk until they are read.

    Raises InputError when there is none, when it is torn, and when its features are not those that `depends_on` tells.
    """
    folder = Path(folder)
    if not (folder / META).is_file():
        raise InputError(f"{folder}: is no index; --pictures FOLDER --index FOLDER writes one")
    meta = _meta_of(folder, depends_on)
    text = read_text(folder / ITEMS)
    try:
        array = np.load(folder / FEATURES, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{folder / FEATURES}: cannot be read ({in_a_line(error)})") from None
    # Before its lines are read as JSON: they are written by this program, or they are torn.
    if _digest(text) != meta.get("items_sha256") or array.shape[:1] != (meta["pictures"],) or array.ndim != 2:
        raise InputError(f"{folder}: its files do not belong together; --pictures makes the index anew")
    items = _lines(text)
    lengths = torch.tensor([item["length"] for item in items])
    unit = _tensor(array)
    collection = Collection(unit, lengths, [item["name"] for item in items], Path(meta["folder"]))
    collection.digests = [item["sha256"] for item in items]
    return collection


def require_own(folder: Path, depends_on: dict) -> None:
    """Raise InputError when a folder holds an index whose features are not those that `depends_on` tells."""
    if (folder / META).is_file():
        _meta_of(folder, depends_on)


def _meta_of(folder, depends_on) -> dict:
    meta = read_json(folder / META, dict)
    if meta.get("format") != FORMAT or not isinstance(meta.get("depends_on"), dict):
        raise InputError(f"{folder / META}: is of no index that this version reads")
    require_same(meta["depends_on"], depends_on, f"{folder}: an index", "name its own CLIP, or another --index")
    return meta


def require_same(theirs: dict, ours: dict, what: str, remedy: str) -> None:
    """Raise InputError, which begins with `what` and ends with `remedy`, unless features depend on `ours`."""
    for name, value in ours.items():
        if theirs.get(name) != value:
            has, wanted = (shown(str(some)) for some in (theirs.get(name), value))
            if isinstance(value, str):
                has, wanted = has[:12], wanted[:12]  # of a digest the beginning tells enough
            said = f"{name}: {has}, and not {wanted}"
            raise InputError(f"{what} of another CLIP or transform ({said}); {remedy}")


def _tensor(array: np.memmap) -> torch.Tensor:
    """Return a mapped array as a tensor that nobody may write to."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


def _items_of(folder: Path) -> dict[str, dict]:
    """Return the items of an older index {name: item}, whose digests need not be computed again."""
    try:
        return {item["name"]: item for item in _lines(read_text(folder / ITEMS))}
    except (InputError, ValueError, KeyError, TypeError):
        return {}


def _line(item: dict) -> str:
    """Return an item as a line of JSON, whose name is escaped where it is no UTF-8."""
    return json.dumps(item, ensure_ascii=HALF_PAIRS.search(item["name"]) is not None) + "\n"


def _lines(text: str) -> list[dict]:
    # Not splitlines: it ends lines at characters that may stand in a name.
    return [json.loads(line) for line in text.split("\n") if line]


def item_of(name: str, path: str, length: float, known: dict[str, dict]) -> dict:
    """Return what is kept of a picture's file; its digest is the one in `known` {name: item} where nothing changed."""
    status = os.stat(path)  # noqa: PTH116
    stamp = {"size": status.st_size, "modified_ns": status.st_mtime_ns}
    before = known.get(name, {})
    same = all(before.get(key) == value for key, value in stamp.items())
    digest = before["sha256"] if same and "sha256" in before else file_digest(Path(path))
    return {"name": name, **stamp, "sha256": digest, "length": length}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
