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

import csv
import sys
from argparse import Namespace
from collections.abc import Callable, Container, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeVar

import torch

from combiner import line_of, load_combined
from src.apps.pages.kit import picture
from src.apps.search.collection import Collection, Searchable
from src.apps.search.index import open_index, updating
from src.apps.search.qdrant import QdrantCollection, open_client, require_askable, upload
from src.apps.search.searcher import Found, Question, Searcher, collect, depends_on, require_folder
from src.base.errors import InputError, first_ten, shown, with_reasons
from src.base.files import ESCAPING, replacing, write_json
from src.base.folders import deleted, pictures_below
from src.command.text import text_table
from src.pictures.opening import UnusablePicture
from src.processes.distributed import command, is_first, processes
from src.processes.signals import Stopping
from src.retrieval.retriever import Retriever
from src.retrieval.settings import settings
from src.tasks.own.rows import read_rows
from utils import autocast, device, say_device

T = TypeVar("T")
WHAT_IS_KEPT = "the same command goes on where it was"
Answered = list[tuple[str, Question, list[Found]]]
"""(what a question is called, the question, its answers)"""


def read_questions(args: Namespace) -> dict[str, Question]:
    """Return the questions by what they are called."""
    rules = {"without": args.without or "", "caption_weight": args.caption_weight}
    rules["include_reference"] = args.include_reference
    if args.queries is None:
        asked = args.reference or args.caption
        return {"": Question(args.reference, args.caption or "", **rules)} if asked else {}
    questions, places = {}, {}
    for row in read_rows(args.queries):
        reference, caption, name = row.text("reference") or None, row.text("caption"), row.text("id") or row.place
        if reference is None and not caption:
            raise InputError(f"{args.queries}, {row.place}: has neither a reference nor a caption")
        if row.text("caption2"):
            raise InputError(f"{args.queries}, {row.place}: has two captions; a question has one, so give each a row")
        if name in questions:
            raise InputError(f"{args.queries}, {row.place}: is called {shown(name)}, as {places[name]} is")
        questions[name], places[name] = Question(reference, caption, **rules), row.place
    return questions


def require_references(questions: dict[str, Question], folder: Path, known: Container[str] = ()) -> None:
    """Raise InputError for references that are neither files, in `folder` or from here, nor `known` names."""
    wrong = [
        f"{name}: {question.reference}" if name else f"--reference {question.reference}"
        for name, question in questions.items()
        if question.reference is not None and question.reference not in known
        if not any(path.is_file() for path in (Path(question.reference), folder / question.reference))
    ]
    if wrong:
        raise InputError(f"{first_ten(wrong)}: neither a file nor a picture of {folder}")


def references(args: Namespace, questions: dict[str, Question]) -> list[Path]:
    """Return the files that the questions' references may be."""
    asked = [question.reference for question in questions.values() if question.reference is not None]
    return [folder / reference for folder in (Path(), args.pictures) if folder is not None for reference in asked]


@contextmanager
def opened(args: Namespace, retriever: Retriever) -> Iterator[Searchable | None]:
    """Give what is searched while it is open; an index and Qdrant are brought up to date where there are pictures."""
    collection = read_collection(args, retriever)
    if args.qdrant is None:
        yield collection
    elif not is_first():
        yield None
    else:
        with closing(open_client(args.qdrant, new=collection is not None)) as client:
            if collection is not None:
                collection, changes = without_deleted(
                    collection,
                    lambda some: upload(client, args.collection, some, depends_on(retriever), args.remove_missing),
                )
                print(f"{args.qdrant}: {len(collection):,} pictures: {changes}", file=sys.stderr)
            yield QdrantCollection(client, depends_on(retriever), args.collection)


def read_collection(args: Namespace, retriever: Retriever) -> Collection | None:
    """Return the collection of a folder or an index, None for none; writes the index where there are both."""
    if args.pictures is None and args.index is None:
        return None
    if args.pictures is None:
        return open_index(args.index, depends_on(retriever))
    if args.index is None or not is_first():
        return collect_all(args.pictures, retriever)
    with updating(args.index, depends_on(retriever), args.remove_missing) as update:
        update.require_most(pictures_below(args.pictures, {}))  # before the hours that encoding may take
        collection = collect_all(args.pictures, retriever)
        collection, changes = without_deleted(collection, lambda some: update.write(some, args.half))
    print(f"{args.index}: an index of {len(collection):,} pictures: {changes}", file=sys.stderr)
    return collection


def collect_all(folder: Path, retriever: Retriever) -> Collection:
    """Return the pictures of a folder, and name those that cannot be read."""
    collection, lost = collect(retriever, folder)
    for line in lost.lines(len(collection) + len(lost.pictures)):
        print(f"{folder}: {line}", file=sys.stderr)
    return collection


