"""Comet experiments: online, in an archive, or one that takes every call and does nothing."""

import contextlib
import logging
import os
import queue
import sys
import threading
import urllib.request
from collections.abc import Callable, Mapping
from functools import partial
from http.client import HTTPException
from pathlib import Path

from src.base.errors import in_a_line
from src.base.files import PROJECT_ROOT
from src.command.flags import CometOptions

COMET_URL = "https://www.comet.com/clientlib/"
COMET_PATIENCE = 4
"""Seconds that Comet's server has to answer before a run goes on without it."""
SETTINGS_FILES = ".env", "./.comet.config", "/content/drive/MyDrive/.comet.config", "~/.comet.config"
"""Files that Comet reads its settings from; COMET_CONFIG, and COMET_INI before it, may name one more."""


class DisabledExperiment:
    """An experiment that takes every call and does nothing."""

    disabled = True

    def __getattr__(self, name: str) -> Callable:
        return lambda *arguments, **options: contextlib.nullcontext()


def start_experiment(
    project_name: str, options: CometOptions, offline_directory: Path, experiment_key: str | None = None
):
    """Start a Comet experiment, or go on with that of `experiment_key`, and log this project's code to it.

    It is online when `options`, or Comet's environment or configuration file, say key and workspace. It is an archive
    in `offline_directory` when `options.offline` says so or Comet cannot be reached. Else, and in all but the first
    process of a job, it is a disabled one, which takes every call and does nothing.
    """
    from src.processes import distributed

    if not (distributed.is_first() and (options.offline or _may_have_a_key(options))):
        return DisabledExperiment()
    comet_ml = _import_comet()
    options = options._replace(
        api_key=options.api_key or comet_ml.get_config("comet.api_key"),
        workspace=options.workspace or comet_ml.get_config("comet.workspace"),
    )
    mode = "offline" if options.offline else "online"
    if mode == "online" and not (options.api_key and options.workspace):
        return DisabledExperiment()
    if mode == "online" and not _answers(comet_ml.get_config("comet.url_override") or COMET_URL):
        print(f"Comet cannot be reached: logging to an archive in {offline_directory}", file=sys.stderr)
        mode = "offline"
    start = partial(_start_comet, project_name, options, offline_directory, experiment_key)
    try:
        experiment = _within(3 * COMET_PATIENCE, partial(start, "online")) if mode == "online" else start(mode)
    except Exception as error:  # what Comet's client raises for a strange server may be anything
        print(
            f"Comet cannot be logged to ({in_a_line(error)}): an archive goes to {offline_directory}", file=sys.stderr
        )
        # Its threads go on trying, and would say so between our lines.
        logging.getLogger("comet_ml").setLevel(logging.CRITICAL + 1)
        if mode == "offline":
            return DisabledExperiment()
        experiment = start("offline")
    # Comet itself would log only the started script.
    for file in sorted(PROJECT_ROOT.glob("*.py")) + sorted(PROJECT_ROOT.glob("src/**/*.py")):
        experiment.log_code(file_name=str(file))
    return experiment


def log_and_end(experiment, metrics: Mapping[str, float], remarks: Mapping) -> None:
    """Log what was judged, and end the experiment."""
    with experiment.validate():
        experiment.log_metrics(metrics)
    experiment.log_others(remarks)
    experiment.end()


def _may_have_a_key(options: CometOptions) -> bool:
    """Whether flags, the environment or a file could hold a key. Only Comet itself reads them, and takes a second."""
    named = [os.environ[name] for name in ("COMET_CONFIG", "COMET_INI") if name in os.environ]
    # As Comet itself looks for them; Path would raise where there is no home or it is closed.
    files = [os.path.expanduser(name) for name in (*SETTINGS_FILES, *named) if name != os.devnull]  # noqa: PTH111
    return bool(options.api_key) or "COMET_API_KEY" in os.environ or any(os.access(file, os.F_OK) for file in files)


def _import_comet():
    """Import Comet's client, which takes a second; where it cannot read its settings, without them: a line says so."""
    # These belong to the run that set them: another one must not log to its experiment.
    for name in [name for name in os.environ if name == "COMET_EXPERIMENT_KEY" or name.startswith("COMET_START_")]:
        del os.environ[name]
    # Its own error reports and hooks into torch slow every step.
    unasked = {"COMET_ERROR_TRACKING_ENABLE": "false", "COMET_DISABLE_AUTO_LOGGING": "1"}
    os.environ.update({name: value for name, value in unasked.items() if name not in os.environ})
    try:
        import comet_ml

        comet_ml.ExperimentConfig()  # which reads most of them
    except Exception as error:  # a torn file, a word for a number: each raises another exception
        print(f"Comet's settings cannot be read, and are left out: {in_a_line(error)}", file=sys.stderr)
        for name in [name for name in os.environ if name.startswith("COMET_")]:
            del os.environ[name]
        os.environ.update(unasked, COMET_CONFIG=os.devnull)
        import comet_ml
    return comet_ml


def _start_comet(project_name, options, offline_directory, experiment_key, mode):
    import comet_ml

    if mode == "offline":
        offline_directory.mkdir(parents=True, exist_ok=True)
    config = comet_ml.ExperimentConfig(
        name=options.experiment_name,
        offline_directory=str(offline_directory),
        log_env_details=False,
        log_git_patch=False,
        log_git_metadata=False,
        log_code=False,
        parse_args=False,
    )
    return comet_ml.start(
        # An archive must not carry the key.
        api_key=options.api_key if mode == "online" else None,
        workspace=options.workspace,
        project_name=project_name,
        mode="create" if experiment_key is None else "get",
        experiment_key=experiment_key,
        online=mode != "offline",
        experiment_config=config,
    )


def _answers(url: str) -> bool:
    """Whether the server at `url` says soon that it is well. A guest network answers too, with a page to log in."""

    def ask():
        with urllib.request.urlopen(f"{url.rstrip('/')}/isAlive/ver", timeout=COMET_PATIENCE) as answer:
            return answer.headers.get_content_type() != "text/html"

    try:
        return _within(COMET_PATIENCE, ask)
    except (OSError, ValueError, HTTPException):
        return False


def _within(seconds: float, work: Callable):
    """Return `work()`; raises its exceptions, and TimeoutError when it takes longer than `seconds`.

    Comet's client tries for minutes before it gives up, and looking up a name has no time limit, hence a thread.
    """
    results = queue.SimpleQueue()

    def do():
        try:
            results.put((work(), None))
        except Exception as error:
            results.put((None, error))

    threading.Thread(target=do, daemon=True).start()
    try:
        result, error = results.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no answer within {seconds} seconds") from None
    if error is not None:
        raise error
    return result
