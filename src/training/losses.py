"""The contrastive loss of both stages, and the bank of pictures that may be its negatives."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from src.command.training_flags import TrainingPlan
from src.retrieval.fusion import Fusion, compared, gallery_side

QUERIES_AT_ONCE = 4096
LOGITS_AT_ONCE = 2**26
"""Queries and logits that are in memory at a time: those of a whole large batch or bank would fill a card."""
Note = Callable[..., None]
"""Takes logits [queries, targets], labels [queries] and the number `first` of the first query, 0 unless it is given.

Of a loss in pieces it may get some twice, the second time in the backward pass."""


class Bank:
    """Features of frozen pictures, stored once and used both as inputs and as negatives.

    `unit` [pictures, dim] are normalised; indexed by rows, a bank gives features as CLIP gave them.
    """

    def __init__(self, features: Tensor):
        """Take features [pictures, dim] as CLIP gives them, which are normalised in place."""
        # A normalised copy would double what a bank of half a million pictures takes.
        self.lengths = features.norm(dim=-1, keepdim=True).clamp_min_(1e-12)
        self.unit = features.div_(self.lengths)

    def __getitem__(self, rows: Tensor) -> Tensor:
        return self.unit[rows] * self.lengths[rows]

    def compared_by(self, combining_function: Fusion) -> Tensor:
        """Return what queries are compared with [pictures, dim], normalised."""
        if gallery_side(combining_function) is None:
            return self.unit
        return F.normalize(compared(combining_function, self.unit * self.lengths), dim=-1)


def contrastive_loss(
    predicted_features: Tensor,
    target_features: Tensor,
    scale: float = 100,
    labels: Tensor | None = None,
    pictures: Tensor | None = None,
    measure: Callable[..., Tensor] = F.cross_entropy,
    note: Note | None = None,
) -> Tensor:
    """Return the mean loss of each query against all targets, query to target only: cross-entropy, or `measure`.

    Predicted [queries, dim] and target features [targets, dim] are normalised. The targets are all those of a batch, or
    a bank. The target of query i is row `labels`[i], or i. Where `pictures` [targets] numbers the pictures of the rows,
    other rows of a query's target are no negatives. A `measure` takes logits, labels and a reduction, as
    F.cross_entropy does. `note` gets all logits.

    CLIP's own logit_scale is not used, as published (paper, section 3.2).
    """
    if labels is None:
        labels = torch.arange(len(predicted_features), device=predicted_features.device)
    # Half precision cannot distinguish the best targets at a scale of 100: at least fp32, also under autocast.
    with torch.autocast(predicted_features.device.type, enabled=False):
        predicted, targets = (
            features.to(torch.promote_types(features.dtype, torch.float32))
            for features in (predicted_features, target_features)
        )
        at_once = max(1, min(QUERIES_AT_ONCE, LOGITS_AT_ONCE // len(targets)))
        if len(predicted) <= at_once:
            return _measured(scale, predicted, labels, targets, pictures, measure, note)
        # The logits of a piece are computed again backwards instead of being kept.
        pieces = zip(predicted.split(at_once), labels.split(at_once), strict=True)
        given = targets, pictures, partial(measure, reduction="sum")
        notes = [note and partial(note, first=first) for first in range(0, len(predicted), at_once)]
        sums = [
            checkpoint(_measured, scale, *piece, *given, of_piece, use_reentrant=False)
            for piece, of_piece in zip(pieces, notes, strict=True)
        ]
        return torch.stack(sums).sum() / len(predicted)


def generalised_cross_entropy(logits: Tensor, labels: Tensor, reduction: str = "mean", *, robustness: float) -> Tensor:
    """Return (1 - p^q) / q of the targets' probabilities p, for q = `robustness` (Zhang & Sabuncu 2018).

    A query's gradient is p^q times that of its cross-entropy, so that a target which everything speaks against counts
    little.
    """
    # From log p: a probability that is 0 in fp32 would have no gradient, and in fp64 no q is too small.
    surprise = F.cross_entropy(logits, labels, reduction="none").double()
    losses = (-torch.expm1(-robustness * surprise) / robustness).to(logits.dtype)
    return losses.sum() if reduction == "sum" else losses.mean()


def loss_of(plan: TrainingPlan) -> Callable[..., Tensor]:
    """The loss that a plan asks for, which takes what `contrastive_loss` takes but the scale and the measure."""
    robust = partial(generalised_cross_entropy, robustness=plan.robustness)
    return partial(contrastive_loss, scale=plan.scale, measure=robust if plan.loss == "gce" else F.cross_entropy)


def _measured(scale, predicted, labels, targets, pictures, measure, note):
    logits = _logits(scale, predicted, targets, labels, pictures)
    loss = measure(logits, labels)
    if note is not None:
        note(logits.detach(), labels)
    return loss


def _logits(scale, predicted, targets, labels, pictures):
    logits = scale * predicted @ targets.T
    if pictures is None:
        return logits
    others = pictures[labels][:, None] == pictures
    others.scatter_(1, labels[:, None], False)  # the target itself stays
    return logits.masked_fill(others, -torch.inf)
