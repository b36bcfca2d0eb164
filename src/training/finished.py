"""Finished runs, as their folders keep them."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from src.base.errors import InputError
from src.command.data_flags import add_common_options, add_dataset_option
from src.command.flags import add_clip_options
from src.command.parser import Parser
from src.command.training_flags import OPTIONS_FILE, read_options, require_values
from src.tasks.own import OwnTriplets
from src.tasks.registry import TASKS
from src.training.run import FINE_TUNING, STAGES, StageNames, run_files

NEEDED = "dataset", "clip_model_name", "transform", "target_ratio", "data_path", "output_path"
"""Options without which a run cannot be judged again."""


class FinishedRun(NamedTuple):
    """What a run folder holds."""

    folder: Path
    stage: StageNames
    options: dict
    weights: Path

    def title(self, labels: Mapping[str, str]) -> str:
        """Say what it trained, for people; `labels` are those of the combining functions."""
        network = self.options.get("network")  # where there was a choice
        return self.stage.title if network is None else f"stage 2, {labels[network]}"

    def files(self) -> list[Path]:
        """Return what a run keeps, which a report may not replace."""
        return [self.weights, *run_files(self.folder)]


def read_run(folder: Path) -> FinishedRun:
    """Read the run in `folder`; raises InputError when there is none, or it saved no weights."""
    options = read_options(folder)
    require_values(folder, options, _kept_options())
    # The kept options show which stage it was: older runs have no other mark.
    stage = next((stage for stage in STAGES if stage.option in options), FINE_TUNING)
    # A folder of own triplets may have moved since; what its best weights are called has not.
    best = next(iter(stage.best(TASKS.get(options.get("dataset"), OwnTriplets), options.get("best_by"))))
    numbered = folder.glob(f"saved_models/{stage.weights}_[0-9]*.pt")
    # By number: as text, epoch 10 comes before epoch 9.
    by_epoch = sorted(numbered, key=lambda path: int(path.stem.rpartition("_")[2]))
    saved = [path for path in (*by_epoch, folder / "saved_models" / f"{best}.pt") if path.is_file()]
    if not saved:
        raise InputError(f"{folder}: has no weights, only a run with --save-training keeps some")
    for name in NEEDED:
        if options.get(name) is None:
            raise InputError(f"{folder / OPTIONS_FILE}: has no {name}, which the options of a run have")
    # The best weights where they were kept, else the last epoch's.
    return FinishedRun(folder, stage, options, saved[-1])


def _kept_options() -> Parser:
    """Declare those of a run's options that a report reads."""
    parser = Parser("")
    add_dataset_option(parser)
    add_clip_options(parser)
    add_common_options(parser)
    return parser
