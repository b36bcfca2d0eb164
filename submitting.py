"""Writing a submission for an evaluation server."""

import shlex
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path

from combiner import load_combined
from retriever import Retriever
from src.apps.submission import SERVERS
from src.apps.submission.files import SubmissionFile
from src.apps.submission.rules import FAULT, check
from src.base.distributed import is_first
from src.base.files import require_writable, time_stamp
from src.command.comet import start_experiment
from src.command.flags import combining_options, comet_options, retriever_options
from src.models.facts import told_by_checkpoints
from src.retrieval.answers import Answers, answer, predict_queries
from src.tasks.triplets import Protocol, Split, Task
from utils import autocast, read_data, say_device

ANSWERS = 50
"""What both servers want of each query."""


def read_test_split(task: Task, data_path: Path, skip_missing: bool) -> Split:
    """Read the test split; raises InputError as `read_data` does."""
    name = task.splits[-1]
    (split,) = read_data(task, data_path, name, skip_missing=skip_missing)[name].values()
    return split


def answered(task: Task, protocol: Protocol, retriever: Retriever, split: Split) -> Answers:
    """Return the first fifty answers, of a toy gallery what it has, to the queries of a split that is usable."""
    gallery = retriever.gallery(retriever.pictures(split.pictures))
    queries = task.queries(split.triplets, protocol.captions)
    caption_features = retriever.encoder.captions([text for query in queries for text in query.texts])
    predicted = predict_queries(gallery, queries, caption_features, retriever.combining_function)
    return answer(split.triplets, gallery, predicted, protocol, best=ANSWERS)


def submit(args: Namespace, task: Task, write: Callable) -> None:
    """Write a submission and check it, with the options `args` of a judging command and --submission-name.

    `write(retriever, split, name)` writes the files and returns their paths.
    """
    checkpoints = args.clip_model_path, args.combiner_path
    vars(args).update(told_by_checkpoints(checkpoints, vars(args), args.given))
    # Before CLIP is loaded or downloaded: what is wrong with the data is found in seconds.
    split = read_test_split(task, args.data_path, args.skip_missing)
    require_writable(args.output_path)
    retriever = load_combined(retriever_options(args), combining_options(args))
    say_device(args.precision)
    experiment = start_experiment(f"{task.name} test submission", comet_options(args), args.output_path / "comet")
    with autocast(args.precision):
        written = write(retriever, split, args.submission_name or time_stamp())
    for path in written:
        print(f"{path}{retriever.skipping.mark}")
        experiment.log_asset(str(path))
    if is_first():
        say_whether_ready(task, check(SERVERS[task.name], written, split, args.data_path), args.data_path)
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
