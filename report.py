"""Make a page of a finished run: the ladder of its stages, curves of loss and recall, and a wall of queries.

    python report.py --run-folder models/combiner_trained_on_cirr_RN50x4_<time>

The page, report.html in the run folder, opens offline. A run of stage 2 brings the run of stage 1 that it stands on.
"""

from pathlib import Path

from src.base.parser import Parser, count_or_zero, existing_file, name_or_file, usable_cores
from src.command.flags import RetrieverOptions, add_feature_cache_options, add_skip_missing_option, feature_cache_folder


def make_parser() -> Parser:
    parser = Parser("Make a page of a finished run: ladder, curves, and a wall of queries.")
    parser.add_argument("--run-folder", type=Path, required=True, help="run folder of either stage, below models/")
    parser.add_argument("--output", type=Path, help="the page (default: report.html in the run folder)")
    parser.add_argument("--data-path", type=Path, help="folder that holds the data set (default: the run's)")
    moved = "where its file was moved (default: the run's)"
    parser.add_argument("--clip-model-name", type=name_or_file, help=f"the CLIP of the run, {moved}")
    parser.add_argument("--clip-model-path", type=existing_file, help=f"the checkpoint of stage 1 it took, {moved}")
    add_skip_missing_option(parser)
    parser.add_argument(
        "--num-workers", type=count_or_zero, default=usable_cores(), help="processes that load pictures"
    )
    add_feature_cache_options(parser)
    return parser


if __name__ == "__main__":
    make_parser().parse_args()  # --help and a wrong flag are answered here, before torch is imported

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import pandas as pd
from torch import Tensor

from combiner import image_only, load_combiner, text_only
from src.base.errors import InputError, one_line_errors
from src.base.files import read_json, replacing, require_writable
from src.command.page import curves, page, picture, table, wall_row
from src.command.run import COMBINER_TRAINING, FINE_TUNING, STAGES, StageNames
from src.pictures.skipping import NOT_COMPARABLE, Skipping
from src.tasks.registry import TASKS
from src.tasks.triplets import Split, Task
from utils import element_wise_sum, load_retriever, model_label, read_data
from validate import Validation

