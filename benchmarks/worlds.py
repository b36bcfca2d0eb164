"""What the benchmarks run on: CLIPs of the published sizes with random weights, and pictures of ordinary size."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from src.files import read_json, write_json
from src.openai_clip import random_clip
from utils import device

# embed_dim, image_resolution, vision layers, width and patch size, context, vocabulary, text width, heads and layers
SIZES = {
    "ViT-B/32": (512, 224, 12, 768, 32, 77, 49408, 512, 8, 12),
    "RN50": (1024, 224, (3, 4, 6, 3), 64, None, 77, 49408, 512, 8, 12),
    "RN50x4": (640, 288, (4, 6, 10, 6), 80, None, 77, 49408, 640, 10, 12),
}


def clip_of_size(name):
    """A CLIP of that size on the device, in fp32 and eval mode, always with the same random weights."""
    torch.manual_seed(0)
    return random_clip(*SIZES[name]).to(device).eval()


def write_large_pictures(folder, world, triplets):
    """The first training triplets of CIRR's layout in `world`, with PNGs of about 500 pixels for their pictures."""
    captions = Path("cirr_dataset") / "cirr" / "captions" / "cap.rc2.train.json"
    chosen = read_json(world / captions, list)[:triplets]
    names = list(dict.fromkeys(name for triplet in chosen for name in (triplet["reference"], triplet["target_hard"])))
    paths = {name: f"./train/{name}.png" for name in names}
    write_json(folder / captions, chosen)
    write_json(folder / "cirr_dataset" / "cirr" / "image_splits" / "split.rc2.train.json", paths)
    rng = np.random.default_rng(0)
    (folder / "cirr_dataset" / "train").mkdir(parents=True, exist_ok=True)
    for path in tqdm(paths.values(), desc="drawing pictures", leave=False):
        _photograph(rng).save(folder / "cirr_dataset" / path)


def _photograph(rng):
    """As hard to decode as a photograph: broad shades, finer shapes, and a little noise on every pixel."""
    size = (500, 375) if rng.random() < 0.7 else (375, 500)
    layers = [
        np.asarray(Image.fromarray(rng.integers(0, 256, (n, n, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC))
        for n in (5, 40)
    ]
    noise = rng.normal(0, 4, layers[0].shape)
    return Image.fromarray((0.8 * layers[0] + 0.2 * layers[1] + noise).clip(0, 255).astype(np.uint8))
