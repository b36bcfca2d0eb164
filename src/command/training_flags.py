"""Options of both stages of training, and those that --resume takes from the run."""

from argparse import Action, ArgumentTypeError, Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from src.base.errors import InputError, in_a_line
from src.base.reading import read_json
from src.command.flags import CometOptions
from src.command.parser import (
    Parser,
    count,
    existing_file,
    file_path,
    hyper_parameters,
    name_or_file,
    plain,
    positive,
    positive_share,
    weights_place,
)
from src.command.recipes import Recipe
from src.tasks.registry import TASKS

NEGATIVES = ("batch", "bank")
LOSSES = ("cross-entropy", "gce")
OPTIONS_FILE = "training_hyperparameters.json"
"""The file of a run's options."""


def add_training_options(
    parser: Parser, recipes: dict[str, Recipe], batch_size: int, validation_frequency: int
) -> None:
    """Add what both stages take, with the published defaults of the stage."""
    help_text = "table of more triplets to train on, as own triplets have it, or SPN4CIR's .json; may be given several"
    help_text += " times"
    parser.add_argument("--extra-triplets", action="append", type=existing_file, metavar="FILE", help=help_text)
    group = parser.add_argument_group("training")
    help_text = "set the options of a way to train that docs/recipes.md lists; a flag given beside it wins"
    group.add_argument("--recipe", choices=tuple(recipes), help=help_text)
    group.add_argument("--num-epochs", type=count, default=300, help="passes over the triplets")
    group.add_argument("--batch-size", type=count, default=batch_size, help="triplets a step")
    help_text = "what cosine similarities are multiplied by in the loss"
    group.add_argument("--scale", type=positive, default=100.0, help=help_text)
    help_text = "gce: generalised cross-entropy, to which triplets with wrong targets do less harm"
    group.add_argument("--loss", choices=LOSSES, default="cross-entropy", help=help_text)
    help_text = "with --loss gce: q above 0, where it is the cross-entropy, up to 1, where it trusts targets least"
    group.add_argument("--robustness", type=positive_share, default=0.7, metavar="Q", help=help_text)
    help_text = "which pictures serve as negatives: the batch's targets, or all training pictures (needs a frozen"
    help_text += " picture encoder)"
    group.add_argument("--negatives", choices=NEGATIVES, default="batch", help=help_text)
    help_text = "do not count a query's target as a negative when another triplet in the batch has the same target"
    group.add_argument("--mask-same-target", action="store_true", help=help_text)
    help_text = "epochs from one validation to the next"
    group.add_argument("--validation-frequency", type=count, default=validation_frequency, help=help_text)
    help_text = "save weights at each validation and, as epochs end, what --resume needs"
    group.add_argument("--save-training", action="store_true", help=help_text)
    # Accepted without --save-training, as in the published commands; a line then says that nothing is saved.
    group.add_argument("--save-best", action="store_true", help="with --save-training: keep only the best weights")
    help_text = "column of validation_metrics.csv that picks the best weights (default: as published)"
    group.add_argument("--best-by", metavar="COLUMN", help=help_text)

    help_text = "file for the rank and the loss of each training triplet in the last epochs, which check_data.py reads"
    group.add_argument("--per-triplet", type=file_path, metavar="FILE.csv", help=help_text)
    help_text = "go on with a run that was stopped or has finished; its options need not be given again"
    group.add_argument("--resume", type=file_path, metavar="RUN_FOLDER", help=help_text)


MAY_CHANGE = {
    *("num_epochs", "clip_bs", "num_workers", "data_path", "extra_triplets"),
    "precision",  # what it stands for is compared
    *("feature_cache", "no_feature_cache", "image_cache"),
    "per_triplet",  # the state has what goes into the file
    *("clip_model_name", "clip_model_path"),  # the weights themselves are compared
    *("api_key", "workspace", "experiment_name", "comet_offline", "resume"),
}
"""Options that do not decide a run's results: --resume takes other ones."""


def parse_training(parser: Parser, recipes: dict[str, Recipe], argv: list[str] | None = None) -> Namespace:
    """Parse the options of a training command, with those of its recipe or, with --resume, of that run.

    A fault ends as a wrong flag does.
    """
    args = parser.parse_args(argv)
    if args.resume is not None:
        try:
            _take_over(args, parser)
        except InputError as error:
            parser.error(str(error))
    elif args.recipe is not None:
        options = recipes[args.recipe].options
        vars(args).update({name: value for name, value in options.items() if name not in args.given})
    # Not required by argparse, since with --resume the run has it.
    if args.dataset is None:
        parser.error("the following arguments are required: --dataset")
    if args.negatives == "bank" and args.encoder in ("both", "image"):
        why = "the bank's features are made once, and a picture encoder that learns would outdate them"
        parser.error(f"--negatives bank: --encoder {args.encoder} cannot use it, --encoder text can: {why}")
    if args.negatives == "bank" and args.mask_same_target:
        parser.error("--mask-same-target is for --negatives batch: a bank holds each picture once")
    if args.loss != "gce" and "robustness" in args.given:
        parser.error("--robustness is for --loss gce")
    if args.encoder == "none":
        for name in sorted(args.given & {"learning_rate", "frozen_epochs"}):
            parser.error(f"--{name.replace('_', '-')} is for --encoder text")
    return args


