"""Make a page of a finished run: the ladder of its stages, curves, misses, and queries in pictures and in a list.

    python report.py --run-folder models/combiner_trained_on_cirr_RN50x4_<time>

The page, report.html in the run folder, opens offline. A run of stage 2 brings the run of stage 1 that it stands on.
With --run FILE it is of a ranking of another program.
"""

from argparse import Namespace
from pathlib import Path

from src.command.data_flags import add_dataset_option, add_skip_missing_option
from src.command.flags import add_feature_cache_options, add_num_workers
from src.command.frame import one_line_errors
from src.command.outputs import data_files, require_outputs
from src.command.parser import Parser, existing_file, name_or_file, weights_place
from src.command.text import text_table


def make_parser() -> Parser:
    parser = Parser("Make a page of a finished run: ladder, curves, and a wall of queries.", __doc__)
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--run-folder", type=Path, help="run folder of either stage, below models/")
    help_text = "a ranking of another program instead, as validate.py --run takes it, on --dataset"
    group.add_argument("--run", type=existing_file, metavar="FILE", help=help_text)
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


def parse(argv: list[str] | None = None) -> Namespace:
    """Parse the options; those that a ranking of another program lacks or cannot have end as a wrong flag does."""
    parser = make_parser()
    args = parser.parse_args(argv)
    if args.run is not None and args.dataset is None:
        parser.error("--run needs --dataset, whose queries it answers")
    of_runs = args.given & {
        *("clip_model_name", "clip_model_path", "skip_missing", "num_workers", "feature_cache", "no_feature_cache")
    }
    if args.run is not None and of_runs:
        parser.error(f"--{sorted(of_runs)[0].replace('_', '-')} is for a --run-folder")
    return args


if __name__ == "__main__":
    parse()  # --help and a wrong flag are answered here, before torch is imported

from combiner import COMBINING_FUNCTIONS, line_of, load_network
from data_utils import base_path, find_task, read_data
from src.apps.report.judging import find_tasks, judge, judge_ranking, retriever_options, validations
from src.apps.report.ladder import climb, climb_to_run, describe, draw_curves, ladder_cells
from src.apps.report.page import write_report
from src.apps.report.runs import not_comparable, runs_behind
from utils import say_device


def report_ranking(args: Namespace) -> None:
    """Make the page of a ranking of another program, by the published protocol of its data set."""
    task = find_task(args.dataset)
    output = args.output or args.run.with_name(f"{args.run.stem}.report.html")
    data_path = args.data_path or base_path
    require_outputs(vars(args), {"--output": [output]}, data_files(task.tables(data_path)))
    splits = read_data(task, data_path, "val")["val"]
    judged, remarks = judge_ranking(task, splits, args.run)
    ladder = ladder_cells(climb_to_run(judged), judged.headline())
    print(text_table(*ladder))
    introduction = " ".join(f"{sentence}." for sentence in (judged.described(), *remarks))
    write_report(output, args.run.name, judged, splits, introduction=introduction, ladder=ladder, curves="")


@one_line_errors
def main(argv=None):
    args = parse(argv)
    if args.run is not None:
        report_ranking(args)
        return
    output = args.output or args.run_folder / "report.html"
    renamed = {"clip_model_name": args.clip_model_name, "clip_model_path": args.clip_model_path}
    runs = runs_behind(args.run_folder, {name: str(file) for name, file in renamed.items() if file is not None})
    last, options = runs[-1], runs[-1].options
    data_path = args.data_path or Path(options["data_path"])
    task, trained = find_tasks(args.dataset or options["dataset"], options["dataset"])
    kept = {"--run-folder": [path for run in runs for path in run.files()]}
    require_outputs(vars(args), {"--output": [output]}, data_files(task.tables(data_path)) | kept)
    labels = {function.name: function.label for function in COMBINING_FUNCTIONS}
    curves = draw_curves(runs, trained.headline, labels)  # of files that may be faulty, so before the work
    data = read_data(task, data_path, "val", skip_missing=args.skip_missing)
    retriever = retriever_options(options, vars(args))
    before, after = validations(last, task, data["val"], retriever, load_network)
    say_device("auto")
    judged = judge(after, COMBINING_FUNCTIONS, line_of(after.retriever.combining_function).name)
    untrained = judge(before, COMBINING_FUNCTIONS, "sum")
    warning = not_comparable(runs, after.retriever.skipping)
    ladder = ladder_cells(climb(untrained, judged), task.headline)
    print(text_table(*ladder), *filter(None, [warning]), sep="\n")

    introduction = " ".join([describe(last, judged), *warning.splitlines()])
    page = {"introduction": introduction, "ladder": ladder, "curves": curves}
    write_report(output, args.run_folder.name, judged, after.splits, **page)


if __name__ == "__main__":
    main()
