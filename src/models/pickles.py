"""Pickles of tensors and plain values, read without calling anything but what this file lists.

Not torch.load(weights_only=True): it ran code of a file before torch 2.6 (CVE-2025-32434) and corrupted memory before
2.10 (CVE-2026-24747), and this project takes torch from 2.4 on.
"""

import io
import math
import pickle
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from src.models.archive import Unreadable

DEPTH = 100
"""How deep lists and dicts may be nested."""
VALUES = 10_000_000
"""How many values a content may have, each counted as often as it stands there."""
KEYS = str, int, float, bytes, type(None)
"""What may be a key. The hash of a tuple takes for ever when it holds itself many times."""
Storages = Callable[[str, torch.dtype, int], Tensor]
"""From a storage's key, type and number of values to these, flat."""


TAKEN_OVER = (
    "PROTO STOP MARK GLOBAL REDUCE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_TUPLE EMPTY_DICT EMPTY_LIST EMPTY_SET NONE NEWTRUE "
    "NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE SHORT_BINSTRING BINPERSID BINGET LONG_BINGET BINPUT "
    "LONG_BINPUT APPEND APPENDS"
)
"""The opcodes that torch's writers use and that Python carries out harmlessly."""


class Reader(pickle._Unpickler):
    """A reader of one pickle after the other, for what torch.save writes of tensors, parameters and plain values.

    It is Python's reader in Python, as the one in C takes the memory that a pickle only claims to need.
    """

    def __init__(self, file: io.BytesIO, storages: Storages | None):
        """Without `storages` each tensor is None."""
        super().__init__(file, encoding="utf-8")
        self._storages = storages

    def find_class(self, module: str, name: str) -> object:
        """Return what stands for a global here; raises Unreadable for all that is not listed."""
        known = f"{module.replace('__builtin__', 'builtins')}.{name}"
        if known not in GLOBALS:
            raise Unreadable(f"it needs {known}, which is code; save it again with only tensors and plain values")
        return GLOBALS[known]

    def persistent_load(self, pid: tuple) -> Tensor | None:
        """Return the storage that `pid` names: ("storage", type, key, device, count)."""
        kind, dtype, key, _, count, *view = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype) or not _are_sizes([count]) or any(view):
            raise Unreadable("its tensors are described in a way that torch does not use")
        return None if self._storages is None else self._storages(str(key), dtype, count)

    def make(self, kind: object) -> object:
        """Return an empty object of what `find_class` gave; none of those listed is made in this way."""
        raise Unreadable(f"it makes a {type(kind).__name__}, which is not a value")

    def set_state(self, target: object, state: object) -> None:
        """Take the versions of a state dict, and no other attribute of anything."""
        if type(target) is OrderedDict and isinstance(state, dict) and "_metadata" in state:
            target._metadata = state["_metadata"]

    def load_newobj(self) -> None:
        self.stack.pop()
        self.stack[-1] = self.make(self.stack[-1])

    def load_build(self) -> None:
        state = self.stack.pop()
        self.set_state(self.stack[-1], state)

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._add([(key, value)])

    def load_setitems(self) -> None:
        items = self.pop_mark()
        self._add(zip(items[::2], items[1::2], strict=True))

    def _add(self, pairs):
        if not isinstance(self.stack[-1], dict):
            raise Unreadable(f"a {type(self.stack[-1]).__name__} is filled like a dict")
        self.stack[-1].update(_with_plain_keys(pairs))

    # An opcode that is not listed is a KeyError.
    dispatch = {
        getattr(pickle, name)[0]: pickle._Unpickler.dispatch[getattr(pickle, name)[0]] for name in TAKEN_OVER.split()
    } | {
        pickle.NEWOBJ[0]: load_newobj,
        pickle.BUILD[0]: load_build,
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
    }


def require_plain(content: object) -> None:
    """Raise Unreadable for a content without end, or one that a few bytes of a pickle make endless to look at."""
    if _count(content, 0, {}) > VALUES:
        raise Unreadable(f"it holds more than {VALUES:,} values, most of them the same again")


def _count(value, depth, counted):
    if not isinstance(value, (dict, list, tuple, set)):
        return 1
    if depth > DEPTH:
        raise Unreadable(f"its values are nested more than {DEPTH} deep")
    # What stands there many times is looked at once.
    if id(value) not in counted:
        inner = value.values() if isinstance(value, dict) else value
        counted[id(value)] = 1 + sum(_count(one, depth + 1, counted) for one in inner)
    return counted[id(value)]


def _with_plain_keys(pairs: Iterable[tuple]) -> dict:
    pairs = list(pairs)
    if not all(isinstance(key, KEYS) for key, _ in pairs):
        raise Unreadable("it has keys that are neither names nor numbers")
    return dict(pairs)


def _are_sizes(numbers):
    return all(type(number) is int and 0 <= number < 2**63 for number in numbers)


def _tensor(values, offset, size, stride, *_):
    """Return the tensor of torch._utils._rebuild_tensor_v2; what follows `stride` matters only in training."""
    if values is None:
        return None
    fits = len(size) == len(stride) <= 64 and _are_sizes((offset, *size, *stride))
    if fits and 0 not in size:
        last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
        # A tensor of more values than its file has would cost memory out of nothing.
        fits = last < len(values) and math.prod(size) <= len(values)
    if not fits or offset > len(values):
        raise Unreadable("a tensor does not lie within the values that are there for it")
    return values.as_strided(size, stride, offset)


def _tensor_of_type(values, offset, size, stride, grad, hooks, dtype, *_):
    return None if values is None else _tensor(values.view(dtype), offset, size, stride)


def _parameter(tensor, *_):
    return tensor


def _tensor_with_attributes(rebuild, kind, arguments, state):
    return rebuild(*arguments)


def _ordered_dict(pairs=()):
    return OrderedDict(_with_plain_keys(pairs))


def _counter(counts=()):
    return Counter(_with_plain_keys(dict(counts).items()))


def _set(values=()):
    return set(_with_plain_keys((value, None) for value in values))


def _bytes(text, encoding):
    return text.encode("latin1")


DTYPES = [value for value in vars(torch).values() if isinstance(value, torch.dtype)]
STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
}
GLOBALS = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_type,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._tensor._rebuild_from_type_v2": _tensor_with_attributes,
    "torch.Tensor": "Tensor",
    "torch.nn.parameter.Parameter": "Parameter",
    "torch.storage.UntypedStorage": torch.uint8,
    "torch.Size": torch.Size,
    "torch.device": torch.device,
    "collections.OrderedDict": _ordered_dict,
    "collections.Counter": _counter,
    "builtins.set": _set,
    "builtins.complex": complex,
    "_codecs.encode": _bytes,
    **{str(dtype): dtype for dtype in DTYPES},
    **{f"{place}.{name}": dtype for place in ("torch", "torch.cuda") for name, dtype in STORAGES.items()},
}
"""{what a pickle may name: what is taken for it}"""
