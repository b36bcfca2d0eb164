"""Make a page of a finished run: the ladder of its stages, loss and recall curves, and a wall of queries.

    python report.py --run-folder models/combiner_trained_on_cirr_RN50x4_<time>

The page, report.html in the run folder, opens offline. A run of stage 2 brings the run of stage 1 that it stands on.
"""

from pathlib import Path

from options import add_feature_cache_options, add_skip_missing_option, feature_cache_folder
from src.options import Parser, count_or_zero, usable_cores


def parse_arguments(argv=None):
    parser = Parser("Make a page of a finished run: ladder, curves, and a wall of queries.")
    parser.add_argument("--run-folder", type=Path, required=True, help="a folder below models/, of either stage")
    parser.add_argument("--output", type=Path, help="the page (default: report.html in the run folder)")
    parser.add_argument("--data-path", type=Path, help="folder that holds the data set (default: the run's)")
    add_skip_missing_option(parser)
    parser.add_argument("--num-workers", type=count_or_zero, default=usable_cores(), help="picture loading processes")
    add_feature_cache_options(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    parse_arguments()  # --help and a wrong flag are answered here, before torch is imported

from typing import NamedTuple

import pandas as pd

from data_utils import make_transform
from skipping import NOT_COMPARABLE, Skipping
from src.errors import InputError, one_line_errors
from src.files import read_json, replacing
from src.page import curves, page, picture, table, wall_row
from src.retrieval import Gallery, best_rows, rank_targets
from utils import ENCODERS, Encoder, element_wise_sum, image_only, load_clip, load_combining_function, text_only
from validate import BENCHMARKS, Validation, predict_features

STAGES = {"tuned_clip": "stage 1, CLIP", "combiner": "stage 2, Combiner"}
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
    weights_name: str
    options: dict
    weights: Path


class Rung(NamedTuple):
    """A step of the ladder: what ranks, and what that is worth."""

    name: str
    metrics: dict


def read_run(folder):
    """The run in `folder`; raises InputError when there is none, or it saved no weights."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder, where a run is expected")
    options = read_json(folder / "training_hyperparameters.json", dict)
    weights_name = "combiner" if "combiner_lr" in options else "tuned_clip"
    best = next(iter(BENCHMARKS[options["dataset"]].best_weights(weights_name)))
    numbered = folder.glob(f"saved_models/{weights_name}_[0-9]*.pt")
    by_epoch = sorted(numbered, key=lambda path: int(path.stem.rpartition("_")[2]))
    saved = [path for path in (*by_epoch, folder / "saved_models" / f"{best}.pt") if path.is_file()]
    if not saved:
        raise InputError(f"{folder}: has no weights, only a run with --save-training can be reported")
    return FinishedRun(folder, weights_name, options, saved[-1])


def runs_behind(folder):
    """The runs a page of `folder` is about: [stage 1], [stage 2], or both where stage 2 stands on a run of stage 1."""
    run = read_run(folder)
    tuned_clip = run.options.get("clip_model_path")
    if tuned_clip is None or not (Path(tuned_clip).parents[1] / "training_hyperparameters.json").is_file():
        return [run]
    return [read_run(Path(tuned_clip).parents[1])._replace(weights=Path(tuned_clip)), run]


def load_models(runs):
    """CLIP before training, CLIP as the last run used it, and that run's Combiner (None after stage 1)."""
    last = runs[-1]
    untrained = load_clip(last.options["clip_model_name"])
    if last.weights_name == "tuned_clip":
        return untrained, load_clip(last.options["clip_model_name"], last.weights), None
    tuned = load_clip(last.options["clip_model_name"], last.options["clip_model_path"])
    return untrained, tuned, load_combining_function("combiner", last.weights, tuned)


def climb(before, after, combine):
    """The rungs from chance to the Combiner; `before` and `after` are the same validation for the two CLIPs."""
    steps = {"tuned CLIP, caption alone": text_only, "tuned CLIP, picture alone": image_only}
    steps |= {"tuned CLIP, sum of both": element_wise_sum} | ({} if combine is None else {"Combiner": combine})
    return [
        Rung("chance", before.chance()),
        Rung("CLIP before training, sum", before.metrics(element_wise_sum)),
        *(Rung(name, after.metrics(function)) for name, function in steps.items()),
    ]


def ladder_cells(rungs, headline):
    """The ladder as a header and rows of strings."""
    return ["", *headline], [[rung.name, *(f"{rung.metrics[name]:.2f}" for name in headline)] for rung in rungs]


def print_ladder(header, rows):
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, *rows):
        print("  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]))


def draw_curves(runs, headline):
    """Loss and recalls of each run over its epochs, as an SVG."""
    panels = []
    for run in runs:
        training = pd.read_csv(run.folder / "train_metrics.csv")
        validation = pd.read_csv(run.folder / "validation_metrics.csv")
        recalls = {name: (validation["epoch"], validation[name]) for name in headline}
        panels.append((STAGES[run.weights_name], "loss", {"loss": (training["epoch"], training["train_epoch_loss"])}))
        panels.append((STAGES[run.weights_name], "recall, %", recalls))
    return curves(panels)


def describe(options, validation):
    """What was judged, in a line."""
    sizes = [f"{len(queries)} queries over {len(gallery)} pictures" for gallery, queries in validation.sets.values()]
    return f"{options['dataset']}: {', '.join(sizes)}. CLIP {options['clip_model_name']}, {options['transform']}."


def not_comparable(runs, skipping):
    """A sentence for each run, and for this page, that went on without some pictures (--skip-missing)."""
    remarks = [(run.folder.name, _remark(run.folder)) for run in runs]
    remarks.append(("this page", skipping.remarks.get(NOT_COMPARABLE)))
    return "\n".join(f"Not comparable: {name} was made {remark}." for name, remark in remarks if remark)


def _remark(folder):
    rows = pd.read_csv(folder / "train_metrics.csv")
    return rows[NOT_COMPARABLE].dropna().iloc[-1] if NOT_COMPARABLE in rows else None


def wall_rule(validation):
    each = " of each category" if len(validation.sets) > 1 else ""
    return WALL_RULE.format(each=each, rows=WALL_ROWS // len(validation.sets))


def wall(validation, combining_function):
    """Rows of queries by WALL_RULE, as HTML."""
    return "".join(
        row
        for category in validation.sets
        for row in _wall_of(category, validation, combining_function, WALL_ROWS // len(validation.sets))
    )


def _wall_of(category, validation, combining_function, rows_of_a_kind):
    gallery_set, query_set = validation.sets[category]
    gallery = Gallery(validation.gallery_features(category), gallery_set.image_names)
    references, targets, captions, _ = validation.benchmark.queries(query_set)
    predicted = predict_features(gallery, references, validation.caption_features(category), combining_function)
    excluded = None if validation.benchmark.reference_stays else gallery.rows(references)
    ranks = rank_targets(predicted, gallery.features, gallery.rows(targets), excluded).tolist()
    answers = best_rows(predicted, gallery.features, ANSWERS, excluded).tolist()

    right = [query for query, rank in enumerate(ranks) if rank == 0][:rows_of_a_kind]
    wrong = [query for query, rank in enumerate(ranks) if rank > 0][:rows_of_a_kind]
    for query in (*right, *wrong):
        target = targets[query]
        names = [gallery.names[row] for row in answers[query]]
        yield wall_row(
            picture(gallery_set.path(references[query])),
            captions[query],
            f"target ranked {ranks[query] + 1} of {len(gallery.names)}",
            [picture(gallery_set.path(name), is_target=name == target) for name in names],
            "" if target in names else picture(gallery_set.path(target), is_target=True),
        )


@one_line_errors
def main(argv=None):
    args = parse_arguments(argv)
    runs = runs_behind(args.run_folder)
    options = runs[-1].options
    untrained, tuned, combine = load_models(runs)

    benchmark = BENCHMARKS[options["dataset"]]
    preprocess = make_transform(options["transform"], options["target_ratio"], tuned.visual.input_resolution)
    data_path = args.data_path or Path(options["data_path"])
    args.output_path = Path(options["output_path"])
    cache_folder = feature_cache_folder(args)
    skipping = Skipping(args.skip_missing, args.num_workers)
    encoders = [Encoder(clip_model, ENCODERS, cache_folder, args.num_workers) for clip_model in (untrained, tuned)]
    before, after = (Validation(benchmark, preprocess, data_path, encoder, skipping) for encoder in encoders)
    warning = not_comparable(runs, skipping)

    rungs = climb(before, after, combine)
    header, rows = ladder_cells(rungs, benchmark.headline)
    print_ladder(header, rows)
    if warning:
        print(warning)

    sections = [
        ("Ladder", "Recall on validation pictures, which no stage trained on, in percent.", table(header, rows)),
        ("Curves", "Loss on training triplets, recall on validation pictures.", draw_curves(runs, benchmark.headline)),
        ("Queries", wall_rule(after), wall(after, combine or element_wise_sum)),
    ]
    output = args.output or args.run_folder / "report.html"
    with replacing(output) as unfinished:
        introduction = " ".join([describe(options, after), *warning.splitlines()])
        unfinished.write_text(page(args.run_folder.name, introduction, sections), encoding="utf-8")
    print(output)


if __name__ == "__main__":
    main()
