"""How a training holds each triplet: the rank of its target, and its loss, in the last epochs (--per-triplet)."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from src.base.device import device
from src.processes import gradients
from src.training.per_triplet import Held

LAST = 10
"""Epochs that are kept. Means of ten found more planted errors than those of five, and far more than the last epoch of
a long training, which knows wrong triplets by heart (docs/recipes.md). The first epochs of an untrained model tell
little.
"""


class Holding:
    """The rank and the loss of each training triplet in the last epochs, as the steps of these find them.

    A rank counts the negatives of the step. A loss is the cross-entropy whatever the run learns by: that of another
    loss may hardly tell an unlikely target from an impossible one.
    """

    def __init__(self, triplets: int, data: str):
        """`triplets` is how many there are, `data` what tells their tables from others."""
        self.triplets, self.data = triplets, data
        self.epochs: list[Tensor] = []
        """Ranks from 1 and losses [2, triplets] in each of the last epochs, zeros of what was in no batch."""
        self._epoch = None

    def begin(self) -> None:
        """Begin an epoch, perhaps one that was stopped."""
        self._epoch = torch.zeros(2, self.triplets, device=device)

    def note(self, numbers: Tensor, logits: Tensor, labels: Tensor, first: int = 0) -> None:
        """Note a step's triplets `numbers`, of which number `first` has the first of the `logits` [queries, targets].

        The target of query i is row `labels`[i].
        """
        own = logits.gather(1, labels[:, None])
        rows = torch.arange(logits.shape[1], device=logits.device)
        # As in every ranking: equal scores in an earlier row come first.
        ahead = (logits > own) | ((logits == own) & (rows < labels[:, None]))
        losses = F.cross_entropy(logits, labels, reduction="none")
        self._epoch[:, numbers[first : first + len(logits)]] = torch.stack((1 + ahead.sum(dim=1), losses)).float()

    def end(self) -> None:
        """End an epoch: gather what each process noted of its share."""
        self.epochs = [*self.epochs, gradients.summed(self._epoch).cpu()][-LAST:]

    def means(self) -> Iterator[Held]:
        """Yield what there is of each triplet: the means over the epochs that had it in a batch."""
        kept = torch.stack(self.epochs).double()
        counts = (kept[:, 0] > 0).sum(dim=0)
        ranks, losses = kept.sum(dim=0) / counts  # nan where there is none
        return map(Held, counts.tolist(), ranks.tolist(), losses.tolist())

    def content(self) -> dict:
        """Return what `restore` needs, in tensors and plain values."""
        return {"data": self.data, "epochs": self.epochs}

    def restore(self, content: dict) -> None:
        """Go on from the `content` of a state; raises ValueError for that of other triplets."""
        if content["data"] != self.data:
            raise ValueError(f"its triplets are those of {content['data']}, not of {self.data}")
        if any(epoch.shape != (2, self.triplets) for epoch in content["epochs"]):
            raise ValueError("its ranks and losses are of another number of triplets")
        if not all(epoch.isfinite().all() for epoch in content["epochs"]):
            raise ValueError("some of its ranks and losses are no numbers")
        self.epochs = list(content["epochs"])
