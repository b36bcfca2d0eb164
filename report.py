"""Make a page of a finished run: the ladder of its stages, curves, misses, and queries in pictures and in a list.

    python report.py --run-folder models/combiner_trained_on_cirr_RN50x4_<time>

The page, report.html in the run folder, opens offline. A run of stage 2 brings the run of stage 1 that it stands on.
"""

from pathlib import Path

from src.base.parser import Parser, existing_file, name_or_file
from src.command.flags import (
    RetrieverOptions,
    add_clip_options,
    add_common_options,
    add_dataset_option,
    add_feature_cache_options,
    add_num_workers,
    add_skip_missing_option,
)
from src.command.outputs import data_files, require_outputs


def make_parser() -> Parser:
    parser = Parser("Make a page of a finished run: ladder, curves, and a wall of queries.")
    parser.add_argument("--run-folder", type=Path, required=True, help="run folder of either stage, below models/")
    parser.add_argument("--output", type=Path, help="the page (default: report.html in the run folder)")
    add_dataset_option(parser, otherwise="the run's; another one is judged too")
    parser.add_argument("--data-path", type=Path, help="folder that holds the data set (default: the run's)")
    moved = "where its file was moved (default: the run's)"
    parser.add_argument("--clip-model-name", type=name_or_file, help=f"the CLIP of the run, {moved}")
    parser.add_argument("--clip-model-path", type=existing_file, help=f"the checkpoint of stage 1 it took, {moved}")
    add_skip_missing_option(parser)
    add_num_workers(parser)
    add_feature_cache_options(parser)
    return parser


if __name__ == "__main__":
    make_parser().parse_args()  # --help and a wrong flag are answered here, before torch is imported

from collections.abc import Callable, Sequence
from typing import NamedTuple

import pandas as pd

from combiner import COMBINING_FUNCTIONS, find, line_of, load_network
from src.apps.pages.curves import curves
from src.apps.pages.kit import write_page
from src.apps.report import queries
from src.base.errors import InputError, in_a_line, one_line_errors
from src.command.text import text_table
from src.command.training_flags import OPTIONS_FILE, read_options, require_values
from src.evaluation.judged import Judged
from src.evaluation.judging import judge
from src.evaluation.validation import Validation
from src.models.facts import holds_its_clip
from src.pictures.data import read_data
from src.pictures.skipping import NOT_COMPARABLE, Skipping
from src.retrieval.retriever import load_retriever
from src.retrieval.settings import feature_cache_folder
from src.tasks.own import OwnTriplets
from src.tasks.registry import TASKS, find_task
from src.tasks.task import Task
from src.tasks.triplets import Split
from src.training.run import COMBINER_TRAINING, FINE_TUNING, STAGES, TABLES, StageNames
from utils import model_label, say_device

NEEDED = "dataset", "clip_model_name", "transform", "target_ratio", "data_path", "output_path"
"""Options without which a run cannot be judged again."""


class FinishedRun(NamedTuple):
    """What a run folder holds."""

    folder: Path
    stage: StageNames
    options: dict
    weights: Path

    @property
    def title(self) -> str:
        """What it trained, for people."""
        network = self.options.get("network")  # where there was a choice
        return self.stage.title if network is None else f"stage 2, {find(network).label}"

    def files(self) -> list[Path]:
        """Return what a run keeps, which a report may not replace."""
        return [self.weights, *(self.folder / name for name in (OPTIONS_FILE, *(f"{table}.csv" for table in TABLES)))]


class Rung(NamedTuple):
    """A step of the ladder: what ranks, and what that is worth."""

    name: str
    metrics: dict[str, float]
    within: dict[str, tuple[float, float]] | None = None
    """The 95 % interval of each metric; chance has none."""


