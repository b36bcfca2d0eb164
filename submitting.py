"""What both commands share that write a submission for an evaluation server."""

import shlex
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path

from combiner import load_combined
from src.base.files import time_stamp
from src.command.comet import start_experiment
from src.command.outputs import data_files, require_outputs
from src.evaluation.submission import FAULT, SubmissionFile
from src.pictures.data import read_data
from src.processes.distributed import is_first
from src.retrieval.answers import Answers, answer, predict_queries
from src.retrieval.precision import autocast, say_device
from src.retrieval.retriever import Retriever
from src.retrieval.settings import settings
from src.tasks.protocol import Protocol
from src.tasks.task import Task
from src.tasks.triplets import Split

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
    compared = gallery.compared_by(retriever.combining_function)
    return answer(split.triplets, compared, predicted, protocol, best=ANSWERS)


def submit(args: Namespace, task: Task, files: Callable, write: Callable, check: Callable) -> None:
    """Do what both commands do, with the options `args` of a judging command and --submission-name.

    `files(name)` gives the paths of the files, `write(retriever, split, name)` writes them, `check(paths, split)` reads
    them again.
    """
    given = settings(args)
    # Before CLIP is loaded or downloaded: what is wrong with the data is found in seconds.
    split = read_test_split(task, args.data_path, args.skip_missing)
    name = args.submission_name or time_stamp()
    written = files(name)
    require_outputs(vars(args), {"--submission-name": written}, data_files(task, args.data_path, [split]))
    retriever = load_combined(given.retriever, given.combining)
    say_device(args.precision)
    experiment = start_experiment(f"{task.name} test submission", given.comet, args.output_path / "comet")
    with autocast(args.precision):
        write(retriever, split, name)
    for path in written:
        print(f"{path}{retriever.skipping.mark}")
        experiment.log_asset(str(path))
    if is_first():
        say_whether_ready(task, check(written, split), args.data_path)
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
