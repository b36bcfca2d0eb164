"""Metrics as pure functions: answers in, {name: percent} out."""

from collections.abc import Sequence

from torch import Tensor

from src.retrieval.answers import Answers
from src.tasks.triplets import Protocol, Triplet


def recall_at(ranks: Tensor, k: int) -> float:
    """Return the percentage of ranks (from 0) below `k`, divided in fp32 as the published code does."""
    # A division in fp64 would differ from published recalls in the last digits.
    return (ranks < k).float().mean().item() * 100


def recalls(answers: Answers, protocol: Protocol) -> dict[str, float]:
    """Return the recalls of `protocol` in percent: {"group_recall_at1": …, "recall_at1": …}."""
    of_group = {f"group_recall_at{k}": recall_at(answers.group_ranks, k) for k in protocol.group_at}
    return of_group | {f"recall_at{k}": recall_at(answers.ranks, k) for k in protocol.at}


def chance(triplets: Sequence[Triplet], pictures: int, protocol: Protocol) -> dict[str, float]:
    """Return the recalls in percent that ranking a gallery of `pictures` at random is worth."""
    # A reference that leaves the ranking is one picture less to guess among.
    others = pictures - (protocol.reference == "drop")
    members = len(triplets[0].group) - 1
    of_group = {f"group_recall_at{k}": min(100, 100 * k / members) for k in protocol.group_at}
    return of_group | {f"recall_at{k}": min(100, 100 * k / others) for k in protocol.at}
