"""Cache of rows that are expensive to compute, keyed by string, in .npy files."""

import contextlib
import hashlib
import itertools
import json
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from src.base.crops import file_of
from src.base.errors import InputError, in_a_line
from src.base.files import replacing
from src.base.memory import mention
from src.base.npy import map_rows, write_rows
from src.base.reading import require_regular
from src.base.sealed import is_whole, write_sealed


class RowStore:
    """Arrays of one shape and type by key, in a subfolder for what they depend on; without a folder, in memory.

    An addition is two files of one name: rows [n, ...] in .npy, then their keys and checksums in .json. Nothing is ever
    changed in place, so a process that is killed while it writes loses its own addition and nothing else.
    """

    def __init__(
        self,
        folder: Path | None = None,
        depends_on: dict | None = None,
        mapped: bool = False,
        kind: tuple[tuple[int, ...], str] | None = None,
    ):
        """`depends_on` are plain values that all rows depend on; `kind` is a row's shape and type, where it is known.

        `mapped` rows stay on disk until they are read: for more than memory holds.
        """
        self.folder = None if folder is None else Path(folder).absolute() / _digest(depends_on)
        self.depends_on = depends_on
        self.mapped = mapped
        self.kind = None if kind is None else (kind[0], np.dtype(kind[1]))
        self._additions = []
        self._files = []
        self._places = {}
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)  # now: a folder that cannot be written would waste the work
            for index_path in sorted(self.folder.glob("*.json")):
                self._open_if_whole(index_path)

    def __getstate__(self):
        # Mapped rows are opened again by a copy in another process: pickled, they would be sent whole to every worker.
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
            index_path = self._write(keys, batches)
            try:
                self._open(index_path)
            except (OSError, ValueError) as error:
                raise InputError(f"{index_path}: cannot be read back ({in_a_line(error, index_path)})") from None

    def read(self, keys: Sequence[str], make: Callable[[int], np.ndarray] | None = None) -> np.ndarray:
        """Return the rows [keys, ...] under `keys`, each of which is kept.

        Mapped rows are compared with their checksums now; `make(position)` makes one again that is torn.
        """
        places = np.array([self._places[key] for key in keys])
        for addition, file in enumerate(self._files):
            if self._additions[addition] is None:
                self._additions[addition] = _mapped_again(file)
        rows = np.empty((len(keys), *self._additions[-1].shape[1:]), self._additions[-1].dtype)
        # One fancy index for each addition: row by row is a hundred times slower.
        for addition in np.unique(places[:, 0]):
            here = places[:, 0] == addition
            rows[here] = self._additions[addition][places[here, 1]]
        for position, (addition, row) in enumerate(places.tolist() if self.mapped else ()):
            file = self._files[addition]
            if zlib.crc32(rows[position]) != file.sums[row]:
                line = f"{file.path}: holds rows that are torn; they are made again each time, until it is deleted"
                mention(str(file.path), line)
                rows[position] = make(position)
        return rows

    def _remember(self, keys, array):
        self._places |= {key: (len(self._additions), row) for row, key in enumerate(keys)}
        self._additions.append(array)

    def _write(self, keys, batches) -> Path:
        path = self.folder / f"{_digest(keys)}.npy"
        while path.is_dir() or path.with_suffix(".json").is_dir():  # nothing can take their place
            path = path.with_stem(f"{path.stem}-")
        sums, batches = [], iter(batches)
        with replacing(path) as unfinished:
            first = next(batches)
            every = _summed(itertools.chain([first], batches), sums)
            write_rows(unfinished, (len(keys), *first.shape[1:]), first.dtype, every)
        # The key in the file is older than the name in this code; changing it would throw whole caches away.
        index = {"facts": self.depends_on, "keys": keys, "shape": first.shape[1:], "dtype": first.dtype.str}
        write_sealed(path.with_suffix(".json"), index | {"crc32": sums})
        return path.with_suffix(".json")

    def _open_if_whole(self, index_path: Path) -> None:
        """Open an addition; one that is not as it was written is removed, with a line."""
        path = index_path.with_suffix(".npy")
        try:
            self._open(index_path)
        # Keys and kinds of another program, with a right seal, lead to the others.
        except (OSError, ValueError, RecursionError, LookupError, TypeError, ArithmeticError) as error:
            print(f"{path}: not used, its rows are made again ({in_a_line(error, index_path)})", file=sys.stderr)
            if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
                return  # it may be whole
            # So that it is said once. What cannot be removed, such as a folder, is said each time.
            for torn in (path, index_path):
                with contextlib.suppress(OSError):
                    torn.unlink(missing_ok=True)

    def _open(self, index_path: Path) -> None:
        """Open an addition; raises OSError, and ValueError for one that is not as it was written."""
        require_regular(index_path)
        index = json.loads(index_path.read_bytes())
        if not isinstance(index, dict) or not is_whole(index):
            raise ValueError("its keys are not those that were written")
        if index["facts"] != self.depends_on:
            raise ValueError("foreign")
        if not all(isinstance(key, str) for key in index["keys"]):
            raise ValueError("its keys are no texts")
        kind = tuple(index["shape"]), np.dtype(index["dtype"])
        if self.kind not in (None, kind):
            raise ValueError("rows of another shape or type")
        sums = np.array(index["crc32"], np.uint32)
        addition = _Addition(index_path.with_suffix(".npy"), (len(sums), *kind[0]), kind[1], sums)
        array = map_rows(addition.path, addition.shape, addition.dtype)
        if not self.mapped:
            # Read whole, so that a torn page is found now and not in an epoch.
            array = np.array(array)
            if [zlib.crc32(row) for row in array] != index["crc32"]:
                raise ValueError("torn")
        self.kind = kind
        self._files.append(addition)
        self._remember(index["keys"], array)


class _Addition(NamedTuple):
    """A file of rows, and what it has to be."""

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype
    sums: np.ndarray
    """A checksum for each row."""


def _mapped_again(file: _Addition) -> np.memmap:
    try:
        return map_rows(file.path, file.shape, file.dtype)
    except (OSError, ValueError) as error:
        raise InputError(f"{file.path}: was changed while it was used ({in_a_line(error, file.path)})") from None


def _summed(batches: Iterable[np.ndarray], sums: list[int]) -> Iterator[np.ndarray]:
    """Yield `batches`, and append the checksum of each of their rows."""
    for batch in batches:
        rows = np.ascontiguousarray(batch)
        sums.extend(map(zlib.crc32, rows))
        yield rows


def file_key(path: Path | str) -> str:
    """Return a key that changes whenever the file at `path` does: its path, size, and times of change.

    Programs that unpack or copy set the time of modification as they like. Nobody sets the inode's time of change.
    """
    path = (path if isinstance(path, Path) else Path(path)).absolute()  # a Path of a Path would be parsed again
    status = file_of(path).stat()
    return f"{path} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"


def _digest(content) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
