"""The loop of both stages: epochs of full batches, and validations between them."""

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from src.base.bars import Bar
from src.base.device import device
from src.base.errors import InputError, fault_of_machine, in_a_line, is_out_of_memory, one_line
from src.base.files import owning, require_writable
from src.base.memory import free_cached
from src.command.training_flags import RunOptions, TrainingPlan
from src.evaluation.validation import Validation
from src.models.facts import training_facts
from src.models.registry import model_label
from src.models.weights import checkpoint_content
from src.pictures.data import read_data
from src.pictures.opening import require_present
from src.processes import distributed
from src.processes.signals import Stopping
from src.retrieval.precision import autocast, autocast_dtype, resolved
from src.retrieval.retriever import Retriever
from src.tasks.registry import find_task
from src.tasks.task import Task
from src.tasks.triplets import Split
from src.training.batches import Batch, TripletLoader, TripletRows
from src.training.losses import contrastive_loss
from src.training.progress import mean_train_loss, set_train_bar_description, update_train_running_results
from src.training.run import StageNames, new_run_folder, open_run
from src.training.state import NOTHING, STATE_FILE, Keeper, TrainingState, read_state, require_same_run, way_on


class TrainingData(NamedTuple):
    """The splits that a training reads, before CLIP is loaded, and the options that it reads them for."""

    options: RunOptions
    task: Task
    train: dict[str, Split]
    """{category: Split}, behind them {path: Split} of extra triplets"""
    val: dict[str, Split]


def read_training_data(options: RunOptions) -> TrainingData:
    """Read what a training needs.

    Raises InputError for all that can be wrong with it at first sight, a batch that the triplets do not fill, and an
    output path that cannot be written to.
    """
    task = find_task(options.dataset)
    data = read_data(task, options.data_path, "train", "val", skip_missing=options.skip_missing)
    extra = {}
    if options.extra_triplets:
        from src.tasks.own import read_extra  # late: most runs train on a data set with a name

        extra = read_extra(options.extra_triplets)
    if not options.skip_missing:
        require_present(path for split in extra.values() for path in split.pictures.values())
    train = data["train"] | extra
    require_full_batch(options.plan.batch_size, sum(len(split.triplets) for split in train.values()))
    require_writable(options.output_path)
    return TrainingData(options, task, train, data["val"])


def require_full_batch(batch_size: int, triplets: int) -> None:
    """Raise InputError when the triplets do not fill one batch, or a batch does not give each process a triplet."""
    # drop_last would leave an epoch without a step, and a division by zero behind it.
    if batch_size == 1:
        raise InputError("--batch-size 1: nothing can be learned from it, a target has to be told from those of others")
    if batch_size > triplets:
        raise InputError(f"--batch-size {batch_size}: there are only {triplets} training triplets; no batch is larger")
    if batch_size < distributed.processes():
        raise InputError(f"--batch-size {batch_size}: has no triplet for some of {distributed.processes()} processes")


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