def read_run(folder: Path) -> FinishedRun:
    """Read the run in `folder`; raises InputError when there is none, or it saved no weights."""
    options = read_options(folder)
    require_values(folder, options, _kept_options())
    # The kept options tell the stage: older runs have no other mark of it.
    stage = next((stage for stage in STAGES if stage.option in options), FINE_TUNING)
    # A folder of own triplets may have moved since; what its best weights are called has not.
    best = next(iter(stage.best(TASKS.get(options.get("dataset"), OwnTriplets))))
    numbered = folder.glob(f"saved_models/{stage.weights}_[0-9]*.pt")
    # By number: as text, epoch 10 comes before epoch 9.
    by_epoch = sorted(numbered, key=lambda path: int(path.stem.rpartition("_")[2]))
    saved = [path for path in (*by_epoch, folder / "saved_models" / f"{best}.pt") if path.is_file()]
    if not saved:
        raise InputError(f"{folder}: has no weights, only a run with --save-training can be reported")
    for name in NEEDED:
        if options.get(name) is None:
            raise InputError(f"{folder / OPTIONS_FILE}: has no {name}, which the options of a run have")
    # The best weights where they were kept, else the last epoch's.
    return FinishedRun(folder, stage, options, saved[-1])


def _kept_options() -> Parser:
    """Declare those of a run's options that a report reads."""
    parser = Parser("")
    add_dataset_option(parser)
    add_clip_options(parser)
    add_common_options(parser)
    return parser


def runs_behind(folder: Path, moved: dict[str, str]) -> list[FinishedRun]:
    """Return the runs that a page of `folder` is about: its own, and before it the run of stage 1 that it stands on.

    `moved` are options of the run whose files have other places now.
    """
    run = read_run(folder)
    run = run._replace(options=run.options | moved)
    # Stage 2 may stand on published weights or on a file that was moved, which have no run beside them.
    tuned_clip = run.options.get("clip_model_path")
    if tuned_clip is None or not (Path(tuned_clip).parent.parent / OPTIONS_FILE).is_file():
        return [run]
    return [read_run(Path(tuned_clip).parent.parent)._replace(weights=Path(tuned_clip)), run]


def validations(
    run: FinishedRun, task: Task, splits: dict[str, Split], choose: Callable
) -> tuple[Validation, Validation]:
    """Return the validation of CLIP before training, and of what the run trained: CLIP, and the Combiner if it has one.

    `choose(clip_model_path)` gives the RetrieverOptions.
    """
    is_combiner = run.stage is COMBINER_TRAINING
    before = load_retriever(choose(None))
    # Both try the same pictures, so what was left out is counted once.
    tuned = run.options["clip_model_path"] if is_combiner and not holds_its_clip(run.weights) else run.weights
    after = load_retriever(choose(tuned), skipping=before.skipping)
    if is_combiner:
        after = after.combining_by(load_network(run.weights, after.backbone).combine_features)
    return Validation(task, splits, before), Validation(task, splits, after)


def climb(before: Judged, after: Judged) -> list[Rung]:
    """Return the rungs from chance to what was trained; both are judged on the same queries."""
    rungs = [(f"CLIP before training, {before.label}", before, before.rung)]
    # A sum that barely beats the caption alone and the picture alone, which come first, has learned a shortcut.
    for function in after.reported():
        name = function.label if function.is_network else f"tuned CLIP, {function.words}"
        rungs.append((name, after, function.name))
    return [
        Rung("chance", after.chance),
        *(
            Rung(name, judged.of_rung(rung), judged._replace(rung=rung).intervals(cluster=None))
            for name, judged, rung in rungs
        ),
    ]


