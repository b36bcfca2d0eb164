"""The CLIPs of the library open_clip, an extra (requirements/backbones.txt)."""

import contextlib
import difflib
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

from torch import Tensor, nn
from torch.func import functional_call

from src.base.errors import InputError, in_a_line
from src.models.backbone import Backbone
from src.models.tower import Tower
from src.models.weights import is_torchscript, read_state_dict
from src.pictures.normalisation import OPENAI_NORMALISATION, Normalisation

PREFIX = "open_clip:"
SOURCES = "hf-hub", "local-dir"
"""Where open_clip finds a configuration and weights together, after a colon: a repository, or a folder like one."""


class OpenClip(Backbone):
    """A CLIP of open_clip: by architecture and pretrained weights, or a file of these, or from one of SOURCES."""

    def __init__(self, model: nn.Module, config: dict, tokenizer: Callable, normalisation: Normalisation):
        """`config` is open_clip's configuration of the model, `tokenizer` makes tokens of captions."""
        super().__init__(model)
        self.tokenizer, self.normalisation = tokenizer, normalisation
        self.network = _network(config)
        self._dimension = config["embed_dim"]
        self._texts = _Texts(model)
        self.trims_captions = self._texts.ends_where_it_looks()

    @classmethod
    def load(cls, name: str) -> "OpenClip":
        architecture, colon, weights = name.removeprefix(PREFIX).partition(":")
        if not architecture or not weights:
            raise InputError(f"--clip-model-name {name}: {PREFIX}ARCHITECTURE:PRETRAINED_OR_FILE is expected")
        library = _library(name)
        if architecture == SOURCES[1] and not Path(weights).is_dir():
            raise InputError(f"--clip-model-name {name}: no such folder; if it was moved, give its new path")
        if architecture in SOURCES:
            architecture, weights = f"{architecture}{colon}{weights}", None
        elif architecture not in library.list_models():
            near = difflib.get_close_matches(architecture, library.list_models(), n=3)
            hint = f", but {' and '.join(near)}" if near else "; open_clip.list_models() lists them"
            raise InputError(f"--clip-model-name {name}: open_clip has no architecture {architecture}{hint}")
        try:
            with _silent():
                return cls._load(library, architecture, weights)
        except InputError as error:
            raise InputError(f"--clip-model-name {name}: {error}") from None
        except ImportError as error:  # of what some architectures need beside it
            raise InputError(f"--clip-model-name {name}: needs `pip install {error.name}`") from None
        except Exception as error:  # what the library raises, and those below it, may be anything
            fault = f"cannot be loaded ({in_a_line(error)}); {PREFIX}{SOURCES[1]}:FOLDER downloads nothing"
            raise InputError(f"--clip-model-name {name}: {fault}") from None

    @classmethod
    def _load(cls, library, architecture, weights):
        config = library.get_model_config(architecture)
        is_file = weights is not None and Path(weights).is_file()
        if weights is not None:
            _require_fitting(library, architecture, weights, bool(config.get("quick_gelu")))
        # Without a file the library downloads and converts. It would not compare checksums, so it reads by our reader.
        with patch.object(library.factory, "load_state_dict", _read):
            model = library.create_model(
                architecture,
                None if is_file else weights,
                load_weights=not is_file,
                require_pretrained=not is_file,
                pretrained_text=False,
                weights_only=True,
            )
        normalisation = usual_normalisation(library, architecture) if is_file else _of_model(model)
        backbone = cls(model.float(), config, _tokenizer(library, architecture, config), normalisation)
        if is_file:
            backbone.load_over(Path(weights))
        return backbone

    @property
    def resolution(self) -> int:
        size = self.model.visual.image_size
        return size[0] if isinstance(size, (tuple, list)) else size

    @property
    def dimension(self) -> int:
        return self._dimension

    def tokenize(self, captions: Sequence[str]) -> Tensor:
        return self.tokenizer(list(captions))

    def ends(self, tokens: Tensor) -> Tensor:
        return self._texts.ends(tokens)

    def encode_images(self, images: Tensor) -> Tensor:
        return self.model.encode_image(images, normalize=False)

    def encode_tokens(self, tokens: Tensor) -> Tensor:
        return self._texts.encode(tokens)

    def encoder_of(self, weight: str) -> str | None:
        # The scale and bias of similarities are no part of a feature, nor is what CoCa writes captions with.
        if weight.startswith(("logit_scale", "logit_bias", "text_decoder.")):
            return None
        return "image" if weight.startswith("visual.") else "text"


