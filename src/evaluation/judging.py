"""Judging a retriever and its baselines, query by query."""

import hashlib
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from src.command.combining import CombiningFunction
from src.evaluation.judged import Judged, JudgedCategory
from src.evaluation.validation import Validation, in_percent
from src.retrieval.answers import Answers, answer, with_graded
from src.retrieval.fusion import Fusion
from src.retrieval.metrics import chance, of_each_query
from src.tasks.protocol import Protocol

BEST = 50
"""How many answers of each query are named at least."""


def judge(validation: Validation, protocol: Protocol, functions: Sequence[CombiningFunction], name: str) -> Judged:
    """Judge a retriever and its baselines, all `functions` that need no training, under one protocol.

    `functions` is the table of combining functions; `name` is what it calls the retriever's.
    """
    rungs = validation.task.rungs
    ladder = {
        function.name: function.function
        for function in functions
        if not function.is_network and (function.is_usual or function.name in rungs)
    }
    ladder[name] = validation.retriever.combining_function
    categories = {category: _judge(validation, category, protocol, ladder, name) for category in validation.splits}
    split = next(iter(validation.splits.values())).name
    return Judged(validation.task, split, protocol, name, categories, _chance(validation, protocol), functions)


def _chance(validation: Validation, protocol: Protocol) -> dict[str, float]:
    """Return the metrics that ranking at random is worth."""
    values = {}
    for category, split in validation.splits.items():
        gallery = validation.gallery(category).ranked_by(protocol, split.triplets)
        values[category] = chance(split.triplets, len(gallery.names), protocol)
    return validation.task.columns(values)


def _judge(
    validation: Validation, category: str, protocol: Protocol, ladder: dict[str, Fusion], name: str
) -> JudgedCategory:
    scores, solved = {}, {}
    for rung, function in ladder.items():
        ranked = _answer(validation, category, protocol, rung, function, BEST if rung == name else 0)
        counted = ranked.counted()
        scores[rung] = of_each_query(counted, protocol)
        solved[rung] = counted.ranks < protocol.at[0]
        if rung == name:
            answers, ranks = ranked, counted
    names = answers.gallery.names
    return JudgedCategory(
        validation.queries(category, protocol),
        gallery=names,
        ranked=answers.ranked,
        recalls=in_percent(scores[name]),
        scores=scores,
        ranks=ranks.ranks,
        group_ranks=ranks.group_ranks,
        solved=solved,
        best=_named(answers.best, names),
        similarities=answers.similarities.cpu().numpy(),
        group_best=None if answers.group_best is None else _named(answers.group_best, names),
        features=hashlib.sha256(np.ascontiguousarray(answers.gallery.features.cpu().numpy()).data).hexdigest(),
    )


def _answer(
    validation: Validation, category: str, protocol: Protocol, rung: str, function: Fusion, best: int
) -> Answers:
    """Rank for one rung of the ladder; protocols that only score otherwise share the ranking."""
    triplets = [query.triplet for query in validation.queries(category, protocol)]
    predicted = validation.once(
        ("predicted", category, protocol.captions, rung), lambda: validation.predicted(category, protocol, function)
    )
    answers = validation.once(
        ("answers", category, protocol._replace(name="", soft=False), rung),
        lambda: answer(triplets, validation.gallery(category).compared_by(function), predicted, protocol, best),
    )
    return with_graded(answers, predicted, protocol)


def _named(rows: Tensor, names: list[str]) -> list[list[str]]:
    # Smaller groups are padded with -1.
    return [[names[row] for row in of_query if row >= 0] for of_query in rows.tolist()]
