"""Features of pictures and captions, and the Encoder that keeps those of a frozen CLIP."""

import json
import time
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset, default_collate

from src.base.bars import Bar
from src.base.device import device
from src.base.memory import halving
from src.base.row_store import RowStore, file_key
from src.models.backbone import Backbone
from src.models.registry import backbone_of
from src.pictures.pictures import Pictures
from src.processes import distributed
from src.processes.loading import Loader

SECONDS_AT_ONCE = 2
"""How long pictures are encoded before their features are kept."""


def to_device(images: Tensor) -> Tensor:
    """Move images [images, 3, side, side] to the device, channels last in memory as CLIP's convolutions want them."""
    return images.to(device, non_blocking=True, memory_format=torch.channels_last)


def collate_fn(batch: list):
    """Collate as torch does; raises ValueError for a missing sample instead of dropping it."""
    if any(sample is None for sample in batch):
        raise ValueError("a dataset gave None for a sample: dropping it would change the result")
    return default_collate(batch)


def caption_tokens(captions: Sequence[str], backbone: Backbone) -> Tensor:
    """Return tokens [captions, length of the longest] on the device, cut to CLIP's context."""
    return backbone.trimmed(backbone.tokenize(captions)).to(device, non_blocking=True)


@torch.inference_mode()
def extract_caption_features(captions: Sequence[str], clip_model: Backbone | nn.Module, batch_size: int = 32) -> Tensor:
    """Return features [captions, dim], fp32 and not normalised, of captions in any order and number."""
    backbone = backbone_of(clip_model)
    tokens = backbone.tokenize(captions)
    order = backbone.ends(tokens).argsort(stable=True)  # alike in length: little is padded
    features = []
    for rows in Bar(order.split(batch_size), desc="captions", leave=False):
        trimmed = backbone.trimmed(tokens[rows])
        # In fp32 also under autocast, since ranking and caches compare features of all precisions.
        features.append(halving(lambda part: backbone.encode_tokens(part.to(device)).float(), trimmed, "captions"))
    # Back in the order of the captions.
    return torch.cat(features)[order.argsort()]


@torch.inference_mode()
def extract_index_features(
    dataset: Dataset, clip_model: Backbone | nn.Module, num_workers: int = 0, batch_size: int = 32
) -> tuple[Tensor, list[str]]:
    """Return features [images, dim] of (name, image) items, fp32 and not normalised, and the pictures' names."""
    features, names = [], []
    for batch_names, rows in _encoded_batches(dataset, backbone_of(clip_model), num_workers, batch_size):
        features.append(rows)
        names.extend(batch_names)
    return torch.cat(features), names


def _encoded_batches(
    dataset: Dataset, backbone: Backbone, num_workers: int, batch_size: int
) -> Iterator[tuple[Sequence[str], Tensor]]:
    """Yield (names, features [images, dim]) of each batch of (name, image) items, with a bar."""
    pins = device.type == "cuda"
    loader = Loader(dataset, num_workers, batch_size=batch_size, pin_memory=pins, collate_fn=collate_fn)
    with Bar(desc="gallery", total=len(dataset), unit=" pictures", leave=False) as bar:
        for names, images in loader:
            yield names, halving(lambda part: backbone.encode_images(to_device(part)).float(), images, "pictures")
            bar.update(len(names))


