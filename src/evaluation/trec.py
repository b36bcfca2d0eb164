"""Runs and judgements in the form of TREC, which trec_eval, ir_measures and ranx read."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import count, repeat
from pathlib import Path
from urllib.parse import quote

import numpy as np

from src.base.files import replacing
from src.evaluation.judged import Judged, JudgedCategory
from src.tasks.annotations import HALF_PAIRS
from src.tasks.protocol import Protocol
from src.tasks.triplets import Query

SYSTEM = "clip4cir"


def write_trec(path: Path, all_judged: list[Judged]) -> list[Path]:
    """Write a run, its judgements and a run of the groups for each protocol, to `trec_files`; return their paths."""
    written = []
    protocols = [judged.protocol for judged in all_judged]
    for judged in all_judged:
        lines = _run(judged), _judgements(judged), _group_run(judged)
        paths = trec_files(path, judged.protocol, protocols)
        written += [_write(*file) for file in zip(paths, lines, strict=False)]
    return written


def trec_files(path: Path, protocol: Protocol, protocols: Sequence[Protocol]) -> list[Path]:
    """Return the files of a protocol's run, its judgements (suffix .qrels) and its run of the groups, if any.

    Several protocols put their names before the suffix, and a ranking of the groups has ".group" there.
    """
    run = named_for(path, protocol, protocols)
    groups = [run.with_name(f"{run.stem}.group{run.suffix}")] if protocol.group_at else []
    return [run, run.with_suffix(".qrels"), *groups]


def named_for(path: Path, protocol: Protocol, protocols: Sequence[Protocol]) -> Path:
    """Return the file of a protocol: one of several puts its name before the suffix."""
    middle = f".{protocol.name}" if len(protocols) > 1 else ""
    return path.with_name(f"{path.stem}{middle}{path.suffix}")


def _write(path: Path, lines: Iterator[str]) -> Path:
    with replacing(path) as unfinished:
        unfinished.write_text("".join(lines), encoding="utf-8")
    return path


LINE = f"%s Q0 %s %d %.9f {SYSTEM}\n"


def _run(judged: Judged) -> Iterator[str]:
    for topics, category in _categories(judged):
        # Readers sort by score and break ties as they like, so no two may be equal: each place costs a billionth.
        places = np.arange(category.similarities.shape[1])
        falling = np.minimum.accumulate(category.similarities.astype(np.float64), axis=1) - 1e-9 * places
        words = {name: word_of(name) for name in category.gallery}
        for topic, names, scores in zip(topics, category.best, falling.tolist(), strict=True):
            yield _ranking(topic, names, scores, words)


def _group_run(judged: Judged) -> Iterator[str]:
    for topics, category in _categories(judged):
        words = {name: word_of(name) for name in category.gallery}
        for topic, names in zip(topics, category.group_best, strict=True):
            yield _ranking(topic, names, [1 / (1 + place) for place in range(len(names))], words)


def _ranking(topic: str, names: list[str], scores: list[float], words: dict[str, str]) -> str:
    # Two hundred thousand lines: a loop of our own would take twice as long.
    return "".join(map(LINE.__mod__, zip(repeat(topic), map(words.__getitem__, names), count(1), scores)))


def _judgements(judged: Judged) -> Iterator[str]:
    for topics, category in _categories(judged):
        for topic, query in zip(topics, category.queries, strict=True):
            for name in query.triplet.targets:
                yield f"{topic} 0 {word_of(name)} 1\n"


def _categories(judged: Judged) -> Iterator[tuple[list[str], JudgedCategory]]:
    """Yield the topics and answers of each category."""
    topics = topics_of({name: category.queries for name, category in judged.categories.items()})
    return zip(topics.values(), judged.categories.values(), strict=True)


def topics_of(queries: Mapping[str, Sequence[Query]]) -> dict[str, list[str]]:
    """Return {category: what each of its queries is called}, with the category's name where there are several."""

    def prefix(category):
        # Its own dashes are escaped, so that "a-b" of "c" and "a" of "b-c" stay two.
        return f"{word_of(category).replace('-', '%2D')}-" if len(queries) > 1 else ""

    return {category: [prefix(category) + word_of(query.id) for query in of] for category, of in queries.items()}


def word_of(name: str) -> str:
    """Return a name without blanks, which separate the columns, and in UTF-8."""
    if any(map(str.isspace, name)) or "%" in name or HALF_PAIRS.search(name):
        return quote(name, safe="/:+,()[]&=@!$';~", errors="surrogateescape")
    return name
