"""Compare models query by query: what validate.py --per-query wrote of each.

    python compare.py sum.csv combiner.csv --page difference.html

Every further file is compared with the first, and may be a ranking of another program.
"""

from pathlib import Path

from src.command.flags import add_data_path
from src.command.parser import Parser, file_path

DESCRIPTION = (
    "Compare models query by query, from files of validate.py --per-query, each with the first: the difference of each "
    "metric with its 95 % interval, a test, and the queries that moved most. Compares what both files have and says "
    "what is left out. Refuses results of other data."
)


def make_parser() -> Parser:
    parser = Parser(DESCRIPTION, __doc__)
    help_text = "two files or more; the first is compared with each, which may be rankings as validate.py --run takes"
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE.csv", help=help_text)
    parser.add_argument("--json", type=file_path, metavar="FILE.json", help="file for all differences")
    parser.add_argument("--page", type=file_path, metavar="FILE.html", help="page with the pictures of what moved most")
    add_data_path(parser, "folder of the data set, for the page and rankings")
    return parser


if __name__ == "__main__":
    make_parser().parse_args()  # --help and a wrong flag are answered here, before numpy and scipy are imported

from src.apps.compare.comparison import read_all
from src.apps.compare.text import compare, is_corrected, print_all, write
from src.command.frame import one_line_errors
from src.command.outputs import data_files, output_files, require_outputs


@one_line_errors
def main(argv=None):
    args = make_parser().parse_args(argv)
    first, *others = read_all(args.files, args.data_path)
    outputs, is_there = output_files(vars(args), "json", "page"), (args.data_path / first.task.folder).is_dir()
    require_outputs(vars(args), outputs, data_files(first.task.tables(args.data_path)) if is_there else {})
    compared, left_out = compare(first, others)
    # Before anything is printed: without its pictures the page cannot be made.
    splits = first.task.read_all(args.data_path, first.split) if args.page else {}
    holm = ["p: corrected by Holm's method for the files of a protocol."] if is_corrected(compared) else []
    remarks = "".join(f" {sentence}" for sentence in (*holm, *left_out))
    print_all(first, compared, remarks)
    if args.json:
        write(args.json, first, compared, left_out)
    if args.page:
        from src.apps.compare.page import draw_page  # late: opening pictures imports torch, which takes a second

        draw_page(args.page, first, compared, splits, remarks)
        print(args.page)


if __name__ == "__main__":
    main()
