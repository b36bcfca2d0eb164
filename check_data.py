"""Look at a data set before anybody trains on it: annotations, and every picture decoded once.

    python check_data.py --dataset CIRR --output findings.json

With --per-triplet it lists the training rows that may be wrong instead, by what a training kept of each:

    python check_data.py --dataset CIRR --per-triplet held.csv --page held.html

Exit status 1 when something would change a result, 2 when the data set cannot be read at all, else 0.
"""

from argparse import Namespace
from pathlib import Path

from src.apps.checking.reading import read_all
from src.apps.checking.text import check, faults_in, text_of, verdict, write
from src.command.data_flags import add_data_sets_path, add_dataset_option
from src.command.flags import add_num_workers
from src.command.frame import one_line_errors
from src.command.outputs import data_files, output_files, require_outputs
from src.command.parser import Parser, file_path

DESCRIPTION = (
    "Decode every picture of a data set once and say what is wrong with it. Exit status 1 when something would change "
    "a result: a listed picture that is missing, unreadable or empty. Warnings bear on what a result means: pictures "
    "that two splits share, the same bytes under two names, 16 bits a channel, blank captions. Warnings and notes "
    "leave the exit status at 0. Exit status 2 when the annotations or an option cannot be used. With --per-triplet no "
    "picture is decoded: the training triplets are listed that a model holds least likely, whose rows may be wrong."
)


def make_parser() -> Parser:
    parser = Parser(DESCRIPTION, __doc__)
    add_dataset_option(parser, otherwise="all in the data path", split=None)
    add_data_sets_path(parser)
    add_num_workers(parser)
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="file that keeps the findings as JSON")
    help_text = "what a training with --per-triplet kept: list the triplets that the model holds least likely"
    parser.add_argument("--per-triplet", type=file_path, metavar="FILE.csv", help=help_text)
    help_text = "with --per-triplet: page of the first 5 %% of these, 500 at most, with their pictures"
    parser.add_argument("--page", type=file_path, metavar="FILE.html", help=help_text)
    return parser


def parse(argv: list[str] | None = None) -> Namespace:
    parser = make_parser()
    args = parser.parse_args(argv)
    if args.page is not None and args.per_triplet is None:
        parser.error("--page is for --per-triplet")
    if args.output is not None and args.per_triplet is not None:
        parser.error("--output is for a check of the pictures, which --per-triplet leaves out")
    return args


def list_unlikely(args: Namespace, annotated: list) -> None:
    """List the triplets that a model holds least likely, and show them on a page."""
    from src.apps.checking.unlikely import rank_triplets, text_of  # late: a check needs neither

    ranking = rank_triplets(args.per_triplet, annotated)
    print(*text_of(ranking), sep="\n")
    if args.page is not None:
        from src.apps.checking.page import draw_page

        draw_page(args.page, ranking)
        print(args.page)


@one_line_errors
def main(argv=None):
    args = parse(argv)
    annotated = read_all(args.dataset, args.data_path)
    # Before any picture is decoded.
    for task, splits in annotated:
        of_task = (split for categories in splits.values() for split in categories.values())
        inputs = data_files(task.tables(args.data_path), of_task)
        require_outputs(vars(args), output_files(vars(args), "output", "page"), inputs)
    if args.per_triplet is not None:
        list_unlikely(args, annotated)
        return

    checked = []
    for task, splits in annotated:
        checked.append(check(task, splits, args.data_path, args.num_workers))
        # Flushed, since the next data set may take an hour.
        print(*text_of(checked[-1]), "", sep="\n", flush=True)

    faults = faults_in(checked)
    if args.output:
        write(args.output, checked)
    print(verdict(faults))
    if faults:
        # Scripts can stop on 1, as on a failed test; 2 means that nothing could be checked.
        raise SystemExit(1)


if __name__ == "__main__":
    main()
