"""Write the file that CIRCO's evaluation server takes, for the captions of its test split.

    python circo_test_submission.py --submission-name tuned --clip-model-path models/.../tuned_clip_arithmetic.pt \
        --combiner-path models/.../combiner_arithmetic.pt
"""

from src.command.combining import names_in
from src.command.data_flags import add_judging_options, add_submission_option
from src.command.flags import parse_judging
from src.command.parser import Parser

FUNCTIONS = names_in("combiner.py")


def make_parser() -> Parser:
    parser = Parser("Write the submission file for CIRCO's evaluation server.", __doc__)
    add_submission_option(parser)
    help_text = "whether the reference stays in the ranking"
    parser.add_argument("--reference", choices=("keep", "drop"), default="keep", help=help_text)
    help_text = "what a query asks: its caption, or what reference and target share as well"
    parser.add_argument("--captions", choices=("caption", "concept"), default="caption", help=help_text)
    add_judging_options(parser, FUNCTIONS)
    return parser


if __name__ == "__main__":
    parse_judging(make_parser(), FUNCTIONS)  # --help and a wrong flag are answered here, before torch is imported

from functools import partial

from combiner import load_combined
from data_utils import TASKS
from src.apps.submission.writing import answered, submit, write
from utils import command, settings


@command
def main(argv=None):
    args = parse_judging(make_parser(), FUNCTIONS, argv)
    task = TASKS["CIRCO"]
    protocol = task.protocol().chosen(task.protocols, reference=args.reference, captions=args.captions)

    def files(name):
        return [args.output_path / "submission" / "CIRCO" / f"submission_{name}.json"]

    def write_answers(retriever, split, name):
        split = retriever.usable(split)
        print(f"{task.name} {split.name}, {protocol.described({'': (split.triplets, len(split.pictures))})}")
        answers = answered(task, protocol, retriever, split)
        # COCO's ids are numbers, as the server takes them.
        ids = [int(name) for name in answers.gallery.names]
        rows = zip(split.triplets, answers.best.tolist(), strict=True)
        content = {triplet.id: [ids[row] for row in best] for triplet, best in rows}
        write(*files(name), content)

    given = settings(args)
    submit(vars(args), given, task, partial(load_combined, given.retriever, given.combining), files, write_answers)


if __name__ == "__main__":
    main()
