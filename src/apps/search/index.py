"""An index: a gallery on disk, in forms that other tools read.

features.VERSION.npy holds normalised features [pictures, dim] in fp32 or fp16, items.VERSION.jsonl what is kept of each
picture in the same order: a line for each of KEYS, {key: values}, since a search needs few of them. meta.json says what
the features depend on, and has the names and checksums of both. Each writing makes new files and replaces meta.json
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
from src.retrieval.gallery import Gallery
from src.retrieval.ranking import pieces

FORMAT = 3
META = "meta.json"
OURS = re.compile(
    r"(features\.[0-9a-f]{32}\.npy|items\.[0-9a-f]{32}\.jsonl)"
    r"|\.(features\.[0-9a-f]{32}\.npy|items\.[0-9a-f]{32}\.jsonl|meta\.json)\.\d+"
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
    raise TornIndexError(f"{folder}: lacks {meta['features']} or {meta['items']}")


def _open(folder: Path, meta: dict) -> Gallery:
    try:
        return _open_files(folder, meta)
    except InputError:
        raise
    except (LookupError, TypeError, ValueError) as error:  # of files that were sealed anew with values of other kinds
        raise TornIndexError(f"{folder / META}: is not as it was written ({in_a_line(error)})") from None


def _open_files(folder: Path, meta: dict) -> Gallery:
    path = folder / meta["features"]
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        with _reading(path):
            array = map_rows(path, (meta["pictures"], meta["dim"]), DTYPES[meta["dtype"]])
        # Beside the items, since checksums need no interpreter.
        sums = pool.map(lambda rows: checksum(array[rows]), pieces(len(array), ROWS_AT_ONCE))
        names, lengths, digests = read_columns(folder, meta, ("name", "length", "sha256"))
        if list(sums) != meta["features_sums"]:
            raise TornIndexError(f"{path}: is not as it was written")
    lengths = _tensor(np.array(lengths, np.float32))
    return Gallery(_tensor(array), names, lengths, Path(meta["folder"]), digests)


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
    require_same(meta["depends_on"], depends_on, f"{folder}: an index", "use the CLIP that made it, or a new --index")
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
    """Raise InputError, which begins with `what` and ends with `remedy`, unless features depend on `ours`."""
    for name, value in ours.items():
        if theirs.get(name) != value:
            has, wanted = shown(str(theirs.get(name))), shown(str(value))
            if isinstance(value, str):
                has, wanted = has[:12], wanted[:12]  # of a digest the beginning is enough
            raise InputError(f"{what} of another CLIP or transform ({name}: {has}, and not {wanted}); {remedy}")


def _tensor(array: np.ndarray) -> Tensor:
    """Return an array, which may be mapped, as a tensor, which is not to be written to."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)
