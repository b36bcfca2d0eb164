"""Stage: what the loop of training needs of either stage."""

from abc import abstractmethod

from torch import Tensor, nn

from src.retrieval.fusion import Fusion
from src.training.batches import Batch
from src.training.losses import Bank
from src.training.pieces import Pieces
from src.training.run import StageNames


class Stage(nn.Module):
    """A stage of training as a module; the loop calls `inputs`, then `forward`, for each batch.

    A stage gives `names`, `combining_function`, `trained`, `inputs` and `forward`. The rest has defaults.
    """

    names: StageNames
    combining_function: Fusion
    """What validation judges."""
    picture_features: Tensor | Bank | None = None
    """Features [pictures, dim] of frozen pictures; a Bank of them is what --negatives bank needs."""
    pieces: Pieces
    frozen_epochs: int = 0
    """Epochs before some of its weights begin to learn."""

    @property
    @abstractmethod
    def trained(self) -> nn.Module:
        """The module whose weights checkpoints keep; a ModuleDict keeps each module under its own key."""

    @abstractmethod
    def inputs(self, batch: Batch, texts: list[str]) -> tuple:
        """Return what `forward` takes, on the device; `texts` has one for each triplet of this process's share."""

    @abstractmethod
    def forward(self, inputs: tuple) -> tuple[Tensor, Tensor]:
        """Return (predicted, target) features [share, dim], normalised."""

    def begin(self, epoch: int) -> None:
        """Prepare for an epoch. By default each is like the first."""

    def facts(self) -> dict:
        """Return what its checkpoints say of themselves beside the run's facts, as plain values."""
        return {}
