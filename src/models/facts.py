"""Facts of checkpoints: how their weights were trained, which need not be said again and cannot be contradicted."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from src.base.errors import InputError, in_a_line
from src.base.parser import plain
from src.models.weights import read_content
from src.pictures.padding import TRANSFORMS

TOLD = ("clip_model_name", "transform", "target_ratio")
"""Options that whoever uses a checkpoint must give as its training had them."""

KINDS = {"clip_model_name": str, "transform": str, "target_ratio": float, "clip_network": str, "clip_weights": str}
"""{a fact that decides results: what it is}"""

LEARNED_ALONG = "learned_along"
"""The fact of a Combiner's checkpoint that also holds the CLIP whose encoder of this name learned along with it."""

NETWORK = "network"
"""The fact that names a fusion network in its checkpoint, where it is not the published one."""


def training_facts(options: Mapping) -> dict:
    """Return what the checkpoints of a training command with these options are to tell, in plain values."""
    return {name: plain(options[name]) for name in (*TOLD, "dataset", "seed")}


def read_facts(path: Path) -> dict:
    """Return what the checkpoint at `path` tells of itself, {} where it tells nothing.

    Raises InputError when it cannot be read, or tells what no training wrote.
    """
    content = read_content(path, tensors=False)
    facts = content.get("facts") if isinstance(content, dict) else None
    if not isinstance(facts, dict):
        return {}
    for name, kind in KINDS.items():
        if not isinstance(facts.get(name), (kind, type(None))):
            raise InputError(f"{path}: its {name} is a {type(facts[name]).__name__}, expected a {kind.__name__}")
    if facts.get("target_ratio") is not None and not facts["target_ratio"] >= 1:
        raise InputError(f"{path}: its target_ratio is {facts['target_ratio']}, expected 1 or more")
    if facts.get("transform") not in (None, *TRANSFORMS):
        raise InputError(f"{path}: was trained with --transform {in_a_line(facts['transform'])}, which is unknown here")
    return facts


def require_network(path: Path, network: str) -> None:
    """Raise InputError when a checkpoint tells of another network than `network`, a Backbone's.

    Its weights might fit all the same, and mean something else.
    """
    facts = read_facts(path)
    # Checkpoints of the published code and files of other programs tell nothing.
    if facts and facts.get("clip_network", "") != network:
        told, own = (in_a_line(some) if some else "OpenAI's" for some in (facts.get("clip_network"), network))
        name = f"--clip-model-name {facts.get('clip_model_name')}"
        raise InputError(f"{path}: was trained with {name}, which is another network ({told}, not {own})")


def holds_its_clip(combiner_path: Path | None) -> bool:
    """Whether a Combiner's checkpoint also holds the CLIP that learned along with it."""
    return combiner_path is not None and LEARNED_ALONG in read_facts(combiner_path)


def told_by_checkpoints(paths: Iterable[Path | None], options: Mapping, given: Collection[str]) -> dict:
    """Return the options that checkpoints tell, for those that were not `given`; published checkpoints tell nothing.

    Raises InputError for a given option that contradicts. Of --clip-model-name only the shape matters, which loading
    checks.
    """
    # The Combiner's checkpoint may repeat what stage 1 told; both must agree with what was typed.
    found = {}
    for path in filter(None, paths):
        facts = read_facts(path)
        transform = TRANSFORMS.get(facts.get("transform"))
        for name in TOLD:
            told = facts.get(name)
            # A ratio that the transform does not use contradicts nobody.
            if told is None or (name == "target_ratio" and not (transform and transform.takes_ratio)):
                continue
            if name not in given:
                found[name] = told
            elif name != "clip_model_name" and options[name] != told:
                flag = f"--{name.replace('_', '-')}"
                raise InputError(f"{flag} {options[name]}: {path} was trained with {flag} {told}")
    return found
