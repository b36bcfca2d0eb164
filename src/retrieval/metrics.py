"""Metrics as pure functions: answers in, {name: percent} or {name: value of each query} out."""

from collections.abc import Sequence

import torch
from torch import Tensor

from src.retrieval.answers import Answers
from src.tasks.triplets import Protocol, Triplet


def of_each_query(answers: Answers, protocol: Protocol) -> dict[str, Tensor]:
    """Return what each query scores, from 0 to 1: {"group_recall_at1": [queries], …, "recall_at1": [queries]}.

    A query scores 1 where its target is among the first k. Under a soft protocol it scores the best grade among these,
    at least 0, as CIRPLANT and ARTEMIS count.
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
    return of_group | {f"recall_at{k}": scores(answers.ranks, graded and graded.ranks, k) for k in protocol.at}


def recalls(answers: Answers, protocol: Protocol) -> dict[str, float]:
    """Return the recalls of `protocol` in percent: {"group_recall_at1": …, "recall_at1": …}."""
    return {name: percent(scores) for name, scores in of_each_query(answers, protocol).items()}


def percent(scores: Tensor) -> float:
    """Return the mean of scores [queries] in percent, divided in fp32 as the published code does."""
    # A division in fp64 would differ from published recalls in the last digits.
    return scores.mean().item() * 100


def recall_at(ranks: Tensor, k: int) -> float:
    """Return the percentage of ranks (from 0) below `k`."""
    return percent((ranks < k).float())


def chance(triplets: Sequence[Triplet], pictures: int, protocol: Protocol) -> dict[str, float]:
    """Return the recalls in percent that ranking a gallery of `pictures` at random is worth."""
    # A reference that leaves the ranking is one picture less to guess among.
    others = pictures - (protocol.reference == "drop")
    members = len(triplets[0].group) - 1
    of_group = {f"group_recall_at{k}": min(100, 100 * k / members) for k in protocol.group_at}
    return of_group | {f"recall_at{k}": min(100, 100 * k / others) for k in protocol.at}
