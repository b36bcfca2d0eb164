"""The way of a training command: read the data, make the batches, train the stage in its run folder."""

import contextlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch

from src.base.errors import InputError, require_one_of
from src.base.files import require_writable
from src.base.locks import owning
from src.command.outputs import data_files, output_files, require_outputs
from src.command.training_flags import RunOptions, TrainingPlan
from src.evaluation.validation import Validation
from src.models.facts import training_facts
from src.models.registry import model_label
from src.pictures.data import read_data, require_pictures
from src.processes import distributed
from src.processes.signals import Stopping
from src.retrieval.precision import resolved
from src.retrieval.retriever import Retriever
from src.tasks.registry import find_task
from src.tasks.task import Task
from src.tasks.triplets import Split
from src.training.batches import TripletLoader, TripletRows
from src.training.loop import Training
from src.training.run import StageNames, new_run_folder, open_run, run_files
from src.training.stage import Stage
from src.training.state import NOTHING, STATE_FILE, Keeper, way_on

if TYPE_CHECKING:
    from src.training.holding import Holding


class TrainingData(NamedTuple):
    """The splits that a training reads, before CLIP is loaded, and the options that it reads them for."""

    options: RunOptions
    task: Task
    train: dict[str, Split]
    """{category: Split}, after them {path: Split} of extra triplets"""
    val: dict[str, Split]


def read_training_data(options: RunOptions) -> TrainingData:
    """Read what a training needs.

    Raises InputError for all that can be wrong with it at first sight, a batch that the triplets do not fill, and an
    output path that cannot be written to.
    """
    task, column = find_task(options.dataset), options.plan.best_by
    if column is not None:
        require_one_of(column, task.column_names(), f"column of {task.name}'s validation_metrics.csv (--best-by)")
    needs = options.skip_missing, options.hyper_parameters["clip_model_name"]
    data = read_data(task, options.data_path, "train", "val", skip_missing=needs[0], clip_model_name=needs[1])
    extra = {}
    if options.extra_triplets:
        from src.tasks.own import read_extra  # late: most runs train on a data set with a name

        extra = read_extra(options.extra_triplets, data["train"].values())
    require_pictures(extra.values(), *needs)
    train = data["train"] | extra
    require_full_batch(options.plan.batch_size, sum(len(split.triplets) for split in train.values()))
    require_writable(options.output_path)
    if options.plan.per_triplet is not None:
        _require_output(options, task, train.values())
    return TrainingData(options, task, train, data["val"])


def _require_output(options: RunOptions, task: Task, splits: Iterable[Split]) -> None:
    """Raise InputError unless the file of --per-triplet can be written and replaces nothing that is read or kept."""
    path = options.plan.per_triplet
    if path.suffix.lower() in (".tsv", ".xlsx"):
        raise InputError(f"--per-triplet {path}: is written as CSV, and would be read as another table; call it .csv")
    kept = {"--resume": run_files(options.resume) if options.resume else ()}
    given = {name: value for name, value in options.hyper_parameters.items() if name != "per_triplet"}
    outputs = output_files({"per_triplet": path}, "per_triplet")
    require_outputs(given, outputs, data_files(task.tables(options.data_path), splits) | kept)


def require_full_batch(batch_size: int, triplets: int) -> None:
    """Raise InputError when the triplets do not fill one batch, or a batch does not give each process a triplet."""
    # drop_last would leave an epoch without a step, and a division by zero after it.
    if batch_size == 1:
        raise InputError("--batch-size 1: the loss needs at least one other target as a negative")
    if batch_size > triplets:
        raise InputError(f"--batch-size {batch_size}: larger than the training set ({triplets} triplets)")
    if batch_size < distributed.processes():
        raise InputError(f"--batch-size {batch_size}: smaller than the number of processes ({distributed.processes()})")


def prepare(
    data: TrainingData, retriever: Retriever, batches: type[TripletRows], num_workers: int
) -> tuple[TripletLoader, Validation]:
    """Make a loader of `batches` and a Validation; raises InputError when too little is left."""
    plan = data.options.plan
    splits = [retriever.usable(split) for split in data.train.values()]
    share = distributed.share(plan.batch_size)
    triplets = batches(splits, retriever.preprocess, retriever.image_cache, share, plan.distinct_pictures)
    require_full_batch(plan.batch_size, len(triplets))  # --skip-missing may have left too few
    loader = TripletLoader(triplets, plan.batch_size, num_workers, plan.seed)
    return loader, Validation(data.task, data.val, retriever)


