"""The options that commands share, each declared once, without torch: --help and a wrong flag are answered at once."""

from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from src.base.errors import require_one_of
from src.base.files import PROJECT_ROOT
from src.base.parser import (
    Parser,
    any_case,
    count,
    count_or_zero,
    existing_file,
    file_path,
    name_or_file,
    one_or_more,
    part_of_a_file_name,
    share,
    usable_cores,
)
from src.command.combining import PUBLISHED_NETWORK
from src.pictures.padding import TRANSFORMS
from src.tasks.protocol import OWN, Protocol
from src.tasks.registry import TASKS, folders
from src.tasks.task import Task

PRECISIONS = {"auto": None, "fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
"""{name of --precision: name of torch's type}; "auto" depends on the device."""


def add_common_options(parser: Parser) -> None:
    """Add what all four commands take: features, where data is and results go, the machine, and Comet."""
    add_feature_cache_options(parser)
    group = parser.add_argument_group("data, output and machine")
    group.add_argument("--data-path", type=file_path, default=PROJECT_ROOT, help=f"folder that holds {folders()}")
    add_output_path(group)
    group.add_argument(
        "--seed", type=count_or_zero, default=0, help="decides every random draw of a training; judging takes no seed"
    )
    add_num_workers(group)
    add_skip_missing_option(group)
    add_precision(group)

    group = parser.add_argument_group(
        "Comet", "online once a key and a workspace are known, from here or from Comet's own settings"
    )
    group.add_argument("--api-key", help="Comet's API key")
    group.add_argument("--workspace", help="Comet's workspace")
    group.add_argument("--experiment-name", help="the experiment's name on Comet")
    group.add_argument(
        "--comet-offline",
        action="store_true",
        help="log to an archive in the run folder, or in comet/ of the output path",
    )


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


def add_skip_missing_option(parser: Parser) -> None:
    """Add --skip-missing."""
    help_text = "go on without missing or unreadable pictures and the triplets that need them; results are marked"
    parser.add_argument("--skip-missing", action="store_true", help=help_text)


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
    group.add_argument("--no-feature-cache", action="store_true", help="keep features in memory alone")


class RetrieverOptions(NamedTuple):
    """What a command's options say of the CLIP that answers, and of how its features are made and kept."""

    clip_model_name: str
    clip_model_path: Path | None = None
    transform: str = "targetpad"
    target_ratio: float = 1.25
    feature_cache: Path | None = None
    """The folder that keeps features; None for none."""
    image_cache: Path | None = None
    num_workers: int = 0
    skip_missing: bool = False


def parse_judging(parser: Parser, functions: dict[str, bool], argv: list[str] | None = None) -> Namespace:
    """Parse the options of a judging command; `functions` {name: whether it is a network} are all there are."""
    args = parser.parse_args(argv)
    if functions.get(args.combining_function) and args.combiner_path is None:
        parser.error(f"--combining-function {args.combining_function} needs --combiner-path, a checkpoint of stage 2")
    return args


def add_protocol_options(parser: Parser) -> None:
    """Add how recalls are counted, and the files that keep more than recalls."""
    group = parser.add_argument_group("protocol")
    names = dict.fromkeys([protocol.name for task in TASKS.values() for protocol in task.protocols] + [OWN])
    help_text = f"ways of counting to print in full, or all: {', '.join(names)} (default: as published)"
    group.add_argument("--protocol", nargs="+", type=any_case(*names, "all"), metavar="NAME", help=help_text)
    of_protocol = "(default: the protocol's)"
    help_text = f"rank the whole split, or only the pictures that its triplets name {of_protocol}"
    group.add_argument("--gallery", choices=("full", "val"), help=help_text)
    help_text = f"whether the reference stays in the ranking {of_protocol}"
    group.add_argument("--reference", choices=("keep", "drop"), help=help_text)
    modes = dict.fromkeys(mode for task in TASKS.values() for mode in task.captions)
    help_text = f"how captions become a query's text: {', '.join(modes)} {of_protocol}"
    group.add_argument("--captions", choices=tuple(modes), metavar="HOW", help=help_text)
    help_text = "draw references instead of queries for the intervals, since the queries of one are alike"
    group.add_argument("--cluster", choices=("reference",), help=help_text)

    group = parser.add_argument_group("files")
    help_text = "file for what each query got, which compare.py reads"
    group.add_argument("--per-query", type=file_path, metavar="FILE.csv", help=help_text)
    help_text = "file for the ranking in TREC's form, its judgements beside it as .qrels"
    group.add_argument("--trec-run", type=file_path, metavar="FILE", help=help_text)
    help_text = "file for protocols, metrics, intervals, sizes and digests"
    group.add_argument("--json", type=file_path, metavar="FILE.json", help=help_text)


def chosen_protocols(
    task: Task, names: Sequence[str] | None, gallery: str | None, reference: str | None, captions: str | None
) -> list[Protocol]:
    """Find the protocols that --protocol names, with what other options change of them; None changes nothing.

    Raises InputError for one that the data set lacks.
    """
    names = names or [task.protocols[0].name]
    presets = list(task.protocols) if "all" in names else [task.protocol(name) for name in dict.fromkeys(names)]
    if captions is not None:
        require_one_of(captions, tuple(task.captions), f"way to ask {task.name}'s captions")
    choices = {"gallery": gallery, "reference": reference, "captions": captions}
    return list(dict.fromkeys(preset.chosen(task.protocols, **choices) for preset in presets))


class CombiningOptions(NamedTuple):
    """What a command's options say of the function that combines both features; None where they say nothing."""

    name: str | None = None
    combiner_path: Path | None = None
    projection_dim: int | None = None
    hidden_dim: int | None = None


def dataset_choices(names: Collection[str]) -> str:
    """Return what --dataset takes, for a help text."""
    return f"{', '.join(names)}, in any case, or a folder of own triplets"


def dataset_name(names: Collection[str]) -> Callable[[str], str]:
    """Make a type for an option that takes one of `names`, in any case, or a folder, whose path it makes absolute."""
    known = any_case(*names)

    def dataset(text: str) -> str:
        if text.lower() not in map(str.lower, names) and Path(text).is_dir():
            return str(Path(text).absolute())
        try:
            return known(text)
        except ArgumentTypeError as error:
            raise ArgumentTypeError(f"{error}, and {Path(text).absolute()} is no folder of own triplets") from None

    return dataset


def add_dataset_option(
    parser: Parser, default: str | None = None, otherwise: str = "", split: str = "val", required: bool = False
) -> None:
    """Add --dataset for data sets that have a `split`; `otherwise` says what an empty default means."""
    names = [task.name for task in TASKS.values() if split in task.splits]
    help_text = dataset_choices(names) + (f" (default: {otherwise})" if otherwise else "")
    parser.add_argument("--dataset", type=dataset_name(names), default=default, required=required, help=help_text)


def add_clip_options(parser: Parser) -> None:
    """Add which CLIP, the checkpoint to load over it, and how pictures are prepared for it."""
    group = parser.add_argument_group("CLIP")
    help_text = (
        "a name that clip.available_models() lists, open_clip:ARCHITECTURE:PRETRAINED_OR_FILE, or a file of CLIP"
    )
    help_text += " weights, or Hugging Face's folder of one"
    group.add_argument("--clip-model-name", type=name_or_file, default="RN50x4", help=help_text)
    help_text = "checkpoint of stage 1 to load over --clip-model-name"
    group.add_argument("--clip-model-path", type=existing_file, help=help_text)
    group.add_argument("--transform", choices=tuple(TRANSFORMS), default="targetpad", help="how pictures become square")
    group.add_argument(
        "--target-ratio", type=one_or_more, default=1.25, help="targetpad pads pictures whose sides have a larger ratio"
    )


def add_combiner_options(parser: Parser, functions: dict[str, bool], trained: bool = True) -> None:
    """Add a network's dimensions and (`trained`) which function judges, with which weights, or what to train.

    `functions` {name: whether it is a network} are all there are, weakest first.
    """
    group = parser.add_argument_group("Combiner")
    whose = " (default: the checkpoint's)" if trained else ""
    for flag, published, what in (("--projection-dim", 2560, "projections"), ("--hidden-dim", 5120, "hidden layers")):
        # A checkpoint knows its dimensions; only a new Combiner needs the published ones.
        default = None if trained else published
        group.add_argument(flag, type=count, default=default, help=f"size of the Combiner's two {what}{whose}")
    if not trained:
        help_text = "share of the Combiner's numbers that a step sets to zero"
        group.add_argument("--dropout", type=share, default=0.5, help=help_text)
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
        group.add_argument("--combiner-path", type=existing_file, help="checkpoint of stage 2, a Combiner")


def add_searching_options(parser: Parser, functions: dict[str, bool]) -> None:
    """Add what answers a question about one's own pictures."""
    add_clip_options(parser)
    add_combiner_options(parser, functions)
    add_feature_cache_options(parser)
    group = parser.add_argument_group("machine")
    add_output_path(group)
    add_num_workers(group)
    add_precision(group)


def add_submission_option(parser: Parser) -> None:
    """Add --submission-name."""
    help_text = "end of the submission's file names (default: the time)"
    parser.add_argument("--submission-name", type=part_of_a_file_name, help=help_text)


def add_judging_options(parser: Parser, functions: dict[str, bool]) -> None:
    """Add what the commands share that judge a CLIP with the sum or a Combiner."""
    add_clip_options(parser)
    add_combiner_options(parser, functions)
    add_common_options(parser)
