"""The batches of training: triplets as rows of their pictures, shuffled and loaded."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.utils.data import BatchSampler, Dataset, RandomSampler

from src.base.crops import box_of, file_of
from src.base.device import device
from src.base.reading import file_digest
from src.pictures.pictures import Pictures
from src.processes import distributed
from src.processes.each import Each
from src.processes.loading import Loader
from src.retrieval.encoder import Encoder
from src.tasks.task import Task
from src.tasks.triplets import Split

if TYPE_CHECKING:
    from src.pictures.cache import ImageCache


class Batch(NamedTuple):
    """A batch of training triplets, of which this process computes a share."""

    references: torch.Tensor
    """Rows [share] of the references, in `pixels` or, without these, in all pictures that the triplets name."""
    targets: torch.Tensor
    """Rows [share] of the targets, likewise."""
    captions: list[tuple[str, ...]]
    """The captions of the whole batch, not only of the share, since every process draws texts for all of it."""
    pixels: torch.Tensor | None = None
    """Bytes [pictures, side, side, 3] of the share's pictures: a quarter of what they are when they are normalised."""
    all_targets: torch.Tensor | None = None
    """Rows [batch] of the targets of the whole batch, in all pictures that the triplets name."""
    numbers: list[int] | None = None
    """The numbers of the whole batch's triplets."""


class TripletRows(Dataset):
    """Training triplets as row numbers of their pictures. An item is the Batch of a list of triplets' numbers."""

    def __init__(
        self,
        splits: Sequence[Split],
        preprocess: Callable,
        cache: "ImageCache | None" = None,
        share: slice = slice(None),
        distinct: bool = False,
    ):
        """`share` says which triplets of each batch are this process's, `distinct` that equal files are one row."""
        triplets = [triplet for split in splits for triplet in split.triplets]
        paths = {name: path for split in splits for name, path in split.pictures.items()}
        # Only named pictures are opened or encoded, in the order of the triplets.
        named = dict.fromkeys(name for triplet in triplets for name in (triplet.reference, triplet.targets[0]))
        named = {name: paths[name] for name in named}
        first = _first_of_equals(named) if distinct else {name: name for name in named}
        kept = {name: path for name, path in named.items() if first[name] == name}
        self.pictures = Pictures(kept, preprocess, cache)
        self.captions = [triplet.captions for triplet in triplets]
        self.share = share
        row = {name: row for row, name in enumerate(kept)}
        ends = [triplet.reference for triplet in triplets], [triplet.targets[0] for triplet in triplets]
        self.rows = torch.tensor([[row[first[name]] for name in names] for names in ends])

    def __len__(self):
        return len(self.captions)

    def __getitem__(self, numbers: list[int]) -> Batch:
        references, targets = self.rows[:, numbers[self.share]]
        captions = [self.captions[number] for number in numbers]
        return Batch(references, targets, captions, None, self.rows[1, numbers], numbers)


def _first_of_equals(paths: dict[str, Path]) -> dict[str, str]:
    """Return {name: the first name of the same picture}; one process of a job reads the files for all."""
    return distributed.broadcast(_originals(paths) if distributed.is_first() else None)


def _originals(paths: dict[str, Path]) -> dict[str, str]:
    """Return {name: the first name of the same part of a file with the same bytes} for paths {name: path}."""
    files = {name: file_of(path) for name, path in paths.items()}
    sizes = {name: file.stat().st_size for name, file in files.items()}
    sharing = Counter(sizes.values())
    first = {}
    # Few files have the size of another, so few are read.
    digests = {name: file_digest(file) if sharing[sizes[name]] > 1 else "" for name, file in files.items()}
    return {name: first.setdefault((sizes[name], digests[name], box_of(paths[name])), name) for name in paths}


def encode_triplets(
    triplets: TripletRows, task: Task, encoder: Encoder
) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    """Return features [pictures, dim] and [texts, dim] of what the triplets name, each encoded once, and the texts."""
    # Every text that training may draw, each once and in a fixed order.
    texts = list(dict.fromkeys(text for captions in triplets.captions for text in task.training_texts(captions)))
    return encoder.pictures(triplets.pictures), encoder.captions(texts), texts


class TripletImages(TripletRows):
    """TripletRows that also loads the pixels of each picture of a batch, once even when many triplets share it.

    A TripletLoader asks for `planned`, and lets its workers open the pixels in parts.
    """

    def __getitem__(self, numbers: list[int]) -> Batch:
        batch, needed = self.planned(numbers)
        return batch._replace(pixels=self.pictures.pixels(needed))

    def planned(self, numbers: list[int]) -> tuple[Batch, list[int]]:
        """Return the batch without its pictures, and their numbers in `pictures`, in the order of its rows."""
        batch = super().__getitem__(numbers)
        # Half of a batch's pictures may be another triplet's too: each goes through CLIP once.
        distinct, (references, targets) = torch.stack((batch.references, batch.targets)).unique(return_inverse=True)
        return batch._replace(references=references, targets=targets), distinct.tolist()


class TripletLoader:
    """Shuffled full batches of triplets, in an order that depends only on `seed`.

    Each of `num_workers` processes opens a part of every batch and prefetches two parts. So about two batches are in
    flight however many workers there are, and the first batch of an epoch is ready as soon as possible.
    """

    def __init__(self, triplets: TripletRows, batch_size: int, num_workers: int, seed: int):
        self.triplets, self.num_workers = triplets, num_workers
        # Its own generator: the order must not depend on what else draws, and --resume puts it back.
        self.draws = torch.Generator().manual_seed(seed)
        self.batches = BatchSampler(RandomSampler(triplets, generator=self.draws), batch_size, drop_last=True)

    def __len__(self):
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        if not isinstance(self.triplets, TripletImages):
            yield from map(self.triplets.__getitem__, self.batches)
            return
        # The whole epoch at once, so that workers go on from batch to batch.
        planned = [(batch, self._parts(needed)) for batch, needed in map(self.triplets.planned, self.batches)]
        parts = [part for _, of_batch in planned for part in of_batch]
        loaded = iter(Loader(Each(self.triplets.pictures.pixels, parts), self.num_workers, batch_size=None))
        for batch, of_batch in planned:
            yield batch._replace(pixels=_joined([next(loaded) for _ in of_batch]))

    def _parts(self, needed: list[int]) -> list[list[int]]:
        size = -(-len(needed) // max(1, self.num_workers))
        return [needed[start : start + size] for start in range(0, len(needed), size)]


def _joined(parts: list[torch.Tensor]) -> torch.Tensor:
    """Concatenate the parts of a batch; for a card in pinned memory, so that the copy can overlap computation."""
    pinned = device.type == "cuda"
    if len(parts) == 1 and not pinned:
        return parts[0]
    whole = torch.empty(sum(map(len, parts)), *parts[0].shape[1:], dtype=parts[0].dtype, pin_memory=pinned)
    return torch.cat(parts, out=whole)
