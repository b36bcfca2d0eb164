"""Candidates for re-ranking: for each query what it asks and its first answers, a JSON object a line."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from src.base.files import replacing
from src.evaluation.judged import Judged
from src.evaluation.trec import named_for, topics_of
from src.tasks.protocol import Protocol
from src.tasks.triplets import Split

CANDIDATES = 50
"""How many answers of each query are candidates."""


def candidate_files(path: Path, protocol: Protocol, protocols: Sequence[Protocol]) -> list[Path]:
    """Return the file of a protocol's candidates."""
    return [named_for(path, protocol, protocols)]


def write_candidates(path: Path, all_judged: Sequence[Judged], splits: Mapping[str, Split]) -> None:
    """Write the first answers of each protocol's queries, with pictures of `splits` {category: split}."""
    protocols = [judged.protocol for judged in all_judged]
    for judged in all_judged:
        write_lines(named_for(path, judged.protocol, protocols), _lines(judged, splits))


def write_lines(path: Path, lines: Iterable[dict]) -> None:
    """Write an object a line."""
    with replacing(path) as unfinished, unfinished.open("w", encoding="ascii") as file:
        file.writelines(f"{json.dumps(line)}\n" for line in lines)


def _lines(judged: Judged, splits: Mapping[str, Split]) -> Iterator[dict]:
    queries = {name: category.queries for name, category in judged.categories.items()}
    for name, topics in topics_of(queries).items():
        category, pictures = judged.categories[name], splits[name].pictures
        paths = {name: str(path) for name, path in pictures.items()}
        scores = category.similarities[:, :CANDIDATES].tolist()
        for number, (topic, query) in enumerate(zip(topics, category.queries, strict=True)):
            best = category.best[number][:CANDIDATES]
            line = {
                "query": topic,
                "reference": {"name": query.triplet.reference, "path": paths[query.triplet.reference]},
                "texts": list(query.texts),
                "candidates": [
                    {"name": answer, "path": paths[answer], "score": score}
                    for answer, score in zip(best, scores[number], strict=False)
                ],
            }
            if category.group_best is not None:
                line["group"] = [{"name": member, "path": paths[member]} for member in category.group_best[number]]
            yield line