def train_stage(
    stage: Stage,
    optimizer: torch.optim.Optimizer,
    loader: TripletLoader,
    validation: Validation,
    data: TrainingData,
    facts: dict | None = None,
) -> None:
    """Train a stage in a new run folder, or where --resume says; a run without any finished epoch begins anew.

    `facts` are those of its checkpoints beside the options. Refuses before anything of an old run is changed.
    """
    options, plan, names = data.options, data.options.plan, stage.names
    remarks = validation.retriever.skipping.remarks
    facts = _facts(options, validation.retriever) | (facts or {})
    triplets = len(loader.triplets)
    training = _training(stage, optimizer, loader, data)
    _say_what_is_not_kept(plan)
    _say_what_recipe_lacks(options.hyper_parameters, names)
    with _run_folder(data, names) as (folder, stopping):
        print(f"run folder: {folder}", file=sys.stderr, flush=True)
        state, known = _restored(training, data, folder, facts, remarks) if options.resume else (None, None)
        project = f"{data.task.name} {names.project}"
        run = open_run(folder, state and state["run"], project, options.comet, options.hyper_parameters, remarks)
        if training.state.next_epoch == plan.num_epochs and training.state.judged:
            print(f"{folder}: all {plan.num_epochs} epochs are done; --num-epochs takes more", file=sys.stderr)
        recipe = names.recipe(options.hyper_parameters)
        # Told, but not compared: a run that goes on for more epochs is still the same.
        facts |= {"recipe": recipe} if recipe else {}
        keeper = Keeper(training.state, run, triplets, facts, plan.save_training)
        best = names.best(data.task, plan.best_by) if plan.save_best else {}
        training.train(keeper, stopping, validation, best, known)
        if distributed.is_first():
            if training.state.holding is not None:
                _write_per_triplet(data, validation.retriever, training.state.holding)
            from src.training.ending import say_what_is_next  # late: at the end

            say_what_is_next(folder, names, options, data.task, run.validations(), triplets)
        # The last line, which scripts read.
        print(folder)


def _training(stage: Stage, optimizer: torch.optim.Optimizer, loader: TripletLoader, data: TrainingData) -> Training:
    plan, holding = data.options.plan, None
    if plan.per_triplet is not None:
        from src.training.holding import Holding  # late: most runs keep nothing of each triplet
        from src.training.per_triplet import data_of

        holding = Holding(len(loader.triplets), data_of(data.task.name, data.train))
    return Training(stage, optimizer, loader, data.task, plan, holding)


def _write_per_triplet(data: TrainingData, retriever: Retriever, holding: "Holding") -> None:
    from src.training.per_triplet import write_per_triplet  # late, as above

    path, used = data.options.plan.per_triplet, [retriever.usable(split) for split in data.train.values()]
    write_per_triplet(path, holding.data, data.train, used, holding.means())
    print(f"wrote {path}", file=sys.stderr)


def _restored(
    training: Training, data: TrainingData, folder: Path, facts: dict, remarks: dict
) -> tuple[dict | None, dict | None]:
    """Take a training back to the state in its run folder; return that, and the metrics of its last epoch, if there.

    Both are None of a run that was stopped in its first epoch. Raises InputError for the state of another run.
    """
    from src.training.resuming import read_state, require_same_run, validated  # late: most runs are new

    state = read_state(folder)
    if state is None:
        return None, None
    require_same_run(state, folder / STATE_FILE, len(training.loader.triplets), facts, data.options.plan.num_epochs)
    training.state.restore(state, folder / STATE_FILE)
    picking = training.stage.names.best(data.task, data.options.plan.best_by).values()
    return state, validated(folder, state, picking, remarks)


def _facts(options: RunOptions, retriever: Retriever) -> dict:
    """Return the facts that checkpoints of both stages have."""
    backbone = retriever.backbone
    clip = {"clip_weights": backbone.digest()} | ({"clip_network": backbone.network} if backbone.network else {})
    # What is left out belongs to them too: a run must not go on with other pictures than it began with.
    facts = training_facts(options.hyper_parameters) | clip | retriever.skipping.remarks
    return facts | {"precision": resolved(options.plan.precision, training=True)}


def _say_what_is_not_kept(plan: TrainingPlan) -> None:
    if not plan.save_training:
        best = "--save-best: saves nothing without --save-training"
        print(best if plan.save_best else "without --save-training no weights are saved", file=sys.stderr)
    unjudged = (plan.num_epochs - 1) % plan.validation_frequency
    if plan.save_training and unjudged:
        last = f"epoch {plan.num_epochs - 1 - unjudged} is the last with a validation"
        frequency = f"--validation-frequency {plan.validation_frequency}"
        print(f"{frequency}: {last}; later ones leave no weights but for --resume", file=sys.stderr)


def _say_what_recipe_lacks(options: Mapping, names: StageNames) -> None:
    name = options.get("recipe")
    if name in names.recipes and names.recipes[name].needs_tuned and options["clip_model_path"] is None:
        tuned = "goes on from a tuned CLIP, which --clip-model-path names"
        print(f"--recipe {name}: {tuned}; from untuned weights this is not what was published", file=sys.stderr)


@contextlib.contextmanager
def _run_folder(data: TrainingData, names: StageNames) -> Iterator[tuple[Path, Stopping]]:
    """Give a new run's folder or that of --resume, locked meanwhile, and what stops the run."""
    options, folder, saves = data.options, data.options.resume, data.options.plan.save_training
    with Stopping(lambda: way_on(folder, saves) if folder else "nothing was written yet") as stopping:
        if folder is None:
            label = model_label(options.hyper_parameters["clip_model_name"])
            name = f"{names.run}_on_{data.task.short_name}_{label}"
            with stopping.finishing():
                folder = new_run_folder(options.output_path / "models", name, options.hyper_parameters)
                stopping.last_words = partial(way_on, folder, saves, NOTHING)
        with owning(folder) if distributed.is_first() else contextlib.nullcontext():
            yield folder, stopping
