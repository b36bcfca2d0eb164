"""Questions and their answers in a terminal."""

import sys

from src.base.errors import shown
from src.command.text import text_table
from src.retrieval.searcher import Found, Question

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


def say_what_is_missing(questions: list[Question]) -> None:
    """Say how a question is taken that has only a picture or only a caption."""
    for part, line in (
        ("caption", "no caption: answers are like the reference"),
        ("reference", "no reference: answers are like the caption"),
    ):
        number = sum(not getattr(question, part) for question in questions)
        if number:
            counted = f" ({number:,} of {len(questions):,} questions)" if len(questions) > 1 else ""
            print(f"{line}{counted}", file=sys.stderr)
