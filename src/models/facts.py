"""Facts: the metadata of a checkpoint, which say how its weights were trained."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from src.base.errors import InputError, in_a_line
from src.base.files import HELD_FEATURES
from src.base.hub import SHARED, is_on_hub, local_file
from src.models.weights import FACTS, read_content
from src.pictures.padding import TRANSFORMS

TOLD = ("clip_model_name", "transform", "target_ratio")
"""Options that have to be the same when a checkpoint is used as when it was trained."""

KINDS = {"clip_model_name": str, "transform": str, "target_ratio": float, "clip_network": str, "clip_weights": str}
"""{a fact that decides results: what it is}"""

LEARNED_ALONG = "learned_along"
"""The fact of a Combiner's checkpoint that also holds the CLIP whose encoder of this name learned along with it."""

HOLDS_CLIP = "holds_clip"
"""The fact of a Combiner's shared weights that they have its CLIP beside them, which did not learn along."""

NETWORK = "network"
"""The fact that names a fusion network in its checkpoint, where it is not the published one."""


def training_facts(options: Mapping) -> dict:
    """Return the facts that a training command with these options, as plain values, writes."""
    return {name: options[name] for name in (*TOLD, "dataset", "seed")}


def read_facts(path: Path | str) -> dict:
    """Read the facts of the checkpoint at `path`, {} where it has none.

    Raises InputError when it cannot be read, or its facts are none that a training writes.
    """
    content = read_content(path, tensors=False)
    facts = content.get(FACTS) if isinstance(content, dict) else None
    if not isinstance(facts, dict):
        return {}
    for name, kind in KINDS.items():
        if not isinstance(facts.get(name), (kind, type(None))):
            raise InputError(f"{path}: its {name} is a {type(facts[name]).__name__}, expected a {kind.__name__}")
    if facts.get("target_ratio") is not None and not facts["target_ratio"] >= 1:
        raise InputError(f"{path}: its target_ratio is {facts['target_ratio']}, expected 1 or more")
    if facts.get("transform") not in (None, *TRANSFORMS):
        raise InputError(f"{path}: was trained with --transform {in_a_line(facts['transform'])}, which is unknown here")
    if facts.get("clip_model_name") is not None:
        return facts | {"clip_model_name": _found(facts["clip_model_name"], path)}
    return facts


def _found(name: str, path: Path | str) -> str:
    """Return the name of a CLIP in which the file of shared weights at `path` may name itself."""
    if is_on_hub(name) or name.startswith(HELD_FEATURES):  # their files have names of their owners' choice
        return name
    if name == SHARED:
        return str(path)
    return ":".join(str(local_file(path)) if part == SHARED else part for part in name.split(":"))


def require_network(path: Path | str, network: str) -> None:
    """Raise InputError when a checkpoint is of another network than `network`, a Backbone's.

    Its weights might fit all the same, and mean something else.
    """
    facts = read_facts(path)
    # Checkpoints of the published code and files of other programs have no facts.
    if facts and facts.get("clip_network", "") != network:
        theirs, ours = (in_a_line(name) if name else "OpenAI's" for name in (facts.get("clip_network"), network))
        name = f"--clip-model-name {facts.get('clip_model_name')}"
        raise InputError(f"{path}: was trained with {name}, which is another network ({theirs}, not {ours})")


def holds_its_clip(combiner_path: Path | str | None) -> bool:
    """Whether a Combiner's checkpoint says that it also holds its CLIP."""
    return combiner_path is not None and not {LEARNED_ALONG, HOLDS_CLIP}.isdisjoint(read_facts(combiner_path))


def told_by_checkpoints(paths: Iterable[Path | str | None], options: Mapping, given: Collection[str]) -> dict:
    """Return the options that checkpoints know, of those that were not `given`; published checkpoints know none.

    Raises InputError for a given option that contradicts. Of --clip-model-name only the shape matters, which loading
    checks.
    """
    # The Combiner's checkpoint may repeat what stage 1's says; both must agree with what was typed.
    found = {}
    for path in filter(None, paths):
        facts = read_facts(path)
        transform = TRANSFORMS.get(facts.get("transform"))
        for name in TOLD:
            fact = facts.get(name)
            # A ratio that the transform does not use is no contradiction.
            if fact is None or (name == "target_ratio" and not (transform and transform.takes_ratio)):
                continue
            if name not in given:
                found[name] = fact
            elif name != "clip_model_name" and options[name] != fact:
                flag = f"--{name.replace('_', '-')}"
                raise InputError(f"{flag} {options[name]}: {path} was trained with {flag} {fact}")
    return found
