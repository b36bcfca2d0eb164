"""Questions and their answers in files: JSON, CSV and a page."""

import csv
import sys
from pathlib import Path

from src.apps.search.printing import Answered
from src.base.errors import with_reasons
from src.base.files import ESCAPING, replacing, write_json
from src.retrieval.searcher import Searcher


def write_answers(
    answered: Answered, searcher: Searcher, json: Path | None, csv: Path | None, page: Path | None, indent: int | None
) -> None:
    """Write the files that were asked for; `indent` is that of the JSON, which is slow with one."""
    if json:
        write_json(json, plain(answered), indent=indent)
    if csv:
        write_csv(csv, answered)
    if page:
        draw_page(page, answered, searcher)
    for path in filter(None, (json, csv, page)):
        print(f"wrote {path}", file=sys.stderr)


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
        for name, question, found in answered:
            query = name, question.reference or "", question.caption
            for rank, answer in enumerate(found, start=1):
                writer.writerow([*query, rank, f"{answer.score:.6f}", answer.name, answer.path])


def draw_page(path: Path, answered: Answered, searcher: Searcher) -> None:
    """Write a page with the pictures; those that are not at hand are named on stderr, and shown by name."""
    from src.apps.pages.kit import Album, write_page  # late: few searches want a page

    album, lost = Album(), {}
    questions = [
        {
            "reference": None if question.reference is None else album.picture(searcher.find(question.reference).path),
            "caption": question.caption or "pictures like it",
            "remark": " ".join(filter(None, [name, f"without “{question.without}”" if question.without else ""])),
            "answers": [(album.picture(answer.path), f"{answer.score:.3f} {answer.name}") for answer in found],
        }
        for name, question, found in answered
    ]
    counted = f"{len(answered):,} question{'s' * (len(answered) > 1)}"
    introduction = f"{counted} to {len(searcher.gallery):,} pictures of {searcher.gallery.folder}."
    write_page(path, "search/answers.html", album, lost, title="Search", introduction=introduction, questions=questions)
    if lost:
        print(f"{path}: {len(lost)} pictures cannot be shown: {with_reasons(lost)}", file=sys.stderr)
