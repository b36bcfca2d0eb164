"""A run: its folder, hyper-parameters, two CSVs and Comet experiment; and what the runs of each stage are called.

Of the processes of one job only the first writes and logs.
"""

import contextlib
import re
import shutil
import time
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import pandas as pd

from src.base.files import replacing, sync_folder, time_stamp, write_json
from src.command.comet import start_experiment
from src.command.flags import CometOptions
from src.command.recipes import COMBINER_RECIPES, FINE_TUNING_RECIPES, Recipe
from src.command.training_flags import OPTIONS_FILE
from src.processes import distributed
from src.tasks.task import Task

TABLES = ("train_metrics", "validation_metrics")
UNFINISHED = ".unfinished_"
"""The beginning of a run folder's name until it has its options."""


class StageNames(NamedTuple):
    """What a stage and what it leaves are called."""

    title: str
    """For people."""
    run: str
    """The beginning of its run folders' names."""
    project: str
    """The end of its Comet project's name."""
    weights: str
    """The beginning of its weights' names."""
    only_weights: str
    """The name of its weights where only one best is kept."""
    option: str
    """An option that only its runs have."""
    recipes: dict[str, Recipe]

    def best(self, task: Task, column: str | None = None) -> dict[str, str]:
        """Return {name of weights: metric that picks them} for --save-best; `column` is that of --best-by."""
        if column is not None:
            return {self.only_weights: column}
        return {f"{self.weights}{end}" if end else self.only_weights: metric for end, metric in task.best.items()}

    def recipe(self, options: dict) -> str | None:
        """Return which recipe a run with these options followed, and what it changed of it; None for none."""
        name = options.get("recipe")  # older runs have no such option
        if name not in self.recipes:  # None, or one of another version
            return name
        changed = self.recipes[name].changed(options)
        return f"{name}, but {changed}" if changed else name


FINE_TUNING = StageNames(
    title="stage 1, CLIP",
    run="clip_finetuned",
    project="clip fine-tuning",
    weights="tuned_clip",
    only_weights="tuned_clip_best",
    option="image_cache",
    recipes=FINE_TUNING_RECIPES,
)
COMBINER_TRAINING = StageNames(
    title="stage 2, Combiner",
    run="combiner_trained",
    project="combiner training",
    weights="combiner",
    only_weights="combiner",
    option="combiner_lr",
    recipes=COMBINER_RECIPES,
)
STAGES = FINE_TUNING, COMBINER_TRAINING

RUN_LEFTOVER = re.compile(r"\.(training_hyperparameters\.json|\w+_metrics\.csv|report\.html|[^/]+\.pt)\.\d+")
"""Names of unfinished files of a run."""


class Run:
    """What one training run leaves behind, written as it happens."""

    def __init__(self, folder: Path, experiment, hyper_parameters: dict, remarks: dict[str, str] | None = None):
        """`folder` exists and is the run's own; values are plain; `remarks` {name: text} go beside every result."""
        self.folder = folder
        self.experiment = experiment
        self.remarks = remarks or {}
        self._rows = {table: [] for table in TABLES}
        self._best = {}
        experiment.log_parameters(hyper_parameters)
        experiment.log_others(self.remarks)

    def log_step(self, step: int, loss: float) -> None:
        self.experiment.log_metric("step_loss", loss, step=step)

    def log_training(self, epoch: int, loss: float) -> None:
        """Add an epoch's mean loss to train_metrics.csv and to Comet."""
        with self.experiment.train():
            self.experiment.log_metric("epoch_loss", loss, epoch=epoch)
        self._add_row("train_metrics", {"epoch": epoch, "train_epoch_loss": loss})

    def log_validation(self, epoch: int, metrics: dict[str, float]) -> None:
        """Add metrics, in percent, to validation_metrics.csv and to Comet."""
        with self.experiment.validate():
            self.experiment.log_metrics(metrics, epoch=epoch)
        self._add_row("validation_metrics", {"epoch": epoch, **metrics})

    def losses(self) -> dict[int, float]:
        """Return {epoch: mean loss}."""
        return {row["epoch"]: row["train_epoch_loss"] for row in self._rows["train_metrics"]}

    def validations(self) -> list[dict]:
        """Return the rows of validation_metrics.csv."""
        return list(self._rows["validation_metrics"])

    def improves(self, name: str, value: float) -> bool:
        """Whether `value` is the highest given under `name` so far."""
        improved = name not in self._best or value > self._best[name]
        if improved:
            self._best[name] = value
        return improved

    def state(self) -> dict:
        """Return what `restore` needs, in plain values."""
        # The key lets a resumed run go on in the same experiment.
        key = None if self.experiment.disabled else self.experiment.get_key()
        return {"rows": self._rows, "best": self._best, "experiment": key}

    def restore(self, state: dict) -> None:
        """Take the tables back to where they were when `state` was taken."""
        self._rows = {table: list(rows) for table, rows in state["rows"].items()}
        self._best = dict(state["best"])
        # A run killed between a CSV and its state has rows that the state does not know; they come again.
        for table, rows in self._rows.items():
            if rows or (self.folder / f"{table}.csv").exists():
                self._write(table)

    def end(self) -> None:
        """Let Comet send what it has not sent yet."""
        self.experiment.end()

    def _add_row(self, table, row):
        self._rows[table].append(row | self.remarks)
        self._write(table)

    def _write(self, table):
        if not distributed.is_first():
            return
        # The whole table, not a line after it: a kill must not leave half a row.
        with replacing(self.folder / f"{table}.csv") as unfinished:
            pd.DataFrame(self._rows[table]).to_csv(unfinished, index=False)


