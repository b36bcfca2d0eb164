"""A run: its folder, its hyper-parameters, its two CSVs, its Comet experiment.

Of the processes of one job only the first writes and logs.
"""

from typing import NamedTuple

import pandas as pd

from src.base import distributed
from src.base.files import remove_unfinished, replacing, time_stamp, write_json
from src.command.comet import start_experiment
from src.tasks.triplets import Task

TABLES = ("train_metrics", "validation_metrics")


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
    """The name of its weights where a data set keeps one best alone."""
    option: str
    """An option that only its runs have."""

    def best(self, task: Task) -> dict[str, str]:
        """Return {name of weights: metric that picks them} for --save-best."""
        return {f"{self.weights}{end}" if end else self.only_weights: metric for end, metric in task.best.items()}


FINE_TUNING = StageNames(
    title="stage 1, CLIP",
    run="clip_finetuned",
    project="clip fine-tuning",
    weights="tuned_clip",
    only_weights="tuned_clip_best",
    option="learning_rate",
)
COMBINER_TRAINING = StageNames(
    title="stage 2, Combiner",
    run="combiner_trained",
    project="combiner training",
    weights="combiner",
    only_weights="combiner",
    option="combiner_lr",
)
STAGES = FINE_TUNING, COMBINER_TRAINING


class Run:
    """What one training run leaves behind, written as it happens."""

    def __init__(self, folder, experiment, hyper_parameters, remarks=None):
        """`folder` exists and is the run's own; values are plain; `remarks` {name: text} go beside every result."""
        self.folder = folder
        self.experiment = experiment
        self.remarks = remarks or {}
        self._rows = {table: [] for table in TABLES}
        self._best = {}
        if distributed.is_first():
            write_json(folder / "training_hyperparameters.json", hyper_parameters, sort_keys=True, indent=4)
        experiment.log_parameters(hyper_parameters)
        experiment.log_others(self.remarks)

    def log_step(self, step, loss):
        self.experiment.log_metric("step_loss", loss, step=step)

    def log_training(self, epoch, loss):
        with self.experiment.train():
            self.experiment.log_metric("epoch_loss", loss, epoch=epoch)
        self._add_row("train_metrics", {"epoch": epoch, "train_epoch_loss": loss})

    def log_validation(self, epoch, metrics):
        with self.experiment.validate():
            self.experiment.log_metrics(metrics, epoch=epoch)
        self._add_row("validation_metrics", {"epoch": epoch, **metrics})
        recalls = [f"{name} {value:.2f}" for name, value in metrics.items()]
        remarks = [f"({name}: {remark})" for name, remark in self.remarks.items()]
        print(f"epoch {epoch}: " + "  ".join(recalls + remarks), flush=True)

    def improves(self, name, value):
        """Whether `value` is the highest given under `name` so far."""
        improved = name not in self._best or value > self._best[name]
        if improved:
            self._best[name] = value
        return improved

    def state(self):
        """What `restore` needs, in plain values."""
        key = None if self.experiment.disabled else self.experiment.get_key()
        return {"rows": self._rows, "best": self._best, "experiment": key}

    def restore(self, state):
        """Take the tables back to where they were when `state` was taken."""
        self._rows = {table: list(rows) for table, rows in state["rows"].items()}
        self._best = dict(state["best"])
        for table in self._rows:
            self._write(table)

    def end(self):
        """Hand over to Comet what it has not sent yet."""
        self.experiment.end()

    def _add_row(self, table, row):
        self._rows[table].append(row | self.remarks)
        self._write(table)

    def _write(self, table):
        if not distributed.is_first():
            return
        with replacing(self.folder / f"{table}.csv") as unfinished:
            pd.DataFrame(self._rows[table]).to_csv(unfinished, index=False)


def start_run(models_path, name, project_name, comet_options, hyper_parameters, remarks=None):
    """A Run in a new folder of `models_path`, with its experiment in Comet's project `project_name`."""
    folder = distributed.broadcast(create_run_folder(models_path, name) if distributed.is_first() else None)
    experiment = start_experiment(project_name, comet_options, offline_directory=folder)
    return Run(folder, experiment, hyper_parameters, remarks)


def resume_run(folder, state, project_name, comet_options, hyper_parameters, remarks=None):
    """The Run in `folder` as it was when it gave `state`, and its experiment; `state` None is before anything."""
    if distributed.is_first():
        remove_unfinished(folder)
    state = state or {"rows": dict.fromkeys(TABLES, ()), "best": {}, "experiment": None}
    experiment = start_experiment(project_name, comet_options, folder, state["experiment"])
    run = Run(folder, experiment, hyper_parameters, remarks)
    run.restore(state)
    return run


def create_run_folder(models_path, name):
    """Create `models_path`/<name>_<time>; a second run of the same second gets a number behind the time."""
    stamped = f"{name}_{time_stamp()}"
    for folder in (models_path / stamped, *(models_path / f"{stamped}_{number}" for number in range(2, 100))):
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            continue
    raise RuntimeError(f"{models_path / stamped}: a hundred runs in one second")
