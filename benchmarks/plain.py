"""The published algorithms, written plainly: what benchmarks and tests compare the fast paths with."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from combiner import Combiner
from src.models.openai_clip import OpenAIClip
from src.training.losses import contrastive_loss
from utils import element_wise_sum

Names = Sequence[str]


def cirr_recalls(
    predicted: Tensor, features: Tensor, names: Names, references: Names, targets: Names, groups: Sequence[Names]
) -> tuple[float, ...]:
    """Compute the seven recalls of CIRR in percent, by sorting arrays of names [queries, images]."""
    features = F.normalize(features, dim=-1)
    distances = 1 - F.normalize(predicted, dim=-1) @ features.T
    sorted_names = np.array(names)[torch.argsort(distances, dim=-1).cpu()]

    queries, images = sorted_names.shape
    not_reference = sorted_names != np.array(references)[:, None]
    sorted_names = sorted_names[not_reference].reshape(queries, images - 1)
    is_target = torch.tensor(sorted_names == np.array(targets)[:, None])

    in_group = (sorted_names[..., None] == np.array(groups)[:, None, :]).any(axis=-1)
    is_target_in_group = is_target[torch.tensor(in_group)].reshape(queries, -1)
    group_recalls = [(is_target_in_group[:, :k].sum() / queries).item() * 100 for k in (1, 2, 3)]
    return (*group_recalls, *((is_target[:, :k].sum() / queries).item() * 100 for k in (1, 5, 10, 50)))


@torch.no_grad()
def encode_captions(captions: Sequence[str], clip_model: nn.Module, batch_size: int = 32) -> Tensor:
    """Compute features [captions, dim] in the given order, every caption padded to CLIP's context."""
    device = next(clip_model.parameters()).device
    batches = [captions[start : start + batch_size] for start in range(0, len(captions), batch_size)]
    return torch.cat([clip_model.encode_text(OpenAIClip(clip_model).tokenize(batch).to(device)) for batch in batches])


@torch.no_grad()
def encode_images(images: Tensor, clip_model: nn.Module, batch_size: int = 32) -> Tensor:
    """Compute features [images, dim] in fp32."""
    return torch.cat([clip_model.encode_image(batch) for batch in images.split(batch_size)])


def combiner_epoch(loader: DataLoader, clip_model: nn.Module, combiner: Combiner, optimizer: Optimizer) -> float:
    """Train stage 2 for an epoch, encoding both pictures of every triplet; return the mean loss."""
    losses = []
    for references, targets, captions in loader:
        reference_features = encode_images(references, clip_model)
        target_features = encode_images(targets, clip_model)
        text_features = encode_captions(captions, clip_model)
        predicted = combiner.combine_features(reference_features, text_features)
        loss = contrastive_loss(predicted, F.normalize(target_features, dim=-1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return sum(losses) / len(losses)


def fine_tuning_step(
    references: Tensor, targets: Tensor, captions: Sequence[str], clip_model: nn.Module, optimizer: Optimizer
) -> float:
    """Take a step of stage 1 that encodes every input separately, captions padded to the context; return its loss."""
    tokens = OpenAIClip(clip_model).tokenize(captions).to(references.device)
    reference_features = clip_model.encode_image(references)
    predicted = element_wise_sum(reference_features, clip_model.encode_text(tokens))
    loss = contrastive_loss(predicted, F.normalize(clip_model.encode_image(targets), dim=-1))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()
