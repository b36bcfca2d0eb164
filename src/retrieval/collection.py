"""Pictures that can be searched: their features, and which files they are."""

import copy
from collections.abc import Container, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from src.base.errors import require_storage
from src.base.reading import file_digest
from src.retrieval.fusion import Fusion, compared, gallery_side
from src.retrieval.ranking import ROWS_AT_ONCE, lengths_of, nearest, pieces


class LeftOut(NamedTuple):
    """A picture that is no answer, and neither are copies of its bytes."""

    name: str | None = None
    """Its name, where it is one of the collection."""
    path: Path | None = None
    """Its file, which need not be there where it is one of the collection."""


class Searchable(Protocol):
    """What a Searcher asks: a Collection in memory or on disk, or a QdrantCollection."""

    folder: Path
    """Where the names start."""

    def __len__(self) -> int: ...

    def __contains__(self, name: str) -> bool: ...

    def feature(self, name: str) -> Tensor | None:
        """Return a picture's features [1, dim] in fp32, as the encoder gave them; None where there is no such name."""

    def compared_by(self, combining_function: Fusion) -> "Searchable":
        """Return what answers queries of a combining function; raises InputError where nothing can."""

    def answers(
        self, predicted: Tensor, k: int, left_out: Sequence[LeftOut | None], exponents: Sequence[float] = ()
    ) -> list[list[tuple[str, float]]]:
        """Return at most `k` names with their scores, best first, for predicted features [factors, queries, dim]."""


class Collection:
    """Pictures by name, with their features. Every score is exact."""

    def __init__(self, unit: Tensor, lengths: Tensor, names: Sequence[str], folder: Path | None = None):
        """Take normalised features [pictures, dim], in fp32 or fp16, and how long each was [pictures].

        `folder` is where the names start; None where the pictures are not at hand.
        """
        self.unit, self.lengths = unit, lengths
        self.names, self.folder = list(names), folder
        self.digests: list[str] | None = None
        """SHA-256 of each picture's file, where an index knows it."""
        self._row = {name: row for row, name in enumerate(self.names)}
        self._combining_function: Fusion | None = None

    @classmethod
    def of_features(cls, features: Tensor, names: Sequence[str], folder: Path | None = None) -> "Collection":
        """Make a collection of features [pictures, dim] as an encoder gives them, which are normalised in place."""
        lengths = torch.empty(len(features), device=features.device)
        for rows in pieces(len(features), ROWS_AT_ONCE):
            lengths[rows] = lengths_of(features[rows]).flatten()
            features[rows] /= lengths[rows, None]
        return cls(features, lengths, names, folder)

    def without(self, names: Container[str]) -> "Collection":
        """Return a collection of the other pictures, in their order."""
        rows = [row for row, name in enumerate(self.names) if name not in names]
        others = Collection(self.unit[rows], self.lengths[rows], [self.names[row] for row in rows], self.folder)
        if self.digests is not None:
            others.digests = [self.digests[row] for row in rows]
        return others

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, name: str) -> bool:
        return name in self._row

    def row(self, name: str) -> int | None:
        """Return the row of `name`; None where it is not among the pictures."""
        return self._row.get(name)

    def features(self, rows: Sequence[int]) -> Tensor:
        """Return features [rows, dim] in fp32, as the encoder gave them."""
        rows = torch.as_tensor(rows, device=self.unit.device)
        return self.unit[rows].float() * self.lengths[rows, None]

    def feature(self, name: str) -> Tensor | None:
        """Return a picture's features [1, dim] in fp32, as the encoder gave them; None where there is no such name."""
        row = self.row(name)
        return None if row is None else self.features([row])

    def compared_by(self, combining_function: Fusion) -> "Collection":
        """Return the same pictures, compared with queries as a combining function says."""
        if gallery_side(combining_function) is None:
            return self
        other = copy.copy(self)
        other._combining_function = combining_function
        return other

    def copies(self, path: Path) -> list[int]:
        """Return the rows of pictures with the same bytes as the file at `path`."""
        if self.digests is not None:
            return self._rows_of_digest(file_digest(path))
        digest = file_digest(path)
        # Few files have the same size, so few are read.
        paths = {row: self.folder / self.names[row] for row in self._rows_of_size.get(path.stat().st_size, ())}
        return [row for row, other in paths.items() if _has_digest(other, digest)]

    def answers(
        self, predicted: Tensor, k: int, left_out: Sequence[LeftOut | None], exponents: Sequence[float] = ()
    ) -> list[list[tuple[str, float]]]:
        """Return at most `k` names with their scores, best first, for predicted features [factors, queries, dim]."""
        rows, scores = self.nearest(predicted, k, [self._rows_of(picture) for picture in left_out], exponents)
        return [
            [(self.names[row], score) for row, score in zip(*found, strict=True) if score > -torch.inf]
            for found in zip(rows.tolist(), scores.tolist(), strict=True)
        ]

    def _rows_of(self, picture: LeftOut | None) -> list[int]:
        if picture is None:
            return []
        row, same = None if picture.name is None else self._row[picture.name], []
        if row is not None and self.digests is not None:
            same = self._rows_of_digest(self.digests[row])  # the file need not be at hand
        elif picture.path is not None and picture.path.is_file():
            same = self.copies(picture.path)
        return sorted({*same, *([] if row is None else [row])})

    @cached_property
    def _rows_of_size(self) -> dict[int, list[int]]:
        """{bytes of a file: its rows}, found once: questions may be many."""
        rows = {}
        for row, name in enumerate(self.names):
            path = self.folder / name
            try:
                rows.setdefault(path.stat().st_size, []).append(row)
            except OSError as error:
                require_storage(error, path)  # else it was deleted since it was encoded
        return rows

    def _rows_of_digest(self, digest: str) -> list[int]:
        return [row for row, other in enumerate(self.digests) if other == digest]

    @torch.inference_mode()
    def nearest(
        self,
        predicted: Tensor,
        k: int,
        excluded: Sequence[Sequence[int]] = (),
        exponents: Sequence[float] = (),
    ) -> tuple[Tensor, Tensor]:
        """Return the first `k` rows [queries, k] for predicted features [factors, queries, dim], and their scores.

        A score is a cosine similarity. Of several factors each similarity below zero counts as zero, and their powers,
        by `exponents` where there are any, are multiplied. `excluded` are the rows that each query leaves out, whose
        score is minus infinity. The best come first, ties in the collection's order.
        """
        # An index stays on the CPU, whatever card the predicted features come from.
        device = self.unit.device
        # Features in fp32 are used where they are; others are computed a cache's worth at a time.
        piece = len(self) if self.unit.dtype is torch.float32 and self._combining_function is None else None
        most = max(map(len, excluded), default=0)
        padded = torch.tensor([[*rows, *[-1] * (most - len(rows))] for rows in excluded], device=device)
        unit = partial(self._unit, predicted.device)
        left_out = padded if most else None
        return nearest(predicted.to(device), unit, len(self), k, left_out, exponents, piece)

    def _unit(self, device: torch.device, rows: slice) -> Tensor:
        """Return what queries are compared with [rows, dim], normalised; a network that makes it is on `device`."""
        unit = self.unit[rows].float()
        if self._combining_function is None:
            return unit
        features = (unit * self.lengths[rows, None]).to(device)
        features = compared(self._combining_function, features).float()
        return (features / lengths_of(features)).to(unit.device)


def _has_digest(path: Path, digest: str) -> bool:
    try:
        return file_digest(path) == digest
    except OSError as error:
        require_storage(error, path)
        return False  # it was deleted since it was encoded
