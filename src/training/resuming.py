"""What --resume goes on from: the state in a run folder, compared with the command, and a validation after it."""

import json
import math
import os
from collections.abc import Collection, Mapping
from pathlib import Path

from torch import Tensor

from src.base.errors import InputError, StorageError, in_a_line
from src.base.tables import cells_of
from src.models.weights import read_content
from src.processes import distributed
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


def validated(folder: Path, state: dict, needed: Collection[str], remarks: Mapping[str, str]) -> dict | None:
    """Read the metrics of a state's last epoch, where the run wrote their row after the state.

    They are of the weights that the state holds: later epochs come again, and their rows are not looked at. None where
    there is no such row, or it lacks the `needed` metrics or has other `remarks` than this run: validate again.
    """
    if state.get("judged", True):
        return None
    epoch = str(state["next_epoch"] - 1)
    # One process reads, since it writes the table anew soon after.
    metrics = _metrics_of(folder / "validation_metrics.csv", epoch, remarks) if distributed.is_first() else None
    metrics = distributed.broadcast(metrics)
    return metrics if metrics and set(needed) <= metrics.keys() else None


def _metrics_of(path: Path, epoch: str, remarks: Mapping[str, str]) -> dict | None:
    try:
        (_, header), *rows = cells_of(path)
        (row,) = [dict(zip(header, cells, strict=True)) for _, cells in rows if cells[0] == epoch]
        # As they were: pandas writes numbers so that they are read back to the bit, and whole ones without a point.
        metrics = {name: json.loads(text) for name, text in row.items() if name not in ("epoch", *remarks)}
    except StorageError:
        raise
    except (InputError, ValueError):
        return None
    is_same = {name: row.get(name) for name in remarks} == dict(remarks)
    are_percents = all(type(value) in (int, float) and math.isfinite(value) for value in metrics.values())
    return metrics if is_same and are_percents else None
