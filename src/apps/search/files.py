"""Questions and their answers in files: JSON, CSV and a page."""

import csv
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from src.apps.search.printing import Answered
from src.base.errors import with_reasons
from src.base.files import ESCAPING, replacing, write_json
from src.evaluation.candidates import write_lines
from src.retrieval.searcher import Searcher

KINDS = "json", "csv", "page", "candidates"
"""Options that name a file of the answers."""


def write_answers(answered: Answered, searcher: Searcher, files: Mapping[str, Path | None], indent: int | None) -> None:
    """Write the `files` {kind: path} that were asked for; `indent` is that of the JSON, which is slow with one."""
    json, csv, page, candidates = (files[name] for name in KINDS)
    if json:
        write_json(json, plain(answered), indent=indent)
    if csv:
        write_csv(csv, answered)
    if page:
        draw_page(page, answered, searcher)
    if candidates:
        write_lines(candidates, candidate_lines(answered, searcher))
    for path in filter(None, (json, csv, page, candidates)):
        print(f"wrote {path}", file=sys.stderr)


def candidate_lines(answered: Answered, searcher: Searcher) -> Iterator[dict]:
    """Yield what re-ranks a question: its picture, its caption and its answers."""
    for name, question, found in answered:
        reference = None if question.reference is None else searcher.find(question.reference)
        yield {
            "query": name,
            "reference": reference and {"name": reference.name or str(question.reference), "path": str(reference.path)},
            "texts": [question.caption] if question.caption else [],
            "without": question.without,
            "candidates": [{"name": answer.name, "path": str(answer.path), "score": answer.score} for answer in found],
        }


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
