"""A collection on disk, in forms that other tools read.

features.VERSION.npy holds normalised features [pictures, dim] in fp32 or fp16, items.VERSION.jsonl a line for each
picture in the same order. meta.json says what the features depend on, and has the names and checksums of both. Each
writing makes new files and replaces meta.json last, by one rename: so an index is the old one or the new one, whole.
"""

import contextlib
import gc
import hashlib
import json
import os
import re
import sys
import uuid
import warnings
import zlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from src.apps.search.changes import Changes, require_most_remain
from src.base.errors import InputError, StorageError, first_ten, in_a_line, shown
from src.base.files import replacing, require_writable
from src.base.locks import owning
from src.base.npy import map_rows, write_rows
from src.base.reading import file_digest, read_json, require_regular
from src.base.sealed import is_whole, write_sealed
from src.retrieval.collection import Collection, pieces
from src.tasks.annotations import HALF_PAIRS

FORMAT = 2
META = "meta.json"
OLD_FILES = "features.npy", "items.jsonl"
"""Of indexes of format 1."""
OURS = re.compile(
    r"(features\.[0-9a-f]{32}\.npy|items\.[0-9a-f]{32}\.jsonl)"
    r"|\.(features\.[0-9a-f]{32}\.npy|items\.[0-9a-f]{32}\.jsonl|meta\.json)\.\d+"
)
"""Names of an index's files: in the first group those that a meta.json may name, else what a killed process left."""
ROWS_AT_ONCE = 2**14
"""Rows that are written at a time. Each such piece has a checksum."""
CHECKERS = 2
"""Threads that compute checksums."""
OPENINGS = 20
"""How often files are looked for that a writer has replaced in the meantime."""
DTYPES = {"fp32": np.dtype("<f4"), "fp16": np.dtype("<f2")}


class TornIndexError(InputError):
    """An index that cannot be read, and that an update writes anew."""


# ---- writing ----


class IndexUpdate:
    """An index that no other process writes to, before its new files are written."""

    def __init__(self, folder: Path, depends_on: dict, remove_missing: bool):
        """Read what is there; raises InputError where that is an index of other features, or no index."""
        self.folder, self.depends_on, self.remove_missing = folder, depends_on, remove_missing
        self.known: dict[str, dict] = {}
        """Items of the index that is replaced {name: item}."""
        self.replaces_format_1 = False
        if not os.path.lexists(folder / META):
            return
        self.replaces_format_1 = _is_of_format_1(folder)
        try:
            meta = _read_meta(folder, depends_on)
            self.known = {item["name"]: item for item in _read_items(folder, meta)}
        except (TornIndexError, FileNotFoundError, LookupError, TypeError) as error:
            print(f"{folder}: written anew ({in_a_line(error, folder)})", file=sys.stderr)

    def require_most(self, names: Iterable[str]) -> None:
        """Raise InputError when more than half of the index's pictures are not among `names`, unless that is meant."""
        if not self.remove_missing:
            gone = len(self.known.keys() - set(names))
            require_most_remain(f"{self.folder}: an index", gone, len(self.known))

    def write(self, collection: Collection, half: bool) -> Changes:
        """Write a collection whose pictures are at hand in place of what is there; return what that changed.

        Raises InputError for a name that no other tool could read, and for features that nothing can be compared with.
        """
        self.require_most(collection.names)
        items = [
            item_of(name, os.path.join(collection.folder, name), length, self.known)  # noqa: PTH118, takes half the time
            for name, length in zip(collection.names, collection.lengths.flatten().tolist(), strict=True)
        ]
        version = uuid.uuid4().hex
        features, lines = f"features.{version}.npy", f"items.{version}.jsonl"
        dtype = DTYPES["fp16" if half else "fp32"]
        text = "".join(map(_line, items)).encode()
        meta = {
            "format": FORMAT,
            "pictures": len(items),
            "dim": collection.unit.shape[1],
            "dtype": "fp16" if half else "fp32",
            "folder": str(collection.folder.absolute()),
            "depends_on": self.depends_on,
            "features": features,
            "items": lines,
            "items_sha256": hashlib.sha256(text).hexdigest(),
        }
        sums = []
        with replacing(self.folder / lines) as unfinished:
            unfinished.write_bytes(text)
            with replacing(self.folder / features) as other:
                write_rows(other, tuple(collection.unit.shape), dtype, _checked(collection, dtype, sums))
        write_sealed(self.folder / META, meta | {"features_crc32": sums}, indent=1)
        _remove_others(self.folder, (features, lines), OLD_FILES if self.replaces_format_1 else ())
        return self._changes(items)

    def _changes(self, items: list[dict]) -> Changes:
        there = [self.known.get(item["name"]) for item in items]
        added = there.count(None)
        changed = sum(
            item["sha256"] != old["sha256"] for item, old in zip(items, there, strict=True) if old is not None
        )
        return Changes(added, changed, len(items) - added - changed, len(self.known) - len(items) + added)


