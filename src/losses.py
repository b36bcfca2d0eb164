"""The contrastive loss of both stages."""

import torch
import torch.nn.functional as F


def contrastive_loss(predicted_features, target_features, scale=100):
    """Mean cross-entropy of each query against all targets of its batch, query to target only.

    Both [batch, dim], normalised; row i of one belongs to row i of the other. CLIP's own logit_scale is not used.
    """
    # Half precision cannot tell the best targets apart at a scale of 100: fp32 also under autocast.
    with torch.autocast(predicted_features.device.type, enabled=False):
        logits = scale * predicted_features.float() @ target_features.float().T
        return F.cross_entropy(logits, torch.arange(len(logits), device=logits.device))