class Training:
    """The training loop of one stage.

    `stage.inputs(batch, texts)` puts a Batch on the device, with a text for each triplet of this process's share, and
    `stage(inputs)` gives the (predicted, target) features of that.
    """

    def __init__(
        self,
        stage: nn.Module,
        optimizer: torch.optim.Optimizer,
        loader: TripletLoader | None,
        task: Task,
        plan: TrainingPlan,
    ):
        self.stage, self.loader, self.task, self.plan = stage, loader, task, plan
        # Only calls through it are synchronised, so a step never calls the stage itself.
        self.module = distributed.synchronised(stage, plan.batch_size, some_wait=stage.frozen_epochs > 0)
        halved = autocast_dtype(plan.precision, training=True) is torch.float16
        # fp16 gradients vanish without it; bf16 has the range of fp32.
        scaler = torch.amp.GradScaler(device.type, enabled=halved)
        order = None if loader is None else loader.draws
        self.state = TrainingState(stage.trained, optimizer, scaler, order, plan.seed)
        self._stepped = False

    def train(self, keeper: Keeper, stopping: Stopping, validation: Validation, best: dict[str, str]) -> None:
        """Run the epochs that are left, with a validation behind every so many of them.

        `best` {name of weights: metric} are the only weights to keep; empty keeps those of every validation. Raises
        InputError when a loss is not finite or the disk has no room for what will be saved.
        """
        stopping.last_words = keeper.last_words
        self.state.restore_random_states()
        saves = keeper.saves and distributed.is_first()
        if saves:
            validations = len(range(self.state.next_epoch, self.plan.num_epochs, self.plan.validation_frequency))
            # With --save-best one file more: the new one is written beside the old one.
            keeper.require_space(files=len(best) + 1 if best else validations)
        try:
            with stopping.failing(), distributed.naming_lost_processes(keeper.last_words):
                # Not an attribute, which would be a cycle of references: the loader's workers would end seconds late.
                save = partial(self._save_state, keeper, stopping) if saves else lambda at_once=False: None
                self._judge_if_due(keeper, validation, best, save)  # of a run that ended before it could
                for epoch in range(self.state.next_epoch, self.plan.num_epochs):
                    keeper.run.log_training(epoch, self.train_epoch(epoch, keeper.run.log_step))
                    self.state.next_epoch = epoch + 1
                    # From the first epoch on, as published.
                    self.state.judged = epoch % self.plan.validation_frequency != 0
                    # Before the validation, so that no fault behind it can cost an epoch of training.
                    save()
                    self._judge_if_due(keeper, validation, best, save)
                save(at_once=True)
        except InputError as error:
            raise InputError(f"{one_line(error)}; {keeper.last_words()}") from None
        except (MemoryError, RuntimeError) as error:
            fault = fault_of_machine(error)
            if fault is None:
                raise
            raise InputError(f"{fault}; {keeper.last_words()}") from None
        finally:
            try:
                with stopping.finishing():
                    keeper.finish()
            finally:
                keeper.run.end()

    @staticmethod
    def _save_state(keeper, stopping, at_once=False):
        with stopping.finishing():
            keeper.save_state(at_once)

    def _judge_if_due(self, keeper, validation, best, save):
        if self.state.judged:
            return
        epoch = self.state.next_epoch - 1
        try:
            metrics = self.validate(validation)
        except BaseException:
            save(at_once=True)  # the weights are still those of the epoch's end
            raise
        keeper.run.log_validation(epoch, metrics)
        if keeper.saves and distributed.is_first():
            self._save_weights(epoch, metrics, keeper, best)
        self.state.judged = True
        save()

    def train_epoch(self, epoch: int, log_step: Callable[[int, float], None] | None = None) -> float:
        """Take one pass over the triplets; return its mean loss. Raises InputError when a loss is not finite."""
        results = {"images_in_epoch": 0, "accumulated_train_loss": 0.0}
        self.stage.begin(epoch)
        self.stage.train()
        with Bar(self.loader) as bar:
            for step, loss in enumerate(self._losses(bar), start=epoch * len(self.loader)):
                if not loss.isfinite():
                    raise InputError(f"epoch {epoch}, step {step}: the loss is {loss.item()}")
                update_train_running_results(results, loss, self.plan.batch_size)
                set_train_bar_description(bar, epoch, self.plan.num_epochs, results)
                if log_step is not None:
                    log_step(step, loss.item())
        return mean_train_loss(results)

    def _losses(self, batches: Iterable[Batch]) -> Iterator[Tensor]:
        """Take a step with each of `batches`; yield their losses on the CPU, each when the next step is under way.

        So a card computes while captions are tokenised. Reading the loss is all that a step waits for.
        """
        last = None
        for batch in batches:
            texts = self._texts(batch.captions)[distributed.share(self.plan.batch_size)]
            inputs = self.stage.inputs(batch, texts)
            loss = self.train_step(inputs, batch.all_targets.to(device, non_blocking=True))
            if last is not None:
                yield last.cpu()
            last = loss
        yield last.cpu()

    def _texts(self, captions: list[tuple[str, ...]]) -> list[str]:
        """Draw a text for each triplet of a whole batch, so that no process draws another than its share's."""
        texts = []
        for variants in map(self.task.training_texts, captions):
            # A single variant draws nothing: runs of data sets with one caption must not depend on the draws.
            texts.append(variants[int(len(variants) * self.state.draws.random())] if len(variants) > 1 else variants[0])
        return texts

    def train_step(self, inputs: tuple, all_targets: Tensor | None = None) -> Tensor:
        """Take one step of the optimizer on what `stage.inputs` gave; return the batch's loss.

        `all_targets` [batch] are the rows of the whole batch's targets, which a bank and --mask-same-target need.
        Until the first one was taken, a batch that does not fit into memory is taken in ever smaller pieces, where the
        stage can, and a line says in which. Raises InputError when it does not fit all the same, and when the pieces
        that were given by hand are too large.
        """
        fitting = None
        self.state.optimizer.zero_grad()  # before the forward pass, which needs their memory
        reserved = self.state.room_for_optimizer()
        while True:
            try:
                loss = self._backward(inputs, all_targets)
                break
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                fault = in_a_line(error)
            self.state.optimizer.zero_grad()
            free_cached()
            fitting = self._smaller_pieces(fault)
        del reserved
        if fitting is not None:
            self._say_what_fits(fitting)
        self.state.scaler.step(self.state.optimizer)
        self.state.scaler.update()
        self._stepped = True
        return distributed.summed(loss)

    def _backward(self, inputs, all_targets) -> Tensor:
        # The backward pass stays outside of autocast, as torch wants it.
        with autocast(self.plan.precision, training=True):
            loss = self._loss(*self.module(inputs), all_targets)
        self.state.scaler.scale(loss).backward()
        return loss.detach()

    def _smaller_pieces(self, fault):
        """Let the stage take half as much at once, and return how much; raises InputError where that is no way out."""
        # Later, or with other processes in the middle of the same step, what one process changes alone is no way out.
        alone = not self._stepped and distributed.processes() == 1
        size = self.stage.smaller_pieces(self.plan.batch_size) if alone else None
        if size is None:
            raise InputError(f"--batch-size {self.plan.batch_size}: the memory is full ({fault}){self.stage.way_out}")
        return size

    def _say_what_fits(self, size):
        if self.stage.given_pieces is not None:  # a choice is kept, or refused
            raise InputError(f"--clip-bs {self.stage.given_pieces}: the memory is full; --clip-bs {size} fits")
        pieces = f"CLIP takes {size} pictures or captions at once (--clip-bs {size} saves the search)"
        print(f"--batch-size {self.plan.batch_size}: the memory is full; {pieces}", file=sys.stderr, flush=True)

    def _loss(self, predicted, targets, all_targets):
        """Return this process's part of the batch's loss, which is their sum: own queries, everyone's targets."""
        plan, mine = self.plan, distributed.share(self.plan.batch_size)
        if plan.negatives == "bank":
            # Every process has the whole bank, so nothing is exchanged.
            bank = self.stage.picture_features.compared_by(self.stage.combining_function)
            loss = contrastive_loss(predicted, bank, plan.scale, all_targets[mine])
        else:
            # Every process needs all targets as negatives, else a batch would be as many small ones.
            everyones = distributed.gathered(targets, plan.batch_size)
            labels = torch.arange(mine.start, mine.stop, device=predicted.device)
            pictures = all_targets if plan.mask_same_target else None
            loss = contrastive_loss(predicted, everyones, plan.scale, labels, pictures)
        # Weighed by the share: shares differ by one triplet where the batch does not divide.
        return loss * (len(predicted) / plan.batch_size)

    def validate(self, validation: Validation) -> dict[str, float]:
        """Return the columns of validation_metrics.csv, of the stage as it is now."""
        self.stage.eval()
        with autocast(self.plan.precision):
            return validation.metrics(self.stage.combining_function)

    def _save_weights(self, epoch, metrics, keeper, best):
        if best:
            names = [name for name, metric in best.items() if keeper.run.improves(name, metrics[metric])]
        else:
            names = [f"{self.stage.names.weights}_{epoch}"]
        for name in names:
            facts = keeper.facts | self.stage.told() | {"metrics": metrics}
            keeper.save_weights(name, checkpoint_content(epoch, self.stage.trained, facts))


