"""Compare ways to train stage 2: what they gain over the published loss on the same queries, and what they cost.

    python -m benchmarks.recipes
    python -m benchmarks.recipes --data-path DATA --clip-model-name CLIP --clip-model-path tuned_clip.pt

Draws a toy world and tunes its CLIP, or takes CIRR's layout in --data-path. Every seed trains each way in turn, by the
commands themselves. Writes recipes.md to this folder, or what --output names.
"""

import os
from argparse import Namespace
from pathlib import Path

from src.base.parser import Parser, count, existing_file, file_path, name_or_file


def parse_arguments(argv=None) -> Namespace:
    parser = Parser("Compare ways to train stage 2 on the same queries, with several seeds.")
    help_text = "folder that holds cirr_dataset/ (default: a toy world drawn for it, whose CLIP is tuned first)"
    parser.add_argument("--data-path", type=file_path, help=help_text)
    help_text = "with --data-path: the CLIP"
    parser.add_argument("--clip-model-name", type=name_or_file, help=help_text)
    help_text = "with --data-path: its checkpoint of stage 1"
    parser.add_argument("--clip-model-path", type=existing_file, help=help_text)
    parser.add_argument("--seeds", type=count, default=3, metavar="N", help="how many trainings of each way")
    parser.add_argument("--num-epochs", type=count, default=12, help="passes over the triplets")
    parser.add_argument("--batch-size", type=count, default=256, help="triplets a step")
    default = Path(__file__).with_suffix(".md")
    parser.add_argument("--output", type=file_path, default=default, metavar="FILE.md", help="receives the table")
    args = parser.parse_args(argv)
    if (args.data_path is None) != (args.clip_model_name is None):
        parser.error("--data-path and --clip-model-name need each other")
    if args.clip_model_path is not None and args.data_path is None:
        parser.error("--clip-model-path is for --data-path")
    return args


if __name__ == "__main__":
    # --help and a wrong flag are answered here, before torch is imported.
    if parse_arguments().data_path is None:
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # the toy world's tensors are so small that two threads wait
    os.environ["TQDM_DISABLE"] = "1"  # bars of hundreds of short epochs

import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from statistics import mean, median
from typing import NamedTuple

import numpy as np
import pandas as pd

import clip_fine_tune
import combiner_train
import validate
from benchmarks.checks import call
from benchmarks.measure import machine
from src.apps.compare.comparison import read_per_query
from src.apps.compare.paired import differences
from src.base.errors import one_line_errors
from src.base.files import replacing, require_writable_files
from src.evaluation.intervals import Values
from src.models.facts import holds_its_clip
from src.tasks.registry import TASKS
from src.toy import PICTURES, QUERIES, write_world

PUBLISHED = "published"
BANK = ["--negatives", "bank"]
LESS_DROPOUT = [*BANK, "--dropout", ".2"]
ALONG = ["--encoder", "text", "--learning-rate", "1e-3", "--frozen-epochs", "1", "--clip-bs", "256"]
WAYS = {
    PUBLISHED: [],
    "bank": BANK,
    "bank, dropout .2": LESS_DROPOUT,
    "bank, dropout .2, text encoder along": [*LESS_DROPOUT, *ALONG],
}
"""{way: what it adds to the flags that all have}"""
COMBINER = ["--projection-dim", "256", "--hidden-dim", "512", "--combiner-lr", "1e-3", "--validation-frequency", "1"]
CIRR = TASKS["CIRR"]
METRIC = "recall_at1"
HEADER = ["stage 2", "R@1, best epoch", "of each seed", "last epoch", "gain", "95 %", "seconds an epoch"]


class Trained(NamedTuple):
    """What one training gave."""

    best: float
    """R@1 of its best epoch, in percent."""
    last: float
    """R@1 of its last epoch."""
    scores: Values
    """What each query scores with the weights of the best epoch."""
    seconds: list[float]
    """From the end of an epoch to the end of the next, validations and saving included."""


def tuned_toy(folder: Path) -> tuple[list[str], list[str]]:
    """Draw a toy world in `folder` and tune its CLIP as the quickstart does; return the options that `train` takes."""
    write_world(folder, PICTURES, QUERIES)
    data = ["--data-path", str(folder), "--clip-model-name", str(folder / "small_clip.pt")]
    schedule = ["--num-epochs", "8", "--batch-size", "128", "--learning-rate", "1e-3"]
    kept = ["--output-path", str(folder), "--save-training", "--save-best"]
    call(clip_fine_tune.main, ["--dataset", CIRR.name, *data, *schedule, *kept])
    (tuned,) = folder.glob("models/*/saved_models/tuned_clip_arithmetic.pt")
    return data, ["--clip-model-path", str(tuned)]


