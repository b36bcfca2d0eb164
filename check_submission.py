"""Check the files of a submission, CIRR's two or CIRCO's one, before the evaluation server does.

    python check_submission.py submission/CIRR/recall_submission_x.json submission/CIRR/recall_subset_submission_x.json
    python check_submission.py --dataset CIRCO x.json

Exit status 0 when they are ready to upload, 1 when they are not, 2 when nothing could be checked.
"""

from src.apps.submission import SERVERS
from src.apps.submission.rules import check
from src.apps.submission.text import is_ready, text_of, verdict, write
from src.command.flags import add_data_path
from src.command.frame import one_line_errors
from src.command.outputs import data_files, output_files, require_outputs
from src.command.parser import Parser, any_case, existing_file, file_path

DESCRIPTION = (
    "Check the files of a submission before the evaluation server does. Exit status 0 when they are ready to upload, 1 "
    "when the server would refuse them or score something else, 2 when nothing could be checked. Needs the annotations "
    "of the test split, no pictures."
)


def make_parser() -> Parser:
    parser = Parser(DESCRIPTION, __doc__)
    help_text = f"in any order; {', '.join(f'{name} wants {form.most}' for name, form in SERVERS.items())}"
    parser.add_argument("files", nargs="+", type=existing_file, metavar="FILE", help=help_text)
    help_text = f"{' or '.join(SERVERS)}, any case"
    parser.add_argument("--dataset", type=any_case(*SERVERS), default=next(iter(SERVERS)), help=help_text)
    add_data_path(parser, "folder that holds the data set's folder")
    help_text = "weights that the submission is of; newer ones are a warning"
    parser.add_argument("--checkpoint", nargs="+", type=existing_file, metavar="FILE", help=help_text)
    parser.add_argument("--json", type=file_path, metavar="FILE.json", help="file that keeps all findings as JSON")
    return parser


@one_line_errors
def main(argv=None):
    parser = make_parser()
    args = parser.parse_args(argv)
    form = SERVERS[args.dataset]
    if len(args.files) > form.most:
        parser.refuse(f"{args.files[form.most]}: {form.too_many}")
    task = form.task()
    require_outputs(vars(args), output_files(vars(args), "json"), data_files(task.tables(args.data_path)))
    (split,) = task.read_all(args.data_path, form.split).values()
    files = check(form, args.files, split, args.data_path, args.checkpoint or ())
    if args.json:
        write(args.json, files)
    print(*text_of(files), verdict(files), sep="\n")
    if not is_ready(files):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
