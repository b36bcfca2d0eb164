"""Check the two files of a CIRR submission, or the one file of a CIRCO submission, before the server does.

    python check_submission.py submission/CIRR/recall_submission_x.json submission/CIRR/recall_subset_submission_x.json
    python check_submission.py --dataset CIRCO x.json

Exit status 0 when they are ready to upload, 1 when they are not, 2 when nothing could be checked.
"""

import textwrap
from collections.abc import Iterator
from pathlib import Path

from src.base.errors import InputError, first_ten, one_line_errors
from src.base.files import PROJECT_ROOT, write_json
from src.base.parser import Parser, any_case, existing_file, file_path
from src.command.outputs import data_files, output_files, require_outputs
from src.evaluation import circo_submission, cirr_submission
from src.evaluation.submission import FAULT, SubmissionFile
from src.tasks.registry import TASKS

WIDTH = 100
DESCRIPTION = (
    "Check the two files of a CIRR submission, or the one file of a CIRCO submission, before the server does. Exit "
    "status 0 when they are ready to upload, 1 when the server would refuse them or score something else, 2 when "
    "nothing could be checked. Needs the annotations of the test split, no pictures."
)
TOO_MANY = {"CIRR": "a third file; a submission has two", "CIRCO": "a second file; a submission to CIRCO has one"}
"""{data set: what is wrong with a file more than its server wants}"""


def make_parser() -> Parser:
    parser = Parser(DESCRIPTION)
    parser.add_argument(
        "files", nargs="+", type=existing_file, metavar="FILE", help="CIRR's two, in any order; CIRCO's one"
    )
    parser.add_argument("--dataset", type=any_case(*TOO_MANY), default="CIRR", help="CIRR or CIRCO, any case")
    help_text = "folder that holds the data set's folder"
    parser.add_argument("--data-path", type=Path, default=PROJECT_ROOT, help=help_text)
    help_text = "weights that the submission is of; newer ones are a warning"
    parser.add_argument("--checkpoint", nargs="+", type=existing_file, metavar="FILE", help=help_text)
    parser.add_argument("--json", type=file_path, metavar="FILE.json", help="file that keeps all findings as JSON")
    return parser


def checked(args) -> list[SubmissionFile]:
    """Return the files with all that was found of them."""
    checkpoints = args.checkpoint or ()
    if args.dataset == "CIRCO":
        (split,) = TASKS["CIRCO"].read_all(args.data_path, "test").values()
        return circo_submission.check(args.files[0], split, checkpoints)
    (split,) = TASKS["CIRR"].read_all(args.data_path, "test1").values()
    return cirr_submission.check(args.files, split, args.data_path, checkpoints)


def text_of(files: list[SubmissionFile]) -> Iterator[str]:
    """Yield what was found as lines for a terminal: of each kind the first ten names, and what mends it."""
    for file in files:
        holds = f"{file.metric}, {len(file.ids):,} {file.form.queries}, " if file.metric else ""
        yield f"{file.path.name}: {holds}{file.size / 1e6:.2f} MB"
        for finding in file.findings:
            yield f"  {finding.level:<7}  {finding.summary()}"
            for text in [first_ten(finding.names), finding.mend] if finding.names else [finding.mend]:
                yield textwrap.fill(text, WIDTH, initial_indent=" " * 11, subsequent_indent=" " * 11)


def verdict(files: list[SubmissionFile]) -> str:
    """Return the last line: whether they are ready, and how many findings stand above it."""
    levels = [finding.level for file in files for finding in file.findings]
    faults, others = levels.count(FAULT), len(levels) - levels.count(FAULT)
    counts = [f"{count} {word}{'s' * (count > 1)}" for count, word in ((faults, "fault"), (others, "warning")) if count]
    return ": ".join(["not ready to upload" if faults else "ready to upload", *[", ".join(counts)] * bool(counts)])


def plain(file: SubmissionFile) -> dict:
    """Return a file and all that was found of it as plain values."""
    found = [{"level": one.level, "kind": one.kind, "count": len(one.names)} | one._asdict() for one in file.findings]
    return {"file": str(file.path), "metric": file.metric, "pairs": len(file.ids), "findings": found}


@one_line_errors
def main(argv=None):
    args = make_parser().parse_args(argv)
    wanted = 1 if args.dataset == "CIRCO" else 2
    if len(args.files) > wanted:
        raise InputError(f"{args.files[wanted]}: {TOO_MANY[args.dataset]}")
    require_outputs(vars(args), output_files(vars(args), "json"), data_files(TASKS[args.dataset], args.data_path))
    files = checked(args)
    is_ready = not any(finding.level == FAULT for file in files for finding in file.findings)
    if args.json:
        write_json(args.json, {"ready": is_ready, "files": [plain(file) for file in files]}, indent=1)
    print(*text_of(files), verdict(files), sep="\n")
    if not is_ready:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