def without_deleted(collection: Collection, work: Callable[[Collection], T]) -> tuple[Collection, T]:
    """Return a collection and what `work` makes of it, without the pictures whose files were deleted meanwhile."""
    while True:
        try:
            return collection, work(collection)
        except FileNotFoundError:
            gone = deleted({name: collection.folder / name for name in collection.names})
            if not gone or len(gone) == len(collection):
                raise
            said = f"{len(gone)} of {len(collection)} pictures were deleted meanwhile and are left out"
            print(f"{collection.folder}: {said}: {with_reasons(gone)}", file=sys.stderr)
            collection = collection.without(gone)


def describe(question: Question) -> str:
    """Return a question in words."""
    parts = [
        f"like {shown(str(question.reference))}" if question.reference else "",
        f"“{shown(question.caption)}”" if question.caption else "",
        f"without “{shown(question.without)}”" if question.without else "",
    ]
    return ", ".join(filter(None, parts))


def print_answers(answered: Answered) -> None:
    """Print a table for each question."""
    for name, question, found in answered:
        if name:
            print(f"{shown(name)}: {describe(question)}")
        rows = [[str(rank), f"{answer.score:.4f}", shown(answer.name)] for rank, answer in enumerate(found, start=1)]
        print(text_table(["", "score", "picture"], rows) if rows else "no answers")
        if name:
            print()


def plain(answered: Answered) -> list[dict]:
    """Return questions and answers as plain values."""
    return [
        {
            "query": name,
            "reference": None if question.reference is None else str(question.reference),
            **{key: getattr(question, key) for key in ("caption", "without", "caption_weight")},
            "answers": [
                {"rank": rank, "score": answer.score, "name": answer.name, "path": str(answer.path)}
                for rank, answer in enumerate(found, start=1)
            ],
        }
        for name, question, found in answered
    ]


def write_csv(path: Path, answered: Answered) -> None:
    """Write a row for each answer."""
    with replacing(path) as unfinished, unfinished.open("w", newline="", **ESCAPING) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["query", "reference", "caption", "rank", "score", "name", "path"])
        for of in plain(answered):
            for answer in of["answers"]:
                asked = of["query"], of["reference"] or "", of["caption"]
                writer.writerow([*asked, answer["rank"], f"{answer['score']:.6f}", answer["name"], answer["path"]])


def draw_page(path: Path, answered: Answered, searcher: Searcher) -> None:
    """Write a page with the pictures; those that are not at hand are named on stderr, and stand there by name."""
    from src.apps.pages.kit import write_page  # late: few searches want a page

    lost = {}

    def draw(path):
        try:
            return picture(path)
        except UnusablePicture as error:
            lost[str(path)] = error.reason
            return None

    questions = [
        {
            "reference": None if question.reference is None else draw(searcher.path_of(question.reference)),
            "caption": question.caption or "pictures like it",
            "remark": " ".join(filter(None, [name, f"without “{question.without}”" if question.without else ""])),
            "answers": [(draw(answer.path), f"{answer.score:.3f} {answer.name}") for answer in found],
        }
        for name, question, found in answered
    ]
    counted = f"{len(answered):,} question{'s' * (len(answered) > 1)}"
    introduction = f"{counted} to {len(searcher.collection):,} pictures of {searcher.collection.folder}."
    write_page(path, "search/answers.html", title="Search", introduction=introduction, questions=questions)
    if lost:
        print(f"{path}: {len(lost)} pictures cannot be shown: {with_reasons(lost)}", file=sys.stderr)


def say_what_is_missing(questions: list[Question]) -> None:
    """Say how a question is taken that has only a picture or only a caption."""
    for has_no, said in (
        ("caption", "no caption: answers are like the reference"),
        ("reference", "no reference: answers are like the caption"),
    ):
        number = sum(not getattr(question, has_no) for question in questions)
        if number:
            counted = f" ({number:,} of {len(questions):,} questions)" if len(questions) > 1 else ""
            print(f"{said}{counted}", file=sys.stderr)


@command
def main(argv=None):
    args = parse(argv)
    given, questions = settings(args), read_questions(args)
    outputs = output_files(vars(args), "json", "csv", "page")
    require_outputs(vars(args), outputs, {"a reference": references(args, questions)})
    if questions and args.qdrant is not None and processes() > 1:
        raise InputError("--qdrant under torchrun encodes and uploads; ask its questions in a command of one process")
    if args.pictures is not None:
        require_folder(args.pictures)
        require_references(questions, args.pictures)  # before the hours that encoding may take
    retriever = load_combined(given.retriever, given.combining)
    if args.qdrant is not None:
        function = retriever.combining_function
        require_askable(function, line_of(function).name, torch.ones(1, retriever.backbone.dimension, device=device))
    say_device(args.precision)
    with autocast(args.precision), Stopping(lambda: WHAT_IS_KEPT), opened(args, retriever) as collection:
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