@contextlib.contextmanager
def updating(folder: Path, depends_on: dict, remove_missing: bool = False) -> Iterator[IndexUpdate]:
    """Let no other process write to an index inside the block; `depends_on` tells its features from others.

    Raises InputError when another process writes to it, and for an index of other features.
    """
    folder, is_new = Path(folder), not Path(folder).exists()
    require_writable(folder)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with owning(folder, "index"):
            yield IndexUpdate(folder, depends_on, remove_missing)
    finally:
        if is_new:
            with contextlib.suppress(OSError):  # it holds an index now
                folder.rmdir()


def write_index(
    folder: Path, collection: Collection, depends_on: dict, half: bool, remove_missing: bool = False
) -> Changes:
    """Write a collection whose pictures are at hand; `depends_on` are plain values that tell its features from others.

    What another program had open stays what it was. Raises InputError as `updating` and `IndexUpdate` do.
    """
    with updating(folder, depends_on, remove_missing) as update:
        return update.write(collection, half)


def _checked(collection: Collection, dtype: np.dtype, sums: list[int]) -> Iterator[np.ndarray]:
    """Yield the features some rows at a time, as a copy of all may not fit into memory; append their checksums."""
    for rows in pieces(len(collection), ROWS_AT_ONCE):
        unit = collection.unit[rows].cpu().numpy().astype(np.float32, copy=False)
        # By numpy: torch's threads do not work in a process that was forked after they began.
        squares = np.einsum("ij,ij->i", unit, unit)
        odd = np.flatnonzero(~(np.abs(squares - 1) < 0.01))  # so NaN is odd too
        if len(odd):
            names = first_ten([collection.names[rows.start + row] for row in odd])
            raise InputError(f"{names}: features that are zero or not finite, the weights that made them are broken")
        batch = np.ascontiguousarray(unit.astype(dtype, copy=False))
        sums.append(zlib.crc32(batch))
        yield batch


def _remove_others(folder: Path, keep: Sequence[str], others: Sequence[str]) -> None:
    """Delete `others`, and all files of an index but those to keep: older ones, and what killed processes left."""
    for path in list(folder.iterdir()):
        is_other = path.name in others or (OURS.fullmatch(path.name) and path.name not in keep)
        if is_other and path.is_file():
            path.unlink()


# ---- reading ----


def open_index(folder: Path, depends_on: dict) -> Collection:
    """Return the collection of an index, with its features mapped from disk.

    Raises InputError when there is none, when anything in it is not as it was written, and when its features are not
    those that `depends_on` tells.
    """
    try:
        return _open_newest(Path(folder), depends_on)
    except TornIndexError as error:
        raise TornIndexError(f"{error}; --pictures FOLDER --index FOLDER writes the index anew") from None


def _open_newest(folder: Path, depends_on: dict) -> Collection:
    for _ in range(OPENINGS):
        if not (folder / META).is_file():
            raise InputError(f"{folder}: is no index; --pictures FOLDER --index FOLDER writes one")
        meta = _read_meta(folder, depends_on)
        # A writer that replaced meta.json since then has removed what the one that was read names.
        with contextlib.suppress(FileNotFoundError):
            return _open(folder, meta)
    raise TornIndexError(f"{folder}: lacks {meta['features']} or {meta['items']}")


def _open(folder: Path, meta: dict) -> Collection:
    try:
        return _open_files(folder, meta)
    except (LookupError, TypeError) as error:  # of a meta.json that was sealed anew with values of other kinds
        raise TornIndexError(f"{folder / META}: is not as it was written ({in_a_line(error)})") from None


