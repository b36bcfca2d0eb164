"""The gradients of one step by any number of processes: a command of tests/fork_server.py."""

from pathlib import Path

import clip.model
import torch
from torch import nn

from clip_fine_tune import FineTuning
from combiner import Combiner
from combiner_train import CombinerTraining
from src.base import distributed
from src.command.training_flags import TrainingPlan
from src.models.backbone import ENCODERS
from src.models.openai_clip import OpenAIClip, random_clip
from src.tasks.registry import TASKS
from training import Training

BATCH = 13
WORDS = 512
"""Of a small vocabulary: each has a row of gradients, which processes exchange and tests compare."""
RESNET = (32, 64, (1, 1, 1, 1), 8, None, 77, WORDS, 64, 1, 1)
TRANSFORMER = (32, 64, 1, 64, 16, 77, WORDS, 64, 1, 1)


def main(arguments):
    """Write {name: gradient} to a path: of "combiner", "resnet" or "transformer", --clip-bs, --precision or fp64."""
    path, model, clip_bs, precision = arguments
    distributed.joining(lambda _: gradients(path, model, None if clip_bs == "None" else int(clip_bs), precision))(None)


def gradients(path, model, clip_bs, precision):
    """Take one step and write its gradients and its loss, from the first process."""
    torch.manual_seed(0)
    stage = combiner_stage() if model == "combiner" else clip_stage(model, clip_bs, precision)
    optimizer = torch.optim.SGD(stage.trained.parameters(), lr=0)
    plan = plan_of(BATCH, "auto" if precision == "fp64" else precision)
    training = Training(stage.train(), optimizer, None, TASKS["CIRR"], plan)
    scaler = training.state.scaler
    scaler.load_state_dict(scaler.state_dict() | {"scale": 64.0})
    loss = training.train_step(share_of_batch(model))
    assert precision != "fp16" or scaler.get_scale() == 64  # an overflow would have halved it
    found = {name: value.grad for name, value in stage.trained.named_parameters() if value.grad is not None}
    if distributed.is_first():
        torch.save(found | {"loss": loss}, Path(path))


def plan_of(batch_size, precision="auto"):
    """Return the plan of a training of which single steps are taken."""
    return TrainingPlan(1, batch_size, 1, precision, seed=0, save_training=False, save_best=False)


def combiner_stage():
    return CombinerTraining(Combiner(32, 24, 40).double(), None, None, [])


def clip_stage(model, clip_bs, precision):
    clip_model = random_clip(*(RESNET if model == "resnet" else TRANSFORMER)).eval()
    if precision == "fp64":
        clip_model.double()
        clip.model.LayerNorm.forward = nn.LayerNorm.forward  # clip's own always computes in fp32
    for name, weights in clip_model.named_parameters():
        if name.endswith("bn3.weight"):  # zeros would leave a block without gradients
            nn.init.ones_(weights)
    return FineTuning(OpenAIClip(clip_model), ENCODERS, clip_bs=clip_bs)


def share_of_batch(model):
    """Return this process's part of a batch that is always the same, as the stage takes it."""
    draws = torch.Generator().manual_seed(1)
    rows = distributed.share(BATCH)
    if model == "combiner":
        return tuple(torch.randn(3, BATCH, 32, generator=draws, dtype=torch.double)[:, rows])
    images = torch.randn(20, 3, 64, 64, generator=draws, dtype=torch.double)
    references, targets = torch.randint(20, (2, BATCH), generator=draws)[:, rows]
    tokens = torch.randint(1, WORDS - 1, (BATCH, 9), generator=draws)
    tokens[:, -1] = WORDS - 1  # the end of text, which CLIP finds as the highest number
    return images, references, targets, tokens[rows]
