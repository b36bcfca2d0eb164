"""Metrics as pure functions: answers in, {name: percent} or {name: value of each query} out."""

from collections.abc import Sequence
from statistics import mean

import torch
from torch import Tensor

from src.retrieval.answers import Answers
from src.tasks.protocol import Protocol
from src.tasks.triplets import Triplet


def of_each_query(answers: Answers, protocol: Protocol) -> dict[str, Tensor]:
    """Return what each query scores, from 0 to 1: {"group_recall_at1": [queries], …, "recall_at1": [queries]}.

    A query scores 1 where its first target is among the first k. Under a soft protocol it scores the best grade among
    these, at least 0, as CIRPLANT and ARTEMIS count. "map_at5" is the average precision of all targets; the mean
    average precision of an aspect, "semantic_map_at10_addition", has a score only for the queries that bear it, and NaN
    for others.
    """
    graded = answers.graded if protocol.soft else None

    def scores(ranks, graded_ranks, k):
        if graded is None:
            return (ranks < k).float()
        best = torch.zeros(len(ranks), device=ranks.device)
        return best.scatter_reduce(0, graded.queries, graded.grades * (graded_ranks < k), "amax")

    of_group = {
        f"group_recall_at{k}": scores(answers.group_ranks, graded and graded.group_ranks, k) for k in protocol.group_at
    }
    maps = {f"map_at{k}": average_precision(answers, k) for k in protocol.map_at}
    recalls = {f"recall_at{k}": scores(answers.ranks, graded and graded.ranks, k) for k in protocol.at}
    return of_group | maps | recalls | _of_aspects(answers, protocol.aspect_map_at)


def average_precision(answers: Answers, k: int) -> Tensor:
    """Return the average precision [queries], in fp64, of all targets among the first `k`, as CIRCO's evaluator counts.

    It is the mean over min(targets, k) of the precision at each target's place, 0 for a target after the first k.
    """
    queries, ranks = answers.graded.queries, answers.graded.ranks
    order = ranks.argsort()
    order = order[queries[order].argsort(stable=True)]
    queries, ranks = queries[order], ranks[order]
    counts = queries.bincount(minlength=len(answers.triplets))
    ahead = torch.arange(len(queries), device=queries.device) - (counts.cumsum(0) - counts)[queries]
    precision = torch.where(ranks < k, (ahead + 1).double() / (ranks + 1), 0)
    sums = torch.zeros(len(counts), dtype=torch.float64, device=queries.device).index_add_(0, queries, precision)
    return sums / counts.clamp_max(k)


def _of_aspects(answers: Answers, k: int) -> dict[str, Tensor]:
    if not k:
        return {}
    scores, of_aspects = average_precision(answers, k), {}
    for aspect in aspects(answers.triplets):
        bears = torch.tensor([aspect in triplet.aspects for triplet in answers.triplets], device=scores.device)
        of_aspects[f"semantic_map_at{k}_{aspect}"] = scores.where(bears, torch.nan)
    return of_aspects


def aspects(triplets: Sequence[Triplet]) -> list[str]:
    """Return the aspects that some of `triplets` bear, in order of the alphabet."""
    return sorted({aspect for triplet in triplets for aspect in triplet.aspects})


def in_percent(answers: Answers, protocol: Protocol) -> dict[str, float]:
    """Return the metrics of `protocol` in percent: {"group_recall_at1": …, "recall_at1": …}."""
    return {name: percent(scores) for name, scores in of_each_query(answers, protocol).items()}


def percent(scores: Tensor) -> float:
    """Return the mean in percent of those of scores [queries] that are no NaN, in their own precision."""
    # Recalls are fp32, as in the published code: a division in fp64 would differ in the last digits.
    return scores[~scores.isnan()].mean().item() * 100


def chance(triplets: Sequence[Triplet], pictures: int, protocol: Protocol) -> dict[str, float]:
    """Return the metrics in percent that ranking a gallery of `pictures` at random is worth."""
    # A reference that leaves the ranking is one picture less to guess among.
    others = pictures - (protocol.reference == "drop")
    of_group = {
        f"group_recall_at{k}": mean(min(100, 100 * k / (len(triplet.group) - 1)) for triplet in triplets)
        for k in protocol.group_at
    }
    maps = {f"map_at{k}": _chance_precision(triplets, others, k) for k in protocol.map_at}
    of_aspects = {}
    if protocol.aspect_map_at:
        for aspect in aspects(triplets):
            bearing = [triplet for triplet in triplets if aspect in triplet.aspects]
            name = f"semantic_map_at{protocol.aspect_map_at}_{aspect}"
            of_aspects[name] = _chance_precision(bearing, others, protocol.aspect_map_at)
    return of_group | maps | {f"recall_at{k}": min(100, 100 * k / others) for k in protocol.at} | of_aspects


def _chance_precision(triplets: Sequence[Triplet], pictures: int, k: int) -> float:
    """Return the mean average precision in percent of a random ranking of `pictures`."""

    def expected(targets):
        # A place holds a target with the probability targets / pictures, and then each place before it another one.
        another = (targets - 1) / max(1, pictures - 1)
        at_places = [(1 + place * another) / (place + 1) for place in range(min(k, pictures))]
        return targets / pictures * sum(at_places) / min(targets, k)

    return 100 * mean(expected(len(triplet.targets)) for triplet in triplets)
