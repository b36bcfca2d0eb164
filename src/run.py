"""A run: its folder, its hyper-parameters, its two CSVs, its Comet experiment."""

import os
import queue
import sys
import threading
import urllib.request
from datetime import datetime
from typing import NamedTuple

import pandas as pd

from src.files import PROJECT_ROOT, replacing, write_json

COMET_URL = "https://www.comet.com/clientlib/"
COMET_PATIENCE = 4
"""Seconds that Comet's server has to answer before a run goes on without it."""


class Run:
    """What one training run leaves behind, written as it happens."""

    def __init__(self, folder, experiment, hyper_parameters):
        """`folder` exists and is the run's own; `hyper_parameters` are plain values."""
        self.folder = folder
        self.experiment = experiment
        self._rows = {"train_metrics": [], "validation_metrics": []}
        self._best = {}
        write_json(folder / "training_hyperparameters.json", hyper_parameters, sort_keys=True, indent=4)
        experiment.log_parameters(hyper_parameters)

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
        print(f"epoch {epoch}: " + "  ".join(f"{name} {value:.2f}" for name, value in metrics.items()), flush=True)

    def improves(self, name, value):
        """Whether `value` is the highest given under `name` so far."""
        improved = name not in self._best or value > self._best[name]
        if improved:
            self._best[name] = value
        return improved

    def end(self):
        """Hand over to Comet what it has not sent yet."""
        self.experiment.end()

    def _add_row(self, table, row):
        self._rows[table].append(row)
        with replacing(self.folder / f"{table}.csv") as unfinished:
            pd.DataFrame(self._rows[table]).to_csv(unfinished, index=False)


def start_run(models_path, name, project_name, comet_options, hyper_parameters):
    """A Run in a new folder of `models_path`, with its experiment in Comet's project `project_name`."""
    folder = create_run_folder(models_path, name)
    return Run(folder, start_experiment(project_name, comet_options, offline_directory=folder), hyper_parameters)


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


def time_stamp():
    """The time, to the second, in characters that every file system takes."""
    return datetime.now().strftime("%Y-%m-%d_%H-%M-%S")


class CometOptions(NamedTuple):
    """How a command logs to Comet: what its flags say, each None or False where they say nothing."""

    api_key: str | None
    workspace: str | None
    experiment_name: str | None
    offline: bool


def start_experiment(project_name, options, offline_directory):
    """Start a Comet experiment and log this project's code to it.

    Online when key and workspace are known from `options` or Comet's environment or configuration file; an archive in
    `offline_directory` if `options.offline` or Comet cannot be reached; else a disabled one, which takes every call.
    """
    os.environ.setdefault("COMET_ERROR_TRACKING_ENABLE", "false")
    os.environ.setdefault("COMET_DISABLE_AUTO_LOGGING", "1")
    import comet_ml  # late: it takes a second

    options = options._replace(
        api_key=options.api_key or comet_ml.get_config("comet.api_key"),
        workspace=options.workspace or comet_ml.get_config("comet.workspace"),
    )
    mode = "offline" if options.offline else "online" if options.api_key and options.workspace else "disabled"
    if mode == "online" and not _answers(comet_ml.get_config("comet.url_override") or COMET_URL):
        print(f"Comet cannot be reached: logging to an archive in {offline_directory}", file=sys.stderr)
        mode = "offline"
    try:
        experiment = _start_comet(mode, project_name, options, offline_directory)
    except comet_ml.exceptions.CometException as error:
        print(f"Comet cannot be logged to: {error}", file=sys.stderr)
        experiment = _start_comet("disabled", project_name, options, offline_directory)
    for file in sorted(PROJECT_ROOT.glob("*.py")) + sorted(PROJECT_ROOT.glob("src/*.py")):
        experiment.log_code(file_name=str(file))
    return experiment


def _start_comet(mode, project_name, options, offline_directory):
    import comet_ml

    if mode == "offline":
        offline_directory.mkdir(parents=True, exist_ok=True)
    config = comet_ml.ExperimentConfig(
        disabled=mode == "disabled",
        name=options.experiment_name,
        offline_directory=str(offline_directory),
        log_env_details=False,
        log_git_patch=False,
        log_git_metadata=False,
        log_code=False,
        parse_args=False,
    )
    return comet_ml.start(
        api_key=options.api_key if mode == "online" else None,
        workspace=options.workspace,
        project_name=project_name,
        mode="create",
        online=mode != "offline",
        experiment_config=config,
    )


def _answers(url):
    """Whether the server at `url` says within COMET_PATIENCE seconds that it is well.

    Comet's client tries for half a minute before it gives up, and looking up a name has no time limit: hence a thread.
    """
    answers = queue.SimpleQueue()

    def ask():
        try:
            urllib.request.urlopen(f"{url.rstrip('/')}/isAlive/ver", timeout=COMET_PATIENCE).close()
            answers.put(True)
        except (OSError, ValueError):
            answers.put(False)

    threading.Thread(target=ask, daemon=True).start()
    try:
        return answers.get(timeout=COMET_PATIENCE)
    except queue.Empty:
        return False