def train_stage(
    stage: nn.Module,
    optimizer: torch.optim.Optimizer,
    loader: TripletLoader,
    validation: Validation,
    data: TrainingData,
    facts: dict | None = None,
) -> None:
    """Train a stage in a run folder of its own, or where --resume says; a run without any finished epoch begins anew.

    `facts` are what its checkpoints tell beside the options. Refuses before anything of an old run is changed.
    """
    options, plan, names = data.options, data.options.plan, stage.names
    training = Training(stage, optimizer, loader, data.task, plan)
    remarks = validation.retriever.skipping.remarks
    facts = _facts(options, validation.retriever) | (facts or {})
    triplets = len(loader.triplets)
    _say_what_is_not_kept(plan)
    with _run_folder(data, names) as (folder, stopping):
        state = read_state(folder)
        # None is a new run, or one that was stopped in its first epoch.
        if state is not None:
            require_same_run(state, folder / STATE_FILE, triplets, facts, plan.num_epochs)
            training.state.restore(state, folder / STATE_FILE)
        project = f"{data.task.name} {names.project}"
        run = open_run(folder, state and state["run"], project, options.comet, options.hyper_parameters, remarks)
        if training.state.next_epoch == plan.num_epochs and training.state.judged:
            print(f"{folder}: all {plan.num_epochs} epochs are done; --num-epochs takes more", file=sys.stderr)
        recipe = names.recipe(options.hyper_parameters)
        # Told, but not compared: a run that goes on for more epochs is still the same.
        facts |= {"recipe": recipe} if recipe else {}
        keeper = Keeper(training.state, run, triplets, facts, plan.save_training)
        training.train(keeper, stopping, validation, names.best(data.task) if plan.save_best else {})
        print(folder)


def _facts(options: RunOptions, retriever: Retriever) -> dict:
    """Return what the checkpoints of a run tell that both stages have."""
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


@contextlib.contextmanager
def _run_folder(data: TrainingData, names: StageNames) -> Iterator[tuple[Path, Stopping]]:
    """Give a new run's folder or that of --resume, which no other process has meanwhile, and what stops the run."""
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
