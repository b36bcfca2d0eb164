"""Make a page of a finished run: the ladder of its stages, curves, misses, and queries in pictures and in a list.

    python report.py --run-folder models/combiner_trained_on_cirr_RN50x4_<time>

The page, report.html in the run folder, opens offline. A run of stage 2 brings the run of stage 1 that it stands on.
"""

from pathlib import Path

from src.base.parser import Parser, name_or_file, weights_place
from src.command.data_flags import add_dataset_option, add_skip_missing_option
from src.command.flags import RetrieverOptions, add_feature_cache_options, add_num_workers
from src.command.outputs import data_files, require_outputs


def make_parser() -> Parser:
    parser = Parser("Make a page of a finished run: ladder, curves, and a wall of queries.", __doc__)
    parser.add_argument("--run-folder", type=Path, required=True, help="run folder of either stage, below models/")
    parser.add_argument("--output", type=Path, help="the page (default: report.html in the run folder)")
    add_dataset_option(parser, otherwise="the run's; another one is judged too")
    parser.add_argument("--data-path", type=Path, help="folder that holds the data set (default: the run's)")
    moved = "where its file was moved (default: the run's)"
    parser.add_argument("--clip-model-name", type=name_or_file, help=f"the CLIP of the run, {moved}")
    parser.add_argument("--clip-model-path", type=weights_place, help=f"the checkpoint of stage 1 it took, {moved}")
    add_skip_missing_option(parser)
    add_num_workers(parser)
    add_feature_cache_options(parser)
    return parser


if __name__ == "__main__":
    make_parser().parse_args()  # --help and a wrong flag are answered here, before torch is imported

from collections.abc import Callable

from combiner import COMBINING_FUNCTIONS, line_of, load_network
from src.apps.pages.kit import Album, write_page
from src.apps.report.ladder import climb, describe, draw_curves, ladder_cells
from src.apps.report.queries import about_queries
from src.apps.report.runs import FinishedRun, not_comparable, runs_behind
from src.base.errors import one_line_errors
from src.command.text import text_table
from src.evaluation.judging import judge
from src.evaluation.validation import Validation
from src.models.facts import holds_its_clip
from src.pictures.data import read_data
from src.retrieval.retriever import load_retriever
from src.retrieval.settings import feature_cache_folder
from src.tasks.registry import TASKS, find_task
from src.tasks.task import Task
from src.tasks.triplets import Split
from src.training.run import COMBINER_TRAINING
from utils import say_device


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


def find_tasks(dataset: str, of_run: str) -> tuple[Task, Task]:
    """Return the data set to judge on, and the run's."""
    task = find_task(dataset)
    # A folder of own triplets that stands in for the run's is taken for the same one, moved.
    is_moved = not {dataset, of_run} & TASKS.keys()
    return task, task if is_moved else find_task(of_run)


@one_line_errors
def main(argv=None):
    args = make_parser().parse_args(argv)
    output = args.output or args.run_folder / "report.html"
    renamed = {"clip_model_name": args.clip_model_name, "clip_model_path": args.clip_model_path}
    runs = runs_behind(args.run_folder, {name: str(file) for name, file in renamed.items() if file is not None})
    last, options = runs[-1], runs[-1].options
    data_path = args.data_path or Path(options["data_path"])
    task, trained = find_tasks(args.dataset or options["dataset"], options["dataset"])
    # The run's own cache, unless a flag names another.
    cache_folder = feature_cache_folder(vars(args) | {"output_path": Path(options["output_path"])})

    def choose(clip_model_path):
        transform = options["transform"], options["target_ratio"]
        machine = cache_folder, None, args.num_workers, args.skip_missing
        return RetrieverOptions(options["clip_model_name"], clip_model_path, *transform, *machine)

    kept = {"--run-folder": [path for run in runs for path in run.files()]}
    require_outputs(vars(args), {"--output": [output]}, data_files(task.tables(data_path)) | kept)
    labels = {function.name: function.label for function in COMBINING_FUNCTIONS}
    curves = draw_curves(runs, trained.headline, labels)  # of files that may be faulty, so before the work
    data = read_data(task, data_path, "val", skip_missing=args.skip_missing)
    before, after = validations(last, task, data["val"], choose)
    say_device("auto")
    judged = judge(after, after.protocol, COMBINING_FUNCTIONS, line_of(after.retriever.combining_function).name)
    untrained = judge(before, before.protocol, COMBINING_FUNCTIONS, "sum")
    warning = not_comparable(runs, after.retriever.skipping)
    ladder = ladder_cells(climb(untrained, judged), task.headline)
    print(text_table(*ladder), *filter(None, [warning]), sep="\n")

    introduction = " ".join([describe(last, judged), *warning.splitlines()])
    pictures = {category: split.pictures for category, split in after.splits.items()}
    album = Album()
    page = {"introduction": introduction, "ladder": ladder, "curves": curves, **about_queries(judged, pictures, album)}
    write_page(output, "report/report.html", album, title=args.run_folder.name, **page)
    print(output)


if __name__ == "__main__":
    main()