def ladder_cells(rungs: list[Rung], headline: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Return the ladder as a header and rows of strings, as "34.17 (31.5–36.8)"."""

    def cell(rung, name):
        within = "" if rung.within is None else " ({:.1f}–{:.1f})".format(*rung.within[name])
        return f"{rung.metrics[name]:.2f}{within}"

    return ["", *headline], [[rung.name, *(cell(rung, name) for name in headline)] for rung in rungs]


def read_table(folder: Path, name: str, columns: Sequence[str]) -> pd.DataFrame:
    """Read a CSV of a run; raises InputError unless it has `columns` of numbers."""
    path = folder / f"{name}.csv"
    try:
        table = pd.read_csv(path)
    except ValueError as error:
        raise InputError(f"{path}: not a table of a run ({in_a_line(error)})") from None
    for column in columns:
        if column not in table or not pd.api.types.is_numeric_dtype(table[column]):
            raise InputError(f"{path}: has no column {column} of numbers, as a table of a run has")
    return table


def draw_curves(runs: list[FinishedRun], headline: Sequence[str]) -> str:
    """Draw loss and recalls of each run over its epochs, as an SVG."""
    panels = []
    for run in runs:
        training = read_table(run.folder, "train_metrics", ("epoch", "train_epoch_loss"))
        validation = read_table(run.folder, "validation_metrics", ("epoch", *headline))
        recalls = {name: (validation["epoch"], validation[name]) for name in headline}
        panels.append((run.title, "loss", {"loss": (training["epoch"], training["train_epoch_loss"])}))
        panels.append((run.title, "recall, %", recalls))
    return curves(panels)


def describe(run: FinishedRun, judged: Judged) -> str:
    """Return what was judged, and how, in a line."""
    clip = model_label(run.options["clip_model_name"])
    recipe = run.stage.recipe(run.options)
    return f"{judged.described()}. CLIP {clip}, {run.options['transform']}." + (f" Recipe {recipe}." if recipe else "")


def not_comparable(runs: list[FinishedRun], skipping: Skipping) -> str:
    """Return a sentence for each run, and for this page, that went on without some pictures (--skip-missing)."""
    remarks = [(run.folder.name, _remark(run.folder)) for run in runs]
    remarks.append(("this page", skipping.remarks.get(NOT_COMPARABLE)))
    return "\n".join(f"Not comparable: {name} was made {remark}." for name, remark in remarks if remark)


def _remark(folder):
    rows = read_table(folder, "train_metrics", ())
    return rows[NOT_COMPARABLE].dropna().iloc[-1] if NOT_COMPARABLE in rows else None


def about_queries(judged: Judged, validation: Validation) -> dict:
    """Collect what the page shows of single queries."""
    pictures = {category: split.pictures for category, split in validation.splits.items()}
    return {
        "categories": list(judged.categories),
        "place": queries.place(judged),
        "first": judged.protocol.at[0],
        "misses": queries.misses(judged),
        "ranks": queries.target_ranks(judged),
        "most_worst": queries.WORST,
        "worst": queries.worst_misses(judged, pictures),
        "of_a_kind": queries.WALL_ROWS // len(judged.categories),
        "wall": queries.wall(judged, pictures),
        "list": queries.query_list(judged),
        "shortcuts": [shortcut.label for shortcut in judged.shortcuts()],
    }


@one_line_errors
def main(argv=None):
    args = make_parser().parse_args(argv)
    output = args.output or args.run_folder / "report.html"
    renamed = {"clip_model_name": args.clip_model_name, "clip_model_path": args.clip_model_path}
    runs = runs_behind(args.run_folder, {name: str(file) for name, file in renamed.items() if file is not None})
    last, options = runs[-1], runs[-1].options
    # The run's own cache, unless a flag names another.
    cache_folder = feature_cache_folder(vars(args) | {"output_path": Path(options["output_path"])})
    data_path = args.data_path or Path(options["data_path"])
    dataset = args.dataset or options["dataset"]
    task = find_task(dataset)
    # A folder of own triplets that stands in for the run's is taken for the same one, moved.
    is_moved = not {dataset, options["dataset"]} & TASKS.keys()
    trained = task if is_moved else find_task(options["dataset"])

    def choose(clip_model_path):
        transform = options["transform"], options["target_ratio"]
        machine = cache_folder, None, args.num_workers, args.skip_missing
        return RetrieverOptions(options["clip_model_name"], clip_model_path, *transform, *machine)

    of_runs = {"--run-folder": [path for run in runs for path in run.files()]}
    require_outputs(vars(args), {"--output": [output]}, data_files(task, data_path) | of_runs)
    curves_drawn = draw_curves(runs, trained.headline)  # of files that may be faulty, so before the work
    data = read_data(task, data_path, "val", skip_missing=args.skip_missing)
    before, after = validations(last, task, data["val"], choose)
    say_device("auto")
    judged = judge(after, after.protocol, COMBINING_FUNCTIONS, line_of(after.retriever.combining_function).name)
    warning = not_comparable(runs, after.retriever.skipping)

    header, rows = ladder_cells(
        climb(judge(before, before.protocol, COMBINING_FUNCTIONS, "sum"), judged), task.headline
    )
    print(text_table(header, rows))
    if warning:
        print(warning)

    write_page(
        output,
        "report/report.html",
        title=args.run_folder.name,
        introduction=" ".join([describe(last, judged), *warning.splitlines()]),
        ladder=(header, rows),
        curves=curves_drawn,
        **about_queries(judged, after),
    )
    print(output)


if __name__ == "__main__":
    main()
