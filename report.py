"""Make a page of a finished run: the ladder of its stages, curves, misses, and queries in pictures and in a list.

    python report.py --run-folder models/combiner_trained_on_cirr_RN50x4_<time>

The page, report.html in the run folder, opens offline. A run of stage 2 brings the run of stage 1 that it stands on.
"""

from pathlib import Path

from src.base.parser import Parser, existing_file, name_or_file
from src.command.flags import (
    RetrieverOptions,
    add_dataset_option,
    add_feature_cache_options,
    add_num_workers,
    add_skip_missing_option,
    feature_cache_folder,
)


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

from combiner import load_combiner
from retriever import load_retriever
from src.base.errors import InputError, one_line_errors
from src.base.files import read_json, replacing, require_writable_files
from src.command.page import curves, page, table, write_page_text
from src.command.run import COMBINER_TRAINING, FINE_TUNING, STAGES, StageNames
from src.command.text import text_table
from src.evaluation import failures
from src.evaluation.judged import Judged
from src.models.facts import holds_its_clip
from src.pictures.skipping import NOT_COMPARABLE, Skipping
from src.tasks.datasets import find_task
from src.tasks.own import OwnTriplets
from src.tasks.registry import TASKS
from src.tasks.triplets import Split, Task
from utils import model_label, read_data, say_device
from validate import Validation

# Caption alone and picture alone come first: a sum that barely beats them has learned a shortcut.
RUNGS_AFTER = {
    "text": "tuned CLIP, caption alone",
    "image": "tuned CLIP, picture alone",
    "sum": "tuned CLIP, sum of both",
    "combiner": "Combiner",
}
LADDER_RULE = (
    "Metrics on the validation split, in percent. In brackets the 95 % interval, from drawing the queries again and "
    "again."
)


class FinishedRun(NamedTuple):
    """What a run folder holds."""

    folder: Path
    stage: StageNames
    options: dict
    weights: Path


class Rung(NamedTuple):
    """A step of the ladder: what ranks, and what that is worth."""

    name: str
    metrics: dict[str, float]
    within: dict[str, tuple[float, float]] | None = None
    """The 95 % interval of each metric; chance has none."""


