"""CLIPs that Hugging Face's transformers saved: OpenAI's network, whose weights have other names."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from src.base.errors import InputError, in_a_line
from src.base.reading import read_json
from src.models.openai_clip import OpenAIClip, built
from src.models.tower import Tower
from src.models.weights import read_state_dict
from src.pictures.normalisation import Normalisation

FILES = "model.safetensors", "pytorch_model.bin"
"""What transformers calls its files of weights."""
NAMES = {
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.": "visual.conv1.",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.pre_layrnorm.": "visual.ln_pre.",
    "vision_model.post_layernorm.": "visual.ln_post.",
    "vision_model.encoder.layers.": "visual.transformer.resblocks.",
    "visual_projection.weight": "visual.proj",
    "text_model.embeddings.token_embedding.": "token_embedding.",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.": "ln_final.",
    "text_model.encoder.layers.": "transformer.resblocks.",
    "text_projection.weight": "text_projection",
    ".layer_norm1.": ".ln_1.",
    ".layer_norm2.": ".ln_2.",
    ".mlp.fc1.": ".mlp.c_fc.",
    ".mlp.fc2.": ".mlp.c_proj.",
    ".self_attn.out_proj.": ".attn.out_proj.",
}
"""{part of a name of theirs: OpenAI's}"""
ACTIVATIONS = {"quick_gelu": None, "gelu": nn.GELU}
"""{hidden_act of a configuration: what takes the place of OpenAI's own}"""
HEADS = {"vision_config": 12, "text_config": 8}
"""{part of a configuration: transformers' own number of heads, which a configuration may leave out}"""
VOCABULARY = 49408


class HuggingFaceClip(OpenAIClip):
    """A CLIPModel of transformers: a file of its weights, or the folder that it lies in."""

    @classmethod
    def load(cls, name: str) -> "HuggingFaceClip":
        path = _file_of(Path(name))
        config = _read_beside(path, "config.json")
        if config.get("model_type", "clip") != "clip":
            raise InputError(f"{path}: a {config['model_type']} by its config.json; a clip is needed")
        theirs = read_state_dict(path, "CLIPModel")
        try:
            weights = to_openai(theirs)
        except Exception as error:  # what weights of another shape or with gaps lead to may be anything
            raise InputError(f"{path}: not the weights of a CLIPModel ({in_a_line(error)})") from None
        backbone = cls(built(weights, path))
        if backbone.model.vocab_size != VOCABULARY:
            raise InputError(f"{path}: has a vocabulary of {backbone.model.vocab_size} tokens, CLIP's own {VOCABULARY}")
        backbone.network = _follow(backbone.model, config, path)
        pictures = _read_beside(path, "preprocessor_config.json")
        if {"image_mean", "image_std"} <= pictures.keys():
            backbone.normalisation = Normalisation(tuple(pictures["image_mean"]), tuple(pictures["image_std"]))
        return backbone


def to_openai(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a CLIPModel under OpenAI's names; raises KeyError where a name is missing."""
    named = {}
    for name, tensor in weights.items():
        for theirs, ours in NAMES.items():
            name = name.replace(theirs, ours)  # noqa: PLW2901
        if not name.endswith(".position_ids"):  # old files list these numbers 0, 1, 2, … among the weights
            # Their projections are linear layers, which keep matrices transposed.
            named[name] = tensor.T if name in ("visual.proj", "text_projection") else tensor
    for name in [name for name in named if ".self_attn.q_proj." in name]:
        three = [named.pop(name.replace(".q_proj.", f".{which}_proj.")) for which in "qkv"]
        named[name.replace(".self_attn.q_proj.", ".attn.in_proj_")] = torch.cat(three)
    return named


def _file_of(path: Path) -> Path:
    """Return the file of weights that `path` is or holds; raises InputError where there is none."""
    if path.is_file():
        return path
    for name in FILES:
        if (path / name).is_file():
            return path / name
        if (path / f"{name}.index.json").is_file():
            raise InputError(
                f"{path}: its weights are in several files; save_pretrained(…, max_shard_size='99GB') makes one"
            )
    raise InputError(f"{path}: a folder without {' or '.join(FILES)}")


def _read_beside(path: Path, name: str) -> dict:
    """Return the JSON object in the file `name` beside `path`, {} where there is none."""
    file = path.with_name(name)
    return read_json(file, dict) if file.is_file() else {}


def _follow(model: nn.Module, config: dict, path: Path) -> str:
    """Give a model the activations and heads of its configuration; return how these differ from OpenAI's, in words.

    Without a configuration they are OpenAI's. Raises InputError for what OpenAI's network cannot be.
    """
    differences = []
    for encoder, part, transformer in (
        ("image", "vision_config", model.visual.transformer),
        ("text", "text_config", model.transformer),
    ):
        # Some older files say in the second what the first has wrong.
        settings = (config.get(part) or {}) | (config.get(f"{part}_dict") or {})
        activation = settings.get("hidden_act", "quick_gelu")
        heads = settings.get("num_attention_heads", HEADS[part]) if config else transformer.width // 64
        if activation not in ACTIVATIONS or transformer.width % heads or settings.get("layer_norm_eps", 1e-5) != 1e-5:
            wanted = f"hidden_act {' or '.join(ACTIVATIONS)}, layer_norm_eps 1e-5 and heads that divide the width"
            raise InputError(f"{path.with_name('config.json')}: {wanted} are needed in its {part}")
        for block in transformer.resblocks:
            if ACTIVATIONS[activation] is not None:
                block.mlp.gelu = ACTIVATIONS[activation]()
            block.attn.num_heads, block.attn.head_dim = heads, transformer.width // heads
        differences += Tower(activation, transformer.width // heads).differences(encoder)
    return ", ".join(differences)
