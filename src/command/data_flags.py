"""Options of data sets: where they are, how they are judged, and what is kept of that."""

from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from src.base.errors import InputError, require_one_of
from src.command.flags import (
    add_clip_options,
    add_combiner_options,
    add_data_path,
    add_feature_cache_options,
    add_num_workers,
    add_output_path,
    add_precision,
    parse_judging,
)
from src.command.parser import Parser, any_case, count_or_zero, existing_file, file_path, part_of_a_file_name
from src.tasks.protocol import GALLERIES, OWN, Protocol
from src.tasks.registry import TASKS, folders, whole_tasks
from src.tasks.task import Task


def dataset_name(names: Collection[str]) -> Callable[[str], str]:
    """Make a type for an option that takes one of `names`, in any case, or a folder, whose path it makes absolute."""
    known = any_case(*names)

    def dataset(text: str) -> str:
        if text.lower() not in map(str.lower, names) and Path(text).is_dir():
            return str(Path(text).absolute())
        try:
            return known(text)
        except ArgumentTypeError as error:
            raise ArgumentTypeError(f"{error}, and {Path(text).absolute()} is not a folder of own triplets") from None

    return dataset


def add_dataset_option(
    parser: Parser, default: str | None = None, otherwise: str = "", split: str | None = "val", required: bool = False
) -> None:
    """Add --dataset for data sets that have a `split`, None for all; `otherwise` says what an empty default means."""
    _require_whole_tasks(parser)
    names = [task.name for task in TASKS.values() if split in (None, *task.splits)]
    help_text = f"{', '.join(names)}, in any case, or a folder of own triplets"
    help_text += f" (default: {otherwise})" if otherwise else ""
    parser.add_argument("--dataset", type=dataset_name(names), default=default, required=required, help=help_text)


def add_data_sets_path(parser: Parser, type: Callable = Path) -> None:
    """Add --data-path of a command that takes any data set."""
    add_data_path(parser, f"folder that holds {folders()}", type)


def add_common_options(parser: Parser) -> None:
    """Add what training and judging take: features, where data is and results go, the machine, and Comet."""
    _require_whole_tasks(parser)
    add_feature_cache_options(parser)
    group = parser.add_argument_group("data, output and machine")
    add_data_sets_path(group, file_path)
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


def _require_whole_tasks(parser: Parser) -> None:
    """End with a line where a data set lacks what commands need of it: options may be parsed before any main."""
    try:
        whole_tasks()
    except InputError as error:
        parser.refuse(str(error))


def add_skip_missing_option(parser: Parser) -> None:
    """Add --skip-missing."""
    help_text = "go on without missing or unreadable pictures and the triplets that need them; results are marked"
    parser.add_argument("--skip-missing", action="store_true", help=help_text)


def add_protocol_options(parser: Parser) -> None:
    """Add how recalls are counted, and the files that keep more than recalls."""
    group = parser.add_argument_group("protocol")
    names = dict.fromkeys([protocol.name for task in TASKS.values() for protocol in task.protocols] + [OWN])
    help_text = f"ways of counting to print in full, or all: {', '.join(names)} (default: as published)"
    group.add_argument("--protocol", nargs="+", type=any_case(*names, "all"), metavar="NAME", help=help_text)
    of_protocol = "(default: the protocol's)"
    help_text = (
        "rank the split's list, only the pictures that its triplets name, only a query's group, or the list and what "
        f"triplets name besides {of_protocol}"
    )
    group.add_argument("--gallery", choices=GALLERIES, help=help_text)
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
    help_text = "input file for a re-ranker: each query with its first fifty answers, a JSON object a line"
    group.add_argument("--candidates", type=file_path, metavar="FILE.jsonl", help=help_text)


def add_run_options(parser: Parser) -> None:
    """Add the ranking of another program, to be judged in place of a model's."""
    group = parser.add_argument_group("ranking of another program", "judged in place of a model's; it needs no CLIP")
    help_text = "a TREC run, a JSON object {query: [names]}, the form of CIRR's or CIRCO's server, or a per-query CSV"
    group.add_argument("--run", type=existing_file, metavar="FILE", help=help_text)
    help_text = "its ranking of each query's group (default: as --run ranks it)"
    group.add_argument("--group-run", type=existing_file, metavar="FILE", help=help_text)


RULES = {"protocol", "gallery", "reference", "captions", "cluster"}
"""Options with which protocols are printed in full, and not the published recalls."""
FILES = {"per_query", "json", "trec_run", "candidates"}
MODEL = {"clip_model_name", "clip_model_path", "combining_function", "combiner_path"}
"""Options that ask for a model, which beside --run is the ladder."""


PICTURES = {"transform", "target_ratio", "feature_cache", "no_feature_cache", "num_workers", "precision"}
SIZES = {"projection_dim", "hidden_dim"}
"""Options of how a model sees pictures, and of a Combiner's network."""
COMET = {"api_key", "workspace", "experiment_name", "comet_offline"}


def parse_validation(parser: Parser, functions: dict[str, bool], argv: list[str] | None = None) -> Namespace:
    """Parse the options of validate.py as `parse_judging` does; a combination that makes no sense ends likewise.

    The result has more attributes: `run_only`, whether a ranking is judged and no model; `prints_tables`, whether
    protocols are printed in full; and `in_full`, whether they are judged so.
    """
    args = parse_judging(parser, functions, argv)
    if args.group_run is not None and args.run is None:
        parser.error("--group-run is for a --run, whose groups it ranks")
    if args.run is not None and args.skip_missing:
        parser.error("--skip-missing leaves queries out, and a --run is judged on all of them")
    args.run_only = args.run is not None and not args.given & MODEL
    args.prints_tables = bool(args.given & RULES) or (args.run is not None and not args.run_only)
    args.in_full = args.run is not None or bool(args.given & (RULES | FILES))
    why_not = {"is not logged to Comet": COMET, "looks at no picture": PICTURES, "has no Combiner": SIZES}
    for why, names in why_not.items() if args.run_only else ():
        if names := sorted(args.given & names):
            parser.error(f"--{names[0].replace('_', '-')}: a --run without a model {why}")
    return args


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


def add_submission_option(parser: Parser) -> None:
    """Add --submission-name."""
    help_text = "end of the submission's file names (default: the time)"
    parser.add_argument("--submission-name", type=part_of_a_file_name, help=help_text)


def add_judging_options(parser: Parser, functions: dict[str, bool]) -> None:
    """Add what the commands share that judge a CLIP with the sum or a Combiner."""
    add_clip_options(parser)
    add_combiner_options(parser, functions)
    add_common_options(parser)
