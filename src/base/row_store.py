"""Rows that are dear to compute, kept under string keys in plain .npy files from one process to the next."""

import hashlib
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from src.base.errors import InputError, in_a_line
from src.base.files import read_json, replacing, write_json


class RowStore:
    """Arrays of one shape and type by key, in a subfolder for what they depend on; without a folder, in memory.

    An addition is two files of one name: rows [n, ...] in .npy, then their keys and SHA-256 in .json. Nothing is ever
    changed in place, so a process that is killed while it writes loses its own addition and nothing else.
    """

    def __init__(self, folder: Path | None = None, depends_on: dict | None = None, mapped: bool = False):
        """`depends_on` are plain values that all rows depend on.

        `mapped` rows stay on disk until they are read: for more than memory holds.
        """
        self.folder = None if folder is None else Path(folder).absolute() / _digest(depends_on)
        self.depends_on = depends_on
        self.mapped = mapped
        self._additions = []
        self._files = []
        self._places = {}
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)  # now: a folder that cannot be written would waste the work
            for index_path in sorted(self.folder.glob("*.json")):
                self._open(index_path)

    def __getstate__(self):
        # Mapped rows are opened again by whoever gets a copy: pickled, they would be sent whole to every worker.
        return self.__dict__ | ({"_additions": [None] * len(self._additions)} if self.mapped else {})

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def missing(self, keys: Sequence[str]) -> list[int]:
        """Return the positions in `keys` of those that are not kept yet, each key once."""
        first = {}
        for position, key in enumerate(keys):
            if key not in self:
                first.setdefault(key, position)
        return list(first.values())

    def add(self, keys: Sequence[str], batches: Iterable[np.ndarray]) -> None:
        """Keep rows under `keys`, from arrays that are together as long."""
        if self.folder is None:
            self._remember(keys, np.concatenate(list(batches)))
        else:
            self._open(self._write(keys, batches))

    def read(self, keys: Sequence[str]) -> np.ndarray:
        """Return the rows [keys, ...] under `keys`, each of which is kept."""
        places = np.array([self._places[key] for key in keys])
        for addition, file in enumerate(self._files):
            if self._additions[addition] is None:
                self._additions[addition] = np.lib.format.open_memmap(file, mode="r")
        rows = np.empty((len(keys), *self._additions[-1].shape[1:]), self._additions[-1].dtype)
        # One fancy index for each addition: row by row is a hundred times slower.
        for addition in np.unique(places[:, 0]):
            here = places[:, 0] == addition
            rows[here] = self._additions[addition][places[here, 1]]
        return rows

    def _remember(self, keys, array):
        self._places |= {key: (len(self._additions), row) for row, key in enumerate(keys)}
        self._additions.append(array)

    def _write(self, keys, batches) -> Path:
        path = self.folder / f"{_digest(keys)}.npy"
        checksum = hashlib.sha256()
        # Batch by batch, since all rows together may not fit into memory.
        with replacing(path) as unfinished, unfinished.open("wb") as file:
            for batch in batches:
                if file.tell() == 0:
                    write_header(file, (len(keys), *batch.shape[1:]), batch.dtype)
                content = np.ascontiguousarray(batch).data
                file.write(content)
                checksum.update(content)
        # The key in the file is older than the name in this code; changing it would throw whole caches away.
        index = {"facts": self.depends_on, "keys": keys, "sha256": checksum.hexdigest()}
        write_json(path.with_suffix(".json"), index)
        return path.with_suffix(".json")

    def _open(self, index_path: Path) -> None:
        path = index_path.with_suffix(".npy")
        try:
            index = read_json(index_path, dict)
            array = np.lib.format.open_memmap(path, mode="r")
        except (InputError, OSError, ValueError, SyntaxError) as error:
            fault = in_a_line(error, index_path)
        else:
            # Read whole, so that a torn page is found now and not in an epoch.
            array = array if self.mapped else np.array(array)
            fault = self._fault(index, array)
        if fault:
            print(f"{path}: not used, its rows are made again ({fault})", file=sys.stderr)
        else:
            self._files.append(path)
            self._remember(index["keys"], array)

    def _fault(self, index, array) -> str | None:
        """Return what is wrong with an addition, or None. Mapped rows are not read, they may be many gigabytes."""
        keys = index.get("keys")
        if index.get("facts") != self.depends_on or not isinstance(keys, list) or len(keys) != len(array):
            return "foreign"
        same_kind = not self._additions or (array.dtype, array.shape[1:]) == (
            self._additions[0].dtype,
            self._additions[0].shape[1:],
        )
        if not same_kind:
            return "rows of another shape"
        torn = not self.mapped and hashlib.sha256(np.ascontiguousarray(array).data).hexdigest() != index.get("sha256")
        return "torn" if torn else None


def file_key(path: Path | str) -> str:
    """Return a key that changes whenever the file at `path` does: its path, size, and times of change.

    Programs that unpack or copy set the time of modification as they like. Nobody sets the inode's time of change.
    """
    path = (path if isinstance(path, Path) else Path(path)).absolute()  # a Path of a Path would be parsed again
    status = path.stat()
    return f"{path} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"


def _digest(content) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def write_header(file: BinaryIO, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Write the beginning of a .npy file, whose rows can then be written some at a time."""
    described = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, described)
