"""Options of models and machines, each declared once, without torch: --help and a wrong flag are answered at once."""

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from src.base.files import PROJECT_ROOT
from src.base.hub import FORM
from src.command.combining import PUBLISHED_NETWORK
from src.command.parser import (
    Parser,
    any_case,
    count_or_zero,
    file_path,
    name_or_file,
    one_or_more,
    share,
    usable_cores,
    weights_place,
    width,
)
from src.pictures.padding import TRANSFORMS, USUAL_RATIO, USUAL_TRANSFORM

EVERYWHERE = f"or a folder of shared weights, or {FORM}"
"""What options of weights take instead of a file."""
PRECISIONS = {"auto": None, "fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
"""{name of --precision: name of torch's type}; "auto" depends on the device."""
FEATURES = PROJECT_ROOT / "features"
"""Where features are kept unless something else is said: as a command's, whose --output-path is the project's root."""


def add_data_path(parser: Parser, help_text: str, type: Callable = Path) -> None:
    """Add --data-path, the project's root unless something else is said."""
    parser.add_argument("--data-path", type=type, default=PROJECT_ROOT, help=help_text)


def add_output_path(parser: Parser) -> None:
    """Add --output-path."""
    help_text = "receives models/, submission/ and features/"
    parser.add_argument("--output-path", type=file_path, default=PROJECT_ROOT, help=help_text)


def add_num_workers(parser: Parser) -> None:
    """Add --num-workers."""
    help_text = "processes that load pictures"
    parser.add_argument("--num-workers", type=count_or_zero, default=usable_cores(), help=help_text)


def add_precision(parser: Parser) -> None:
    """Add --precision."""
    help_text = "auto: fp16 autocast when training on CUDA, else fp32; ranking and loss are always in fp32"
    parser.add_argument("--precision", choices=tuple(PRECISIONS), default="auto", help=help_text)


def add_image_cache_option(parser: Parser) -> None:
    """Add --image-cache."""
    help_text = "folder that keeps every picture decoded, resized and cropped: 3 bytes a pixel"
    parser.add_argument("--image-cache", type=file_path, metavar="FOLDER", help=help_text)


def add_feature_cache_options(parser: Parser) -> None:
    """Add where features of frozen encoders are kept from one process to the next."""
    # Exclusive: a folder and no folder contradict each other.
    group = parser.add_argument_group("features of a frozen CLIP").add_mutually_exclusive_group()
    help_text = "folder that keeps features for the next command (default: features/ in the output path)"
    group.add_argument("--feature-cache", type=file_path, metavar="FOLDER", help=help_text)
    group.add_argument("--no-feature-cache", action="store_true", help="keep features only in memory")


class CometOptions(NamedTuple):
    """What a command's flags say of logging to Comet, None or False where not given."""

    api_key: str | None
    workspace: str | None
    experiment_name: str | None
    offline: bool


class RetrieverOptions(NamedTuple):
    """What a command's options say of the CLIP that answers, and of how its features are made and kept."""

    clip_model_name: str | Path
    clip_model_path: Path | str | None = None
    transform: str | None = None
    """None is the checkpoints', and where they say nothing the published one; so is None of target_ratio."""
    target_ratio: float | None = None
    feature_cache: Path | str | None = FEATURES
    """The folder that keeps features; None keeps them in memory only."""
    image_cache: Path | str | None = None
    num_workers: int = 0
    skip_missing: bool = False


def parse_judging(parser: Parser, functions: dict[str, bool], argv: list[str] | None = None) -> Namespace:
    """Parse the options of a judging command; `functions` {name: whether it is a network} are all there are."""
    args = parser.parse_args(argv)
    if functions.get(args.combining_function) and args.combiner_path is None:
        parser.error(f"--combining-function {args.combining_function} needs --combiner-path, a checkpoint of stage 2")
    return args


class CombiningOptions(NamedTuple):
    """What a command's options say of the function that combines both features; None where they say nothing."""

    name: str | None = None
    combiner_path: Path | str | None = None
    projection_dim: int | None = None
    hidden_dim: int | None = None


def add_clip_options(parser: Parser) -> None:
    """Add which CLIP, the checkpoint to load over it, and how pictures are prepared for it."""
    group = parser.add_argument_group("CLIP")
    help_text = "a name that clip.available_models() lists, open_clip:ARCHITECTURE:PRETRAINED_OR_FILE, a folder of a "
    help_text += "Hugging Face CLIP, features:FOLDER in stage 2 and judging, or weights of a CLIP: a file, "
    help_text += EVERYWHERE
    group.add_argument("--clip-model-name", type=name_or_file, default="RN50x4", help=help_text)
    help_text = f"checkpoint of stage 1 to load over --clip-model-name, {EVERYWHERE}"
    group.add_argument("--clip-model-path", type=weights_place, help=help_text)
    help_text = "how pictures become square"
    group.add_argument("--transform", choices=tuple(TRANSFORMS), default=USUAL_TRANSFORM, help=help_text)
    help_text = "targetpad pads pictures whose sides have a larger ratio"
    group.add_argument("--target-ratio", type=one_or_more, default=USUAL_RATIO, help=help_text)


def add_combiner_options(parser: Parser, functions: dict[str, bool], trained: bool = True) -> None:
    """Add a network's dimensions and (`trained`) which function judges, with which weights, or what to train.

    `functions` {name: whether it is a network} are all there are, weakest first.
    """
    group = parser.add_argument_group("Combiner")
    whose = " (default: the checkpoint's)" if trained else ""
    for flag, published, what in (("--projection-dim", 2560, "projections"), ("--hidden-dim", 5120, "hidden layers")):
        # A checkpoint knows its dimensions; only a new Combiner needs the published ones.
        default = None if trained else published
        group.add_argument(flag, type=width, default=default, help=f"size of the Combiner's two {what}{whose}")
    if not trained:
        help_text = "share of the Combiner's numbers that a step sets to zero"
        group.add_argument("--dropout", type=share, default=0.5, help=help_text)
        help_text = "compare pictures through a learned projection with a hidden layer of this size (512 if not given)"
        group.add_argument("--gallery-projection", type=width, nargs="?", const=512, metavar="HIDDEN", help=help_text)
        networks = [name for name, is_network in functions.items() if is_network]
        if len(networks) > 1:  # else there is no choice
            help_text = f"the network to train: {', '.join(networks)}"
            group.add_argument("--network", type=any_case(*networks), default=PUBLISHED_NETWORK, help=help_text)
    else:
        # Any case, as the published command takes it.
        names = list(reversed(functions))
        help_text = "how picture and caption become a query: " + ", ".join(names)
        help_text += " (default: the network of --combiner-path, else sum)"
        group.add_argument("--combining-function", type=any_case(*names), help=help_text)
        help_text = f"checkpoint of stage 2, a Combiner, {EVERYWHERE}"
        group.add_argument("--combiner-path", type=weights_place, help=help_text)


def add_searching_options(parser: Parser, functions: dict[str, bool]) -> None:
    """Add what answers a question about one's own pictures."""
    add_clip_options(parser)
    add_combiner_options(parser, functions)
    add_feature_cache_options(parser)
    group = parser.add_argument_group("machine")
    add_output_path(group)
    add_num_workers(group)
    add_precision(group)
