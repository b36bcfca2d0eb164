"""Write the two files that CIRR's evaluation server takes, for the pictures and captions of its test1 split.

    python cirr_test_submission.py --submission-name tuned --clip-model-path models/.../tuned_clip_arithmetic.pt \
        --combiner-path models/.../combiner_arithmetic.pt
"""

from src.command.combining import names_in
from src.command.data_flags import add_judging_options, add_submission_option
from src.command.flags import parse_judging
from src.command.parser import Parser

FUNCTIONS = names_in("combiner.py")


def make_parser() -> Parser:
    parser = Parser("Write the two submission files for CIRR's evaluation server.", __doc__)
    add_submission_option(parser)
    add_judging_options(parser, FUNCTIONS)
    return parser


if __name__ == "__main__":
    parse_judging(make_parser(), FUNCTIONS)  # --help and a wrong flag are answered here, before torch is imported

from functools import partial
from pathlib import Path

from combiner import load_combined
from data_utils import TASKS, Split, base_path
from src.apps.submission.cirr import LENGTHS, VERSION
from src.apps.submission.writing import answered, read_test_split, retriever_of, submit, write
from utils import Retriever, command, settings


def generate_cirr_test_submissions(
    combining_function,
    file_name: str,
    clip_model,
    preprocess,
    data_path: Path | str = base_path,
    output_path: Path | str = base_path,
    retriever: Retriever | None = None,
    split: Split | None = None,
) -> list[Path]:
    """Write submission/CIRR/recall_submission_<file_name>.json and recall_subset_submission_<file_name>.json.

    `retriever` encodes with that CLIP and transform, and `split` is test1; both are made here where they are None.
    Returns both paths. Raises InputError when annotations or pictures of test1 are faulty or missing.
    """
    if retriever is None:
        retriever = retriever_of(clip_model, preprocess)
    retriever = retriever.combining_by(combining_function)
    task = TASKS["CIRR"]
    split = retriever.usable(split or read_test_split(task, Path(data_path), retriever.skipping.enabled))
    answers = answered(task, task.protocol(), retriever, split)

    ids = [triplet.id for triplet in split.triplets]
    written = submission_files(output_path, file_name)
    for metric, path, content in zip(LENGTHS, written, named_answers(ids, answers), strict=True):
        write(path, {"version": VERSION, "metric": metric, **content}, sort_keys=True)
    return written


def submission_files(output_path: Path | str, name: str) -> list[Path]:
    """Return the paths of a submission's two files: the server takes one for each ranking."""
    return [Path(output_path) / "submission" / "CIRR" / f"{metric}_submission_{name}.json" for metric in LENGTHS]


def named_answers(ids: list[str], answers) -> tuple[dict, dict]:
    """Return {pair id: the first 50 names of the gallery} and {pair id: the first 3 of the group}."""
    names = answers.gallery.names
    return tuple(
        {pair_id: [names[row] for row in rows] for pair_id, rows in zip(ids, table.tolist(), strict=True)}
        for table in (answers.best, answers.group_best[:, : LENGTHS["recall_subset"]])
    )


@command
def main(argv=None):
    args = parse_judging(make_parser(), FUNCTIONS, argv)

    def write_answers(retriever, split, name):
        clip_and_transform, paths = (retriever.backbone, retriever.preprocess), (args.data_path, args.output_path)
        function = retriever.combining_function
        return generate_cirr_test_submissions(function, name, *clip_and_transform, *paths, retriever, split)

    given, files = settings(args), partial(submission_files, args.output_path)
    submit(
        vars(args), given, TASKS["CIRR"], partial(load_combined, given.retriever, given.combining), files, write_answers
    )


if __name__ == "__main__":
    main()
