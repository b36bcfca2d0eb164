"""OpenAI's clip library without its traps: it warns on import, and rounds weights through fp16 even on a CPU."""

import warnings

from src.errors import InputError, in_a_line
from src.weights import load_weights, read_weights

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it reads versions through pkg_resources, which says it is deprecated
    import clip
    from clip.model import CLIP, build_model

MODEL_NAMES = clip.available_models()


def tokenize(captions, context_length):
    """Tokens [captions, context_length]; what is longer is cut, its last token the end of text."""
    return clip.tokenize(captions, context_length, truncate=True)


def load_named_clip(name):
    """One of MODEL_NAMES in fp32 on the CPU, downloaded to clip's cache at its first use."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the archives are TorchScript, which torch says is deprecated
            return clip.load(name, device="cpu")[0].float()
    except (OSError, RuntimeError) as error:
        fault = f"cannot be downloaded ({in_a_line(error)}); a file of CLIP weights will do too"
        raise InputError(f"{name}: {fault}") from None


def load_clip_file(path):
    """The CLIP whose weights the file at `path` holds, in fp32 on the CPU; its shape is read from the weights."""
    weights = read_clip_weights(path)
    try:
        clip_model = build_model(dict(weights)).float()
    except Exception as error:  # what build_model raises for the weights of something else may be anything
        raise InputError(f"{path}: not the weights of a CLIP ({in_a_line(error)})") from None
    load_weights(clip_model, weights, path)  # again: build_model rounded them
    return clip_model


def read_clip_weights(path):
    """The state dict of a CLIP: a plain one, a stage-1 checkpoint's, or that of one of OpenAI's archives."""
    weights = read_weights(path, CLIP.__name__)
    for fact in ("input_resolution", "context_length", "vocab_size"):  # the archives list these among the weights
        weights.pop(fact, None)
    return weights


def random_clip(*size):
    """A CLIP of random weights.

    `size`: dimensions of its features; resolution, layers, width and patch size of its visual tower (four numbers of
    layers and None make a ResNet); context, vocabulary, width, heads and layers of its text tower.
    """
    return CLIP(*size)


def small_clip():
    """A CLIP of half a million weights beside its vocabulary's, random, for 64-pixel pictures."""
    return random_clip(64, 64, 2, 64, 16, 77, 49408, 64, 1, 2)
