"""Find one's own pictures with a picture, a caption, or both.

    python search.py --pictures photos --reference photos/dress.jpg --caption "the same in red" \
        --clip-model-path tuned_clip.pt --combiner-path combiner.pt --page answers.html

The folder is encoded once. Unreadable pictures are listed on stderr and left out.
"""

from src.base.parser import Parser, count, existing_file, file_path, finite, share, words
from src.command.combining import names_in
from src.command.flags import add_searching_options, parse_judging
from src.command.outputs import output_files, require_outputs

FUNCTIONS = names_in("combiner.py")


def make_parser() -> Parser:
    parser = Parser("Find your own pictures with a picture, a caption, or both.")
    group = parser.add_argument_group("where to look")
    help_text = "folder of pictures, at any depth"
    group.add_argument("--pictures", type=file_path, metavar="FOLDER", help=help_text)
    help_text = "folder of an index: with --pictures it is written or brought up to date, alone it is searched"
    group.add_argument("--index", type=file_path, metavar="FOLDER", help=help_text)
    group.add_argument("--half", action="store_true", help="keep the index in half the space, as fp16")
    help_text = "bring an index or a collection up to date also when more than half of its pictures are gone"
    group.add_argument("--remove-missing", action="store_true", help=help_text)
    help_text = "a Qdrant server, or a folder in its place: with --pictures or --index it is filled, alone it is asked"
    group.add_argument("--qdrant", type=words, metavar="URL_OR_FOLDER", help=help_text)
    help_text = "name of the Qdrant collection"
    group.add_argument("--collection", type=words, default="pictures", metavar="NAME", help=help_text)

    group = parser.add_argument_group("what to look for")
    help_text = "a picture: its path, or its path from the folder of pictures"
    group.add_argument("--reference", type=words, metavar="PICTURE", help=help_text)
    help_text = "what to change; without a reference, what to find"
    group.add_argument("--caption", type=words, metavar="TEXT", help=help_text)
    help_text = "0: the picture alone, 1: the caption alone, 0.5: as the combining function has it"
    group.add_argument("--caption-weight", type=share, default=0.5, metavar="W", help=help_text)
    group.add_argument("--without", type=words, metavar="TEXT", help="a text that answers should not be like")
    help_text = "table with columns reference, caption and perhaps id: many questions at once"
    group.add_argument("--queries", type=existing_file, metavar="FILE.csv", help=help_text)

    group = parser.add_argument_group("answers")
    group.add_argument("-k", type=count, default=10, help="how many answers")
    group.add_argument("--min-score", type=finite, metavar="S", help="no answers with a lower score")
    help_text = "let the reference and copies of it be answers"
    group.add_argument("--include-reference", action="store_true", help=help_text)
    group.add_argument("--json", type=file_path, metavar="FILE.json", help="file for the answers")
    group.add_argument("--csv", type=file_path, metavar="FILE.csv", help="file for the answers")
    group.add_argument("--page", type=file_path, metavar="FILE.html", help="page of the answers, which opens offline")
    add_searching_options(parser, FUNCTIONS)
    return parser


def parse(argv=None):
    """Parse the options; a combination that asks for nothing ends as a wrong flag does."""
    parser = make_parser()
    args = parse_judging(parser, FUNCTIONS, argv)
    sources = args.pictures, args.index, args.qdrant
    if not any(sources):
        parser.error("--pictures, --index or --qdrant is needed, to look in")
    if args.half and (args.index is None or args.pictures is None):
        parser.error("--half is for an --index that --pictures writes")
    if args.collection != parser.get_default("collection") and args.qdrant is None:
        parser.error("--collection is for --qdrant")
    if args.queries is not None and (args.reference or args.caption):
        parser.error("--queries has the questions, so there is no --reference and no --caption")
    writes = sum(source is not None for source in sources) > 1
    if args.remove_missing and not writes:
        parser.error("--remove-missing is for an --index or a --qdrant that is brought up to date")
    if args.queries is None and not (args.reference or args.caption) and not writes:
        parser.error("--reference, --caption or --queries is needed, to look for")
    return args


if __name__ == "__main__":
    parse()  # --help and a wrong flag are answered here, before torch is imported

import sys

import torch

from combiner import line_of, load_combined
from src.apps.search.places import Places, opened
from src.apps.search.printing import draw_page, plain, print_answers, say_what_is_missing, write_csv
from src.apps.search.questions import read_questions, references, require_references
from src.base.errors import InputError
from src.base.files import write_json
from src.processes.distributed import command, is_first, processes
from src.processes.signals import Stopping
from src.retrieval.searcher import Question, Searcher, require_folder
from utils import autocast, device, say_device, settings

WHAT_IS_KEPT = "the same command goes on where it was"


@command
def main(argv=None):
    args = parse(argv)
    given = settings(args)
    rules = Question(None, "", args.without or "", args.caption_weight, args.include_reference)
    if args.queries is not None:
        questions = read_questions(args.queries, rules)
    else:
        one = rules._replace(reference=args.reference, caption=args.caption or "")
        questions = {"": one} if args.reference or args.caption else {}
    outputs = output_files(vars(args), "json", "csv", "page")
    require_outputs(vars(args), outputs, {"a reference": references(questions, args.pictures)})
    if questions and args.qdrant is not None and processes() > 1:
        raise InputError("--qdrant under torchrun encodes and uploads; ask its questions in a command of one process")
    if args.pictures is not None:
        require_folder(args.pictures)
        require_references(questions, args.pictures)  # before the hours that encoding may take
    retriever = load_combined(given.retriever, given.combining)
    if args.qdrant is not None:
        function = retriever.combining_function
        from src.apps.search.qdrant import require_askable  # late: few searches ask a server

        require_askable(function, line_of(function).name, torch.ones(1, retriever.backbone.dimension, device=device))
    say_device(args.precision)
    places = Places(*(getattr(args, name) for name in Places._fields))
    with autocast(args.precision), Stopping(lambda: WHAT_IS_KEPT), opened(places, retriever) as collection:
        if not questions:
            return
        require_references(questions, collection.folder, collection)
        searcher = Searcher(retriever, collection)
        say_what_is_missing(list(questions.values()))
        found = searcher.ask_all(list(questions.values()), args.k, args.min_score)
    answered = list(zip(questions, questions.values(), found, strict=True))
    # Tables of many questions are no reading where a file has them.
    if args.queries is None or not (args.json or args.csv or args.page):
        print_answers(answered)
    if not is_first():
        return
    if args.json:
        # Indenting is slow, and many questions are for programs.
        write_json(args.json, plain(answered), indent=None if args.queries else 1)
    if args.csv:
        write_csv(args.csv, answered)
    if args.page:
        draw_page(args.page, answered, searcher)
    for path in filter(None, (args.json, args.csv, args.page)):
        print(f"wrote {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
