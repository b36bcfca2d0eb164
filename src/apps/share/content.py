"""What is shared of a run: its weights, its CLIP where others cannot have that, and what is known of both."""

import re
from pathlib import Path
from typing import NamedTuple

from src.base.errors import InputError
from src.base.hub import SHARED, is_on_hub
from src.models.backbone import Backbone
from src.models.facts import HOLDS_CLIP, LEARNED_ALONG
from src.models.openai_clip import NAMES, OpenAIClip
from src.models.registry import load_clip
from src.models.weights import FACTS, read_content
from src.pictures.normalisation import OPENAI_NORMALISATION
from src.training.finished import FinishedRun
from src.training.run import FINE_TUNING

OPEN_CLIP = "open_clip:"


class Shared(NamedTuple):
    """What is written of a run."""

    content: dict
    """A checkpoint's: weights, epoch, facts."""
    clip: str
    """What the training called its CLIP, for people."""
    was_tuned: bool
    """Whether stage 2 stood on a checkpoint of stage 1."""
    holds_clip: bool
    """Whether its CLIP is among the weights."""


def collect(run: FinishedRun) -> Shared:
    """Load what a run shares; raises InputError where its CLIP is another than it was, or cannot be shared."""
    content = read_content(run.weights)
    facts = dict(content.get(FACTS) or {})
    name, tuned = run.options["clip_model_name"], run.options.get("clip_model_path")
    holds_its_own = run.stage is FINE_TUNING or LEARNED_ALONG in facts
    public, fault = _public_name(name), "is a local model that a file of weights does not fully describe"
    if public is None:
        raise InputError(f"--clip-model-name {name}: {fault}")
    if holds_its_own or (public == name and tuned is None):
        backbone = None if public == name else load_clip(name)
    else:
        backbone = load_clip(name, tuned)
        if facts.get("clip_weights") not in (None, backbone.digest()):
            raise InputError(f"{run.weights}: was trained on another CLIP than {tuned or name} holds now")
    if backbone is not None and public == SHARED and not _says_all(backbone):
        raise InputError(f"--clip-model-name {name}: {fault}")
    adds_clip = not holds_its_own and backbone is not None
    if adds_clip:
        content[backbone.key] = backbone.model.state_dict()
        facts[HOLDS_CLIP] = True
    facts["clip_model_name"] = public
    content[FACTS] = {key: without_places(value) for key, value in facts.items()}
    was_tuned = tuned is not None
    return Shared(content, without_places(name), was_tuned, holds_its_own or adds_clip)


def _public_name(name: str) -> str | None:
    """Return a CLIP's name for another machine, in which SHARED is the file of weights itself; None where none is."""
    if name in NAMES or is_on_hub(name):
        return name
    if not name.startswith(OPEN_CLIP):
        return SHARED if Path(name).exists() else None
    architecture, _, weights = name.removeprefix(OPEN_CLIP).partition(":")
    if architecture == "local-dir":
        return None
    return f"{OPEN_CLIP}{architecture}:{SHARED}" if Path(weights).is_file() else name


def _says_all(backbone: Backbone) -> bool:
    """Whether a file of weights is enough to build a CLIP anew: one of OpenAI's kind, whatever file it came from."""
    is_openais = isinstance(backbone, OpenAIClip) and not backbone.network
    return is_openais and backbone.normalisation == OPENAI_NORMALISATION


def without_places(value: object) -> object:
    """Return an option's value without the folders of this machine: of a path only its name."""
    if isinstance(value, list):
        return [without_places(part) for part in value]
    if not isinstance(value, str):
        return value
    # open_clip:ViT-B-32:/home/me/weights.pt has a path in it.
    return re.sub(r"(?<![^:])/\S.*/", "", value)
