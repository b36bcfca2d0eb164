"""The families of CLIPs, each a file of this folder and a line here, and the CLIP that a command names."""

import pkgutil
from pathlib import Path

from torch import nn

from src.base.device import device
from src.base.errors import InputError
from src.base.files import HELD_FEATURES
from src.base.hub import is_on_hub, is_shared_folder, local_file
from src.models.backbone import Backbone
from src.models.openai_clip import NAMES, OpenAIClip
from src.processes import distributed


def _is_saved_by_transformers(name: str) -> bool:
    path = Path(name)
    is_file_of_theirs = path.is_file() and path.name in ("model.safetensors", "pytorch_model.bin")
    return is_file_of_theirs or (path.is_dir() and name not in NAMES and not is_shared_folder(name))


def _is_openais(name: str) -> bool:
    # Of a place on the hub its reader says whether it is there.
    return name in NAMES or is_on_hub(name) or local_file(name).is_file()


FAMILIES = (
    ("features:FOLDER", lambda name: name.startswith(HELD_FEATURES), "features:FeatureFiles"),
    ("open_clip:ARCHITECTURE:PRETRAINED_OR_FILE", lambda name: name.startswith("open_clip:"), "open_clip:OpenClip"),
    ("a folder of Hugging Face", _is_saved_by_transformers, "hugging_face:HuggingFaceClip"),
    (", ".join(NAMES), _is_openais, "openai_clip:OpenAIClip"),
)
"""(names that people may give, whether a name is the family's, where its class is: imported when it is needed)"""


def load_backbone(name: str) -> Backbone:
    """Load the CLIP that --clip-model-name says, in fp32 on the CPU; raises InputError when no family knows it."""
    # The first that knows the name, so a family of files comes after those with a prefix.
    for _, knows, place in FAMILIES:
        if knows(name):
            return pkgutil.resolve_name(f"{__package__}.{place}").load(name)
    raise InputError(
        f"--clip-model-name {name}: neither a file nor one of {', '.join(names for names, *_ in FAMILIES)}"
    )


def backbone_of(clip_model: nn.Module | Backbone) -> Backbone:
    """Return the Backbone around a model that came from outside; a Backbone is returned as it is."""
    # Only OpenAI's models say all that has to be known; one of open_clip does not name its tokenizer.
    return clip_model if isinstance(clip_model, Backbone) else OpenAIClip(clip_model)


def load_clip(clip_model_name: str | Path, clip_model_path: Path | str | None = None) -> Backbone:
    """Load a CLIP on the device, in fp32 and eval mode, with the weights of a stage-1 checkpoint over its own.

    `clip_model_name` is a name that its library downloads, or a file: a plain state dict, OpenAI's TorchScript archive,
    a stage-1 checkpoint, or Hugging Face's, which its folder names too. Raises InputError when either cannot be loaded.
    """
    name = str(clip_model_name)
    # A file needs no turn: all processes may read it at once.
    if Path(name).exists():
        backbone = load_backbone(name)
    else:
        with distributed.in_turn():  # the first process downloads it
            backbone = load_backbone(name)
    if clip_model_path is not None:
        backbone.load_over(clip_model_path)
    return backbone.to(device)


def model_label(clip_model_name: str) -> str:
    """Return a CLIP's name as a part of a file name: a file's stem, or the name with dashes for slashes and colons."""
    # A name may have files among its parts.
    whole = Path(clip_model_name).exists()
    parts = [Path(part) for part in ([clip_model_name] if whole else clip_model_name.split(":"))]
    labels = [part.stem if part.is_file() else part.name if part.is_dir() else str(part) for part in parts]
    return "-".join(labels).replace("/", "-")
