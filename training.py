"""The loop of both stages, and the batches that it takes."""

import random
import sys

import torch
from torch.utils.data import BatchSampler, DataLoader, RandomSampler

from options import comet_options
from src import distributed
from src.bars import Bar
from src.checkpoint import random_states, read_checkpoint, restore_random_states, size_of, write_checkpoint
from src.errors import InputError, lost_worker
from src.files import require_space
from src.losses import contrastive_loss
from src.options import hyper_parameters
from src.run import resume_run, start_run
from src.signals import Stopping
from src.weights import load_weights
from src.workers import start_worker
from utils import (
    autocast,
    autocast_dtype,
    device,
    mean_train_loss,
    save_model,
    set_train_bar_description,
    update_train_running_results,
)


def training_loader(triplets, batch_size, num_workers, seed):
    """Shuffled full batches of a TripletRows or TripletImages; the order follows from `seed` alone.

    Raises InputError when the triplets do not fill one batch, or a batch does not give each process a triplet.
    """
    if batch_size > len(triplets):
        raise InputError(f"--batch-size {batch_size}: there are only {len(triplets)} training triplets")
    if batch_size < distributed.processes():
        raise InputError(f"--batch-size {batch_size}: has no triplet for some of {distributed.processes()} processes")
    triplets.share = distributed.share(batch_size)
    order = RandomSampler(triplets, generator=torch.Generator().manual_seed(seed))
    return DataLoader(
        triplets,
        batch_size=None,  # the sampler gives the batches, and the triplets one item for each
        sampler=BatchSampler(order, batch_size, drop_last=True),
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=device.type == "cuda",
        collate_fn=_as_it_is,
        worker_init_fn=start_worker,
        generator=torch.Generator(),  # its own, so that workers draw no seed from the model's
    )


def _as_it_is(batch):
    return batch


STATE_FILE = "training_state.pt"
STATE_KEYS = (
    *("next_epoch", "triplets", "weights", "optimizer", "scaler"),
    *("random", "order", "draws", "facts", "run"),
)


