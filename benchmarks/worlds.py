"""CLIPs of the published sizes with random weights, and pictures of ordinary size."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from src.base.bars import Bar
from src.base.files import write_json
from src.base.reading import read_json
from src.models.backbone import Backbone
from src.models.openai_clip import OpenAIClip, random_clip
from utils import device, load_clip

# embed_dim, image_resolution, vision layers, width and patch size, context, vocabulary, text width, heads and layers
SIZES = {
    "ViT-B/32": (512, 224, 12, 768, 32, 77, 49408, 512, 8, 12),
    "ViT-B/16": (512, 224, 12, 768, 16, 77, 49408, 512, 8, 12),
    "ViT-L/14": (768, 224, 24, 1024, 14, 77, 49408, 768, 12, 12),
    "ViT-L/14@336px": (768, 336, 24, 1024, 14, 77, 49408, 768, 12, 12),
    "RN50": (1024, 224, (3, 4, 6, 3), 64, None, 77, 49408, 512, 8, 12),
    "RN101": (512, 224, (3, 4, 23, 3), 64, None, 77, 49408, 512, 8, 12),
    "RN50x4": (640, 288, (4, 6, 10, 6), 80, None, 77, 49408, 640, 10, 12),
    "RN50x16": (768, 384, (6, 8, 18, 8), 96, None, 77, 49408, 768, 12, 12),
    "RN50x64": (1024, 448, (3, 15, 36, 10), 128, None, 77, 49408, 1024, 16, 12),
}


def clip_of_size(name: str) -> nn.Module:
    """Make a CLIP of a published size on the device, in fp32 and eval mode; its random weights are always the same."""
    torch.manual_seed(0)
    return random_clip(*SIZES[name]).to(device).eval()


def clip_named(name: str) -> Backbone:
    """Load the CLIP of --clip-model-name; those of SIZES get random weights, which are as fast."""
    return OpenAIClip(clip_of_size(name)).to(device) if name in SIZES else load_clip(name)


def write_large_pictures(folder: Path, world: Path, triplets: int) -> None:
    """Write the first training triplets of `world` to `folder`, in CIRR's layout, with photographs as pictures."""
    captions = Path("cirr_dataset") / "cirr" / "captions" / "cap.rc2.train.json"
    chosen = read_json(world / captions, list)[:triplets]
    names = list(dict.fromkeys(name for triplet in chosen for name in (triplet["reference"], triplet["target_hard"])))
    paths = {name: f"./train/{name}.png" for name in names}
    write_json(folder / captions, chosen)
    # The other members of a group must be listed but are never opened, so one picture serves for all of them.
    members = dict.fromkeys((name for triplet in chosen for name in triplet["img_set"]["members"]), paths[names[0]])
    write_json(folder / "cirr_dataset" / "cirr" / "image_splits" / "split.rc2.train.json", members | paths)
    write_photographs([folder / "cirr_dataset" / path for path in paths.values()])


def write_photographs(paths: Sequence[Path]) -> Sequence[Path]:
    """Draw pictures of about 500 pixels, always the same ones; return their paths."""
    rng = np.random.default_rng(0)
    for path in Bar(paths, desc="drawing pictures", leave=False):
        path.parent.mkdir(parents=True, exist_ok=True)
        _photograph(rng).save(path)
    return paths


def _photograph(rng):
    """Draw a picture that is as hard to decode as a photograph: with detail at every scale, fainter the finer."""
    picture = rng.normal(0, 1, (375, 500, 3))
    for width in (4, 8, 16, 32, 64, 128, 256, 512):
        shades = Image.fromarray(rng.integers(0, 256, (width * 3 // 4, width, 3), np.uint8))
        picture += 127 * width**-0.6 * (np.asarray(shades.resize((500, 375), Image.Resampling.BICUBIC)) / 127.5 - 1)
    picture *= 60 / picture.std()
    upright = rng.random() < 0.3
    return Image.fromarray((128 + (picture.swapaxes(0, 1) if upright else picture)).clip(0, 255).astype(np.uint8))
