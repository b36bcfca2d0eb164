"""A card where there is none: tensors say that they are on CUDA, and the CPU computes them, with the CPU's bits.

Each storage knows its place, so views, parameters and autograd need no help. An operation on tensors of both places
raises as on a card, and whatever lets the host wait for the card is kept, as torch.cuda.set_sync_debug_mode tells it.
"""

import contextlib
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import utils
from src.base.files import PROJECT_ROOT

CARD, CPU, META = torch.device("cuda", 0), torch.device("cpu"), torch.device("meta")
aten = torch.ops.aten
# The host has to know what is in their results, or how large they are.
ANSWERING = {aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten.equal, aten.bincount}
ANSWERING |= {aten._unique2, aten.unique_dim, aten.unique_consecutive, aten.repeat_interleave}
INDEXING = {aten.index, aten._unsafe_index, aten.index_put, aten.index_put_, aten._index_put_impl_}
FROM_HOST = {torch.tensor, torch.as_tensor, torch.asarray}
UP, DOWN = "blocking copy to the card", "blocking copy to the host"
NO_FUNCTION_MODE = torch._C.DisableTorchFunction


class Wait(NamedTuple):
    """A place where the host waits for the card."""

    what: str
    ours: str
    """Line of the project's code."""
    library: str
    """Line of a library's code that it calls, torch's left aside."""


class PretendedCard:
    """A device for commands that run in this process, without workers; `waits` lists when the host waited for it."""

    def __init__(self):
        self.waits: list[Wait] = []
        self.call = 0
        self.calls, self._kernels = _Calls(self), _Kernels(self)

    @contextlib.contextmanager
    def inserted(self, monkeypatch):
        """Pretend while the context is open. A command's modules have to be imported before, to be given the device."""
        with monkeypatch.context() as patches:
            cpu = utils.device
            for module in filter(None, list(sys.modules.values())):
                if vars(module).get("device") is cpu:
                    patches.setattr(module, "device", torch.device("cuda"))
            _patch_tensors(patches, self)
            _patch_torch(patches, self)
            with self.calls, self._kernels:
                yield

    def wait(self, what: str) -> None:
        """Keep that the host waits here."""
        frame, library = sys._getframe(1), ""
        while True:
            path = Path(frame.f_code.co_filename)
            line = f"{path.name}:{frame.f_lineno}"
            is_ours = path.is_relative_to(PROJECT_ROOT) and ".venv" not in path.parts
            if is_ours and path != Path(__file__):
                break
            if not is_ours and not library and "torch" not in path.parts:
                library = line
            frame = frame.f_back
        self.waits.append(Wait(what, line, library))

    def compute(self, func, args, kwargs):
        """Run an operation of torch, unless a card would refuse; its results are on the card where they would be."""
        of_card = _is_card(kwargs.get("device"))
        if of_card:
            kwargs = kwargs | {"device": CPU}
        tensors = _tensors((args, kwargs))
        if func.overloadpacket is aten.copy_:
            self._copy(*args)
            return func(*args, **kwargs)
        if any(map(_on_card, tensors)):
            of_card = True
            self._look_for_waits(func, args, kwargs)
            self._require_card(func, args, kwargs, tensors)
        results = func(*args, **kwargs)
        for tensor in _tensors(results):
            if of_card:
                _put(tensor)
            elif all(map(self._is_passing, tensors)):
                tensor.untyped_storage().call = self.call
        return results

    def _is_passing(self, tensor) -> bool:
        """Whether a tensor was made within the call of torch that is running, for its own use."""
        # C++ makes them like another, whose device it takes for the CPU: on a card they are on the card.
        return getattr(tensor.untyped_storage(), "call", None) == self.call

    def _copy(self, to, of, non_blocking=False):
        if _on_card(to) == _on_card(of):
            return
        of_cpu = of if _on_card(to) else to
        if self._is_passing(of_cpu):
            _put(of_cpu)
        elif not non_blocking:
            self.wait(UP if _on_card(to) else DOWN)

    def _look_for_waits(self, func, args, kwargs):
        name = func.overloadpacket
        if name in ANSWERING and kwargs.get("output_size") is None:
            self.wait(f"answer of {name}")
        if name in INDEXING and _on_card(args[0]):
            indices = _tensors(args[1])
            masks = [index for index in indices if index.dtype in (torch.bool, torch.uint8)]
            fills = len(args) > 2 and args[2].numel() == 1 and len(masks) == len(indices)
            if masks and not fills:  # torch fills behind a mask without counting
                self.wait("mask as index")
            if not all(_on_card(index) or self._is_passing(index) for index in indices):
                self.wait(f"{UP} of an index")

    def _require_card(self, func, args, kwargs, tensors):
        if func.overloadpacket in INDEXING and _on_card(args[0]):
            tensors = [args[0], *args[2:3]]  # an index may be anywhere
        for tensor in tensors:
            if not _on_card(tensor) and self._is_passing(tensor):
                _put(tensor)
            # A number may be on the CPU, unless it is written to.
            if not _on_card(tensor) and (tensor.dim() > 0 or _is_written(tensor, func, args, kwargs)):
                found = f"found at least two devices, {CARD} and cpu! ({func}: {list(tensor.shape)} is on the CPU)"
                raise RuntimeError(f"Expected all tensors to be on the same device, but {found}")