def train(data: list[str], tuned: list[str], flags: list[str]) -> Trained:
    """Train stage 2 with `flags`, and ask each validation query again with the weights of the best epoch.

    `data` are the options of the data set and its CLIP, `tuned` those of a checkpoint of stage 1.
    """
    with tempfile.TemporaryDirectory() as folder:
        common = ["--dataset", CIRR.name, *data, "--output-path", folder]
        call(combiner_train.main, [*common, *tuned, *COMBINER, *flags, "--save-training"])
        (run,) = Path(folder, "models").iterdir()
        recalls = pd.read_csv(run / "validation_metrics.csv")[METRIC].tolist()
        weights = [run / "saved_models" / f"combiner_{epoch}.pt" for epoch in range(len(recalls))]
        # Each epoch ends with its weights.
        seconds = [later - earlier for earlier, later in pairwise(path.stat().st_mtime for path in weights)]
        per_query = Path(folder) / "queries.csv"
        best = weights[recalls.index(max(recalls))]
        clip = [] if holds_its_clip(best) else tuned
        call(validate.main, [*common, *clip, "--combiner-path", str(best), "--per-query", str(per_query)])
        read = read_per_query(per_query)
        return Trained(max(recalls), recalls[-1], read.scores(list(read.rows)), seconds)


def over_seeds(trained: Sequence[Trained]) -> Values:
    """Return what each query scores in the mean over seeds."""
    of_seeds = [one.scores for one in trained]
    return {
        category: {metric: np.mean([scores[category][metric] for scores in of_seeds], axis=0) for metric in of}
        for category, of in of_seeds[0].items()
    }


def line(way: str, trained: Sequence[Trained], published: Sequence[Trained]) -> str:
    """Return a way's row of the table: its trainings of all seeds beside the published ones."""
    gain, interval = "–", "–"
    if way != PUBLISHED:
        # A query's mean over the seeds is its one score: resampled are queries, which the seeds share.
        found = differences(over_seeds(published), over_seeds(trained), CIRR.measures)[METRIC]
        gain, interval = f"{found.gain:+.2f}", f"{found.low:+.2f} to {found.high:+.2f}"
    seconds = [one for run in trained for one in run.seconds]
    cells = [
        *(way, f"{mean(one.best for one in trained):.2f}", ", ".join(f"{one.best:.2f}" for one in trained)),
        *(f"{mean(one.last for one in trained):.2f}", gain, interval),
        f"{median(seconds):.2g}" if seconds else "–",
    ]
    return f"| {' | '.join(cells)} |"


def table(trained: dict[str, Sequence[Trained]]) -> str:
    """Return the table in Markdown of `trained` {way: its trainings}."""
    lines = [line(way, of_way, trained[PUBLISHED]) for way, of_way in trained.items()]
    return "\n".join([f"| {' | '.join(HEADER)} |", "|---" * len(HEADER) + "|", *lines])


@one_line_errors
def main(argv=None):
    args = parse_arguments(argv)
    require_writable_files({"--output": [args.output]})
    started = time.monotonic()
    trained = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        if args.data_path is None:
            data, tuned = tuned_toy(Path(folder))
        else:
            data = ["--data-path", str(args.data_path), "--clip-model-name", args.clip_model_name]
            tuned = ["--clip-model-path", str(args.clip_model_path)] if args.clip_model_path else []
        # Pictures are encoded once for all trainings.
        data += ["--feature-cache", str(Path(folder) / "features")]
        length = ["--num-epochs", str(args.num_epochs), "--batch-size", str(args.batch_size)]
        for seed in range(args.seeds):
            for way, flags in WAYS.items():
                one = train(data, tuned, [*length, *flags, "--seed", str(seed)])
                trained[way].append(one)
                print(f"{time.monotonic() - started:4.0f} s seed {seed}, {way}: R@1 {one.best:.2f}", file=sys.stderr)
    with replacing(args.output) as unfinished:
        unfinished.write_text(table(trained) + "\n", encoding="utf-8")
    print(f"{table(trained)}\n\n{machine()}\n{time.monotonic() - started:.0f} s; written to {args.output}")


if __name__ == "__main__":
    main()
