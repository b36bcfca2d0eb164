"""What stands around the model: device and precision, features, and what the training loop reports."""

import json
import random
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset, default_collate

from data_utils import Pictures
from src.base import distributed
from src.base.bars import Bar
from src.base.device import device, device_line
from src.base.loading import Loader
from src.base.memory import halving
from src.command.flags import PRECISIONS
from src.models.backbone import Backbone, normalised
from src.models.registry import backbone_of, load_backbone
from src.models.weights import checkpoint_path, write_checkpoint
from src.pictures.opening import require_present
from src.retrieval.row_store import RowStore, file_key
from src.tasks.registry import TASKS
from src.tasks.triplets import Split, Task
from src.training.gradient_caching import in_pieces

SECONDS_AT_ONCE = 2
"""How long pictures are encoded before their features are kept."""


def autocast(precision: str, training: bool = False) -> torch.autocast:
    """Return the autocast context of a --precision; "auto" is fp16 for training on CUDA as published, else fp32."""
    dtype = autocast_dtype(precision, training)
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not torch.float32)


def autocast_dtype(precision: str, training: bool = False) -> torch.dtype:
    """Return the type that a --precision computes in."""
    return getattr(torch, PRECISIONS[resolved(precision, training)])


def resolved(precision: str, training: bool = False) -> str:
    """Return the --precision that "auto" stands for on this device; every other one is itself."""
    if precision != "auto":
        return precision
    return "fp16" if training and device.type == "cuda" else "fp32"


def say_device(precision: str, training: bool = False) -> None:
    """Print to stderr where a command computes, in which precision, and with how many processes, in a line."""
    print(device_line(resolved(precision, training), distributed.processes()), file=sys.stderr, flush=True)


def to_device(images: Tensor) -> Tensor:
    """Move images [images, 3, dim, dim] to the device, channels last in memory as CLIP's convolutions want them."""
    return images.to(device, non_blocking=True, memory_format=torch.channels_last)


# ---- features ----


def collate_fn(batch: list):
    """Collate as torch does; raises ValueError for a missing sample instead of dropping it."""
    if any(sample is None for sample in batch):
        raise ValueError("a dataset gave None for a sample: dropping it would change the result")
    return default_collate(batch)


def element_wise_sum(image_features: Tensor, text_features: Tensor) -> Tensor:
    """Return predicted features [queries, dim], normalised: the sum of both as CLIP gives them (paper, section 3.2)."""
    return F.normalize(image_features + text_features, dim=-1)


def generate_randomized_fiq_caption(flattened_captions: Sequence[str], draws=random) -> list[str]:
    """Return one of its four training captions for each FashionIQ pair, by a uniform draw from `draws.random()`.

    `flattened_captions` holds a, b of the first pair, a, b of the second, …
    """
    pairs = zip(flattened_captions[::2], flattened_captions[1::2], strict=True)
    return [TASKS["FashionIQ"].training_texts(pair)[int(4 * draws.random())] for pair in pairs]


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
        features.append(halving(lambda some: backbone.encode_tokens(some.to(device)).float(), trimmed, "captions"))
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
            yield names, halving(lambda some: backbone.encode_images(to_device(some)).float(), images, "pictures")
            bar.update(len(names))


