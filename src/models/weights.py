"""Weights in files: plain state dicts, checkpoints that hold one under a name, and TorchScript archives."""

import errno
import hashlib
import warnings
import zipfile
from pathlib import Path

import torch
from torch import Tensor, nn

from src.base.errors import InputError, in_a_line
from src.base.files import replacing


def read_weights(path: Path | str, name: str) -> dict[str, Tensor]:
    """Read the state dict in the file at `path`, to the CPU: plain, under the key `name`, or a TorchScript archive's.

    Never runs code from the file. Raises InputError when there is no such file or it holds no weights of that name.
    """
    content = read_content(path)
    if isinstance(content, dict) and isinstance(content.get(name), dict):
        content = content[name]
    if not isinstance(content, dict) or not content:
        raise InputError(f"{path}: holds a {type(content).__name__} where weights of a {name} are expected")
    if not all(isinstance(tensor, torch.Tensor) for tensor in content.values()):
        raise InputError(f"{path}: holds {in_a_line(list(content))} where weights of a {name} are expected")
    # OpenAI's archives list these sizes among their weights.
    sizes = "input_resolution", "context_length", "vocab_size"
    return {key: tensor for key, tensor in content.items() if key not in sizes}


def load_weights(model: nn.Module, weights: dict[str, Tensor], path: Path | str) -> None:
    """Load the state dict `weights`, read from `path`, into `model`; raises InputError with the first that differs."""
    expected = model.state_dict()
    name = type(model).__name__
    # torch's own error lists every key in a page; the first one tells enough.
    for key, tensor in expected.items():
        if key not in weights:
            raise InputError(f"{path}: its weights do not fit this {name}, they lack {key}")
        if weights[key].shape != tensor.shape:
            shapes = f"{list(weights[key].shape)}, not {list(tensor.shape)}"
            raise InputError(f"{path}: its weights do not fit this {name}, {key} is {shapes}")
    unknown = [key for key in weights if key not in expected]
    if unknown:
        raise InputError(f"{path}: its weights do not fit this {name}, which has no {unknown[0]}")
    model.load_state_dict(weights)


def weights_digest(weights: dict[str, Tensor]) -> str:
    """Return the SHA-256, in hexadecimal, of a state dict: its names, types, shapes and every value."""
    digest = hashlib.sha256()
    for name, tensor in weights.items():
        # Name, type and shape too: the same bytes could be cut into tensors differently.
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def read_content(path: Path | str):
    """Read what the file at `path` holds, to the CPU; never runs code from it.

    Raises InputError when it cannot be read.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # TorchScript is deprecated, and torn files make torch's reader wonder
            if _is_torchscript(path):
                return dict(torch.jit.load(path, map_location="cpu").state_dict())
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what torch's readers raise for a torn file may be anything
        raise InputError(f"{path}: cannot be read as weights ({in_a_line(error)})") from None


def write_checkpoint(path: Path, content: dict) -> None:
    """Write `content`, of tensors and plain values, to `path`; a full disk raises OSError with the size needed."""
    with replacing(path) as unfinished:
        try:
            torch.save(content, unfinished)
        except RuntimeError as error:  # what torch's writer makes of a failed write
            needed = f"cannot be written, it needs {size_of(content) / 1e9:.3f} GB ({in_a_line(error)})"
            raise OSError(errno.ENOSPC, needed, str(path)) from None


def size_of(content) -> int:
    """Return the bytes of all tensors in nested dicts and lists."""
    if isinstance(content, torch.Tensor):
        return content.numel() * content.element_size()
    if isinstance(content, dict):
        return sum(map(size_of, content.values()))
    return sum(map(size_of, content)) if isinstance(content, (list, tuple)) else 0


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())
