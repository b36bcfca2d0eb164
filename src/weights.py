"""Weights from files: plain state dicts, checkpoints that hold one under a name, and TorchScript archives."""

import hashlib
import warnings
import zipfile
from pathlib import Path

import torch

from src.errors import InputError, in_a_line


def read_weights(path, name):
    """The state dict, on the CPU, in the file at `path`: plain, under the key `name`, or of a TorchScript archive.

    Never runs code from the file. Raises InputError when there is no such file or it holds no weights of that name.
    """
    content = read_content(path)
    if isinstance(content, dict) and isinstance(content.get(name), dict):
        content = content[name]
    if not isinstance(content, dict) or not content:
        raise InputError(f"{path}: holds a {type(content).__name__} where weights of a {name} are expected")
    if not all(isinstance(tensor, torch.Tensor) for tensor in content.values()):
        raise InputError(f"{path}: holds {in_a_line(list(content))} where weights of a {name} are expected")
    return dict(content)


def read_facts(path):
    """The plain values that the checkpoint at `path` tells of itself, {} where it tells nothing or cannot be read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)  # without reading its tensors
    except Exception:  # whatever it is, reading the weights will say so; TorchScript archives tell nothing
        return {}
    facts = content.get("facts") if isinstance(content, dict) else None
    return facts if isinstance(facts, dict) else {}


def load_weights(model, weights, path):
    """Load the state dict `weights`, read from `path`, into `model`; raises InputError with the first that differs."""
    expected = model.state_dict()
    name = type(model).__name__
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


def weights_digest(weights):
    """SHA-256, in hexadecimal, of a state dict: names, types, shapes and every value."""
    digest = hashlib.sha256()
    for name, tensor in weights.items():
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def read_content(path):
    """What the file at `path` holds, on the CPU; never runs code from it, raises InputError when it cannot be read."""
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


def _is_torchscript(path):
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())