def read_run(folder: Path) -> FinishedRun:
    """Read the run in `folder`; raises InputError when there is none, or it saved no weights."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder, where a run is expected")
    path = folder / "training_hyperparameters.json"
    if not path.is_file():
        raise InputError(f"{folder}: not a run folder, it has no {path.name}")
    options = read_json(path, dict)
    # The kept options tell the stage: older runs have no other mark of it.
    stage = next((stage for stage in STAGES if stage.option in options), FINE_TUNING)
    # A folder of own triplets may have moved since; what its best weights are called has not.
    best = next(iter(stage.best(TASKS.get(options["dataset"], OwnTriplets))))
    numbered = folder.glob(f"saved_models/{stage.weights}_[0-9]*.pt")
    # By number: as text, epoch 10 comes before epoch 9.
    by_epoch = sorted(numbered, key=lambda path: int(path.stem.rpartition("_")[2]))
    saved = [path for path in (*by_epoch, folder / "saved_models" / f"{best}.pt") if path.is_file()]
    if not saved:
        raise InputError(f"{folder}: has no weights, only a run with --save-training can be reported")
    # The best weights where they were kept, else the last epoch's.
    return FinishedRun(folder, stage, options, saved[-1])


def runs_behind(folder: Path, moved: dict[str, str]) -> list[FinishedRun]:
    """Return the runs that a page of `folder` is about: its own, and before it the run of stage 1 that it stands on.

    `moved` are options of the run whose files have other places now.
    """
    run = read_run(folder)
    run = run._replace(options=run.options | moved)
    # Stage 2 may stand on published weights or on a file that was moved, which have no run beside them.
    tuned_clip = run.options.get("clip_model_path")
    if tuned_clip is None or not (Path(tuned_clip).parents[1] / "training_hyperparameters.json").is_file():
        return [run]
    return [read_run(Path(tuned_clip).parents[1])._replace(weights=Path(tuned_clip)), run]


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
        after = after.combining_by(load_combiner(run.weights, after.backbone).combine_features)
    return Validation(task, splits, before), Validation(task, splits, after)


def climb(before: Judged, after: Judged) -> list[Rung]:
    """Return the rungs from chance to the Combiner; both are judged on the same queries."""
    rungs = [("CLIP before training, sum", before, "sum")]
    rungs += [(name, after, rung) for rung, name in RUNGS_AFTER.items() if rung in after.rungs()]
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


def draw_curves(runs: list[FinishedRun], headline: Sequence[str]) -> str:
    """Draw loss and recalls of each run over its epochs, as an SVG."""
    panels = []
    for run in runs:
        training = pd.read_csv(run.folder / "train_metrics.csv")
        validation = pd.read_csv(run.folder / "validation_metrics.csv")
        recalls = {name: (validation["epoch"], validation[name]) for name in headline}
        panels.append((run.stage.title, "loss", {"loss": (training["epoch"], training["train_epoch_loss"])}))
        panels.append((run.stage.title, "recall, %", recalls))
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
    rows = pd.read_csv(folder / "train_metrics.csv")
    return rows[NOT_COMPARABLE].dropna().iloc[-1] if NOT_COMPARABLE in rows else None


def draw_queries(judged: Judged, validation: Validation) -> list[tuple[str, str, str]]:
    """Return the sections of the page that are about single queries."""
    pictures = {category: split.pictures for category, split in validation.splits.items()}
    place = failures.place(judged)
    return [
        ("Misses", failures.MISSES_RULE.format(place=place), failures.misses(judged)),
        ("Worst misses", failures.WORST_RULE, failures.worst_misses(judged, pictures)),
        ("Queries", failures.wall_rule(judged), failures.wall(judged, pictures)),
        ("All queries", failures.LIST_RULE.format(place=place), failures.query_list(judged)),
    ]


@one_line_errors
def main(argv=None):
    args = make_parser().parse_args(argv)
    output = args.output or args.run_folder / "report.html"
    renamed = {"clip_model_name": args.clip_model_name, "clip_model_path": args.clip_model_path}
    runs = runs_behind(args.run_folder, {name: str(file) for name, file in renamed.items() if file is not None})
    require_writable_files(output)
    last, options = runs[-1], runs[-1].options
    args.output_path = Path(options["output_path"])  # the feature cache's place, unless a flag names another
    cache_folder, dataset = feature_cache_folder(args), args.dataset or options["dataset"]
    task = find_task(dataset)
    # A folder of own triplets that stands in for the run's is taken for the same one, moved.
    is_moved = not {dataset, options["dataset"]} & TASKS.keys()
    trained = task if is_moved else find_task(options["dataset"])

    def choose(clip_model_path):
        transform = options["transform"], options["target_ratio"]
        machine = cache_folder, None, args.num_workers, args.skip_missing
        return RetrieverOptions(options["clip_model_name"], clip_model_path, *transform, *machine)

    data = read_data(task, args.data_path or Path(options["data_path"]), "val", skip_missing=args.skip_missing)
    before, after = validations(last, task, data["val"], choose)
    say_device("auto")
    judged = after.judge(after.protocol)
    warning = not_comparable(runs, after.retriever.skipping)

    header, rows = ladder_cells(climb(before.judge(before.protocol), judged), task.headline)
    print(text_table(header, rows))
    if warning:
        print(warning)

    sections = [
        ("Ladder", LADDER_RULE, table(header, rows)),
        ("Curves", "Loss on training triplets, recall on validation pictures.", draw_curves(runs, trained.headline)),
        *draw_queries(judged, after),
    ]
    # A page that is open in a browser is replaced whole.
    with replacing(output) as unfinished:
        introduction = " ".join([describe(last, judged), *warning.splitlines()])
        write_page_text(unfinished, page(args.run_folder.name, introduction, sections))
    print(output)


if __name__ == "__main__":
    main()