def read_options(folder: Path) -> dict:
    """Return the options that a run folder keeps, as plain values; raises InputError where there are none."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder, where a run is expected")
    path = folder / OPTIONS_FILE
    if not path.is_file():
        raise InputError(f"{folder}: not a run folder, it has no {path.name}")
    return read_json(path, dict)


def require_values(folder: Path, options: dict, parser: Parser) -> None:
    """Raise InputError for one of the `options` that a run folder keeps that `parser`, which has it, would not take."""
    for action in parser._actions:
        if action.dest in options and not _is_plain_value(action, options[action.dest]):
            value = in_a_line(repr(options[action.dest]))
            flag = action.option_strings[-1]
            raise InputError(f"{folder / OPTIONS_FILE}: {action.dest} is {value}, which {flag} does not take")


def _is_plain_value(action: Action, value: object) -> bool:
    """Whether `value`, as JSON has it, is one that `plain` gives of an option."""
    if action.nargs == 0:
        return type(value) is bool
    if value is None:
        return action.default is None
    if action.choices is not None:
        return value in action.choices
    if action.dest == "extra_triplets":
        return isinstance(value, list) and all(isinstance(path, str) for path in value)
    # What a path leads to may have moved, and is for others to look at.
    if action.dest == "dataset" or action.type in (None, file_path, existing_file, name_or_file, weights_place):
        return isinstance(value, str)
    return _takes(action.type, value)


def _takes(convert: Callable[[str], object], value: object) -> bool:
    try:
        return plain(convert(str(value))) == value
    except ArgumentTypeError:
        return False


def _take_over(args: Namespace, parser: Parser) -> None:
    """Give `args` the options of the run to resume that the command line does not give."""
    try:
        kept, known = read_options(args.resume), hyper_parameters(vars(args))
    except InputError as error:
        raise InputError(f"--resume {error}") from None
    # The options of a command are its signature: each stage has some that the other lacks.
    foreign = sorted(kept.keys() - known.keys())
    if foreign:
        raise InputError(f"--resume {args.resume}: a run of another command, whose options differ in {foreign[0]}")
    require_values(args.resume, kept, parser)
    # A run that was begun before there was an option had what is its default now.
    options = {name: plain(parser.get_default(name)) for name in known} | kept
    if not options["save_training"]:
        raise InputError(f"--resume {args.resume}: a run without --save-training left nothing to go on from")
    flags = {name: f"--{name.replace('_', '-')}" for name in options}
    # Only what was typed can contradict.
    may_change = MAY_CHANGE
    if not {args.dataset, options["dataset"]} & TASKS.keys():
        may_change = MAY_CHANGE | {"dataset"}  # a folder of own triplets, which may have moved
    other = [name for name in sorted(args.given - may_change) if plain(getattr(args, name)) != options[name]]
    if other:
        raise InputError(
            f"--resume {args.resume}: the run has "
            + ", ".join(f"{flags[name]} {options[name]}, not {plain(getattr(args, name))}" for name in other)
        )
    paths = {action.dest for action in parser._actions if action.type in (file_path, existing_file, weights_place)}
    for name in options.keys() - args.given:
        setattr(args, name, _as_path(options[name]) if name in paths else options[name])


def _as_path(value: str | list | None) -> Path | list | None:
    """Return the path, or the paths, that JSON keeps as text."""
    if isinstance(value, list):
        return [Path(part) for part in value]
    return None if value is None else Path(value)


class TrainingPlan(NamedTuple):
    """How the loop of both stages is to run."""

    num_epochs: int
    batch_size: int
    validation_frequency: int
    precision: str
    seed: int
    save_training: bool
    save_best: bool
    best_by: str | None = None
    """The column that picks the best weights; None is as published."""
    scale: float = 100
    """What cosine similarities are multiplied by in the loss."""
    loss: str = "cross-entropy"
    """One of LOSSES."""
    robustness: float = 0.7
    """The q of the loss gce."""
    negatives: str = "batch"
    """One of NEGATIVES."""
    mask_same_target: bool = False
    """Whether another triplet's same target does not count as a negative."""
    per_triplet: Path | None = None
    """The file for the rank and the loss of each triplet."""

    @property
    def distinct_pictures(self) -> bool:
        """Whether pictures with the same bytes count as one."""
        return self.negatives == "bank" or self.mask_same_target


class RunOptions(NamedTuple):
    """What a training reads, how it runs, where it writes and logs, and which run it goes on with."""

    dataset: str
    plan: TrainingPlan
    data_path: Path
    extra_triplets: list[Path]
    skip_missing: bool
    output_path: Path
    resume: Path | None
    comet: CometOptions
    hyper_parameters: dict
    """All options, as plain values, to be kept beside the results."""


def run_options(options: Mapping, comet: CometOptions, kept: dict) -> RunOptions:
    """Return a training command's `options`, of which the run folder keeps `kept`."""
    plan = TrainingPlan(**{name: options[name] for name in TrainingPlan._fields})
    extra, places = options["extra_triplets"] or [], (options["output_path"], options["resume"])
    return RunOptions(
        options["dataset"], plan, options["data_path"], extra, options["skip_missing"], *places, comet, kept
    )
