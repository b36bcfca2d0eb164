"""Questions and their answers in a terminal, in files, and on a page."""

import csv
import sys
from pathlib import Path

from src.base.errors import shown, with_reasons
from src.base.files import ESCAPING, replacing
from src.command.text import text_table
from src.pictures.opening import UnusablePicture
from src.retrieval.searcher import Found, Question, Searcher

Answered = list[tuple[str, Question, list[Found]]]
"""(what a question is called, the question, its answers)"""


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
    from src.apps.pages.kit import picture, write_page  # late: few searches want a page

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
