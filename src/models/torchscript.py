"""The weights in a TorchScript archive, read without running its code.

torch.jit.load compiles the classes of such an archive and runs their __setstate__, whatever that does.
"""

import io
import re
from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor

from src.models.archive import Archive, Unreadable
from src.models.pickles import Reader

MODULES = 100_000
"""How many modules are looked at; a large CLIP has a hundredth of that."""
LONGEST = 1_000
"""Letters of a weight's name."""


class Kind(NamedTuple):
    """A class of the archive's own code, by its name."""

    module: str
    name: str


class Object:
    """An object of the archive, as it was saved."""

    def __init__(self, kind: Kind):
        self.kind, self.state = kind, None


class ScriptReader(Reader):
    """A reader of TorchScript's pickles, in which objects are no more than their states."""

    def find_class(self, module: str, name: str) -> object:
        if module.startswith("__torch__"):
            return Kind(module, name)
        return HELPERS[name] if module == "torch.jit._pickle" and name in HELPERS else super().find_class(module, name)

    def make(self, kind: object) -> object:
        return Object(kind) if isinstance(kind, Kind) else super().make(kind)

    def set_state(self, target: object, state: object) -> None:
        if not isinstance(target, Object):
            super().set_state(target, state)
        target.state = state


def _as_it_is(value, *_):
    return value


HELPERS = dict.fromkeys(
    ("build_intlist", "build_tensorlist", "build_doublelist", "build_boollist", "restore_type_tag"), _as_it_is
)
"""What TorchScript puts around lists and dicts, which says their type."""


def read_torchscript(archive: Archive) -> dict[str, Tensor]:
    """Return what torch.jit.load(...).state_dict() would; raises Unreadable."""
    model = ScriptReader(io.BytesIO(archive.read("data.pkl")), archive.storage).load()
    return dict(_tensors(model, _Classes(archive)))


def _tensors(model: object, classes: "_Classes") -> Iterator[tuple[str, Tensor]]:
    """Yield the names and tensors of a module's parameters and buffers, then those of its modules."""
    waiting, seen = [("", model)], 0
    while waiting:
        prefix, module = waiting.pop()
        for name in classes.weights(module):
            if isinstance(module.state.get(name), Tensor):
                yield f"{prefix}{name}", module.state[name]
        inner = [(f"{prefix}{name}.", value) for name, value in module.state.items() if classes.is_module(value)]
        seen += len(inner)
        # One that holds itself, or two of one that holds two of one ..., would never end.
        if seen > MODULES or any(len(name) > LONGEST for name, _ in inner):
            raise Unreadable("its modules are nested without end")
        waiting += reversed(inner)


class _Classes:
    """What an archive's own code says of its classes. The code is looked at as text, and nothing of it runs."""

    def __init__(self, archive: Archive):
        self._archive = archive
        self._files = {}

    def is_module(self, value: object) -> bool:
        """Whether a value is a module, rather than an object of another class."""
        return isinstance(value, Object) and re.match(r"\w+\(Module\):", self._text(value.kind)) is not None

    def weights(self, module: object) -> list[str]:
        """Return the names of a module's parameters and buffers; raises Unreadable when only code can restore it."""
        if not self.is_module(module):
            raise Unreadable(f"it holds a {type(module).__name__} where a module is expected")
        text = self._text(module.kind)
        if "\n  def __setstate__" in text or not isinstance(module.state, dict):
            name = re.sub(r"___torch_mangle_\d+\.", "", f"{module.kind.module}.{module.kind.name}")
            raise Unreadable(
                f"its {name} is restored by the file's code, which never runs; save its state dict instead"
            )
        lists = (re.search(rf"^  __{kind}__ = \[(.*)\]$", text, re.MULTILINE) for kind in ("parameters", "buffers"))
        return [name for found in lists if found for name in re.findall(r'"([^"]*)"', found[1])]

    def _text(self, kind: Kind) -> str:
        """Return the text of a class, without the word `class`; "" where the archive has none."""
        if kind.module not in self._files:
            entry = f"code/{kind.module.replace('.', '/')}.py"
            code = self._archive.read(entry).decode() if entry in self._archive else ""
            classes = re.split(r"^class ", code, flags=re.MULTILINE)[1:]
            self._files[kind.module] = {re.match(r"\w*", text)[0]: text for text in classes}
        return self._files[kind.module].get(kind.name, "")
