"""What --resume goes on from: the state in a run folder, compared with the command."""

import os
from pathlib import Path

from torch import Tensor

from src.base.errors import InputError, in_a_line
from src.models.weights import read_content
from src.training.run import TABLES
from src.training.state import STATE_FILE, refusing

KEYS = "next_epoch", "triplets", "weights", "optimizer", "scaler", "random", "order", "draws", "facts", "run"

KINDS = {"next_epoch": int, "triplets": int, "weights": dict, "facts": dict, "run": dict, "random": dict}
"""{key of a state: what it is, where reading goes on with it}"""


def read_state(folder: Path) -> dict | None:
    """Read the state that a run folder keeps, None where it has none yet; raises InputError when it is not one."""
    path = folder / STATE_FILE
    if not os.path.lexists(path):
        return None
    content = read_content(path)
    lacking = [key for key in KEYS if not isinstance(content, dict) or key not in content]
    if lacking:
        raise InputError(f"{path}: not the state of a run, it has no {lacking[0]!r}")
    for key, kind in KINDS.items():
        if not isinstance(content[key], kind) or isinstance(content[key], bool):
            raise InputError(f"{path}: not the state of a run, its {key!r} is a {type(content[key]).__name__}")
    with refusing(path):
        rows, best, _ = (content["run"][key] for key in ("rows", "best", "experiment"))
        dict(best)
        if content["next_epoch"] < 0 or not set(TABLES) <= rows.keys():
            raise ValueError("its epoch or its tables are those of no run")
        if not all(isinstance(row, dict) for table in rows.values() for row in table):
            raise ValueError("its tables have other rows")
        if not all(isinstance(tensor, Tensor) for tensor in content["weights"].values()):
            raise ValueError("its weights are other values")
    return content


def require_same_run(content: dict, path: Path, triplets: int, facts: dict, num_epochs: int) -> None:
    """Raise InputError when a state stood on other data or facts, or has finished more epochs than there will be."""
    if content["triplets"] != triplets:
        raise InputError(f"{path}: the run trains on {content['triplets']} triplets, there are {triplets} now")
    # Loss and weights would go on as if nothing had happened, so this is refused and not warned of.
    kept = content["facts"]
    for name, fact in facts.items():
        # A run that keeps a digest of its CLIP may find it under another name; older ones of stage 1 keep only a name.
        if name == ("clip_model_name" if "clip_weights" in kept else "clip_weights"):
            continue
        if name == "precision" and name not in kept:  # of an older run
            continue
        if kept.get(name) != fact:
            # What "auto" is depends on the device, on which the run may not have begun.
            way_out = f"; --precision {kept[name]} goes on with it" if name == "precision" else ""
            raise InputError(f"{path}: the run has {name} {in_a_line(kept.get(name))}, not {fact}{way_out}")
    if num_epochs < content["next_epoch"]:
        raise InputError(f"--num-epochs {num_epochs}: the run has finished {content['next_epoch']} already")
