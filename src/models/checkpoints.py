"""Checkpoints: what a training writes of its weights, and where."""

import copy
import errno
from pathlib import Path

import torch
from torch import nn

from src.base.errors import in_a_line
from src.base.files import replacing


def checkpoint_path(run_folder: Path | str, name: str) -> Path:
    """Return where a run keeps the weights called `name`."""
    return Path(run_folder) / "saved_models" / f"{name}.pt"


def checkpoint_content(epoch: int, model: nn.Module, facts: dict | None = None) -> dict:
    """Return {"epoch", <class name>: state dict}, and of a ModuleDict each module under its own key.

    `facts`, plain values, are its metadata.
    """
    models = model if isinstance(model, nn.ModuleDict) else {type(model).__name__: model}
    content = {"epoch": epoch} | {key: part.state_dict() for key, part in models.items()}
    return content if facts is None else content | {"facts": facts}


def write_checkpoint(path: Path, content: dict) -> None:
    """Write `content`, of tensors and plain values, to `path`; a full disk raises OSError with the size needed."""
    with replacing(path) as unfinished:
        try:
            torch.save(content, unfinished)
        except RuntimeError as error:  # what torch's writer makes of a failed write
            needed = f"cannot be written, it needs {size_of(content) / 1e9:.3f} GB ({in_a_line(error)})"
            raise OSError(errno.ENOSPC, needed, str(path)) from None


def snapshot(content):
    """Return a copy of nested dicts, lists and tuples, with copies of their tensors on the CPU."""
    if isinstance(content, torch.Tensor):
        return content.detach().to("cpu", copy=True)
    if isinstance(content, dict):
        copied = copy.copy(content)  # a state dict also has attributes
        copied.update((key, snapshot(value)) for key, value in content.items())
        return copied
    return type(content)(map(snapshot, content)) if isinstance(content, (list, tuple)) else content


def size_of(content) -> int:
    """Return the bytes of all tensors in nested dicts and lists."""
    if isinstance(content, torch.Tensor):
        return content.numel() * content.element_size()
    if isinstance(content, dict):
        return sum(map(size_of, content.values()))
    return sum(map(size_of, content)) if isinstance(content, (list, tuple)) else 0
