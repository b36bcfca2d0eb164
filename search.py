"""Find one's own pictures with a picture, a caption, or both.

    python search.py --pictures photos --reference photos/dress.jpg --caption "the same in red" \
        --clip-model-path tuned_clip.pt --combiner-path combiner.pt --page answers.html

The folder is encoded once. Unreadable pictures are listed on stderr and left out.
"""

from pathlib import Path

from src.command.combining import names_in
from src.command.flags import add_searching_options, parse_judging
from src.command.outputs import output_files, require_outputs
from src.command.parser import Parser, count, existing_file, file_path, finite, share, words

FUNCTIONS = names_in("combiner.py")


def folder_or_url(text: str) -> Path | str:
    """Take the path of a folder, made absolute, or a URL."""
    return text if "://" in text else file_path(text)


def make_parser() -> Parser:
    parser = Parser("Find your own pictures with a picture, a caption, or both.", __doc__)
    group = parser.add_argument_group("where to look")
    help_text = "folder of pictures, at any depth"
    group.add_argument("--pictures", type=file_path, metavar="FOLDER", help=help_text)
    help_text = "folder of an index, or URL of a Qdrant server: brought up to date with --pictures, else only searched"
    group.add_argument("--index", type=folder_or_url, metavar="FOLDER_OR_URL", help=help_text)
    group.add_argument("--half", action="store_true", help="keep the index in half the space, as fp16")
    help_text = "bring an index up to date also when more than half of its pictures are gone"
    group.add_argument("--remove-missing", action="store_true", help=help_text)
    help_text = "name of the collection on a Qdrant server"
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
    help_text = "input file for a re-ranker: each question with its answers, a JSON object a line"
    group.add_argument("--candidates", type=file_path, metavar="FILE.jsonl", help=help_text)
    add_searching_options(parser, FUNCTIONS)
    return parser


def parse(argv=None):
    """Parse the options; a combination that asks for nothing ends as a wrong flag does."""
    parser = make_parser()
    args = parse_judging(parser, FUNCTIONS, argv)
    is_server, writes = isinstance(args.index, str), None not in (args.pictures, args.index)
    if args.pictures is None and args.index is None:
        parser.error("--pictures or --index is needed, to look in")
    if args.half and (is_server or not writes):
        parser.error("--half is for an --index that --pictures writes to a folder")
    if args.collection != parser.get_default("collection") and not is_server:
        parser.error("--collection is for an --index that is the URL of a Qdrant server")
    if args.queries is not None and (args.reference or args.caption):
        parser.error("--queries has the questions, so there is no --reference and no --caption")
    if args.remove_missing and not writes:
        parser.error("--remove-missing is for an --index that is brought up to date")
    if args.queries is None and not (args.reference or args.caption) and not writes:
        parser.error("--reference, --caption or --queries is needed, to look for")
    return args


if __name__ == "__main__":
    parse()  # --help and a wrong flag are answered here, before torch is imported

from combiner import line_of, load_combined
from src.apps.search.places import Places, opened, require_places
from src.apps.search.printing import print_answers
from src.apps.search.questions import ask_all, make_questions, references
from utils import autocast, command, is_first, say_device, settings


@command
def main(argv=None):
    args = parse(argv)
    given, places = settings(args), Places(*(getattr(args, name) for name in Places._fields))
    rules = args.without, args.caption_weight, args.include_reference
    questions = make_questions(args.reference, args.caption, *rules, args.queries)
    files = output_files(vars(args), "json", "csv", "page", "candidates")
    require_outputs(vars(args), files, {"a reference": references(questions, args.pictures)})
    require_places(places, questions)
    retriever = load_combined(given.retriever, given.combining)
    say_device(args.precision)
    function = line_of(retriever.combining_function).name
    with autocast(args.precision), opened(places, retriever, function) as gallery:
        if not questions:
            return
        answered, searcher = ask_all(questions, retriever, gallery, args.k, args.min_score)
        # Tables of many questions are no reading where a file has them.
        if args.queries is None or not files:
            print_answers(answered)
        if files and is_first():
            from src.apps.search.files import write_answers  # late: most searches print their answers

            # Indenting is slow, and many questions are for programs.
            write_answers(answered, searcher, vars(args), indent=None if args.queries else 1)


if __name__ == "__main__":
    main()
