"""Variables of the environment that libraries read, and that somebody set for another program."""

import math
import os
import warnings

INTERVALS = "TQDM_MININTERVAL", "TQDM_MAXINTERVAL"


def forget_odd_variables() -> None:
    """Let no variable end a command that would run without it, before any library has read it."""
    for name in [name for name in os.environ if name.startswith("TQDM_")]:
        # Of tqdm's some two dozen these are settings; the others would change what each bar says.
        if name != "TQDM_DISABLE" and not (name in INTERVALS and _is_seconds(os.environ[name])):
            del os.environ[name]
    # Whoever loads a checkpoint here says that its code is not run. Both of these together end torch.load.
    for name in ("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"):
        os.environ.pop(name, None)
    if "error" in os.environ.get("PYTHONWARNINGS", ""):
        # Libraries warn of themselves while they are imported, which would end each command.
        del os.environ["PYTHONWARNINGS"]
        warnings.filters[:] = [rule for rule in warnings.filters if rule[0] != "error"]


def _is_seconds(text: str) -> bool:
    try:
        return math.isfinite(float(text)) and float(text) >= 0
    except ValueError:
        return False