class _Calls(TorchFunctionMode):
    """Count the calls of torch, and put on the card what is made for it."""

    def __init__(self, card):
        self.card = card

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.card.call += 1
        kwargs = {name: value for name, value in (kwargs or {}).items() if name != "pin_memory"}
        device = kwargs.get("device")
        if device is None:
            if func is Tensor.__setitem__ and not isinstance(args[2], Tensor) and _on_card(args[0]):
                args = (*args[:2], torch.full((), args[2], device=CARD))  # not copied: the card makes it
            return func(*args, **kwargs)
        if torch.device(device).type == "meta":  # neither here nor there
            return func(*args, **kwargs)
        made = func(*args, **(kwargs | {"device": CPU}))
        with NO_FUNCTION_MODE():
            if _is_card(device) and func in FROM_HOST and not any(map(_on_card, _tensors(args))):
                self.card.wait(UP)
            for tensor in _tensors(made):
                _put(tensor, _is_card(device))
        return made


class _Kernels(TorchDispatchMode):
    """Hand the card every operation, below autograd and autocast."""

    def __init__(self, card):
        super().__init__()
        self.card = card

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        with NO_FUNCTION_MODE():
            return self.card.compute(func, args, kwargs or {})


def _is_card(device) -> bool:
    return device is not None and torch.device(device).type == "cuda"


def _tensors(values) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def _on_card(tensor: Tensor) -> bool:
    with NO_FUNCTION_MODE():
        return getattr(tensor.untyped_storage(), "on_card", False)


def _device(tensor: Tensor) -> torch.device:
    return META if tensor.is_meta else CARD if _on_card(tensor) else CPU


def _put(tensor: Tensor, on_card: bool = True) -> None:
    tensor.untyped_storage().on_card = on_card


def _is_written(tensor, func, args, kwargs) -> bool:
    arguments = func._schema.arguments
    values = [*args, *(kwargs.get(argument.name) for argument in arguments[len(args) :])]
    written = [
        value
        for argument, value in zip(arguments, values, strict=True)
        if argument.alias_info and argument.alias_info.is_write
    ]
    return any(tensor is one for one in _tensors(written))


def _patch_tensors(patches, card: PretendedCard) -> None:
    """Let tensors say where they are, and move there and back."""
    to, numpy, tolist = Tensor.to, Tensor.numpy, Tensor.tolist

    def moved(tensor, *args, copy=False, **kwargs):
        if args and isinstance(args[0], Tensor):
            args = (args[0].device, args[0].dtype, *args[1:])
        with NO_FUNCTION_MODE():
            device, dtype, non_blocking, memory_format = torch._C._nn._parse_to(*args, **kwargs)
        more = {} if memory_format is None else {"memory_format": memory_format}
        is_there = device is None or _is_card(device) == _on_card(tensor)
        result = to(tensor, dtype or tensor.dtype, copy=copy or not is_there, **more)
        if not is_there:
            if not non_blocking:
                card.wait(UP if _is_card(device) else DOWN)
            with NO_FUNCTION_MODE():
                _put(result, _is_card(device))
        return result

    def as_numpy(tensor, *args, **kwargs):
        if _on_card(tensor):
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")
        return numpy(tensor, *args, **kwargs)

    patches.setattr(
        Tensor, "device", property(lambda tensor: META if tensor.is_meta else CARD if _on_card(tensor) else CPU)
    )
    patches.setattr(Tensor, "is_cuda", property(_on_card))
    patches.setattr(Tensor, "to", moved)
    patches.setattr(Tensor, "cpu", lambda tensor: moved(tensor, CPU))
    patches.setattr(Tensor, "cuda", lambda tensor, device=CARD, **options: moved(tensor, device, **options))
    patches.setattr(Tensor, "numpy", as_numpy)
    patches.setattr(Tensor, "tolist", lambda tensor: tolist(moved(tensor, CPU)))
    patches.setattr(Tensor, "pin_memory", lambda tensor, *_: tensor.clone())


def _patch_torch(patches, card: PretendedCard) -> None:
    """Let torch do what it would with a card, as far as training and ranking ask it."""
    run_backward = torch.autograd._engine_run_backward

    def backward(*args, **kwargs):
        with card.calls:  # which torch has left for this
            return run_backward(*args, **kwargs)

    def grouped(lists, with_indices=False):
        groups = torch._C._group_tensors_by_device_and_dtype(lists, with_indices)
        return {(group[0][0][0].device, dtype): group for (_, dtype), group in groups.items()}

    patches.setattr(torch.autograd, "_engine_run_backward", backward)
    patches.setattr(torch.optim.Optimizer, "_group_tensors_by_device_and_dtype", staticmethod(grouped))
    if hasattr(torch, "accelerator"):  # torch 2.6
        patches.setattr(torch.accelerator, "is_available", lambda: True)  # a DataLoader pins then
        patches.setattr(torch.accelerator, "current_stream", lambda: SimpleNamespace(is_capturing=lambda: False))
    patches.setattr(torch.cuda, "is_available", lambda: True)
    patches.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    patches.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    patches.setattr(torch.cuda, "get_device_name", lambda: "a pretended card")
    patches.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    patches.setattr(torch.cuda, "_lazy_init", lambda: None)
    patches.setattr(torch.cuda, "get_rng_state", torch.get_rng_state)
    patches.setattr(torch.cuda, "set_rng_state", torch.set_rng_state)
    patches.setattr(torch.cuda, "synchronize", lambda: card.wait("synchronize"))
    for name in ("is_autocast_enabled", "set_autocast_enabled", "get_autocast_dtype", "set_autocast_dtype"):
        patches.setattr(torch, name, _for_the_cpu(getattr(torch, name)))


def _for_the_cpu(function):
    """Return a function on autocast that does with the CPU what it is asked to do with a card."""
    return lambda device="cpu", *values: function("cpu" if device == "cuda" else device, *values)
