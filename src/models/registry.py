"""The families of CLIPs: each a file of this folder and a line here."""

from torch import nn

from src.base.errors import InputError
from src.models.backbone import Backbone
from src.models.hugging_face import HuggingFaceClip
from src.models.open_clip import OpenClip
from src.models.openai_clip import OpenAIClip

FAMILIES: tuple[type[Backbone], ...] = (OpenClip, HuggingFaceClip, OpenAIClip)
"""In the order in which they are asked whether a name or a model is theirs."""


def load_backbone(name: str) -> Backbone:
    """Load the CLIP that --clip-model-name says, in fp32 on the CPU; raises InputError when no family knows it."""
    # The first that knows the name, so a family of files comes behind those with a prefix.
    for family in FAMILIES:
        if family.knows(name):
            return family.load(name)
    names = ", ".join(name for family in FAMILIES for name in family.names())
    raise InputError(f"--clip-model-name {name}: neither a file nor one of {names}")


def backbone_of(clip_model: nn.Module | Backbone) -> Backbone:
    """Return the Backbone around a model that came from outside; a Backbone is returned as it is."""
    if isinstance(clip_model, Backbone):
        return clip_model
    return next(family for family in FAMILIES if family.adopts(clip_model))(clip_model)