def _open_files(folder: Path, meta: dict) -> Collection:
    path = folder / meta["features"]
    with ThreadPoolExecutor(CHECKERS) as pool:
        with _reading(path):
            array = map_rows(path, (meta["pictures"], meta["dim"]), DTYPES[meta["dtype"]])
        # Beside the items, since checksums need no interpreter.
        sums = pool.map(lambda rows: zlib.crc32(array[rows]), pieces(len(array), ROWS_AT_ONCE))
        items = _read_items(folder, meta)
        if list(sums) != meta["features_crc32"]:
            raise TornIndexError(f"{path}: is not as it was written")
    lengths = torch.tensor([item["length"] for item in items])
    collection = Collection(_tensor(array), lengths, [item["name"] for item in items], Path(meta["folder"]))
    collection.digests = [item["sha256"] for item in items]
    return collection


def _is_of_format_1(folder: Path) -> bool:
    """Whether a folder holds an index of format 1, whose files had plainer names."""
    try:
        meta = read_json(folder / META, dict)
    except InputError:
        return False
    return meta.get("format") == 1 and all((folder / name).is_file() for name in OLD_FILES)


def _read_meta(folder: Path, depends_on: dict) -> dict:
    """Read meta.json; raises TornIndexError unless it is as it was written, InputError where it is no index's."""
    path = folder / META
    try:
        meta = read_json(path, dict)
    except StorageError:
        raise
    except InputError as error:
        fault = in_a_line(error, path)
        meta = {}
    else:
        fault = "is no index's of any version"
    if not isinstance(meta.get("format"), int) or not isinstance(meta.get("depends_on"), dict):
        # Other programs have a meta.json too, which is not to be replaced.
        is_ours = any(OURS.fullmatch(other.name) for other in folder.iterdir())
        if is_ours:
            raise TornIndexError(f"{path}: {fault}")
        raise InputError(f"{path}: {fault}; name another folder")
    require_same(meta["depends_on"], depends_on, f"{folder}: an index", "use the CLIP that made it, or a new --index")
    if meta["format"] != FORMAT:
        raise TornIndexError(f"{path}: is of another version")
    if not is_whole(meta):
        raise TornIndexError(f"{path}: is not as it was written")
    return meta


def _read_items(folder: Path, meta: dict) -> list[dict]:
    """Read what is kept of each picture; raises FileNotFoundError, and TornIndexError unless it is as written."""
    path = folder / meta["items"]
    with _reading(path):
        require_regular(path)
        text = path.read_bytes()
    if hashlib.sha256(text).hexdigest() != meta["items_sha256"]:
        raise TornIndexError(f"{path}: is not as it was written")
    with _without_cycles():
        # One array is read faster than a million lines. In JSON a line ends nowhere but between items.
        return json.loads(b"[" + text.removesuffix(b"\n").replace(b"\n", b",") + b"]")


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what is wrong with a file into an InputError, unless it is not there: a writer may have replaced it."""
    try:
        yield
    except FileNotFoundError:
        raise
    except ValueError as error:
        raise TornIndexError(f"{path}: {in_a_line(error)}") from None
    except OSError as error:  # which says nothing about what the file holds
        raise InputError(f"{path}: cannot be read ({in_a_line(error, path)})") from None


@contextlib.contextmanager
def _without_cycles() -> Iterator[None]:
    """Look for no garbage while millions of objects are made that are none: it takes as long as making them."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def require_same(theirs: dict, ours: dict, what: str, remedy: str) -> None:
    """Raise InputError, which begins with `what` and ends with `remedy`, unless features depend on `ours`."""
    for name, value in ours.items():
        if theirs.get(name) != value:
            has, wanted = (shown(str(some)) for some in (theirs.get(name), value))
            if isinstance(value, str):
                has, wanted = has[:12], wanted[:12]  # of a digest the beginning tells enough
            said = f"{name}: {has}, and not {wanted}"
            raise InputError(f"{what} of another CLIP or transform ({said}); {remedy}")


def _tensor(array: np.memmap) -> Tensor:
    """Return a mapped array as a tensor that nobody may write to."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


def _line(item: dict) -> str:
    """Write an item as a line of JSON, whose name is escaped where it is no UTF-8."""
    return json.dumps(item, ensure_ascii=HALF_PAIRS.search(item["name"]) is not None) + "\n"


def item_of(name: str, path: str, length: float, known: dict[str, dict]) -> dict:
    """Return what is kept of a picture's file; its digest is the one in `known` {name: item} where nothing changed."""
    status = os.stat(path)  # noqa: PTH116
    stamp = {"size": status.st_size, "modified_ns": status.st_mtime_ns}
    before = known.get(name, {})
    same = all(before.get(key) == value for key, value in stamp.items())
    digest = before["sha256"] if same and "sha256" in before else file_digest(Path(path))
    return {"name": name, **stamp, "sha256": digest, "length": length}
