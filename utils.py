"""The front desk of models and features: the published helpers, and what scripts need of both."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path

from torch import nn

from src.base.device import device
from src.base.files import require_writable
from src.command.frame import one_line_errors
from src.models.backbone import ENCODERS, Backbone
from src.models.registry import load_clip, model_label
from src.models.weights import weights_digest
from src.processes.distributed import is_first, joining
from src.retrieval.encoder import (
    Encoder,
    caption_tokens,
    collate_fn,
    extract_caption_features,
    extract_index_features,
)
from src.retrieval.fusion import compared
from src.retrieval.gallery import Gallery
from src.retrieval.precision import autocast, say_device
from src.retrieval.retriever import Retriever, element_wise_sum, load_retriever
from src.retrieval.settings import Settings, settings
from src.tasks.captions import drawn_texts
from src.training.progress import set_train_bar_description, update_train_running_results

__all__ = [
    "ENCODERS",
    "Backbone",
    "Encoder",
    "Gallery",
    "Retriever",
    "Settings",
    "autocast",
    "caption_tokens",
    "collate_fn",
    "command",
    "compared",
    "device",
    "element_wise_sum",
    "extract_caption_features",
    "extract_index_features",
    "generate_randomized_fiq_caption",
    "is_first",
    "load_clip",
    "load_retriever",
    "model_label",
    "require_writable",
    "save_model",
    "say_device",
    "set_train_bar_description",
    "settings",
    "update_train_running_results",
    "weights_digest",
]


def command(main: Callable) -> Callable:
    """Make `main(argv)` a command whose errors are one line, by itself or as one of torchrun's processes."""
    return one_line_errors(joining(main))


def generate_randomized_fiq_caption(flattened_captions: Sequence[str], draws=random) -> list[str]:
    """Return one of its four training captions for each FashionIQ pair, by a uniform draw from `draws.random()`.

    `flattened_captions` holds a, b of the first pair, a, b of the second, …
    """
    pairs = zip(flattened_captions[::2], flattened_captions[1::2], strict=True)
    return [drawn_texts(pair)[int(4 * draws.random())] for pair in pairs]


def save_model(
    name: str, cur_epoch: int, model_to_save: nn.Module, training_path: Path | str, facts: dict | None = None
) -> None:
    """Write `checkpoint_content` to saved_models/<name>.pt of the run folder `training_path`."""
    from src.models.checkpoints import checkpoint_content, checkpoint_path, write_checkpoint  # late: for training only

    write_checkpoint(checkpoint_path(training_path, name), checkpoint_content(cur_epoch, model_to_save, facts))