class _Texts(nn.Module):
    """A model's text side as a module, which takes tokens of any length where its tower allows it."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        self.prefix = "model.text." if hasattr(model, "text") else "model."
        self.tower = getattr(model, "text", model)

    def _pools(self) -> str | None:
        """Return the library's word for the place whose feature is taken; None of a tower of another library."""
        return getattr(self.tower, "pool_type", getattr(self.tower, "text_pool_type", None))

    def ends_where_it_looks(self) -> bool:
        """Whether no token sees a later one, and the feature is taken at the end of the text."""
        causal = getattr(self.tower, "attn_mask", None) is not None
        # A class token stands after the padding.
        return causal and self._pools() in ("argmax", "eos") and getattr(self.tower, "cls_emb", None) is None

    def ends(self, tokens: Tensor) -> Tensor:
        """Return the place [captions] where the tower itself looks for the end, and any where it does not look."""
        if self._pools() == "eos":
            end = getattr(self.tower, "eos_id", getattr(self.tower, "text_eos_id", None))
            tokens = (tokens == end).int()
        return tokens.argmax(dim=-1)

    def encode(self, tokens: Tensor) -> Tensor:
        """Return features [captions, dim], not normalised, of tokens [captions, any length]."""
        length = tokens.shape[1]
        if not self.ends_where_it_looks() or length == self.tower.context_length:
            return self(tokens)
        # The library's towers take only whole contexts; with positions and mask cut, theirs is this one.
        cut = {
            f"{self.prefix}positional_embedding": self.tower.positional_embedding[:length],
            f"{self.prefix}attn_mask": self.tower.attn_mask[:length, :length],
        }
        return functional_call(self, cut, (tokens,), tie_weights=False)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.model.encode_text(tokens, normalize=False)


USUAL = {
    "": {"embed_dim", "quick_gelu", "vision_cfg", "text_cfg"},
    "vision_cfg": {"image_size", "layers", "width", "patch_size", "head_width"},
    "text_cfg": {"context_length", "vocab_size", "width", "heads", "layers"},
}
"""{part of a configuration: what OpenAI's CLIPs have there}"""


def _network(config: dict) -> str:
    """Return what beside its weights decides the features of the network with this `config`; "" is as OpenAI's."""
    vision, text = config["vision_cfg"], config["text_cfg"]
    activation = "quick_gelu" if config.get("quick_gelu") else "gelu"
    # Of a model of another library only the configuration, below, is known.
    image = Tower(activation, vision.get("head_width", 64))
    heads = text.get("heads", 8)
    differences = image.differences("image")
    differences += Tower(activation, text.get("width", 512) // heads).differences("text")
    parts = {"": config, "vision_cfg": vision, "text_cfg": text}
    unusual = {
        part: {name: value for name, value in content.items() if name not in USUAL[part]}
        for part, content in parts.items()
    }
    if any(unusual.values()):
        differences.append(json.dumps(unusual, sort_keys=True))
    return ", ".join(differences)


def _library(name: str) -> ModuleType:
    try:
        with _silent():
            import open_clip
    except ImportError:
        needs = "needs open_clip; `pip install -r requirements/backbones.txt` installs it"
        raise InputError(f"--clip-model-name {name}: {needs}") from None
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # else tokenizers warn when workers are forked
    return open_clip


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keep open_clip from logging and warning; what matters is raised."""
    # With a handler there, the library's first word does not set up logging for the whole process.
    handler = logging.NullHandler()
    logging.getLogger().addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.getLogger().removeHandler(handler)


def _read(path: str, **_) -> dict[str, Tensor]:
    return read_state_dict(path, "CLIP")


def _tokenizer(library, architecture: str, config: dict) -> Callable:
    """Return the tokenizer of an architecture, which may be one of transformers."""
    # A configuration may ask transformers to run code that lies beside it.
    no_code = {"trust_remote_code": False} if config["text_cfg"].get("hf_tokenizer_name") else {}
    return library.get_tokenizer(architecture, **no_code)


def _require_fitting(library, architecture: str, weights: str, quick_gelu: bool) -> None:
    """Raise InputError for unknown weights, and for those that another activation was trained with."""
    if Path(weights).is_file():
        wanted = True if is_torchscript(Path(weights)) else quick_gelu  # other files do not say
    else:
        pretrained = library.get_pretrained_cfg(architecture, weights)
        if not pretrained:
            known = ", ".join(library.list_pretrained_tags_by_model(architecture)) or "none"
            raise InputError(f"{weights} is neither a file nor pretrained weights of {architecture} ({known})")
        wanted = bool(pretrained.get("quick_gelu"))
    fitting = f"{architecture}-quickgelu" if wanted else architecture.removesuffix("-quickgelu")
    # One architecture is of the other kind than its only weights say, without a second one to take.
    if wanted != quick_gelu and fitting != architecture:
        raise InputError(f"these weights were trained {'with' if wanted else 'without'} quick GELU; {fitting} has them")


def _of_model(model) -> Normalisation:
    settings = model.visual.preprocess_cfg
    return Normalisation(tuple(settings["mean"]), tuple(settings["std"]))


def usual_normalisation(library, architecture: str) -> Normalisation:
    """Return what all pretrained weights of an architecture have, since a file does not say; else OpenAI's."""
    tags = library.list_pretrained_tags_by_model(architecture)
    configs = [library.get_pretrained_cfg(architecture, tag) for tag in tags]
    found = {Normalisation(tuple(settings["mean"]), tuple(settings["std"])) for settings in configs}
    return found.pop() if len(found) == 1 else OPENAI_NORMALISATION
