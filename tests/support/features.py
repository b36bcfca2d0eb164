"""A folder of features as another program fills it: with OpenAI's clip, and nothing of this project but its lists."""

import numpy as np
import torch
from PIL import Image

from src.models.openai_clip import clip  # the library itself, which needs a stand-in to be imported


@torch.no_grad()
def encode_lists(folder, start, weights, kind=np.float32):
    """Encode both lists of a folder, whose paths begin at `start`, with a file of CLIP weights; return its name."""
    content = torch.load(weights, weights_only=True)
    state = content.get("CLIP", content)
    model = clip.model.build_model(dict(state)).float().eval()
    model.load_state_dict(state)
    transform = clip.clip._transform(model.visual.input_resolution)

    def images(paths):
        return model.encode_image(torch.stack([transform(Image.open(start / path)) for path in paths]))

    def texts(lines):
        return model.encode_text(clip.tokenize(lines, truncate=True))

    for name, encode in (("pictures", images), ("texts", texts)):
        lines = (folder / f"{name}.txt").read_text().splitlines()
        batches = [encode(lines[first : first + 32]) for first in range(0, len(lines), 32)]
        np.save(folder / f"{name}.npy", torch.cat(batches).numpy().astype(kind))
    return f"features:{folder}"
