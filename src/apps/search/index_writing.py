"""Writing an index, while no other process does."""

import contextlib
import json
import os
import sys
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from src.apps.search.changes import Changes, require_most_remain
from src.apps.search.index import (
    DTYPES,
    FORMAT,
    KEYS,
    META,
    OURS,
    ROWS_AT_ONCE,
    TornIndexError,
    read_columns,
    read_meta,
)
from src.base.checksum import checksum
from src.base.errors import InputError, first_ten, in_a_line
from src.base.files import replacing, require_writable
from src.base.locks import owning
from src.base.npy import write_rows
from src.base.reading import file_digest, read_json
from src.base.sealed import write_sealed
from src.retrieval.gallery import Gallery
from src.retrieval.ranking import pieces
from src.tasks.annotations import HALF_PAIRS

OLD_FILES = "features.npy", "items.jsonl"
"""Of indexes of format 1."""


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
            meta = read_meta(folder, depends_on)
            items = (dict(zip(KEYS, values, strict=True)) for values in zip(*read_columns(folder, meta), strict=True))
            self.known = {item["name"]: item for item in items}
        except (TornIndexError, FileNotFoundError, LookupError, TypeError) as error:
            print(f"{folder}: written anew ({in_a_line(error, folder)})", file=sys.stderr)

    def require_most(self, names: Iterable[str]) -> None:
        """Raise InputError when more than half of the index's pictures are not among `names`, unless that is meant."""
        if not self.remove_missing:
            gone = len(self.known.keys() - set(names))
            require_most_remain(f"{self.folder}: an index", gone, len(self.known))

    def write(self, gallery: Gallery, half: bool) -> Changes:
        """Write a gallery whose pictures are at hand in place of what is there; return what that changed.

        Raises InputError for a name that no other tool could read, and for features that nothing can be compared with.
        """
        self.require_most(gallery.names)
        items = [
            item_of(name, os.path.join(gallery.folder, name), length, self.known)  # noqa: PTH118, takes half the time
            for name, length in zip(gallery.names, gallery.lengths.flatten().tolist(), strict=True)
        ]
        version = uuid.uuid4().hex
        lines, arrays = f"items.{version}.jsonl", {"features": gallery.features}
        if gallery.projection is not None:
            arrays["projected"] = gallery.projection.features
        text = "".join(_line(key, [item[key] for item in items]) for key in KEYS).encode()
        meta = {
            "format": FORMAT,
            "pictures": len(items),
            "dim": gallery.features.shape[1],
            **({} if gallery.projection is None else {"projected_dim": gallery.projection.features.shape[1]}),
            "dtype": "fp16" if half else "fp32",
            "folder": str(gallery.folder.absolute()),
            "depends_on": self.depends_on,
            **{kind: f"{kind}.{version}.npy" for kind in arrays},
            "items": lines,
            "items_sum": checksum(text),
        }
        with contextlib.ExitStack() as unfinished:
            unfinished.enter_context(replacing(self.folder / lines)).write_bytes(text)
            for kind, features in arrays.items():
                path = unfinished.enter_context(replacing(self.folder / meta[kind]))
                meta[f"{kind}_sums"] = _write_features(path, features, gallery.names, DTYPES[meta["dtype"]])
        write_sealed(self.folder / META, meta, indent=1)
        names = lines, *(meta[kind] for kind in arrays)
        _remove_others(self.folder, names, OLD_FILES if self.replaces_format_1 else ())
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
    """Let no other process write to an index inside the block; `depends_on` distinguishes its features from others.

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


def _write_features(path: Path, features: Tensor, names: Sequence[str], dtype: np.dtype) -> list[str]:
    """Write the features [pictures, dim], normalised, of pictures with these names; return their checksums."""
    sums = []
    write_rows(path, tuple(features.shape), dtype, _checked(features, names, dtype, sums))
    return sums


def _checked(features: Tensor, names: Sequence[str], dtype: np.dtype, sums: list[str]) -> Iterator[np.ndarray]:
    """Yield the features some rows at a time, as a copy of all may not fit into memory; append their checksums."""
    for rows in pieces(len(features), ROWS_AT_ONCE):
        unit = features[rows].cpu().numpy().astype(np.float32, copy=False)
        # By numpy: torch's threads do not work in a process that was forked after they began.
        squares = np.einsum("ij,ij->i", unit, unit)
        odd = np.flatnonzero(~(np.abs(squares - 1) < 0.01))  # so NaN is odd too
        if len(odd):
            pictures = first_ten([names[rows.start + row] for row in odd])
            raise InputError(f"{pictures}: features that are zero or not finite, the weights that made them are broken")
        batch = np.ascontiguousarray(unit.astype(dtype, copy=False))
        sums.append(checksum(batch))
        yield batch


def _remove_others(folder: Path, keep: Sequence[str], others: Sequence[str]) -> None:
    """Delete `others`, and all files of an index but those to keep: older ones, and what killed processes left."""
    for path in list(folder.iterdir()):
        is_other = path.name in others or (OURS.fullmatch(path.name) and path.name not in keep)
        if is_other and path.is_file():
            path.unlink()


def _is_of_format_1(folder: Path) -> bool:
    """Whether a folder holds an index of format 1, whose files had plainer names."""
    try:
        meta = read_json(folder / META, dict)
    except InputError:
        return False
    return meta.get("format") == 1 and all((folder / name).is_file() for name in OLD_FILES)


def _line(key: str, values: list) -> str:
    """Write a column of items as a line of JSON; names are escaped where one is no UTF-8."""
    escape = key == "name" and any(map(HALF_PAIRS.search, values))
    return json.dumps({key: values}, ensure_ascii=escape) + "\n"


def item_of(name: str, path: str, length: float, known: dict[str, dict]) -> dict:
    """Return what is kept of a picture's file; its digest is the one in `known` {name: item} where nothing changed."""
    status = os.stat(path)  # noqa: PTH116
    stamp = {"size": status.st_size, "modified_ns": status.st_mtime_ns}
    before = known.get(name, {})
    same = all(before.get(key) == value for key, value in stamp.items())
    digest = before["sha256"] if same and "sha256" in before else file_digest(Path(path))
    return {"name": name, **stamp, "sha256": digest, "length": length}
