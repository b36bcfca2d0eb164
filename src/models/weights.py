"""Weights read from files: plain state dicts, checkpoints that hold one under a name, and TorchScript archives."""

import hashlib
import io
import json
from pathlib import Path

import torch
from torch import Tensor, nn

from src.base.errors import InputError, in_a_line, shown
from src.base.files import replacing
from src.base.hub import local_file
from src.base.reading import kind_of
from src.models.archive import BEGINNING, Archive, Unreadable, WeightsFile
from src.models.parts import CLIP, beginnings, state_dicts, take
from src.models.pickles import Reader, require_plain

KEYS = "state_dict", "model_state_dict", "model"
"""Keys under which other programs keep a state dict."""
FACTS = "facts"
"""The key of a checkpoint's metadata, also in the header of a safetensors file, which then holds JSON."""
TORCHSCRIPT = "constants.pkl"
"""An entry that every TorchScript archive has, and no other."""


def read_weights(path: Path | str, name: str, mark: str | None = CLIP) -> dict[str, Tensor]:
    """Read a state dict as `read_state_dict` does; raises InputError also for one with Hugging Face's names."""
    weights = read_state_dict(path, name, mark)
    if any(key.startswith(("vision_model.", "text_model.")) for key in weights):
        takes = "--clip-model-name takes it as model.safetensors or pytorch_model.bin, beside its config.json"
        raise InputError(f"{path}: a model of Hugging Face, whose weights have other names than a {name}'s; {takes}")
    return weights


def read_state_dict(path: Path | str, name: str, mark: str | None = CLIP) -> dict[str, Tensor]:
    """Read the weights of the network called `name` in the file at `path`, to the CPU, and no others.

    By its weight `mark` it is found under whatever key and prefix; without one, under its name. Never runs code from
    the file. Raises InputError when there is no such file, or it holds no weights, or others too that belong to it.
    """
    content = read_content(path)
    is_own = isinstance(content, dict) and FACTS in content
    taken = mark and take(content, name, mark, path, is_own)
    if taken is None:  # then loading says what is lacking, where there are weights at all
        taken = _only_state_dict(content, name, path)
    require_finite(taken, path)
    # OpenAI's archives list these sizes among their weights.
    sizes = "input_resolution", "context_length", "vocab_size"
    return {key: tensor for key, tensor in taken.items() if key not in sizes}


def _only_state_dict(content: object, name: str, path: Path | str) -> dict[str, Tensor]:
    """Return what lies under a key that may have the weights of a network called `name`, else the content itself."""
    keys = [key for key in (name, *KEYS) if isinstance(content, dict) and isinstance(content.get(key), dict)]
    inner = content[keys[0]] if keys else content
    if not isinstance(inner, dict) or not inner:
        raise InputError(f"{path}: holds a {type(inner).__name__} where weights of a {name} are expected")
    if not all(isinstance(key, str) and isinstance(tensor, Tensor) for key, tensor in inner.items()):
        raise InputError(f"{path}: holds {in_a_line(list(inner))} where weights of a {name} are expected")
    return inner


def read_beside(path: Path | str) -> dict[str, Tensor] | None:
    """Read the weights of the CLIP in a file of a Combiner; None where it holds none."""
    # Most files hold none, which their names show.
    return read_weights(path, "CLIP") if is_in(path, CLIP) else None


def is_in(path: Path | str, mark: str) -> bool:
    """Whether the file at `path` holds a network with the weight `mark`."""
    return bool(beginnings(state_dicts(read_content(path, tensors=False), Tensor | None), mark))


def has_weights(model: nn.Module, weights: dict[str, Tensor]) -> bool:
    """Whether a model's weights are these, in its own precision."""
    own = model.state_dict()
    return all(
        name in own and torch.equal(own[name].cpu(), value.to(own[name].dtype)) for name, value in weights.items()
    )


def require_finite(weights: dict[str, Tensor], path: Path | str) -> None:
    """Raise InputError, which names the weight, when one is NaN or infinite: every feature would be false."""
    for name, tensor in weights.items():
        values = tensor.double() if tensor.is_floating_point() and tensor.itemsize == 1 else tensor
        # The sum is quick and finite for nearly all that are.
        if values.is_floating_point() and not values.sum().isfinite() and not values.isfinite().all():
            raise InputError(f"{path}: {shown(name)} holds values that are not finite numbers (NaN or infinite)")


