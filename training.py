"""The loop of both stages, and the batches that it takes."""

import random

import torch
from torch.utils.data import BatchSampler, DataLoader, RandomSampler
from tqdm import tqdm

from src.errors import InputError
from src.losses import contrastive_loss
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

    Raises InputError when the triplets do not fill one batch.
    """
    if batch_size > len(triplets):
        raise InputError(f"--batch-size {batch_size}: there are only {len(triplets)} training triplets")
    order = RandomSampler(triplets, generator=torch.Generator().manual_seed(seed))
    return DataLoader(
        triplets,
        batch_size=None,  # the sampler gives the batches, and the triplets one item for each
        sampler=BatchSampler(order, batch_size, drop_last=True),
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=device.type == "cuda",
        collate_fn=_as_it_is,
        generator=torch.Generator(),  # its own, so that workers draw no seed from the model's
    )


def _as_it_is(batch):
    return batch


class Training:
    """A stage on its way through the epochs; `run` keeps what comes of it.

    `stage.inputs` makes what the loader gives, with texts in the place of its captions, a batch on the device, and
    `stage(batch)` gives the (predicted, target) features of that.
    """

    def __init__(self, stage, optimizer, loader, validation, run, plan):
        self.stage = stage
        self.optimizer = optimizer
        self.loader = loader
        self.validation = validation
        self.benchmark = validation.benchmark
        self.run = run
        self.plan = plan
        halved = autocast_dtype(plan.precision, training=True) is torch.float16
        self.scaler = torch.amp.GradScaler(device.type, enabled=halved)
        self.draws = random.Random(plan.seed)  # apart from the global generator, which other libraries draw from
        self.best_weights = self.benchmark.best_weights(stage.weights_name) if plan.save_best else {}

    def train(self):
        """All epochs, and a validation behind every so many of them."""
        for epoch in range(self.plan.num_epochs):
            self.run.log_training(epoch, self.train_epoch(epoch))
            if epoch % self.plan.validation_frequency == 0:
                metrics = self.validate()
                self.run.log_validation(epoch, metrics)
                if self.plan.save_training:
                    self._save_weights(epoch, metrics)
        self.run.end()

    def train_epoch(self, epoch):
        """One pass over the triplets; gives its mean loss."""
        results = {"images_in_epoch": 0, "accumulated_train_loss": 0.0}
        self.stage.train()
        bar = tqdm(self.loader, dynamic_ncols=True)
        for step, (*pictures, captions) in enumerate(bar, start=epoch * len(self.loader)):
            texts = self.benchmark.training_captions(captions, self.draws)
            loss = self.train_step(self.stage.inputs(*pictures, texts=texts))
            update_train_running_results(results, loss, len(texts))
            set_train_bar_description(bar, epoch, self.plan.num_epochs, results)
            self.run.log_step(step, loss.item())
        return mean_train_loss(results)

    def train_step(self, batch):
        """One step of the optimizer; gives the batch's loss as a tensor."""
        with autocast(self.plan.precision, training=True):
            loss = contrastive_loss(*self.stage(batch))
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss.detach()

    def validate(self):
        """The columns of validation_metrics.csv, of the stage as it is now."""
        self.stage.eval()
        with autocast(self.plan.precision):
            return self.validation.metrics(self.stage.combining_function)

    def _save_weights(self, epoch, metrics):
        names = [name for name, metric in self.best_weights.items() if self.run.improves(name, metrics[metric])]
        for name in names if self.best_weights else [f"{self.stage.weights_name}_{epoch}"]:
            save_model(name, epoch, self.stage.trained, self.run.folder)
