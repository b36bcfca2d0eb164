"""The state that --resume continues from, and the weights that a run keeps (--save-training)."""

import contextlib
import math
import random
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from src.base.device import device
from src.base.errors import InputError, in_a_line
from src.base.files import require_space
from src.models.checkpoints import checkpoint_path, size_of, snapshot, write_checkpoint
from src.models.weights import load_weights
from src.processes import distributed
from src.processes.background import Background
from src.training.run import Run

if TYPE_CHECKING:
    from src.training.holding import Holding

STATE_FILE = "training_state.pt"
SHARE = 0.2
"""The part of the time that states may take to be written."""
NOTHING = "no finished epoch"


class TrainingState:
    """All that changes while a stage learns, in one place, so that --resume can bring it back."""

    def __init__(
        self,
        trained: nn.Module,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        order: torch.Generator | None,
        seed: int,
        holding: "Holding | None" = None,
    ):
        """`trained` is the module whose weights learn; `order` draws the order of the triplets."""
        self.trained, self.optimizer, self.scaler, self.order = trained, optimizer, scaler, order
        self.holding = holding
        self.draws = random.Random(seed)  # apart from the global generator, which other libraries draw from
        self.next_epoch = 0
        self.judged = True
        """Whether the last epoch has had its validation, if it has one."""
        self._random_states = self._path = None

    def optimizer_bytes(self) -> int:
        """Return what the optimizer takes: Adam's two numbers for each weight that learns."""
        return 2 * sum(size_of(weight) for group in self.optimizer.param_groups for weight in group["params"])

    def room_for_optimizer(self) -> Tensor | None:
        """Allocate what the optimizer will take at its first step, so that pieces fit beside it; None later."""
        if self.optimizer.state:
            return None
        return torch.empty(self.optimizer_bytes(), dtype=torch.uint8, device=device)

    def content(self, triplets: int, facts: dict, run: dict) -> dict:
        """Return everything `restore` needs to continue after the last epoch, in tensors and plain values."""
        content = {
            "next_epoch": self.next_epoch,
            "judged": self.judged,
            "triplets": triplets,
            "weights": self.trained.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "random": _random_states(),
            "order": self.order.get_state(),
            "draws": self.draws.getstate(),
            "facts": facts,
            "run": run,
        }
        return content if self.holding is None else content | {"held": self.holding.content()}

    def restore(self, content: dict, path: Path) -> None:
        """Restore the training saved in `content` (read from `path`); raises InputError for that of another run."""
        if self.holding is not None:
            if "held" not in content:
                raise InputError(f"{path}: has no ranks and losses, which only a run begun with --per-triplet keeps")
            with refusing(path):
                self.holding.restore(content["held"])
        # First, since it refuses what does not fit before anything is changed.
        load_weights(self.trained, content["weights"], path)
        with refusing(path):
            self.optimizer.load_state_dict(content["optimizer"])
            self.scaler.load_state_dict(content["scaler"])
            self.order.set_state(content["order"])
            self.draws.setstate(content["draws"])
        self.next_epoch = content["next_epoch"]
        self.judged = content.get("judged", True)  # older states were written after the validation
        self._random_states, self._path = content["random"], path

    def restore_random_states(self) -> None:
        """Set every global random generator to where it was. Last of all, since starting Comet draws too."""
        if self._random_states is not None:
            with refusing(self._path):
                _restore_random_states(self._random_states)


class Keeper:
    """What keeps a run's weights and state in its folder, and says how to go on from there.

    Files are written in the background, in their order: a state stands on weights that are there already.
    """

    def __init__(self, state: TrainingState, run: Run, triplets: int, facts: dict, saves: bool):
        """`facts` are the metadata of checkpoints; nothing is written unless `saves`."""
        self.state, self.run, self.triplets, self.facts, self.saves = state, run, triplets, facts, saves
        self._background = Background()
        self._kept = self._now()
        self._next_save = -math.inf
        """When a state may be written again, by the monotonic clock; infinite while one is."""

    def save_state(self, at_once: bool = False) -> None:
        """Let all that --resume needs be written, `at_once` or if it is time again.

        Of short epochs not each is kept: states take SHARE of the time at most. The old file stays until the new one is
        whole.
        """
        began = time.monotonic()
        if self._kept == self._now() or not (at_once or began >= self._next_save):
            return
        content = snapshot(self.state.content(self.triplets, self.facts, self.run.state()))
        self._next_save = math.inf
        self._background.give(partial(self._write_state, content, began))
        self._kept = self._now()

    def _write_state(self, content, began):
        write_checkpoint(self.run.folder / STATE_FILE, content)
        self._next_save = began + (time.monotonic() - began) / SHARE

    def save_weights(self, name: str, content: dict) -> None:
        """Let the `content` of a checkpoint be written to saved_models/<name>.pt."""
        path = checkpoint_path(self.run.folder, name)
        self._background.give(partial(write_checkpoint, path, snapshot(content)))

    def finish(self) -> None:
        """Wait until everything is written; raises OSError where something cannot be."""
        self._background.finish()

    def _now(self):
        return self.state.next_epoch, self.state.judged

    def last_words(self) -> str:
        """Return how to go on with this run once it has stopped."""
        if not distributed.is_first():  # the only one that knows what it has saved
            return way_on(self.run.folder, self.saves)
        # In whole epochs: a stopped one begins anew, which its random states make the same.
        done, judged = self._kept
        epochs = NOTHING if done == 0 else "1 finished epoch" if done == 1 else f"{done} finished epochs"
        return way_on(self.run.folder, self.saves, epochs if judged else f"{epochs}, with the validation of the last")

    def require_space(self, files: int) -> None:
        """Raise InputError unless the disk can hold `files` files of weights, and the state twice."""
        weights = size_of(self.state.trained.state_dict())
        # A new state is written beside the old one.
        needed = files * weights + 2 * (weights + self.state.optimizer_bytes())
        require_space(self.run.folder, needed, f"{self.run.folder}: the weights need {needed / 1e9:.2f} GB")


def way_on(folder: Path, saves: bool, done: str = "its last state") -> str:
    """Return how to go on with the run in `folder` once it has stopped; `done` is what it goes on from."""
    if not saves:
        return "without --save-training nothing was kept to go on from"
    return f"--resume {folder} goes on from {done}"


@contextlib.contextmanager
def refusing(path: Path) -> Iterator[None]:
    """Raise InputError for whatever values of another kind than a state of this run lead to."""
    try:
        yield
    except Exception as error:
        raise InputError(f"{path}: not the state of this run ({in_a_line(error)})") from None


def _random_states() -> dict:
    """Return where every global random generator is now, in plain values and tensors."""
    kind, keys, *rest = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,  # alike in all processes of a job
        "numpy": [kind, keys.tolist(), *rest],
        "python": random.getstate(),
    }


def _restore_random_states(states: dict) -> None:
    torch.set_rng_state(states["torch"])
    if torch.cuda.is_available() and states["cuda"] is not None:
        torch.cuda.set_rng_state(states["cuda"])
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, np.array(keys, np.uint32), *rest))
    random.setstate(states["python"])