def load_weights(model: nn.Module, weights: dict[str, Tensor], path: Path | str) -> None:
    """Load the state dict `weights`, read from `path`, into `model`; raises InputError with the first that differs."""
    expected = model.state_dict()
    name = type(model).__name__
    # torch's own error lists every key in a page; the first one is enough.
    for key, tensor in expected.items():
        if key not in weights:
            raise InputError(f"{path}: its weights do not fit this {name}, they lack {key}")
        if weights[key].shape != tensor.shape:
            shapes = f"{list(weights[key].shape)}, not {list(tensor.shape)}"
            raise InputError(f"{path}: its weights do not fit this {name}, {key} is {shapes}")
    unknown = [key for key in weights if key not in expected]
    if unknown:
        raise InputError(f"{path}: its weights do not fit this {name}, which has no {in_a_line(unknown[0])}")
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


def read_content(path: Path | str, tensors: bool = True) -> object:
    """Read what the file at `path` holds, to the CPU; never runs code from it. Without `tensors` each is None.

    Raises InputError when it cannot be read, or is not what was written: see docs/reliability.md.
    """
    file = local_file(path)
    if not file.is_file():
        kind = kind_of(file)
        raise InputError(f"{path}: {f'{kind}, a file is needed' if kind else 'no such file'}")
    try:
        with WeightsFile(io.FileIO(file)) as opened:
            return _read(opened, tensors)
    except OSError as error:
        raise InputError(f"{path}: cannot be read as weights ({error.strerror})") from None
    # RuntimeError is torch's when there is no memory.
    except (Unreadable, RuntimeError, MemoryError) as error:
        raise InputError(f"{path}: cannot be read as weights ({in_a_line(error, longest=200)})") from None
    except Exception:  # what bytes that mean nothing lead to may be anything
        raise InputError(f"{path}: cannot be read as weights (it is torn, or no file of weights)") from None


def _read(file: WeightsFile, tensors: bool) -> object:
    head = file.read(16)
    if not head:
        raise Unreadable("it is empty")
    for mark, what in NO_WEIGHTS.items():
        if head.lower().startswith(mark):
            raise Unreadable(f"it is {what}")
    if head.startswith(BEGINNING):
        return _read_archive(Archive(file), tensors)
    # The length of a JSON object, and that.
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < file.seek(0, io.SEEK_END):
        return _read_safetensors(file.name, tensors)
    from src.models.legacy import read_legacy  # late: torch has not written it since 2020

    return read_legacy(file, tensors)


def _read_archive(archive: Archive, tensors: bool) -> object:
    if TORCHSCRIPT in archive:
        from src.models.torchscript import read_torchscript  # late: only OpenAI publishes its CLIPs so

        content = read_torchscript(archive) if tensors else {}
    else:
        if "byteorder" in archive and archive.read("byteorder") != b"little":
            raise Unreadable("it was saved on a machine with another order of bytes")
        content = Reader(io.BytesIO(archive.read("data.pkl")), archive.storage if tensors else None).load()
        require_plain(content)
    if tensors:
        archive.finish()
    return content


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


def _read_safetensors(path, tensors):
    """Return a state dict or, of a checkpoint that was shared, {"CLIP": state dict, …, "facts": …}."""
    try:
        from safetensors import SafetensorError
        from safetensors.torch import safe_open
    except ImportError:
        raise Unreadable("a safetensors file needs `pip install safetensors`") from None
    try:
        with safe_open(path, "pt") as file:
            weights = {name: file.get_tensor(name) if tensors else None for name in file.keys()}  # noqa: SIM118
            facts = (file.metadata() or {}).get(FACTS)
    except SafetensorError as error:
        raise Unreadable(in_a_line(error)) from None
    if facts is None:
        return weights
    content = {FACTS: json.loads(facts)}
    for full, tensor in weights.items():
        key, _, name = full.partition(".")
        content.setdefault(key, {})[name] = tensor
    return content


def write_safetensors(path: Path, content: dict) -> None:
    """Write what `checkpoint_content` gives as a safetensors file, whose reader gives it back without the epoch."""
    try:
        from safetensors.torch import save_file  # late: only sharing writes them
    except ImportError:
        needs = "needs safetensors; `pip install -r requirements/hub.txt` installs it"
        raise InputError(f"{path}: {needs}") from None

    weights = {
        f"{key}.{name}": tensor.detach().cpu().contiguous().clone()
        for key, state_dict in content.items()
        if key not in ("epoch", FACTS)
        for name, tensor in state_dict.items()
    }
    with replacing(path) as unfinished:
        save_file(weights, unfinished, {FACTS: json.dumps(content[FACTS])})


def is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript archive, the form in which only OpenAI publishes CLIPs."""
    try:
        with WeightsFile(io.FileIO(path)) as file:
            return TORCHSCRIPT in Archive(file)
    except Unreadable:  # reading it says so
        return False
