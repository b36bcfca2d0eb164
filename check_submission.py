"""Check the files of a submission, CIRR's two or CIRCO's one, before the evaluation server does.

    python check_submission.py submission/CIRR/recall_submission_x.json submission/CIRR/recall_subset_submission_x.json
    python check_submission.py --dataset CIRCO x.json

Exit status 0 when they are ready to upload, 1 when they are not, 2 when nothing could be checked.
"""

from collections.abc import Iterator
from pathlib import Path

from src.apps.submission import SERVERS
from src.apps.submission.files import SubmissionFile
from src.apps.submission.rules import FAULT, WARNING, check
from src.base.errors import InputError, first_ten, one_line_errors
from src.base.files import PROJECT_ROOT, write_json
from src.base.parser import Parser, any_case, existing_file, file_path
from src.base.terminal import filled
from src.command.outputs import data_files, output_files, require_outputs
from src.tasks.registry import TASKS

WIDTH = 100
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
    help_text = "folder that holds the data set's folder"
    parser.add_argument("--data-path", type=Path, default=PROJECT_ROOT, help=help_text)
    help_text = "weights that the submission is of; newer ones are a warning"
    parser.add_argument("--checkpoint", nargs="+", type=existing_file, metavar="FILE", help=help_text)
    parser.add_argument("--json", type=file_path, metavar="FILE.json", help="file that keeps all findings as JSON")
    return parser


def text_of(files: list[SubmissionFile]) -> Iterator[str]:
    """Yield the findings as lines for a terminal: of each kind the first ten names, and what mends it."""
    for file in files:
        holds = f"{file.metric}, {len(file.values):,} {file.queries}, " if file.metric else ""
        yield f"{file.path.name}: {holds}{file.size / 1e6:.2f} MB"
        for finding in file.findings:
            yield f"  {finding.level:<7}  {finding.summary()}"
            for text in [first_ten(finding.names), finding.mend] if finding.names else [finding.mend]:
                yield filled(" " * 11 + text, " " * 11, longest=WIDTH)


def verdict(files: list[SubmissionFile]) -> str:
    """Return the last line: whether the files are ready, and how many findings stand above it."""
    levels = [finding.level for file in files for finding in file.findings]
    counts = [(levels.count(level), level) for level in (FAULT, WARNING) if level in levels]
    found = ", ".join(f"{count} {level}{'s' * (count > 1)}" for count, level in counts)
    ready = "not ready to upload" if FAULT in levels else "ready to upload"
    return f"{ready}: {found}" if found else ready


def plain(file: SubmissionFile) -> dict:
    """Return a file and its findings as plain values."""
    found = [{"count": len(finding.names)} | finding._asdict() for finding in file.findings]
    return {"file": str(file.path), "metric": file.metric, "pairs": len(file.values), "findings": found}


@one_line_errors
def main(argv=None):
    args = make_parser().parse_args(argv)
    form = SERVERS[args.dataset]
    if len(args.files) > form.most:
        raise InputError(f"{args.files[form.most]}: {form.too_many}")
    task = TASKS[form.dataset]
    require_outputs(vars(args), output_files(vars(args), "json"), data_files(task.tables(args.data_path)))
    (split,) = task.read_all(args.data_path, form.split).values()
    files = check(form, args.files, split, args.data_path, args.checkpoint or ())
    is_ready = not any(finding.level == FAULT for file in files for finding in file.findings)
    if args.json:
        write_json(args.json, {"ready": is_ready, "files": [plain(file) for file in files]}, indent=1)
    print(*text_of(files), verdict(files), sep="\n")
    if not is_ready:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
