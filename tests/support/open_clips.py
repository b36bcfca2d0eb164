"""Small CLIPs of open_clip with random weights, in folders as they lie on Hugging Face's hub."""

import json

import torch

from src.models.backbone import Backbone
from src.models.registry import load_backbone

VISION = {"image_size": 64, "layers": 2, "width": 64, "patch_size": 16}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2}
PLAIN = {"embed_dim": 64, "vision_cfg": VISION, "text_cfg": TEXT}
NO_MASK = TEXT | {"no_causal_mask": True}
SIGLIP_TEXT = NO_MASK | {"context_length": 12, "pool_type": "last", "proj_bias": True, "norm_kwargs": {"eps": 1e-6}}
SIGLIP_VISION = {"image_size": 64, "timm_model_name": "test_vit", "timm_pool": "map", "timm_proj": "none"}
CONFIGS = {
    "openai": PLAIN | {"quick_gelu": True},
    "gelu": PLAIN,
    "eos": PLAIN | {"custom_text": True, "text_cfg": TEXT | {"pool_type": "eos", "eos_id": 49407}},
    "not_causal": PLAIN | {"text_cfg": NO_MASK},
    "siglip": {
        "embed_dim": 64,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": SIGLIP_VISION,
        "text_cfg": SIGLIP_TEXT,
    },
    "coca": PLAIN
    | {
        "vision_cfg": VISION | {"attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True},
        "text_cfg": TEXT | {"context_length": 76, "embed_cls": True, "output_tokens": True},
        "multimodal_cfg": {"width": 64, "context_length": 76, "heads": 1, "layers": 1, "mlp_ratio": 2},
        "custom_text": True,
    },
}
HALF = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
"""SigLIP's mean and std."""


def write_open_clip(folder, name, weights=None, text=None):
    """Write the CLIP of a configuration, with `text` changed in its text tower; return its --clip-model-name."""
    config = CONFIGS[name] | {"text_cfg": CONFIGS[name]["text_cfg"] | (text or {})}
    folder.mkdir(parents=True)
    content = {"model_cfg": config, "preprocess_cfg": HALF if name == "siglip" else {}}
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    torch.save(weights or random_weights(config), folder / "open_clip_pytorch_model.bin")
    return f"open_clip:local-dir:{folder}"


def random_weights(config):
    """Return random weights of a configuration, the same each time."""
    import open_clip

    options = {key: value for key, value in config.items() if key != "custom_text"}
    custom = open_clip.CoCa if "multimodal_cfg" in config else open_clip.CustomTextCLIP
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = (custom if "custom_text" in config else open_clip.CLIP)(**options)
        if custom is open_clip.CoCa:
            torch.nn.init.normal_(model.text_decoder.text_projection)  # open_clip leaves it as the memory was
        return model.state_dict()


def load_open_clip(folder, name, weights=None) -> Backbone:
    """Write such a CLIP, and load it in eval mode."""
    backbone = load_backbone(write_open_clip(folder, name, weights))
    return backbone.to(torch.device("cpu"))
