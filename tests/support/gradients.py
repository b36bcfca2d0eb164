"""The gradients of one step by any number of processes: a command of tests/support/fork_server.py."""

from pathlib import Path

import clip.model
import torch
from torch import nn

from clip_fine_tune import FineTuning
from combiner import Combiner
from combiner_train import CombinerTraining
from src.command.training_flags import TrainingPlan
from src.models.backbone import ENCODERS
from src.models.openai_clip import OpenAIClip, random_clip
from src.processes import distributed
from src.tasks.registry import TASKS
from src.training.loop import Training
from src.training.losses import Bank
from src.training.one_encoder import OneEncoder

BATCH, PICTURES = 13, 20
SCALE = 7.0
WORDS = 512
"""Of a small vocabulary: each has a row of gradients, which processes exchange and tests compare."""
COMBINERS, ALONG = ("combiner", "projecting"), ("along", "projecting_along")
RESNET = (32, 64, (1, 1, 1, 1), 8, None, 77, WORDS, 64, 1, 1)
TRANSFORMER = (32, 64, 1, 64, 16, 77, WORDS, 64, 1, 1)


def main(arguments):
    """Write {name: gradient} to a path: of a model, --clip-bs, --precision or fp64, and perhaps of another loss.

    A model is "combiner", "resnet", "transformer" or, with frozen pictures, "text", alone or "along" with the Combiner;
    with a projection of the gallery these two of the Combiner are "projecting" and "projecting_along". Negatives are
    "batch", "bank" or "masked"; the last argument is the q of --loss gce.
    """
    path, model, clip_bs, precision, *loss = arguments
    clip_bs = None if clip_bs == "None" else int(clip_bs)
    distributed.joining(lambda _: gradients(path, model, clip_bs, precision, *loss))(None)


def gradients(path, model, clip_bs, precision, negatives="batch", robustness=None):
    """Take one step and write its gradients and its loss, from the first process."""
    stage = stage_of(model, clip_bs, precision, negatives)
    optimizer = torch.optim.SGD(stage.trained.parameters(), lr=0)
    plan = plan_of(BATCH, "auto" if precision == "fp64" else precision)
    if negatives != "batch":
        other = {"negatives": "bank"} if negatives == "bank" else {"mask_same_target": True}
        plan = plan._replace(scale=SCALE, **other)
    if robustness is not None:
        plan = plan._replace(scale=SCALE, loss="gce", robustness=float(robustness))
    training = Training(stage.train(), optimizer, None, TASKS["CIRR"], plan)
    scaler = training.state.scaler
    scaler.load_state_dict(scaler.state_dict() | {"scale": 64.0})
    loss = training.train_step(share_of_batch(model), picture_rows()[1])
    assert precision != "fp16" or scaler.get_scale() == 64  # an overflow would have halved it
    found = {name: value.grad for name, value in stage.trained.named_parameters() if value.grad is not None}
    if distributed.is_first():
        torch.save(found | {"loss": loss}, Path(path))


def plan_of(batch_size, precision="auto"):
    """Return the plan of a training of which single steps are taken."""
    return TrainingPlan(1, batch_size, 1, precision, seed=0, save_training=False, save_best=False)


def stage_of(model, clip_bs=None, precision="fp64", negatives="batch"):
    """Make a stage, the same in every process."""
    torch.manual_seed(0)
    features = Bank(picture_features()) if negatives == "bank" else picture_features()
    if model in COMBINERS:
        dropout = 0.5 if negatives == "batch" else 0
        return CombinerTraining(combiner_of(model, dropout), features, None, [])
    backbone = backbone_of(model, precision)
    if model in ALONG:
        backbone.let_learn(("text",))
        text_encoder = OneEncoder(backbone, "text")
        return CombinerTraining(combiner_of(model, 0), features, None, [], text_encoder, clip_bs)
    return FineTuning(backbone, ("text",) if model == "text" else ENCODERS, features, clip_bs)


def combiner_of(model, dropout):
    """Make a Combiner; a projection of the gallery has learned something, and has its dropout where `dropout` is."""
    projects = model.startswith("projecting")
    combiner = Combiner(32, 24, 40, dropout, 48 if projects else None).double()
    if projects:
        nn.init.normal_(combiner.gallery_projection.output_layer.weight, std=0.3)
        combiner.gallery_projection.dropout.p *= dropout > 0
    return combiner


def backbone_of(model, precision):
    clip_model = random_clip(*(RESNET if model == "resnet" else TRANSFORMER)).eval()
    if precision == "fp64":
        clip_model.double()
        clip.model.LayerNorm.forward = nn.LayerNorm.forward  # clip's own always computes in fp32
    for name, weights in clip_model.named_parameters():
        if name.endswith("bn3.weight"):  # zeros would leave a block without gradients
            nn.init.ones_(weights)
    return (InDouble if precision == "fp64" else OpenAIClip)(clip_model)


class InDouble(OpenAIClip):
    """A CLIP of OpenAI's that computes in fp64."""

    def encode_images(self, images):
        return super().encode_images(images.double())


def share_of_batch(model):
    """Return this process's part of a batch that is always the same, as the stage takes it."""
    draws = torch.Generator().manual_seed(1)
    rows = distributed.share(BATCH)
    references, targets = picture_rows()[:, rows]
    if model in COMBINERS:
        features = torch.randn(BATCH, 32, generator=draws, dtype=torch.double)[rows]
        return picture_features()[references], picture_features()[targets], features
    pixels = torch.randint(256, (PICTURES, 64, 64, 3), generator=draws, dtype=torch.uint8)
    tokens = torch.randint(1, WORDS - 1, (BATCH, 9), generator=draws)
    tokens[:, -1] = WORDS - 1  # the end of text, which CLIP finds as the highest number
    if model in ALONG:
        return picture_features()[references], picture_features()[targets], tokens[rows]
    return None if model == "text" else pixels, references, targets, tokens[rows]


def picture_rows():
    """Return the rows [2, batch] of references and targets, some of them the same."""
    return torch.randint(PICTURES, (2, BATCH), generator=torch.Generator().manual_seed(2))


def picture_features():
    """Return features [pictures, dim] of frozen pictures, of any length."""
    return 3 * torch.randn(PICTURES, 32, generator=torch.Generator().manual_seed(3), dtype=torch.double)
