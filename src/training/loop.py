"""The loop of both stages: epochs of full batches, and validations between them."""

import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from src.base.bars import Bar
from src.base.device import device
from src.base.errors import InputError, fault_of_machine, in_a_line, is_out_of_memory, one_line
from src.base.memory import free_cached
from src.command.training_flags import TrainingPlan
from src.evaluation.validation import Validation
from src.models.checkpoints import checkpoint_content
from src.processes import distributed, gradients
from src.processes.signals import Stopping
from src.retrieval.precision import autocast, autocast_dtype
from src.tasks.task import Task
from src.training.batches import Batch, TripletLoader
from src.training.losses import Note, loss_of
from src.training.progress import (
    mean_train_loss,
    set_train_bar_description,
    update_train_running_results,
    validation_line,
)
from src.training.stage import Stage
from src.training.state import Keeper, TrainingState

if TYPE_CHECKING:
    from src.training.holding import Holding


class Training:
    """The training loop of one stage."""

    def __init__(
        self,
        stage: Stage,
        optimizer: torch.optim.Optimizer,
        loader: TripletLoader | None,
        task: Task,
        plan: TrainingPlan,
        holding: "Holding | None" = None,
    ):
        self.stage, self.loader, self.task, self.plan = stage, loader, task, plan
        # Call the stage only through this; otherwise gradients are not synchronised between processes.
        self.module = gradients.synchronised(stage, plan.batch_size, some_wait=stage.frozen_epochs > 0)
        halved = autocast_dtype(plan.precision, training=True) is torch.float16
        # fp16 gradients vanish without it; bf16 has the range of fp32.
        scaler = torch.amp.GradScaler(device.type, enabled=halved)
        order = None if loader is None else loader.draws
        self.state = TrainingState(stage.trained, optimizer, scaler, order, plan.seed, holding)
        self.loss = loss_of(plan)
        self._stepped = False

    def train(
        self,
        keeper: Keeper,
        stopping: Stopping,
        validation: Validation,
        best: dict[str, str],
        known: dict[str, float] | None = None,
    ) -> None:
        """Run the remaining epochs and validate every `validation_frequency` epochs.

        `best` {name of weights: metric} are the only weights to keep; empty keeps those of every validation. `known`
        are the metrics of the last epoch of a run that ended before its state held them. Raises InputError when a loss
        is not finite or the disk has no room for what will be saved.
        """
        stopping.last_words = keeper.last_words
        self.state.restore_random_states()
        saves = keeper.saves and distributed.is_first()
        if saves:
            validations = len(range(self.state.next_epoch, self.plan.num_epochs, self.plan.validation_frequency))
            # With --save-best one file more: the new one is written beside the old one.
            keeper.require_space(files=len(best) + 1 if best else validations)
        try:
            with stopping.failing(), distributed.naming_lost_processes():
                # Not an attribute, which would be a cycle of references: the loader's workers would end seconds late.
                save = partial(self._save_state, keeper, stopping) if saves else lambda at_once=False: None
                self._run_epochs(keeper, validation, best, save, known)
        except (InputError, MemoryError, RuntimeError) as error:
            fault = one_line(error) if isinstance(error, InputError) else fault_of_machine(error)
            if fault is None:
                raise
            # The only place that says how to go on after an error.
            raise InputError(f"{fault}; {keeper.last_words()}") from None
        finally:
            try:
                with stopping.finishing():
                    keeper.finish()
            finally:
                keeper.run.end()

    def _run_epochs(self, keeper, validation, best, save, known):
        # Left over from a run that was stopped before its validation.
        self._judge_if_due(keeper, validation, best, save, known)
        for epoch in range(self.state.next_epoch, self.plan.num_epochs):
            keeper.run.log_training(epoch, self.train_epoch(epoch, keeper.run.log_step))
            self.state.next_epoch = epoch + 1
            # True where no validation is due; epoch 0 has one, as published.
            self.state.judged = epoch % self.plan.validation_frequency != 0
            # Before the validation, so that no fault in it can cost an epoch of training.
            save()
            self._judge_if_due(keeper, validation, best, save)
        save(at_once=True)

    @staticmethod
    def _save_state(keeper, stopping, at_once=False):
        with stopping.finishing():
            keeper.save_state(at_once)

    def _judge_if_due(self, keeper, validation, best, save, known=None):
        if self.state.judged:
            return
        epoch, run = self.state.next_epoch - 1, keeper.run
        try:
            # A validation draws nothing at random, so that a run goes on alike without it.
            metrics = known or self.validate(validation)
        except BaseException:
            save(at_once=True)  # the weights are still those of the epoch's end
            raise
        run.log_validation(epoch, metrics)
        mark = validation.retriever.skipping.mark
        # Flushed, since batch systems keep lines for minutes and people watch them.
        rows = run.validations()
        print(validation_line(epoch, run.losses()[epoch], rows, self.task, mark, self.plan.best_by), flush=True)
        if keeper.saves and distributed.is_first():
            self._save_weights(epoch, metrics, keeper, best)
        self.state.judged = True
        save()

    def train_epoch(self, epoch: int, log_step: Callable[[int, float], None] | None = None) -> float:
        """Take one pass over the triplets; return its mean loss. Raises InputError when a loss is not finite."""
        results = {"images_in_epoch": 0, "accumulated_train_loss": 0.0}
        self.stage.begin(epoch)
        self.stage.train()
        if self.state.holding is not None:
            self.state.holding.begin()
        # A label before the first loss is known.
        with Bar(self.loader, desc=f"[{epoch}/{self.plan.num_epochs}]") as bar:
            for step, loss in enumerate(self._losses(bar), start=epoch * len(self.loader)):
                if not loss.isfinite():
                    raise InputError(f"epoch {epoch}, step {step}: the loss is {loss.item()}")
                update_train_running_results(results, loss, self.plan.batch_size)
                set_train_bar_description(bar, epoch, self.plan.num_epochs, results)
                if log_step is not None:
                    log_step(step, loss.item())
        if self.state.holding is not None:
            self.state.holding.end()
        return mean_train_loss(results)

    def _losses(self, batches: Iterable[Batch]) -> Iterator[Tensor]:
        """Take a step with each of `batches`; yield their losses on the CPU, each one step late.

        So a card computes while captions are tokenised. Reading the loss is all that a step waits for.
        """
        last = None
        for batch in batches:
            texts = self._texts(batch.captions)[distributed.share(self.plan.batch_size)]
            inputs = self.stage.inputs(batch, texts)
            loss = self.train_step(inputs, batch.all_targets.to(device, non_blocking=True), self._note_of(batch))
            if last is not None:
                yield last.cpu()
            last = loss
        yield last.cpu()

    def _note_of(self, batch: Batch) -> Note | None:
        """What notes the logits of this process's share of a batch; None without --per-triplet."""
        if self.state.holding is None:
            return None
        numbers = torch.tensor(batch.numbers[distributed.share(self.plan.batch_size)])
        return partial(self.state.holding.note, numbers.to(device, non_blocking=True))

    def _texts(self, captions: list[tuple[str, ...]]) -> list[str]:
        """Draw a text for each triplet of the whole batch, so that it does not depend on the number of processes."""
        texts = []
        for variants in map(self.task.training_texts, captions):
            # With one caption the random state stays untouched.
            texts.append(variants[int(len(variants) * self.state.draws.random())] if len(variants) > 1 else variants[0])
        return texts

    def train_step(self, inputs: tuple, all_targets: Tensor | None = None, note: Note | None = None) -> Tensor:
        """Take one step of the optimizer on what `stage.inputs` gave; return the batch's loss.

        `all_targets` [batch] are the rows of the whole batch's targets, which a bank and --mask-same-target need.
        `note` gets the logits of this process's share.
        If the first step runs out of memory, halve the piece size until it fits, if the stage supports pieces, and
        print the size. Raises InputError when it does not fit all the same, and when --clip-bs was given and is too
        large.
        """
        fitting = None
        self.state.optimizer.zero_grad()  # before the forward pass, which needs their memory
        reserved = self.state.room_for_optimizer()
        while True:
            try:
                loss = self._backward(inputs, all_targets, note)
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
        return gradients.summed(loss)

    def _backward(self, inputs, all_targets, note) -> Tensor:
        # The backward pass stays outside of autocast, as torch wants it.
        with autocast(self.plan.precision, training=True):
            loss = self._loss(*self.module(inputs), all_targets, note)
        self.state.scaler.scale(loss).backward()
        return loss.detach()

    def _smaller_pieces(self, fault):
        """Let the stage take half as much at once, and return how much; raises InputError where that cannot help."""
        # After the first step, or with several processes, one process cannot change its size by itself.
        can_change = not self._stepped and distributed.processes() == 1
        size = self.stage.pieces.halve(self.plan.batch_size) if can_change else None
        if size is None:
            full = f"--batch-size {self.plan.batch_size}: the memory is full ({fault})"
            raise InputError(f"{full}; {self.stage.pieces.advice}")
        return size

    def _say_what_fits(self, size):
        if self.stage.pieces.given is not None:  # a choice is kept, or refused
            raise InputError(f"--clip-bs {self.stage.pieces.given}: the memory is full; --clip-bs {size} fits")
        pieces = f"CLIP takes {size} pictures or captions at once (--clip-bs {size} saves the search)"
        print(f"--batch-size {self.plan.batch_size}: the memory is full; {pieces}", file=sys.stderr, flush=True)

    def _loss(self, predicted, targets, all_targets, note):
        """Return this process's term of the batch's loss, which is their sum: own queries against all targets."""
        plan, mine = self.plan, distributed.share(self.plan.batch_size)
        if plan.negatives == "bank":
            # Every process has the whole bank, so nothing is exchanged.
            with gradients.undivided():
                bank = self.stage.picture_features.compared_by(self.stage.combining_function)
            loss = self.loss(predicted, bank, labels=all_targets[mine], note=note)
        else:
            # Otherwise each process would only have the targets of its own share as negatives.
            everyones = gradients.gathered(targets, plan.batch_size)
            labels = torch.arange(mine.start, mine.stop, device=predicted.device)
            pictures = all_targets if plan.mask_same_target else None
            loss = self.loss(predicted, everyones, labels=labels, pictures=pictures, note=note)
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
            facts = keeper.facts | self.stage.facts() | {"metrics": metrics}
            keeper.save_weights(name, checkpoint_content(epoch, self.stage.trained, facts))
