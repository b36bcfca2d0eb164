"""Single steps of both stages, on random inputs."""

from collections.abc import Callable

import torch
from torch import nn

from clip_fine_tune import FineTuning
from combiner import Combiner
from combiner_train import CombinerTraining
from src.command.training_flags import TrainingPlan
from src.models.backbone import ENCODERS, Backbone
from src.tasks.registry import TASKS
from src.training.batches import Batch
from src.training.loop import Training
from src.training.losses import Bank, contrastive_loss
from utils import autocast, device

CAPTION = "is the same kind of dress but shorter, in a darker colour and without the sleeves"


def training_of(stage: nn.Module, optimizer, batch_size: int, *, loader=None, precision="auto", negatives="batch"):
    """Make the Training of a stage, to measure its epochs or steps; `loader` is a TripletLoader, for epochs."""
    plan = TrainingPlan(1, batch_size, 1, precision, seed=0, save_training=False, save_best=False, negatives=negatives)
    return Training(stage, optimizer, loader, TASKS["CIRR"], plan)


class Steps:
    """Steps of stage 1 with a CLIP, on random pictures and captions of ordinary length."""

    def __init__(self, backbone: Backbone):
        self.backbone = backbone
        weights = FineTuning(backbone, ENCODERS).parameters()
        self.learning = [weight for weight in weights if weight.requires_grad]
        self.optimizer = torch.optim.AdamW(self.learning, lr=2e-6, eps=1e-7, fused=True)
        for weight in self.learning:
            weight.grad = torch.zeros_like(weight)
        self.optimizer.step()  # with zero gradients: allocates the optimizer's state, which then does not count
        self.optimizer.zero_grad()

    def prepare(self, batch_size: int, clip_bs: int | None = None, precision: str = "auto") -> Callable[[], int | None]:
        """Make the inputs of a step; return a function that takes it, and returns the --clip-bs it needed (or None)."""
        stage = FineTuning(self.backbone, ENCODERS, None, clip_bs)
        inputs = self._inputs(stage, batch_size)
        training = training_of(stage, self.optimizer, batch_size, precision=precision)

        def step():
            training.train_step(inputs)
            self.optimizer.zero_grad()  # so that the next step's memory includes its gradients again
            return stage.pieces.size

        return step

    def forward(self, batch_size: int, precision: str) -> Callable[[], None]:
        """Make the inputs of a step; return a function that runs the forward pass, with all that backward needs."""
        stage = FineTuning(self.backbone, ENCODERS)
        inputs = self._inputs(stage, batch_size)

        def forward():
            self.optimizer.zero_grad()
            with autocast(precision, training=True):
                contrastive_loss(*stage(inputs))

        return forward

    def _inputs(self, stage, batch_size):
        pixels = torch.randint(256, (2 * batch_size, *[self.backbone.resolution] * 2, 3), dtype=torch.uint8)
        rows, texts = torch.arange(2 * batch_size).view(2, batch_size), [CAPTION] * batch_size
        return stage.inputs(Batch(*rows, texts, pixels), texts)


class CombinerSteps:
    """Steps of stage 2 on random features [pictures, dim], with the negatives of the batch or of a bank."""

    def __init__(self, pictures: int, dim: int = 640, projection_dim: int = 2560, hidden_dim: int = 5120):
        torch.manual_seed(0)
        self.pictures = pictures
        self.combiner = Combiner(dim, projection_dim, hidden_dim).to(device)
        self.optimizer = torch.optim.Adam(self.combiner.parameters(), lr=2e-5, fused=True)
        features = Bank(torch.randn(pictures, dim, device=device))
        self.texts = [str(number) for number in range(256)]
        text_features = torch.randn(len(self.texts), dim, device=device)
        # Both read the features that the bank holds, so they are in memory only once.
        self.stages = {
            name: CombinerTraining(self.combiner, pictures, text_features, self.texts)
            for name, pictures in (("batch", features.unit), ("bank", features))
        }

    def step(self, negatives: str, batch_size: int) -> float:
        """Take a step on random triplets, with the project's training loop; return the loss."""
        stage = self.stages[negatives].train()
        references, targets = torch.randint(self.pictures, (2, batch_size))
        texts = [self.texts[number % len(self.texts)] for number in range(batch_size)]
        batch = Batch(references, targets, [(text,) for text in texts], None, targets)
        training = training_of(stage, self.optimizer, batch_size, negatives=negatives)
        return training.train_step(stage.inputs(batch, texts), targets.to(device)).item()
