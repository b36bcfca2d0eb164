"""Weights in files: plain state dicts, checkpoints that hold one under a name, and TorchScript archives."""

import copy
import errno
import hashlib
import re
import warnings
import zipfile
from pathlib import Path

import torch
from torch import Tensor, nn

from src.base.errors import InputError, in_a_line
from src.base.files import replacing


def read_weights(path: Path | str, name: str) -> dict[str, Tensor]:
    """Read a state dict as `read_state_dict` does; raises InputError also for one with Hugging Face's names."""
    weights = read_state_dict(path, name)
    if any(key.startswith(("vision_model.", "text_model.")) for key in weights):
        takes = "--clip-model-name takes it as model.safetensors or pytorch_model.bin, beside its config.json"
        raise InputError(f"{path}: a model of Hugging Face, whose weights have other names than a {name}'s; {takes}")
    return weights


def read_state_dict(path: Path | str, name: str) -> dict[str, Tensor]:
    """Read the state dict in the file at `path`, to the CPU: plain, under the key `name`, or a TorchScript archive's.

    Takes what other programs put around it off: the keys and prefixes in KEYS and PREFIXES. Never runs code from the
    file. Raises InputError when there is no such file or it holds no weights of that name.
    """
    content = read_content(path)
    for key in (name, *KEYS):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if not isinstance(content, dict) or not content:
        raise InputError(f"{path}: holds a {type(content).__name__} where weights of a {name} are expected")
    if not all(isinstance(key, str) and isinstance(tensor, torch.Tensor) for key, tensor in content.items()):
        raise InputError(f"{path}: holds {in_a_line(list(content))} where weights of a {name} are expected")
    for prefix in (prefix for _ in PREFIXES for prefix in PREFIXES):  # they may be nested either way
        if all(key.startswith(prefix) for key in content):
            content = {key.removeprefix(prefix): tensor for key, tensor in content.items()}
    # OpenAI's archives list these sizes among their weights.
    sizes = "input_resolution", "context_length", "vocab_size"
    return {key: tensor for key, tensor in content.items() if key not in sizes}


KEYS = "state_dict", "model_state_dict", "model"
"""Keys under which other programs keep a state dict."""
PREFIXES = "module.", "_orig_mod."
"""What DataParallel and torch.compile put before each name."""


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


def weights_digest(weights: dict[str, Tensor], network: str = "") -> str:
    """Return the SHA-256, in hexadecimal, of a state dict: its names, types, shapes and every value.

    `network` is what else decides a result.
    """
    digest = hashlib.sha256(network.encode())
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
        raise InputError(f"{path}: {'a folder, a file is needed' if path.is_dir() else 'no such file'}")
    foreign = _at_first_sight(path)
    if foreign:
        raise InputError(f"{path}: cannot be read as weights (it is {foreign})")
    reader = _safetensors_reader(path) if _is_safetensors(path) else None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # TorchScript is deprecated, and torn files make torch's reader wonder
            if reader is not None:
                return reader(path)
            if is_torchscript(path):
                return dict(torch.jit.load(path, map_location="cpu").state_dict())
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what torch's readers raise for a torn file may be anything
        raise InputError(f"{path}: cannot be read as weights ({_said_by_reader(error)})") from None


def _at_first_sight(path: Path) -> str | None:
    """Return what else a file is by its first bytes, and what to do then; None where it may hold weights."""
    with path.open("rb") as file:
        head = file.read(16)
    if not head:
        return "empty"
    found = (what for mark, what in NO_WEIGHTS.items() if head.lower().startswith(mark))
    return next(found, None)


NO_WEIGHTS = {
    b"version https://": "a pointer of Git LFS; `git lfs pull` replaces it by the file",
    b"<!doctype": "a web page; download the file again",
    b"<html": "a web page; download the file again",
    b"<?xml": "an answer of a server that has no such file; download it again",
    b"{": "a JSON file; the weights are beside it",
    b"\x1f\x8b": "a gzip archive; unpack it",
    b"\x89hdf": "an HDF5 file of another library",
    b"bzh": "a bzip2 archive; unpack it",
    b"7z": "a 7z archive; unpack it",
}
"""{what a file begins with, in lower case: what it then is}"""


def _is_safetensors(path: Path) -> bool:
    """Whether a file begins as a safetensors file does: the length of a JSON object, and that."""
    with path.open("rb") as file:
        head = file.read(9)
    return head[8:] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size


def _safetensors_reader(path):
    try:
        from safetensors.torch import load_file
    except ImportError:
        needed = "a safetensors file needs `pip install safetensors`"
        raise InputError(f"{path}: cannot be read as weights ({needed})") from None
    return load_file


def _said_by_reader(error: Exception) -> str:
    """Return what torch's reader says, in a line that names what the file would have to run."""
    needed = re.search(r"GLOBAL (\S+)", str(error))
    if needed:
        return f"it needs {needed[1]}, which is code; save it again with tensors and plain values alone"
    if "weights_only" in str(error):  # a page of torch's about its own options
        return "it is torn, or no file of weights"
    return in_a_line(error)


def checkpoint_path(run_folder: Path | str, name: str) -> Path:
    """Return where a run keeps the weights called `name`."""
    return Path(run_folder) / "saved_models" / f"{name}.pt"


def checkpoint_content(epoch: int, model: nn.Module, facts: dict | None = None) -> dict:
    """Return {"epoch", <class name>: state dict}, and of a ModuleDict each module under its own key.

    `facts`, plain values, are what a checkpoint tells of itself.
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


def is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript archive, the form in which OpenAI alone publishes its CLIPs."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())
