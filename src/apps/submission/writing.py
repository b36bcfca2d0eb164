"""Writing a submission for an evaluation server."""

import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from src.apps.submission import SERVERS
from src.apps.submission.files import SubmissionFile
from src.apps.submission.rules import FAULT, check
from src.base.files import time_stamp, write_json
from src.command.comet import start_experiment
from src.command.outputs import data_files, require_outputs
from src.models.registry import backbone_of
from src.pictures.data import read_data
from src.pictures.skipping import Skipping
from src.processes.distributed import is_first
from src.retrieval.answers import Answers, answer, predict_queries
from src.retrieval.encoder import Encoder
from src.retrieval.precision import autocast, say_device
from src.retrieval.retriever import Retriever
from src.retrieval.settings import Settings
from src.tasks.protocol import Protocol
from src.tasks.task import Task
from src.tasks.triplets import Split

ANSWERS = 50
"""What both servers want of each query."""


def read_test_split(task: Task, data_path: Path, skip_missing: bool, clip_model_name: Path | str = "") -> Split:
    """Read the test split; raises InputError as `read_data` does."""
    name = task.splits[-1]
    data = read_data(task, data_path, name, skip_missing=skip_missing, clip_model_name=clip_model_name)
    (split,) = data[name].values()
    return split


def retriever_of(clip_model, preprocess: Callable) -> Retriever:
    """Return the Retriever of a CLIP and a transform that keeps nothing, since the transform's settings are unknown."""
    return Retriever(Encoder(backbone_of(clip_model)), preprocess, Skipping(enabled=False))


def answered(task: Task, protocol: Protocol, retriever: Retriever, split: Split) -> Answers:
    """Return the first fifty answers, of a toy gallery what it has, to the queries of a split that is usable."""
    gallery = retriever.gallery(retriever.pictures(split.pictures))
    queries = task.queries(split.triplets, protocol.captions)
    caption_features = retriever.encoder.captions([text for query in queries for text in query.texts])
    predicted = predict_queries(gallery, queries, caption_features, retriever.combining_function)
    compared = gallery.compared_by(retriever.combining_function)
    return answer(split.triplets, compared, predicted, protocol, best=ANSWERS)


def write(path: Path, content: dict, **options) -> None:
    """Write a file of a submission; `options` are json.dumps's. All processes answer, rank 0 writes."""
    if is_first():
        write_json(path, content, **options)


def submit(options: Mapping, given: Settings, task: Task, load: Callable, files: Callable, write: Callable) -> None:
    """Write a submission and check it, with the `options` of a judging command and --submission-name.

    `load()` gives the Retriever, `files(name)` the paths of the files, which `write(retriever, split, name)` writes.
    """
    # Before CLIP is loaded or downloaded: what is wrong with the data is found in seconds.
    split = read_test_split(task, options["data_path"], options["skip_missing"], given.retriever.clip_model_name)
    name = options["submission_name"] or time_stamp()
    written = files(name)
    require_outputs(options, {"--submission-name": written}, data_files(task.tables(options["data_path"]), [split]))
    retriever = load()
    say_device(options["precision"])
    experiment = start_experiment(f"{task.name} test submission", given.comet, options["output_path"] / "comet")
    with autocast(options["precision"]):
        write(retriever, split, name)
    for path in written:
        print(f"{path}{retriever.skipping.mark}")
        experiment.log_asset(str(path))
    if is_first():
        say_whether_ready(task, check(SERVERS[task.name], written, split, options["data_path"]), options["data_path"])
    experiment.log_others(retriever.skipping.remarks)
    experiment.end()


def say_whether_ready(task: Task, files: Sequence[SubmissionFile], data_path: Path) -> None:
    """Say on stderr what the server would refuse of files that were read again, and how to see all of it."""
    found = [finding for file in files for finding in file.findings]
    faults = dict.fromkeys(finding.summary() for finding in found if finding.level == FAULT)
    if not faults:
        print(f"ready to upload to {task.name}'s server", file=sys.stderr)
        return
    # A toy gallery has no fifty pictures. Its files are right for what they are, so this is no error.
    print(f"not for {task.name}'s server as they are: {', '.join(faults)}. To see all:", file=sys.stderr)
    options = ["--dataset", task.name, "--data-path", Path(data_path).absolute()]
    seeing = ["python", "check_submission.py", *(file.path for file in files), *options]
    print(f"  {shlex.join(map(str, seeing))}", file=sys.stderr)
