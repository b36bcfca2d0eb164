"""The questions of a command, from its options or from a table."""

from collections.abc import Container
from pathlib import Path

from src.apps.search.printing import Answered, say_what_is_missing
from src.base.alike import Alike
from src.base.errors import NAMED, InputError, first_ten, shown
from src.base.folders import pictures_below
from src.retrieval.gallery import Gallery
from src.retrieval.retriever import Retriever
from src.retrieval.searcher import Question, Searcher


def make_questions(
    reference: str | None,
    caption: str | None,
    without: str | None,
    caption_weight: float,
    include_reference: bool,
    table: Path | None,
) -> dict[str, Question]:
    """Return the questions of a command by their ids: those of a `table`, or the one that its options ask, if any."""
    question = Question(reference, caption or "", without or "", caption_weight, include_reference)
    if table is not None:
        return read_questions(table, question)
    return {"": question} if reference or caption else {}


def read_questions(path: Path, rules: Question) -> dict[str, Question]:
    """Read the questions of a table, by their ids or rows; `rules` is what they share.

    Raises InputError for a row that asks for nothing, and for two of one id.
    """
    from src.tasks.own.rows import read_rows  # late: most searches ask one question

    questions, places = {}, {}
    for row in read_rows(path):
        reference, caption, name = row.text("reference") or None, row.text("caption"), row.text("id") or row.place
        if reference is None and not caption:
            raise InputError(f"{path}, {row.place}: has neither a reference nor a caption")
        if row.text("caption2"):
            raise InputError(f"{path}, {row.place}: has two captions; a question has one, so give each a row")
        if name in questions:
            raise InputError(f"{path}, {row.place}: is called {shown(name)}, as {places[name]} is")
        questions[name], places[name] = rules._replace(reference=reference, caption=caption), row.place
    return questions


def require_references(questions: dict[str, Question], folder: Path, known: Container[str] = ()) -> None:
    """Raise InputError for references that are neither files, in `folder` or from here, nor `known` names."""
    wrong = {
        name: str(question.reference)
        for name, question in questions.items()
        if question.reference is not None and question.reference not in known
        if not any(path.is_file() for path in (Path(question.reference), folder / question.reference))
    }
    if wrong:
        pictures = Alike(pictures_below(folder, {}) if folder.is_dir() else ())
        described = []
        for name, reference in list(wrong.items())[:NAMED]:
            instead = pictures.instead(reference)
            named = f"{name}: {reference}" if name else f"--reference {reference}"
            described.append(f"{named} ({instead})" if instead else named)
        raise InputError(f"{first_ten([*described, *list(wrong)[NAMED:]])}: neither a file nor a picture of {folder}")


def references(questions: dict[str, Question], pictures: Path | None) -> list[Path]:
    """Return the files that the questions' references may be, from here or in the folder `pictures`."""
    named = [question.reference for question in questions.values() if question.reference is not None]
    return [folder / reference for folder in (Path(), pictures) if folder is not None for reference in named]


def ask_all(
    questions: dict[str, Question], retriever: Retriever, gallery: Gallery, k: int, min_score: float | None
) -> tuple[Answered, Searcher]:
    """Return the answers to all questions, and what found them; raises InputError for a reference that is not there."""
    require_references(questions, gallery.folder, gallery)
    searcher, each = Searcher(retriever, gallery), list(questions.values())
    say_what_is_missing(each)
    return list(zip(questions, each, searcher.ask_all(each, k, min_score), strict=True)), searcher
