"""An index: a gallery on disk, in forms that other tools read.

features.VERSION.npy holds normalised features [pictures, dim] in fp32 or fp16, items.VERSION.jsonl what is kept of each
picture in the same order: a line for each of KEYS, {key: values}, since a search needs few of them. For a network that
compares pictures as it learned to, projected.VERSION.npy holds these features, normalised too. meta.json says what the
features depend on, and has the names and checksums of all. Each writing makes new files and replaces meta.json
last, by one rename: so an index is the old one or the new one, whole.
"""

import contextlib
import io
import json
import re
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from src.base.checksum import checksum
from src.base.errors import InputError, StorageError, in_a_line, shown
from src.base.npy import map_rows
from src.base.reading import read_json, require_regular
from src.base.sealed import is_whole
from src.models.facts import NETWORK
from src.retrieval.gallery import Gallery, Projection
from src.retrieval.ranking import pieces

FORMAT = 3
META = "meta.json"
OURS = re.compile(
    r"((?:features|projected)\.[0-9a-f]{32}\.npy|items\.[0-9a-f]{32}\.jsonl)"
    r"|\.((?:features|projected)\.[0-9a-f]{32}\.npy|items\.[0-9a-f]{32}\.jsonl|meta\.json)\.\d+"
)
"""Names of an index's files: in the first group those that a meta.json may name, else what a killed process left."""
ROWS_AT_ONCE = 2**14
"""Rows that are written at a time. Each such piece has a checksum."""
OPENINGS = 20
"""How often files are looked for that a writer has replaced in the meantime."""
KEYS = "name", "size", "modified_ns", "sha256", "length"
"""What is kept of each picture."""
DTYPES = {"fp32": np.dtype("<f4"), "fp16": np.dtype("<f2")}


class TornIndexError(InputError):
    """An index that cannot be read, and that an update writes anew."""


def open_index(folder: Path, depends_on: dict) -> Gallery:
    """Return an index as a gallery, with its features mapped from disk.

    Raises InputError when there is none, when anything in it is not as it was written, and when its features are not
    those of `depends_on`.
    """
    try:
        return _open_newest(Path(folder), depends_on)
    except TornIndexError as error:
        raise TornIndexError(f"{error}; --pictures FOLDER --index FOLDER writes the index anew") from None


def _open_newest(folder: Path, depends_on: dict) -> Gallery:
    for _ in range(OPENINGS):
        if not (folder / META).is_file():
            raise InputError(f"{folder}: is not an index; --pictures FOLDER --index FOLDER writes one")
        meta = read_meta(folder, depends_on)
        # A writer that replaced meta.json since then has removed what the one that was read names.
        with contextlib.suppress(FileNotFoundError):
            return _open(folder, meta)
    files = [meta[kind] for kind in ("features", "projected", "items") if kind in meta]
    lacking = [name for name in files if not (folder / name).is_file()] or files
    raise TornIndexError(f"{folder}: lacks {' or '.join(lacking)}")


def _open(folder: Path, meta: dict) -> Gallery:
    try:
        return _open_files(folder, meta)
    except InputError:
        raise
    except (LookupError, TypeError, ValueError) as error:  # of files that were sealed anew with values of other kinds
        raise TornIndexError(f"{folder / META}: is not as it was written ({in_a_line(error)})") from None


def _open_files(folder: Path, meta: dict) -> Gallery:
    kinds, arrays = [kind for kind in ("features", "projected") if kind in meta], {}
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        sums = {}
        for kind in kinds:
            dim = meta["dim" if kind == "features" else "projected_dim"]
            with _reading(folder / meta[kind]):
                array = map_rows(folder / meta[kind], (meta["pictures"], dim), DTYPES[meta["dtype"]])
            # Beside the items, since checksums need no interpreter.
            sums[kind] = [pool.submit(checksum, array[rows]) for rows in pieces(len(array), ROWS_AT_ONCE)]
            arrays[kind] = _tensor(array)
        names, lengths, digests = read_columns(folder, meta, ("name", "length", "sha256"))
        for kind in kinds:
            if [one.result() for one in sums[kind]] != meta[f"{kind}_sums"]:
                raise TornIndexError(f"{folder / meta[kind]}: is not as it was written")
    lengths = _tensor(np.array(lengths, np.float32))
    projection = None
    if "projected" in meta:
        projection = Projection(meta["depends_on"][NETWORK], arrays["projected"])
    return Gallery(arrays["features"], names, lengths, Path(meta["folder"]), digests, projection=projection)


def read_meta(folder: Path, depends_on: dict) -> dict:
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
        if {"collections", "aliases"} <= meta.keys():
            raise InputError(f"{path}: is that of Qdrant's local mode, which is not searched; name a server by its URL")
        fault = "is not an index's of any version"
    if not isinstance(meta.get("format"), int) or not isinstance(meta.get("depends_on"), dict):
        # Other programs have a meta.json too, which is not to be replaced.
        is_ours = any(OURS.fullmatch(other.name) for other in folder.iterdir())
        if is_ours:
            raise TornIndexError(f"{path}: {fault}")
        raise InputError(f"{path}: {fault}; name another folder")
    require_same(meta["depends_on"], depends_on, f"{folder}: an index", "use the {} that made it, or a new --index")
    if meta["format"] != FORMAT:
        raise TornIndexError(f"{path}: is of another version")
    if not is_whole(meta):
        raise TornIndexError(f"{path}: is not as it was written")
    return meta


def read_columns(folder: Path, meta: dict, keys: Sequence[str] = KEYS) -> list[list]:
    """Read what is kept of all pictures under each of `keys`.

    Raises FileNotFoundError, and TornIndexError unless the file is as it was written.
    """
    path = folder / meta["items"]
    with _reading(path):
        require_regular(path)
        text = path.read_bytes()
    if checksum(text) != meta["items_sum"]:
        raise TornIndexError(f"{path}: is not as it was written")
    lines = zip(KEYS, io.BytesIO(text), strict=True)
    try:
        columns = {key: json.loads(line)[key] for key, line in lines if key in keys}
        if len(set(map(len, columns.values()))) > 1:
            raise ValueError("columns of different lengths")
    except (LookupError, TypeError, ValueError, RecursionError) as error:  # of a file that was sealed anew
        raise TornIndexError(f"{path}: is not as it was written ({in_a_line(error)})") from None
    return [columns[key] for key in keys]


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


def require_same(theirs: dict, ours: dict, what: str, remedy: str) -> None:
    """Raise InputError, which begins with `what` and ends with `remedy`, unless features depend on `ours`.

    A "{}" in `remedy` becomes what it is that differs.
    """
    for name in {**ours, **theirs}:
        if theirs.get(name) != ours.get(name):
            has, wanted = (shown(str(about.get(name, "none"))) for about in (theirs, ours))
            if isinstance(ours.get(name, ""), str):
                has, wanted = has[:12], wanted[:12]  # of a digest the beginning is enough
            other, maker = ("network", "network") if name == NETWORK else ("CLIP or transform", "CLIP")
            raise InputError(f"{what} of another {other} ({name}: {has}, and not {wanted}); {remedy.format(maker)}")


def _tensor(array: np.ndarray) -> Tensor:
    """Return an array, which may be mapped, as a tensor, which is not to be written to."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)
