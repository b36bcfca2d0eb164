"""The options that commands share, each declared once, without torch: --help and a wrong flag are answered at once."""

import re
from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import NamedTuple

from src.base.errors import InputError, require_one_of
from src.base.files import NEVER_REPLACED, PROJECT_ROOT, require_writable_files
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
from src.command.comet import CometOptions
from src.pictures.padding import TRANSFORMS
from src.tasks.own import KNOWN_NAMES, OwnTriplets
from src.tasks.registry import TASKS, folders
from src.tasks.triplets import Protocol, Split, Task

PRECISIONS = {"auto": None, "fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
"""{name of --precision: name of torch's type}; "auto" depends on the device."""
COMBINING_FUNCTIONS = {
    "sum": "utils:element_wise_sum",
    "combiner": "combiner:load_combiner",
    "product": "combiner:product",
    "image": "combiner:image_only",
    "text": "combiner:text_only",
}
"""{name of --combining-function: where it is written}; it needs torch, so it is imported behind the flags."""


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


def feature_cache_folder(args: Namespace) -> Path | None:
    """Return the folder that keeps features, None for none."""
    return None if args.no_feature_cache else args.feature_cache or args.output_path / "features"


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


def retriever_options(args: Namespace) -> RetrieverOptions:
    """Return the part of a command's options that `retriever.load_retriever` takes."""
    return RetrieverOptions(
        args.clip_model_name,
        args.clip_model_path,
        args.transform,
        args.target_ratio,
        feature_cache_folder(args),
        getattr(args, "image_cache", None),
        args.num_workers,
        getattr(args, "skip_missing", False),
    )


def parse_judging(parser: Parser, argv: list[str] | None = None) -> Namespace:
    """Parse the options of a judging command."""
    args = parser.parse_args(argv)
    if args.combining_function == "combiner" and args.combiner_path is None:
        parser.error("--combining-function combiner needs --combiner-path, a checkpoint of stage 2")
    return args


def add_protocol_options(parser: Parser) -> None:
    """Add how recalls are counted, and the files that keep more than recalls."""
    group = parser.add_argument_group("protocol")
    tasks = *TASKS.values(), OwnTriplets("")
    names = dict.fromkeys(protocol.name for task in tasks for protocol in task.protocols)
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


def chosen_protocols(args: Namespace, task: Task) -> list[Protocol]:
    """Return the protocols that a command's options name; raises InputError for one that the data set lacks."""
    names = args.protocol or [task.protocols[0].name]
    presets = list(task.protocols) if "all" in names else [task.protocol(name) for name in dict.fromkeys(names)]
    choices = {name: getattr(args, name) for name in ("gallery", "reference", "captions")}
    if args.captions is not None:
        require_one_of(args.captions, tuple(task.captions), f"way to ask {task.name}'s captions")
    return list(dict.fromkeys(preset.chosen(task.protocols, **choices) for preset in presets))


class CombiningOptions(NamedTuple):
    """What a command's options say of the function that combines both features; None where they say nothing."""

    name: str | None = None
    combiner_path: Path | None = None
    projection_dim: int | None = None
    hidden_dim: int | None = None


def combining_options(args: Namespace) -> CombiningOptions:
    """Return the part of a judging command's options that `combiner.load_combined` takes."""
    return CombiningOptions(args.combining_function, args.combiner_path, args.projection_dim, args.hidden_dim)


def comet_options(args: Namespace) -> CometOptions:
    """Return the Comet group of a command's options."""
    return CometOptions(args.api_key, args.workspace, args.experiment_name, args.comet_offline)


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


def add_combiner_options(parser: Parser, trained: bool = True) -> None:
    """Add the Combiner's dimensions and (`trained`) which function judges, with which weights."""
    group = parser.add_argument_group("Combiner")
    whose = " (default: the checkpoint's)" if trained else ""
    for flag, published, what in (("--projection-dim", 2560, "projections"), ("--hidden-dim", 5120, "hidden layers")):
        # A checkpoint knows its dimensions; only a new Combiner needs the published ones.
        default = None if trained else published
        group.add_argument(flag, type=count, default=default, help=f"size of the Combiner's two {what}{whose}")
    if not trained:
        help_text = "share of the Combiner's numbers that a step sets to zero"
        group.add_argument("--dropout", type=share, default=0.5, help=help_text)
    else:
        # Any case, as the published command takes it.
        names = any_case(*COMBINING_FUNCTIONS)
        help_text = "how picture and caption become a query: " + ", ".join(COMBINING_FUNCTIONS)
        help_text += " (default: combiner with --combiner-path, else sum)"
        group.add_argument("--combining-function", type=names, help=help_text)
        group.add_argument("--combiner-path", type=existing_file, help="checkpoint of stage 2, a Combiner")


# ---- files that a command reads and writes ----

FOLDERS_OF_FILES = "clip_model_name", "index", "qdrant", "feature_cache", "image_cache"
"""Options that may name a folder all of whose files are read."""
TABLE_NAMES = re.compile(rf"{KNOWN_NAMES.pattern}|(cap|split)\..+\.json")
"""Names of tables of own triplets, and of CIRR's and FashionIQ's, wherever they lie."""


def output_files(args: Namespace, *names: str) -> dict[str, list[Path]]:
    """Return {option: its file} of the options `names` that name a file to write."""
    return {_flag(name): [getattr(args, name)] for name in names if getattr(args, name) is not None}


def require_outputs(args: Namespace, outputs: dict[str, list[Path]], inputs: dict[str, Iterable[Path]]) -> None:
    """Raise InputError unless `outputs` {option: its files} can be written and replace nothing that a command reads.

    It reads what its other options name, and `inputs` {option: files}.
    """
    for option, paths in outputs.items():
        for path in paths:
            if path.is_file() and TABLE_NAMES.fullmatch(path.name):
                raise InputError(f"{option} {path}: is a table of a data set; name another file")
    given = {_flag(name): _files_in(name, value) for name, value in vars(args).items() if _flag(name) not in outputs}
    require_writable_files(outputs, given | inputs)


def data_files(task: Task, data_path: Path, splits: Iterable[Split] = ()) -> dict[str, list[Path]]:
    """Return {option: files} of a data set that no output may replace: its tables, and the pictures of `splits`."""
    pictures = (path for split in splits for path in split.pictures.values())
    # Most are known by their suffixes and need no look.
    others = (path for path in pictures if path.suffix.lower() not in NEVER_REPLACED)
    return {"--dataset": [*task.tables(data_path), *others]}


def _flag(name: str) -> str:
    return "FILE" if name == "files" else f"--{name.replace('_', '-')}"


def _files_in(name: str, value: object) -> list[Path]:
    """Return the files that an option's value names, and a folder where all its files are read."""
    found = []
    for part in value if isinstance(value, list) else [value]:
        # open_clip:ViT-B-32:FILE is a name with a file in it.
        paths = [Path(text) for text in (part, *part.split(":"))] if isinstance(part, str) else [part]
        found += [path for path in paths if isinstance(path, Path) and (path.is_file() or name in FOLDERS_OF_FILES)]
    return found


def add_searching_options(parser: Parser) -> None:
    """Add what answers a question about one's own pictures."""
    add_clip_options(parser)
    add_combiner_options(parser)
    add_feature_cache_options(parser)
    group = parser.add_argument_group("machine")
    add_output_path(group)
    add_num_workers(group)
    add_precision(group)


def add_submission_option(parser: Parser) -> None:
    """Add --submission-name."""
    help_text = "end of the submission's file names (default: the time)"
    parser.add_argument("--submission-name", type=part_of_a_file_name, help=help_text)


def add_judging_options(parser: Parser) -> None:
    """Add what the commands share that judge a CLIP with the sum or a Combiner."""
    add_clip_options(parser)
    add_combiner_options(parser)
    add_common_options(parser)
