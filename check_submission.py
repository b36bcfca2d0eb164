"""Check the two files of a CIRR submission before the server does.

    python check_submission.py submission/CIRR/recall_submission_x.json submission/CIRR/recall_subset_submission_x.json

Exit status 0 when they are ready to upload, 1 when the server would refuse them or score something else.
"""

from pathlib import Path

from src.base.errors import InputError, one_line_errors
from src.base.files import PROJECT_ROOT, read_json, require_writable, write_json
from src.base.parser import Parser, existing_file, file_path
from src.evaluation.cirr_submission import FAULT, Finding, check
from src.tasks.registry import TASKS

DESCRIPTION = (
    "Check the two files of a CIRR submission before the server does: exit status 0 when they are ready to upload, 1 "
    "when the server would refuse them or score something else. Needs the annotations, no pictures."
)


def make_parser() -> Parser:
    parser = Parser(DESCRIPTION)
    parser.add_argument("files", nargs="+", type=existing_file, metavar="FILE.json", help="the pair, in any order")
    parser.add_argument("--data-path", type=file_path, default=PROJECT_ROOT, help="folder that holds cirr_dataset/")
    help_text = "weights that the submission claims to be of; newer ones are a warning"
    parser.add_argument("--checkpoint", nargs="+", type=existing_file, default=[], metavar="FILE.pt", help=help_text)
    parser.add_argument("--json", type=file_path, metavar="FILE.json", help="file for all findings")
    return parser


def findings(files: list[Path], data_path: Path, checkpoints: list[Path] = ()) -> list[Finding]:
    """Return what is wrong with a submission's files, faults first; raises InputError for faulty annotations."""
    task = TASKS["CIRR"]
    (split,) = task.read_all(data_path, "test1").values()
    captions, _ = task.files(data_path, task.categories[0], "val")
    # Val's ids alone are needed, and only where val is there.
    entries = read_json(captions, list) if captions.is_file() else []
    val_ids = {str(entry.get("pairid")) for entry in entries if isinstance(entry, dict)}
    return check(files, split, val_ids, checkpoints)


@one_line_errors
def main(argv=None):
    args = make_parser().parse_args(argv)
    if len(args.files) > 2:
        raise InputError(f"{args.files[2]}: a submission has two files")
    if args.json:
        require_writable(args.json.parent)
    found = findings(args.files, args.data_path, args.checkpoint)
    faults = [finding for finding in found if finding.level == FAULT]
    print(*(finding.line() for finding in found), sep="\n", end="\n" if found else "")
    print("not ready: mend the faults above" if faults else "ready to upload")
    if args.json:
        write_json(args.json, {"ready": not faults, "findings": [finding._asdict() for finding in found]}, indent=1)
    if faults:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
