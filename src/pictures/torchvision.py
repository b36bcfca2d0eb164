"""torchvision's transforms, imported without the rest of torchvision."""

import importlib.util
import sys
from types import ModuleType


def import_transforms() -> ModuleType:
    """Import `torchvision.transforms`; clip, imported after this, imports no more of torchvision either."""
    # torchvision itself imports its models and operators, and with them torch's compiler: half of the time that a
    # command takes to begin. Transforms of PIL pictures need none of that. While they are imported an empty package
    # stands in for torchvision, and goes again: an import of torchvision finds all of it, with these same transforms.
    spec = None if "torchvision" in sys.modules else importlib.util.find_spec("torchvision")
    if spec is not None:
        stand_in = sys.modules["torchvision"] = importlib.util.module_from_spec(spec)
        try:
            importlib.import_module("torchvision.transforms")
            needs_more = any(stand_in in vars(sys.modules[name]).values() for name in _parts())
        except Exception:  # where the transforms of another version need the rest, it may be any
            needs_more = True
        del sys.modules["torchvision"]
        if needs_more:  # then all of torchvision is imported, below
            for name in _parts():
                del sys.modules[name]
    return importlib.import_module("torchvision.transforms")


def _parts() -> list[str]:
    return [name for name in sys.modules if name.startswith("torchvision.")]


transforms = import_transforms()
