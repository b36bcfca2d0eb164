"""What a training says at its end: which weights it kept, and the commands that come next."""

import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from src.base.files import PROJECT_ROOT
from src.command.data_flags import add_common_options
from src.command.parser import Parser, plain
from src.command.terminal import command_lines
from src.command.training_flags import RunOptions
from src.models.checkpoints import checkpoint_path
from src.models.facts import holds_its_clip
from src.tasks.task import Task
from src.training.run import FINE_TUNING, StageNames

SAME = "data_path", "output_path", "feature_cache", "no_feature_cache", "skip_missing", "precision"
"""Options that the next command needs too; what else decides results is in the checkpoints."""
PUBLISHED_BATCH = 4096
"""Of stage 2."""


def say_what_is_next(
    folder: Path, names: StageNames, options: RunOptions, task: Task, rows: Sequence[dict], triplets: int
) -> None:
    """Say on stderr which weights a run in `folder` kept, and print the commands that go on from the best of them.

    `rows` are those of validation_metrics.csv. `triplets` is how many the run trained on.
    """
    kept = list(_kept(folder, names, options, task, rows))
    if not kept:
        print("no weights were kept; --save-training keeps them", file=sys.stderr)
        return
    best = kept[0][0]
    print(f"kept in {_near(best.parent)}:", file=sys.stderr)
    for path, epoch, metric, value in kept:
        print(f"  {path.name} of epoch {epoch}, {metric} {value:.2f}", file=sys.stderr)
    others = len(list(best.parent.glob(f"{names.weights}_[0-9]*.pt"))) - 1
    if not options.plan.save_best and others > 0:
        print(f"  and {others:,} of other epochs", file=sys.stderr)
    commands = _after_stage_1 if names is FINE_TUNING else _after_stage_2
    print("next:", file=sys.stderr)
    for words in commands(folder, best, options, task, triplets):
        print(command_lines([shlex.quote(str(word)) for word in words]), file=sys.stderr)
    if names is not FINE_TUNING and _has_test_split(task, options):
        print(f"  then upload what it wrote: {task.submission[1]}", file=sys.stderr)


def _kept(folder, names, options, task, rows) -> Iterator[tuple[Path, int, str, float]]:
    """Yield file, epoch, metric and value of the best weights by each metric; without --save-best by the first one."""
    by_metric = names.best(task, options.plan.best_by)
    if not options.plan.save_best:
        metric = next(iter(by_metric.values()))
        rows = [row for row in rows if checkpoint_path(folder, f"{names.weights}_{row['epoch']}").is_file()]
        by_metric = {f"{names.weights}_{_best(rows, metric)['epoch']}": metric} if rows else {}
    for name, metric in by_metric.items():
        path = checkpoint_path(folder, name)
        if path.is_file():
            row = _best(rows, metric)
            yield path, row["epoch"], metric, row[metric]


def _best(rows: Sequence[dict], metric: str) -> dict:
    return max(rows, key=lambda row: row[metric])  # the first of equal ones, as --save-best keeps it


def _after_stage_1(folder: Path, best: Path, options: RunOptions, task: Task, triplets: int) -> Iterator[list]:
    batch = PUBLISHED_BATCH if triplets >= 4 * PUBLISHED_BATCH else options.plan.batch_size
    schedule = ["--batch-size", batch, "--validation-frequency", 1, "--save-training", "--save-best"]
    if options.plan.best_by is not None:
        schedule += ["--best-by", options.plan.best_by]
    extra = [word for path in options.extra_triplets for word in ("--extra-triplets", _near(path))]
    clip = ["--clip-model-path", _near(best)]
    yield [
        *_python("combiner_train.py"),
        *_dataset(options),
        *_same(options.hyper_parameters),
        *clip,
        *extra,
        *schedule,
    ]


def _after_stage_2(folder: Path, best: Path, options: RunOptions, task: Task, triplets: int) -> Iterator[list]:
    tuned = options.hyper_parameters["clip_model_path"]
    clip = [] if tuned is None or holds_its_clip(best) else ["--clip-model-path", _near(tuned)]
    models = [*_same(options.hyper_parameters), *clip, "--combiner-path", _near(best)]
    yield [*_python("validate.py"), *_dataset(options), *models]
    skipping = ["--skip-missing"] if options.skip_missing else []
    yield [*_python("report.py"), "--run-folder", _near(folder), *skipping]
    if _has_test_split(task, options):
        yield [*_python(task.submission[0]), *models]


def _has_test_split(task: Task, options: RunOptions) -> bool:
    return bool(task.submission and task.categories_in(options.data_path, task.splits[-1]))


def _python(command: str) -> list:
    return ["python", _near(PROJECT_ROOT / command)]


def _dataset(options: RunOptions) -> list:
    return ["--dataset", _near(options.dataset)]


def _same(options: Mapping) -> list:
    """Return the flags of SAME that are not left at their defaults."""
    parser = Parser("")
    add_common_options(parser)
    flags = []
    for name in SAME:
        value = options[name]
        if value != plain(parser.get_default(name)):
            flag = f"--{name.replace('_', '-')}"
            flags += [flag] if value is True else [flag, _near(value)]
    return flags


def _near(path: Path | str) -> Path | str:
    """Return an absolute path as it is seen from the working folder, where it lies in it; all else as it is."""
    inside = Path(path).is_absolute() and Path(path).is_relative_to(Path.cwd())
    return Path(path).relative_to(Path.cwd()) if inside else path