class Encoder:
    """A CLIP's two encoders. Features of a frozen one are computed once, and kept in a folder for later commands.

    Processes of one job share the work out, and all have all of its features; the first one keeps the folder.
    """

    def __init__(
        self,
        backbone: Backbone,
        frozen: Sequence[str] = (),
        cache_folder: Path | None = None,
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

    def pictures(self, pictures: Pictures) -> Tensor:
        """Return features [pictures, dim], fp32 and not normalised."""

        def encode(numbers):
            chosen = Subset(pictures, numbers)
            return extract_index_features(chosen, self.backbone, self.num_workers, self.batch_size)[0]

        if "image" not in self.frozen:
            return distributed.shared_out(range(len(pictures)), encode)
        keys = [file_key(pictures.paths[name]) for name in pictures.names]
        in_parts = partial(self._in_parts, pictures)
        return self._kept("image", pictures.preprocess.settings, keys, in_parts)

    def missing(self, pictures: Pictures) -> list[str]:
        """Return the names of pictures whose features are not kept yet, of pictures with equal files one."""
        keys = [file_key(pictures.paths[name]) for name in pictures.names]
        store = self._store("image", pictures.preprocess.settings) if distributed.is_first() else None
        return distributed.broadcast(None if store is None else [pictures.names[at] for at in store.missing(keys)])

    def captions(self, captions: Sequence[str]) -> Tensor:
        """Return features [captions, dim], fp32 and not normalised."""

        def encode(numbers):
            return extract_caption_features([captions[number] for number in numbers], self.backbone, self.batch_size)

        if "text" not in self.frozen:
            return distributed.shared_out(range(len(captions)), encode)
        return self._kept("text", {}, captions, lambda missing: [(missing, distributed.shared_out(missing, encode))])

    @torch.inference_mode()
    def _in_parts(self, pictures: Pictures, missing: list[int]) -> Iterator[tuple[list[int], Tensor]]:
        """Yield (numbers, features) of `missing` pictures, some seconds' work at a time: all that a kill costs.

        Alone, an interruption costs nothing: what was encoded is given before it goes on.
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
            # All must take as many, or they would wait for each other.
            at_once = distributed.broadcast(max(1, min(2 * at_once, fitting)))

    def _kept(self, encoder, settings, keys, encode_in_parts):
        # One process asks the disk; the answer must be the same for all, or they would wait for each other.
        store = self._store(encoder, settings) if distributed.is_first() else None
        missing = distributed.broadcast(None if store is None else store.missing(keys))
        for positions, rows in encode_in_parts(missing) if missing else ():
            if store is not None:
                store.add([keys[position] for position in positions], [rows.cpu().numpy()])
        rows = distributed.broadcast(None if store is None else torch.from_numpy(store.read(keys)))
        return rows.to(device)

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


class OneEncoder(nn.Module):
    """One of CLIP's encoders as a module of its own, for pixels [rows, dim, dim, 3] or tokens [rows, context]."""

    def __init__(self, backbone: Backbone, encoder: str):
        super().__init__()
        self.backbone, self.clip_model, self.encoder = backbone, backbone.model, encoder

    def learning(self) -> dict[str, nn.Parameter]:
        """Return those of its weights that learn, by their names in this module."""
        return {
            f"clip_model.{name}": weight
            for name, weight in self.clip_model.named_parameters()
            if weight.requires_grad and self.backbone.encoder_of(name) == self.encoder
        }

    def forward(self, rows: Tensor) -> Tensor:
        if self.encoder == "image":  # normalised as late as here: a card need not hold a whole batch in fp32
            return self.backbone.encode_images(normalised(rows, self.backbone.normalisation))
        return self.backbone.encode_tokens(rows)

    def in_pieces(self, rows: Tensor, size: int | None) -> Tensor:
        """Return features [rows, dim], with `size` rows in memory at a time; None is all of them."""
        # `learning` at each call, since it needs the weights that the module has now.
        return in_pieces(self, rows, size, self.learning())


def _current_precision():
    enabled = torch.is_autocast_enabled(device.type)
    # The features of each precision are kept apart.
    return str(torch.get_autocast_dtype(device.type) if enabled else torch.float32).removeprefix("torch.")


# ---- what is asked ----


def read_data(task: Task, data_path: Path, *names: str, skip_missing: bool = False) -> dict[str, dict[str, Split]]:
    """Read splits by name, before CLIP is loaded: {name: {category: Split}}.

    Raises InputError for faulty annotations and, unless `skip_missing`, for pictures that are missing, empty or not
    pictures at first sight.
    """
    data = {name: task.read_all(data_path, name) for name in names}
    if not skip_missing:
        splits = [split for categories in data.values() for split in categories.values()]
        require_present(path for split in splits for path in split.pictures.values())
    return data


# ---- what answers ----


def load_clip(clip_model_name: str, clip_model_path: Path | None = None) -> Backbone:
    """Load a CLIP on the device, in fp32 and eval mode, with the weights of a stage-1 checkpoint over its own.

    `clip_model_name` is a name that its library downloads, or a file: a plain state dict, OpenAI's TorchScript archive,
    a stage-1 checkpoint, or Hugging Face's, which its folder names too. Raises InputError when either cannot be loaded.
    """
    # A file needs no turn: all processes may read it at once.
    if Path(clip_model_name).exists():
        backbone = load_backbone(clip_model_name)
    else:
        with distributed.in_turn():  # the first process downloads it
            backbone = load_backbone(clip_model_name)
    if clip_model_path is not None:
        backbone.load_over(clip_model_path)
    return backbone.to(device)


def model_label(clip_model_name: str) -> str:
    """Return a CLIP's name as a part of a file name: a file's stem, or the name with dashes for slashes and colons."""
    # A name may have files among its parts.
    whole = Path(clip_model_name).exists()
    parts = [Path(part) for part in ([clip_model_name] if whole else clip_model_name.split(":"))]
    said = [part.stem if part.is_file() else part.name if part.is_dir() else str(part) for part in parts]
    return "-".join(said).replace("/", "-")


# ---- training ----


def update_train_running_results(train_running_results: dict, loss: Tensor, images_in_batch: int) -> None:
    """Add a batch's mean loss to the epoch's sums, "accumulated_train_loss" and "images_in_epoch"."""
    # Weighed by the size of the batch, as published.
    train_running_results["accumulated_train_loss"] += loss.item() * images_in_batch
    train_running_results["images_in_epoch"] += images_in_batch


def mean_train_loss(train_running_results: dict) -> float:
    """Return the epoch's mean loss so far."""
    return train_running_results["accumulated_train_loss"] / train_running_results["images_in_epoch"]


def set_train_bar_description(train_bar, epoch: int, num_epochs: int, train_running_results: dict) -> None:
    """Show the epoch and its mean loss so far on the progress bar."""
    description = f"[{epoch}/{num_epochs}] train loss: {mean_train_loss(train_running_results):.3f}"
    train_bar.set_description(description, refresh=False)  # the bar redraws itself ten times a second


def save_model(
    name: str, cur_epoch: int, model_to_save: nn.Module, training_path: Path, facts: dict | None = None
) -> None:
    """Write `checkpoint_content` to saved_models/<name>.pt of the run folder `training_path`."""
    write_checkpoint(checkpoint_path(training_path, name), checkpoint_content(cur_epoch, model_to_save, facts))


def checkpoint_content(epoch: int, model: nn.Module, facts: dict | None = None) -> dict:
    """Return {"epoch", <class name>: state dict}, and of a ModuleDict each module under its own key.

    `facts`, plain values, are what a checkpoint tells of itself.
    """
    models = model if isinstance(model, nn.ModuleDict) else {type(model).__name__: model}
    content = {"epoch": epoch} | {key: part.state_dict() for key, part in models.items()}
    return content if facts is None else content | {"facts": facts}