class Encoder:
    """A CLIP's two encoders. Features of a frozen one are computed once, and kept in a folder for later commands.

    `pictures` and `captions` return features. The processes of a job split the work, and each ends up with every
    feature; the first one owns the folder.
    """

    def __init__(
        self,
        backbone: Backbone,
        frozen: Sequence[str] = (),
        cache_folder: Path | str | None = None,
        num_workers: int = 0,
        batch_size: int = 32,
    ):
        """`frozen` lists those of ENCODERS whose weights will not change; without a folder, memory keeps all."""
        self.backbone = backbone
        self.frozen = frozen
        self.cache_folder = cache_folder
        self.num_workers = num_workers
        self.batch_size = batch_size
        self._stores, self._digests = {}, {}

    def __repr__(self) -> str:
        frozen = " and ".join(self.frozen) or "neither"
        where = "memory" if self.cache_folder is None else self.cache_folder
        return f"{type(self).__name__}({self.backbone!r}, frozen: {frozen}, features in {where})"

    def pictures(self, pictures: Pictures) -> Tensor:
        """Return features [pictures, dim], fp32 and not normalised."""

        def encode(numbers):
            chosen = Subset(pictures, numbers)
            return extract_index_features(chosen, self.backbone, self.num_workers, self.batch_size)[0]

        held = self.backbone.held("image", [pictures.paths[name] for name in pictures.names])
        if held is not None:
            return held.to(device)
        if "image" not in self.frozen:
            return distributed.shared_out(range(len(pictures)), encode)
        keys = [file_key(pictures.paths[name]) for name in pictures.names]
        in_parts = partial(self._in_parts, pictures)
        return self._kept("image", pictures.preprocess.settings, keys, in_parts)

    def missing(self, pictures: Pictures) -> list[str]:
        """Return the names of pictures whose features are not kept yet, one name per distinct file."""
        keys = [file_key(pictures.paths[name]) for name in pictures.names]
        store = self._store("image", pictures.preprocess.settings) if distributed.is_first() else None
        return distributed.broadcast(None if store is None else [pictures.names[at] for at in store.missing(keys)])

    def captions(self, captions: Sequence[str]) -> Tensor:
        """Return features [captions, dim], fp32 and not normalised."""

        def encode(numbers):
            return extract_caption_features([captions[number] for number in numbers], self.backbone, self.batch_size)

        held = self.backbone.held("text", captions)
        if held is not None:
            return held.to(device)
        if "text" not in self.frozen:
            return distributed.shared_out(range(len(captions)), encode)
        return self._kept("text", {}, captions, lambda missing: [(missing, distributed.shared_out(missing, encode))])

    @torch.inference_mode()
    def _in_parts(self, pictures: Pictures, missing: list[int]) -> Iterator[tuple[list[int], Tensor]]:
        """Yield (numbers, features) of `missing` pictures, some seconds' work at a time, so that a kill loses no more.

        With one process an interruption costs nothing: what was encoded is yielded before it goes on.
        """
        mine, everyone = distributed.dealt(missing), distributed.processes()
        batches = _encoded_batches(Subset(pictures, mine), self.backbone, self.num_workers, self.batch_size)
        done, at_once = 0, 1
        while done < len(mine):
            started, rows = time.monotonic(), []
            try:
                rows.extend(features for _, features in islice(batches, at_once))
            except BaseException:
                if rows and everyone == 1:
                    yield missing[done : done + sum(map(len, rows))], torch.cat(rows)
                raise
            features = distributed.in_dealt_order(torch.cat(rows))
            numbers = missing[done * everyone : done * everyone + len(features)]
            yield numbers, features[: len(numbers)]
            done += len(features) // everyone
            fitting = round(at_once * SECONDS_AT_ONCE / (time.monotonic() - started + 1e-3))
            # All must take as many, or they would deadlock.
            at_once = distributed.broadcast(max(1, min(2 * at_once, fitting)))

    def _kept(self, encoder, settings, keys, encode_in_parts):
        # One process asks the disk; the answer must be the same for all, or they would deadlock.
        store = self._store(encoder, settings) if distributed.is_first() else None
        missing = distributed.broadcast(None if store is None else store.missing(keys))
        for positions, rows in encode_in_parts(missing) if missing else ():
            if store is not None:
                store.add([keys[position] for position in positions], [rows.cpu().numpy()])
        rows = distributed.broadcast(None if store is None else torch.from_numpy(store.read(keys)))
        return rows.to(device)

    @torch.inference_mode()
    def images(self, images: Tensor) -> Tensor:
        """Return features [images, dim], fp32 and not normalised, of images [images, 3, side, side]; none is kept."""
        return self.backbone.encode_images(to_device(images)).float()

    def _store(self, encoder, settings):
        precision = _current_precision()
        depends_on = {"encoder": encoder, "precision": precision, "device": device.type, **settings}
        if self.cache_folder is not None:
            # In memory the weights cannot change; on disk another CLIP's features lie beside these.
            depends_on["weights"] = self.digest(encoder)
        place = json.dumps(depends_on)
        if place not in self._stores:
            self._stores[place] = RowStore(self.cache_folder, depends_on, kind=((self.backbone.dimension,), "float32"))
        return self._stores[place]

    def digest(self, encoder: str) -> str:
        """Return the SHA-256 of all that features of a frozen encoder, "image" or "text", depend on."""
        if encoder not in self._digests:
            self._digests[encoder] = self.backbone.digest(encoder)
        return self._digests[encoder]


def _current_precision():
    # The features of each precision are kept apart.
    enabled = torch.is_autocast_enabled(device.type)
    return str(torch.get_autocast_dtype(device.type) if enabled else torch.float32).removeprefix("torch.")