class Training:
    """A stage on its way through the epochs.

    `stage.inputs` makes a batch of what the loader gives, with texts in the place of its captions, and `stage(batch)`
    gives the (predicted, target) features of that. Processes of one job each take a share of every batch.
    """

    def __init__(self, stage, optimizer, loader, validation, plan, facts=None):
        """`facts` are plain values that the weights' files are to tell of themselves."""
        self.stage = stage
        self.module = distributed.synchronised(stage, plan.batch_size)
        self.optimizer = optimizer
        self.loader = loader
        self.validation = validation
        self.benchmark = validation.benchmark
        self.plan = plan
        self.saves = plan.save_training and distributed.is_first()
        halved = autocast_dtype(plan.precision, training=True) is torch.float16
        self.scaler = torch.amp.GradScaler(device.type, enabled=halved)
        self.draws = random.Random(plan.seed)  # apart from the global generator, which other libraries draw from
        self.best_weights = self.benchmark.best_weights(stage.weights_name) if plan.save_best else {}
        self.facts = facts or {}
        self.next_epoch = 0
        self.run = None
        self._random_states = None

    def train(self, run):
        """The epochs that are left, and a validation behind every so many of them; `run` keeps what comes of it.

        Raises InputError when a loss is not finite, or the disk has no room for what will be saved.
        """
        self.run = run
        if self._random_states is not None:  # last, since starting Comet draws too
            restore_random_states(self._random_states)
        if self.saves:
            self._require_space()
        elif self.plan.save_best:
            print("--save-best: saves nothing without --save-training", file=sys.stderr)
        try:
            # Not an attribute, which would be a cycle of references: the loader's workers would end seconds late.
            with Stopping(self._last_words) as stopping, distributed.naming_lost_processes(self._last_words):
                for epoch in range(self.next_epoch, self.plan.num_epochs):
                    self._train_and_judge(epoch, stopping)
        except RuntimeError as error:
            fault = lost_worker(error)
            if fault is None:
                raise
            raise InputError(f"{fault} {self._last_words()}") from None
        finally:
            self.run.end()

    def _train_and_judge(self, epoch, stopping):
        self.run.log_training(epoch, self.train_epoch(epoch))
        if epoch % self.plan.validation_frequency == 0:
            metrics = self.validate()
            self.run.log_validation(epoch, metrics)
            if self.saves:
                self._save_weights(epoch, metrics)
        self.next_epoch = epoch + 1
        if self.saves:
            with stopping.finishing():
                write_checkpoint(self.run.folder / STATE_FILE, self.state())

    def train_epoch(self, epoch):
        """One pass over the triplets; gives its mean loss."""
        results = {"images_in_epoch": 0, "accumulated_train_loss": 0.0}
        self.stage.train()
        with Bar(self.loader) as bar:
            for step, (*pictures, captions) in enumerate(bar, start=epoch * len(self.loader)):
                texts = self.benchmark.training_captions(captions, self.draws)[self.loader.dataset.share]
                loss = self.train_step(self.stage.inputs(*pictures, texts=texts))
                if not loss.isfinite():
                    raise InputError(f"epoch {epoch}, step {step}: the loss is {loss.item()}; {self._last_words()}")
                update_train_running_results(results, loss, len(captions))
                set_train_bar_description(bar, epoch, self.plan.num_epochs, results)
                self.run.log_step(step, loss.item())
        return mean_train_loss(results)

    def train_step(self, batch):
        """One step of the optimizer; gives the batch's loss as a tensor."""
        with autocast(self.plan.precision, training=True):
            loss = self._loss(*self.module(batch))
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return distributed.summed(loss.detach())

    def _loss(self, predicted, targets):
        """This process's part of the batch's loss, which is their sum: own queries against everyone's targets."""
        batch_size = self.plan.batch_size
        everyones = distributed.gathered(targets, batch_size)
        loss = contrastive_loss(predicted, everyones, first=distributed.share(batch_size).start)
        return loss * (len(predicted) / batch_size)

    def validate(self):
        """The columns of validation_metrics.csv, of the stage as it is now."""
        self.stage.eval()
        with autocast(self.plan.precision):
            return self.validation.metrics(self.stage.combining_function)

    def state(self):
        """All that `go_on_from` needs to go on behind the last epoch, in tensors and plain values."""
        return {
            "next_epoch": self.next_epoch,
            "triplets": len(self.loader.dataset),
            "weights": self.stage.trained.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "random": random_states(),
            "order": self.loader.sampler.sampler.generator.get_state(),
            "draws": self.draws.getstate(),
            "facts": self.facts,
            "run": self.run.state(),
        }

    def go_on_from(self, state, path):
        """Be where the training was that gave `state`, read from `path`; at the beginning for None.

        Raises InputError when it stood on other data, other weights of CLIP, or other sizes of what learns.
        """
        if state is None:
            return
        if state["triplets"] != len(self.loader.dataset):
            raise InputError(
                f"{path}: of {state['triplets']} training triplets, there are {len(self.loader.dataset)} now"
            )
        for name, fact in self.facts.items():
            if state["facts"].get(name) != fact:
                raise InputError(f"{path}: of a run with another {name}, {state['facts'].get(name)}, not {fact}")
        if self.plan.num_epochs < state["next_epoch"]:
            raise InputError(f"--num-epochs {self.plan.num_epochs}: the run has finished {state['next_epoch']} already")
        load_weights(self.stage.trained, state["weights"], path)
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.loader.sampler.sampler.generator.set_state(state["order"])
        self.draws.setstate(state["draws"])
        self.next_epoch = state["next_epoch"]
        self._random_states = state["random"]

    def _last_words(self):
        if not self.plan.save_training:
            return "without --save-training nothing was kept to go on from"
        done = (
            f"{self.next_epoch} finished epoch{'s' * (self.next_epoch > 1)}" if self.next_epoch else "no finished epoch"
        )
        return f"--resume {self.run.folder} goes on from {done}"

    def _require_space(self):
        """Refuse a disk that cannot hold the weights and twice the state: its old file stays until the new is whole."""
        weights = size_of(self.stage.trained.state_dict())
        learning = sum(size_of(parameter) for group in self.optimizer.param_groups for parameter in group["params"])
        validations = len(range(self.next_epoch, self.plan.num_epochs, self.plan.validation_frequency))
        files = len(self.best_weights) + 1 if self.best_weights else validations
        needed = files * weights + 2 * (weights + 2 * learning)
        require_space(self.run.folder, needed, f"{self.run.folder}: the weights need {needed / 1e9:.2f} GB")

    def _save_weights(self, epoch, metrics):
        names = [name for name, metric in self.best_weights.items() if self.run.improves(name, metrics[metric])]
        for name in names if self.best_weights else [f"{self.stage.weights_name}_{epoch}"]:
            save_model(name, epoch, self.stage.trained, self.run.folder, self.facts | {"metrics": metrics})


def start_or_resume(training, args, name, project_name, remarks):
    """Take `training` to where --resume says, and give the Run, new or resumed, that its options ask for.

    A run that was stopped before its first epoch had ended begins anew. Refuses before anything of the run is changed.
    """
    told = project_name, comet_options(args), hyper_parameters(args), remarks
    if args.resume is None:
        return start_run(args.output_path / "models", name, *told)
    path = args.resume / STATE_FILE
    state = read_checkpoint(path, STATE_KEYS) if path.is_file() else None
    training.go_on_from(state, path)
    return resume_run(args.resume, state["run"] if state else None, *told)
