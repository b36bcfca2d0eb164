"""Environment variables that libraries read, and that were set for another program."""

import math
import os
import re
import sys
import warnings

UNUSED = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "TORCH_LOGS"
"""Variables that end torch with a value that it does not take: how to load files, which each loading says itself, and
what torch.compile is to say, which is not used."""
ALLOCATOR = "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"
INTERVALS = "TQDM_MININTERVAL", "TQDM_MAXINTERVAL"


def forget_odd_variables() -> None:
    """Remove variables that would end a command or change its output, before any library has read them."""
    for name in [name for name in os.environ if name.startswith("TQDM_")]:
        # Of tqdm's some two dozen these are settings; the others would change what each bar says.
        if name != "TQDM_DISABLE" and not (name in INTERVALS and _is_seconds(os.environ[name])):
            del os.environ[name]
    for name in UNUSED:
        os.environ.pop(name, None)
    for name in ALLOCATOR:
        if not re.fullmatch(r"(\w+:[^,]+(,|$))+", os.environ.get(name, "")):
            os.environ.pop(name, None)  # torch aborts
    if not os.environ.get("SOURCE_DATE_EPOCH", "").isdecimal():
        os.environ.pop("SOURCE_DATE_EPOCH", None)  # matplotlib reads it as a number
    if "IPython" not in sys.modules:
        # A notebook's cannot be imported outside of it, and more libraries import matplotlib than draw.
        os.environ.pop("MPLBACKEND", None)
    if "error" in os.environ.get("PYTHONWARNINGS", ""):
        # Libraries warn of themselves while they are imported, which would end each command.
        del os.environ["PYTHONWARNINGS"]
        warnings.filters[:] = [rule for rule in warnings.filters if rule[0] != "error"]


def _is_seconds(text: str) -> bool:
    try:
        return math.isfinite(float(text)) and float(text) >= 0
    except ValueError:
        return False
