"""Write the file that CIRCO's evaluation server takes, for the captions of its test split.

    python circo_test_submission.py --submission-name tuned --clip-model-path models/.../tuned_clip_arithmetic.pt \
        --combiner-path models/.../combiner_arithmetic.pt
"""

from src.base.files import write_json
from src.base.parser import Parser
from src.command.flags import add_judging_options, add_submission_option, parse_judging


def make_parser() -> Parser:
    parser = Parser("Write the submission file for CIRCO's evaluation server.")
    add_submission_option(parser)
    help_text = "whether the reference stays in the ranking"
    parser.add_argument("--reference", choices=("keep", "drop"), default="keep", help=help_text)
    help_text = "what a query asks: its caption, or what reference and target share as well"
    parser.add_argument("--captions", choices=("caption", "concept"), default="caption", help=help_text)
    add_judging_options(parser)
    return parser


if __name__ == "__main__":
    parse_judging(make_parser())  # --help and a wrong flag are answered here, before torch is imported

from src.base.distributed import command, is_first
from src.evaluation.judged import sizes
from src.tasks.registry import TASKS
from submitting import answered, submit


@command
def main(argv=None):
    args = parse_judging(make_parser(), argv)
    task = TASKS["CIRCO"]
    protocol = task.protocol().chosen(task.protocols, reference=args.reference, captions=args.captions)

    def write(retriever, split, name):
        split = retriever.usable(split)
        print(f"{task.name} {split.name}, {sizes(protocol, {'': (len(split.triplets), len(split.pictures))})}")
        answers = answered(task, protocol, retriever, split)
        # COCO's ids are numbers, as the server takes them.
        ids = [int(name) for name in answers.gallery.names]
        rows = zip(split.triplets, answers.best.tolist(), strict=True)
        content = {triplet.id: [ids[row] for row in best] for triplet, best in rows}
        path = args.output_path / "submission" / "CIRCO" / f"submission_{name}.json"
        if is_first():  # all processes answer, one writes
            write_json(path, content)
        return [path]

    submit(args, task, write)


if __name__ == "__main__":
    main()
