"""Galleries: the pictures that answers are looked for in."""

from collections.abc import Collection, Container, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from src.base.device import device
from src.base.errors import InputError
from src.retrieval.fusion import Fusion, compared, gallery_side, gallery_side_digest
from src.retrieval.ranking import ROWS_AT_ONCE, lengths_of, nearest, pieces
from src.tasks.protocol import Protocol
from src.tasks.triplets import Triplet


class Reference(NamedTuple):
    """The picture that a question starts from. Neither it nor a copy of its bytes is an answer."""

    name: str | None = None
    """Its name, where it is in the gallery."""
    path: Path | None = None
    """Its file, which need not be there where it is in the gallery."""


class Projection(NamedTuple):
    """What a network compares the pictures of a gallery as."""

    network: str
    """Its `gallery_side_digest`."""
    features: Tensor
    """[pictures, dim], normalised."""


class Gallery:
    """Pictures by name, with their features and, where they are at hand or were, the folder of their files.

    Features are held as the encoder gave them, which the numbers of a validation depend on to the bit. `normalise`, and
    an index, hold them normalised, with their lengths: then a question reads them without computing anything.
    """

    def __init__(
        self,
        features: Tensor,
        names: Sequence[str],
        lengths: Tensor | None = None,
        folder: Path | str | None = None,
        digests: Sequence[str] | None = None,
        unlisted: Collection[str] = (),
        projection: Projection | None = None,
    ):
        """Take features [pictures, dim] as the encoder gave them or, with their `lengths` [pictures], normalised.

        Normalised ones may be in fp16. `digests` are the SHA-256 of the files in `folder`, where they are known.
        `unlisted` are names that the split's list does not have.
        `projection` is what a network compares the pictures as, where that is kept.
        """
        if len(features) != len(names):
            raise ValueError(f"{len(features)} features for {len(names)} names")
        self.features, self.names, self.lengths = features, list(names), lengths
        self.folder, self.digests = None if folder is None else Path(folder), digests
        self.unlisted = frozenset(unlisted)
        self.projection = projection
        repeated = len(self.names) - len(set(self.names))
        if repeated:
            raise InputError(f"the gallery holds {repeated} names more than once")

    @cached_property
    def _row(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.names)}

    def __repr__(self) -> str:
        where = "" if self.folder is None else f" of {self.folder}"
        return f"{type(self).__name__}({len(self)} pictures{where}, {self.features.shape[1]} dimensions)"

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, name: str) -> bool:
        return name in self._row

    # ---- pictures by name ----

    def rows(self, names: Sequence[str]) -> Tensor:
        """Return the rows [names] of `names`; raises InputError with the first name that is not in the gallery."""
        return torch.tensor(self.row_numbers(names), device=self.features.device)

    def row_numbers(self, names: Sequence[str]) -> list[int]:
        """Return what `rows` returns, as plain numbers."""
        absent = [name for name in names if name not in self._row]
        if absent:
            raise InputError(f"{absent[0]}: not among the {len(self.names)} pictures of the gallery")
        return [self._row[name] for name in names]

    def row(self, name: str) -> int | None:
        """Return the row of `name`; None where the gallery does not hold it."""
        return self._row.get(name)

    def part(self, names: Container[str]) -> "Gallery":
        """Return the gallery of only those pictures that are in `names`, in its order."""
        rows = [row for row, name in enumerate(self.names) if name in names]
        lengths = None if self.lengths is None else self.lengths[rows]
        digests = None if self.digests is None else [self.digests[row] for row in rows]
        projection = self.projection
        if projection is not None:
            projection = projection._replace(features=projection.features[rows])
        names = [self.names[row] for row in rows]
        return Gallery(self.features[rows], names, lengths, self.folder, digests, projection=projection)

    def ranked_by(self, protocol: Protocol, triplets: Sequence[Triplet]) -> "Gallery":
        """Return the part of the gallery whose pictures, or groups of them, `triplets` rank as `protocol` counts."""
        inside = protocol.inside(triplets, self.names, self.unlisted)
        return self if inside is None else self.part(inside)

    # ---- their features ----

    def encoded(self, rows: Sequence[int] | slice | Tensor) -> Tensor:
        """Return features [rows, dim] in fp32, as the encoder gave them."""
        features = self.features[rows].float()
        return features if self.lengths is None else features * self.lengths[rows, None]

    def unit(self, rows: slice) -> Tensor:
        """Return features [rows, dim] in fp32, normalised."""
        features = self.features[rows].float()
        return features / lengths_of(features) if self.lengths is None else features

    def feature(self, name: str) -> Tensor | None:
        """Return a picture's features [1, dim] in fp32, as the encoder gave them; None where there is no such name."""
        row = self.row(name)
        return None if row is None else self.encoded([row])

    def normalise(self) -> None:
        """Hold features normalised from now on. They are changed in place: only for features that nothing else uses."""
        self.lengths = torch.empty(len(self), device=self.features.device)
        for rows in pieces(len(self), ROWS_AT_ONCE):
            self.lengths[rows] = lengths_of(self.features[rows]).flatten()
            self.features[rows] /= self.lengths[rows, None]

    @torch.inference_mode()
    def compared_by(self, combining_function: Fusion) -> "Gallery":
        """Return the gallery with the features that predicted ones are compared with: these, where nothing is said.

        Others are normalised.
        """
        if gallery_side(combining_function) is None:
            return self
        if self.projection is not None and self.projection.network == gallery_side_digest(combining_function):
            lengths = torch.ones(len(self), device=self.projection.features.device)
            features = self.projection.features
            return Gallery(features, self.names, lengths, self.folder, self.digests, self.unlisted)
        parts = [
            compared(combining_function, self.encoded(rows).to(device)).float().to(self.features.device)
            for rows in pieces(len(self), ROWS_AT_ONCE)
        ]
        gallery = Gallery(torch.cat(parts), self.names, None, self.folder, self.digests, self.unlisted)
        gallery.normalise()
        return gallery

    def project(self, combining_function: Fusion) -> None:
        """Keep what `compared_by` gives, for a network that compares pictures as it learned to."""
        network = gallery_side_digest(combining_function)
        if network is not None:
            self.projection = Projection(network, self.compared_by(combining_function).features)

    # ---- questions ----

    def answers(
        self, predicted: Tensor, k: int, left_out: Sequence[Reference | None], exponents: Sequence[float] = ()
    ) -> list[list[tuple[str, float]]]:
        """Return at most `k` names with their scores, best first, for predicted features [factors, queries, dim]."""
        excluded = [[] if reference is None else self._rows_of(reference) for reference in left_out]
        rows, scores = self.nearest(predicted, k, excluded, exponents)
        return [
            [(self.names[row], score) for row, score in zip(*found, strict=True) if score > -torch.inf]
            for found in zip(rows.tolist(), scores.tolist(), strict=True)
        ]

    @torch.inference_mode()
    def nearest(
        self, predicted: Tensor, k: int, excluded: Sequence[Sequence[int]] = (), exponents: Sequence[float] = ()
    ) -> tuple[Tensor, Tensor]:
        """Return the first `k` rows [queries, k] for predicted features [factors, queries, dim], and their scores.

        A score is a cosine similarity. Of several factors each similarity below zero counts as zero, and their powers,
        by `exponents` where there are any, are multiplied. `excluded` are the rows that each query leaves out, whose
        score is minus infinity. The best come first, ties in the gallery's order.
        """
        # An index stays on the CPU, whatever card the predicted features come from.
        own_device = self.features.device
        # Normalised features in fp32 are used where they are; others are computed a cache's worth at a time.
        piece = len(self) if self.lengths is not None and self.features.dtype is torch.float32 else None
        most = max(map(len, excluded), default=0)
        padded = torch.tensor([[*rows, *[-1] * (most - len(rows))] for rows in excluded], device=own_device)
        left_out = padded if most else None
        return nearest(predicted.to(own_device), self.unit, len(self), k, left_out, exponents, piece)

    def _rows_of(self, reference: Reference) -> list[int]:
        """Return the rows of a reference and of copies of its bytes."""
        row = None if reference.name is None else self._row[reference.name]
        return self._copies.rows(row, reference.path)

    @cached_property
    def _copies(self):
        from src.retrieval.copies import Copies  # late: only a search asks for pictures of the same bytes

        return Copies(self.names, self.folder, self.digests)
