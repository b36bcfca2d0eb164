"""Write the two files that CIRR's evaluation server takes, for the pictures and captions of its test1 split.

    python cirr_test_submission.py --submission-name tuned --clip-model-path models/.../tuned_clip_arithmetic.pt \
        --combiner-path models/.../combiner_arithmetic.pt
"""

from src.base.files import PROJECT_ROOT, require_writable, time_stamp, write_json
from src.base.parser import Parser, part_of_a_file_name
from src.command.flags import add_judging_options, combining_options, comet_options, parse_judging, retriever_options


def make_parser() -> Parser:
    parser = Parser("Write the two submission files for CIRR's evaluation server.")
    help_text = "end of both files' names (default: the time)"
    parser.add_argument("--submission-name", type=part_of_a_file_name, help=help_text)
    add_judging_options(parser)
    return parser


if __name__ == "__main__":
    parse_judging(make_parser())  # --help and a wrong flag are answered here, before torch is imported

import shlex
import sys
from pathlib import Path

from combiner import load_combined
from src.base.distributed import command, is_first
from src.command.comet import start_experiment
from src.evaluation.cirr_submission import check
from src.evaluation.submission import FAULT
from src.models.facts import told_by_checkpoints
from src.models.registry import backbone_of
from src.pictures.skipping import Skipping
from src.retrieval.answers import Answers, answer
from src.tasks.registry import TASKS
from src.tasks.triplets import Split
from utils import Encoder, Retriever, autocast, read_data

ANSWERS, GROUP_ANSWERS = 50, 3


def generate_cirr_test_submissions(
    combining_function,
    file_name: str,
    clip_model,
    preprocess,
    data_path: Path = PROJECT_ROOT,
    output_path: Path = PROJECT_ROOT,
    retriever: Retriever | None = None,
    split: Split | None = None,
) -> list[Path]:
    """Write submission/CIRR/recall_submission_<file_name>.json and recall_subset_submission_<file_name>.json.

    `retriever` is what encodes with that CLIP and transform, where it is put together already, and `split` is test1,
    where it was read already. Returns both paths. Raises InputError when annotations or pictures of test1 are faulty or
    missing.
    """
    if retriever is None:
        # Nothing is kept: a transform from outside does not tell what its pixels depend on.
        retriever = Retriever(Encoder(backbone_of(clip_model)), preprocess, Skipping(enabled=False))
    retriever = retriever.combining_by(combining_function)
    task = TASKS["CIRR"]
    split = retriever.usable(split or read_test_split(data_path, retriever.skipping.enabled))
    gallery = retriever.gallery(retriever.pictures(split.pictures))
    caption_features = retriever.encoder.captions([task.query_text(triplet.captions) for triplet in split.triplets])
    predicted = retriever.predict(gallery, [triplet.reference for triplet in split.triplets], caption_features)
    # The server wants fifty names; a toy gallery gives what it has.
    answers = answer(split.triplets, gallery, predicted, task.protocol(), best=ANSWERS)

    folder = Path(output_path) / "submission" / "CIRR"
    ids = [triplet.id for triplet in split.triplets]
    written = []
    for metric, content in zip(("recall", "recall_subset"), named_answers(ids, answers), strict=True):
        # Two files, since the server takes the two rankings apart.
        written.append(folder / f"{metric}_submission_{file_name}.json")
        # All processes answer, one writes.
        if is_first():
            write_json(written[-1], {"version": "rc2", "metric": metric, **content}, sort_keys=True)
    return written


def read_test_split(data_path: Path, skip_missing: bool) -> Split:
    """Read test1; raises InputError for faulty annotations and, unless `skip_missing`, for missing pictures."""
    (split,) = read_data(TASKS["CIRR"], data_path, "test1", skip_missing=skip_missing)["test1"].values()
    return split


def named_answers(ids: list[str], answers: Answers) -> tuple[dict, dict]:
    """Return {pair id: the first 50 names of the gallery} and {pair id: the first 3 of the group}."""
    names = answers.gallery.names
    return tuple(
        {pair_id: [names[row] for row in rows] for pair_id, rows in zip(ids, table.tolist(), strict=True)}
        for table in (answers.best, answers.group_best[:, :GROUP_ANSWERS])
    )


def say_whether_ready(written: list[Path], split: Split, data_path: Path) -> None:
    """Say on stderr what CIRR's server would refuse of the files, and how to see all of it; `split` is all of test1."""
    found = [finding for file in check(written, split, data_path) for finding in file.findings]
    faults = dict.fromkeys(finding.summary() for finding in found if finding.level == FAULT)
    if not faults:
        print("ready to upload to CIRR's server", file=sys.stderr)
        return
    # A toy gallery has no fifty pictures. Its files are right for what they are, so this is no error.
    print(f"not for CIRR's server as they are: {', '.join(faults)}. To see all:", file=sys.stderr)
    seeing = ["python", "check_submission.py", *written, "--data-path", Path(data_path).absolute()]
    print(f"  {shlex.join(map(str, seeing))}", file=sys.stderr)


@command
def main(argv=None):
    args = parse_judging(make_parser(), argv)
    checkpoints = args.clip_model_path, args.combiner_path
    vars(args).update(told_by_checkpoints(checkpoints, vars(args), args.given))
    # Before CLIP is loaded or downloaded: what is wrong with the data is found in seconds.
    split = read_test_split(args.data_path, args.skip_missing)
    require_writable(args.output_path)
    retriever = load_combined(retriever_options(args), combining_options(args))

    experiment = start_experiment("CIRR test submission", comet_options(args), args.output_path / "comet")
    function, name = retriever.combining_function, args.submission_name or time_stamp()
    clip_and_transform, paths = (retriever.backbone, retriever.preprocess), (args.data_path, args.output_path)
    with autocast(args.precision):
        written = generate_cirr_test_submissions(function, name, *clip_and_transform, *paths, retriever, split)
    for path in written:
        print(f"{path}{retriever.skipping.mark}")
        experiment.log_asset(str(path))
    if is_first():
        say_whether_ready(written, split, args.data_path)
    experiment.log_others(retriever.skipping.remarks)
    experiment.end()


if __name__ == "__main__":
    main()