ANSWERS = 5
WALL_ROWS = 6
WALL_RULE = (
    "In the order of the validation captions{each}: the first {rows} queries whose target comes first, then the first "
    "{rows} whose target does not. On the left the reference picture and the caption, on the right the first five "
    "answers of the ladder's last rung. The target is framed; it stands apart where it is not among the five."
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
    metrics: dict


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
    best = next(iter(stage.best(TASKS[options["dataset"]])))
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
    """Return the validation of CLIP before training, and of CLIP as the run used it.

    `choose(clip_model_path)` gives the RetrieverOptions.
    """
    tuned = run.weights if run.stage is FINE_TUNING else run.options["clip_model_path"]
    before = load_retriever(choose(None))
    # Both try the same pictures, so what was left out is counted once.
    after = load_retriever(choose(tuned), skipping=before.skipping)
    return Validation(task, splits, before), Validation(task, splits, after)


def climb(before: Validation, after: Validation, combine: Callable | None) -> list[Rung]:
    """Return the rungs from chance to the Combiner; `before` and `after` are the same validation for the two CLIPs."""
    steps = {"tuned CLIP, caption alone": text_only, "tuned CLIP, picture alone": image_only}
    # Caption alone and picture alone come first: a sum that barely beats them has learned a shortcut.
    steps |= {"tuned CLIP, sum of both": element_wise_sum} | ({} if combine is None else {"Combiner": combine})
    return [
        Rung("chance", before.chance()),
        Rung("CLIP before training, sum", before.metrics(element_wise_sum)),
        *(Rung(name, after.metrics(function)) for name, function in steps.items()),
    ]


def ladder_cells(rungs: list[Rung], headline: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Return the ladder as a header and rows of strings."""
    return ["", *headline], [[rung.name, *(f"{rung.metrics[name]:.2f}" for name in headline)] for rung in rungs]


def print_ladder(header: list[str], rows: list[list[str]]) -> None:
    """Print the ladder in columns."""
    # Names to the left, numbers to the right, so that digits stand below each other.
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, *rows):
        print("  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]))


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


def describe(options: dict, validation: Validation) -> str:
    """Return what was judged, in a line."""
    sizes = [
        f"{len(split.triplets)} queries over {len(split.pictures)} pictures" for split in validation.splits.values()
    ]
    clip = model_label(options["clip_model_name"])
    return f"{options['dataset']}: {', '.join(sizes)}. CLIP {clip}, {options['transform']}."


def not_comparable(runs: list[FinishedRun], skipping: Skipping) -> str:
    """Return a sentence for each run, and for this page, that went on without some pictures (--skip-missing)."""
    remarks = [(run.folder.name, _remark(run.folder)) for run in runs]
    remarks.append(("this page", skipping.remarks.get(NOT_COMPARABLE)))
    return "\n".join(f"Not comparable: {name} was made {remark}." for name, remark in remarks if remark)


def _remark(folder):
    rows = pd.read_csv(folder / "train_metrics.csv")
    return rows[NOT_COMPARABLE].dropna().iloc[-1] if NOT_COMPARABLE in rows else None


def wall_rule(validation: Validation) -> str:
    """Return which queries the wall shows."""
    each = " of each category" if len(validation.splits) > 1 else ""
    return WALL_RULE.format(each=each, rows=WALL_ROWS // len(validation.splits))


def wall(validation: Validation, combining_function: Callable[[Tensor, Tensor], Tensor]) -> str:
    """Return rows of queries by WALL_RULE, as HTML."""
    rows = WALL_ROWS // len(validation.splits)
    return "".join(
        row for category in validation.splits for row in _wall_of(category, validation, combining_function, rows)
    )


def _wall_of(category, validation, combining_function, rows_of_a_kind) -> Iterator[str]:
    split, texts = validation.splits[category], validation.query_texts(category)
    answers = validation.answers(category, combining_function, best=ANSWERS)
    ranks, best, names = answers.ranks.tolist(), answers.best.tolist(), answers.gallery.names

    # The first in the order of the file, not the best: nobody should suspect a choice.
    right = [query for query, rank in enumerate(ranks) if rank == 0][:rows_of_a_kind]
    wrong = [query for query, rank in enumerate(ranks) if rank > 0][:rows_of_a_kind]
    for query in (*right, *wrong):
        reference, target = split.triplets[query].reference, split.triplets[query].targets[0]
        answered = [names[row] for row in best[query]]
        yield wall_row(
            picture(split.pictures[reference]),
            texts[query],
            f"target ranked {ranks[query] + 1} of {answers.ranked}",
            [picture(split.pictures[name], is_target=name == target) for name in answered],
            "" if target in answered else picture(split.pictures[target], is_target=True),
        )


@one_line_errors
def main(argv=None):
    args = make_parser().parse_args(argv)
    output = args.output or args.run_folder / "report.html"
    renamed = {"clip_model_name": args.clip_model_name, "clip_model_path": args.clip_model_path}
    runs = runs_behind(args.run_folder, {name: str(file) for name, file in renamed.items() if file is not None})
    if output.is_dir():
        raise InputError(f"--output {output}: is a folder, a file is needed")
    require_writable(output.parent)
    last, options = runs[-1], runs[-1].options
    args.output_path = Path(options["output_path"])  # the feature cache's place, unless a flag names another
    task, cache_folder = TASKS[options["dataset"]], feature_cache_folder(args)

    def choose(clip_model_path):
        transform = options["transform"], options["target_ratio"]
        machine = cache_folder, None, args.num_workers, args.skip_missing
        return RetrieverOptions(options["clip_model_name"], clip_model_path, *transform, *machine)

    data = read_data(task, args.data_path or Path(options["data_path"]), "val", skip_missing=args.skip_missing)
    before, after = validations(last, task, data["val"], choose)
    combine = None
    if last.stage is COMBINER_TRAINING:
        combine = load_combiner(last.weights, after.retriever.backbone).combine_features
    warning = not_comparable(runs, after.retriever.skipping)

    header, rows = ladder_cells(climb(before, after, combine), task.headline)
    print_ladder(header, rows)
    if warning:
        print(warning)

    sections = [
        ("Ladder", "Recall on validation pictures, which no stage trained on, in percent.", table(header, rows)),
        ("Curves", "Loss on training triplets, recall on validation pictures.", draw_curves(runs, task.headline)),
        ("Queries", wall_rule(after), wall(after, combine or element_wise_sum)),
    ]
    # A page that is open in a browser is replaced whole.
    with replacing(output) as unfinished:
        introduction = " ".join([describe(options, after), *warning.splitlines()])
        unfinished.write_text(page(args.run_folder.name, introduction, sections), encoding="utf-8")
    print(output)


if __name__ == "__main__":
    main()