def run_files(folder: Path) -> list[Path]:
    """Return what a run keeps beside weights and its state."""
    return [folder / name for name in (OPTIONS_FILE, *(f"{table}.csv" for table in TABLES))]


def new_run_folder(models_path: Path, name: str, hyper_parameters: dict) -> Path:
    """Create `models_path`/<name>_<time> with the options in it, the same folder for all processes of a job.

    --resume takes it from then on. A second run of the same second gets a number after the time, as array jobs start
    several in one.
    """
    # One process names the folder. Each would see another second.
    folder = _create_run_folder(models_path, name, hyper_parameters) if distributed.is_first() else None
    return distributed.broadcast(folder)


def open_run(
    folder: Path,
    state: dict | None,
    project_name: str,
    comet_options: CometOptions,
    hyper_parameters: dict,
    remarks: dict[str, str] | None = None,
) -> Run:
    """Open the Run in `folder`, and its experiment in Comet's project `project_name`, where it gave `state`.

    `state` None is before anything.
    """
    if distributed.is_first():
        # Only of this run's own folder, which no other process writes to.
        _remove_unfinished(folder)
        _write_options(folder, hyper_parameters)  # a resumed run may have more epochs
    state = state or {"rows": dict.fromkeys(TABLES, ()), "best": {}, "experiment": None}
    experiment = start_experiment(project_name, comet_options, folder, state["experiment"])
    run = Run(folder, experiment, hyper_parameters, remarks)
    run.restore(state)
    return run


def _remove_unfinished(folder: Path) -> None:
    """Delete what processes that were killed inside `replacing` left in and below `folder`.

    Other hidden files stay: those that go are named like a file of a run, with the number of a process.
    """
    for path in Path(folder).rglob(".*"):
        if path.is_file() and RUN_LEFTOVER.fullmatch(path.name):
            path.unlink()


def _write_options(folder: Path, hyper_parameters: dict) -> None:
    # Sorted, so that two runs can be compared line by line.
    write_json(folder / OPTIONS_FILE, hyper_parameters, sort_keys=True, indent=4)


def _create_run_folder(models_path: Path, name: str, hyper_parameters: dict) -> Path:
    _remove_unfinished_folders(models_path)
    unfinished, stamped = models_path / f"{UNFINISHED}{uuid4().hex}", models_path / f"{name}_{time_stamp()}"
    try:
        _write_options(unfinished, hyper_parameters)
        for folder in (stamped, *(stamped.with_name(f"{stamped.name}_{number}") for number in range(2, 100))):
            try:
                unfinished.rename(folder)
                sync_folder(models_path)
                return folder
            except OSError:
                if not folder.exists():
                    raise
        raise RuntimeError(f"{stamped}: a hundred runs in one second")
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _remove_unfinished_folders(models_path: Path) -> None:
    """Delete what processes left that were killed while they made a run folder."""
    for folder in models_path.glob(f"{UNFINISHED}*"):
        with contextlib.suppress(FileNotFoundError):  # another process was faster
            # Another process may be making one now, which takes milliseconds.
            if time.time() - folder.stat().st_mtime > 3600:
                shutil.rmtree(folder, ignore_errors=True)
