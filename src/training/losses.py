"""The contrastive loss of both stages."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

QUERIES_AT_ONCE = 4096
"""Queries whose logits are in memory at a time: those of a large batch alone would fill a card."""


def contrastive_loss(predicted_features: Tensor, target_features: Tensor, scale: float = 100, first: int = 0) -> Tensor:
    """Return the mean cross-entropy of each query against all targets of its batch, query to target only.

    Predicted [queries, dim] and target features [batch, dim] are normalised; the target of query i is row `first` + i.
    CLIP's own logit_scale is not used, as published (paper, section 3.2).
    """
    # With many processes own queries stand in the middle of everyone's targets.
    labels = torch.arange(first, first + len(predicted_features), device=predicted_features.device)
    # Half precision cannot tell the best targets apart at a scale of 100: at least fp32, also under autocast.
    with torch.autocast(predicted_features.device.type, enabled=False):
        predicted, targets = (
            features.to(torch.promote_types(features.dtype, torch.float32))
            for features in (predicted_features, target_features)
        )
        if len(predicted) <= QUERIES_AT_ONCE:
            return F.cross_entropy(scale * predicted @ targets.T, labels)
        # The logits of a piece are computed again backwards instead of being kept.
        pieces = zip(predicted.split(QUERIES_AT_ONCE), labels.split(QUERIES_AT_ONCE), strict=True)
        sums = [checkpoint(_sum, scale, piece, targets, own, use_reentrant=False) for piece, own in pieces]
        return torch.stack(sums).sum() / len(predicted)


def _sum(scale, predicted, targets, labels):
    return F.cross_entropy(scale * predicted @ targets.T, labels, reduction="sum")
