"""Metrics as pure functions of ranks, in numpy: {name: value of each query} or {name: percent} out."""

from collections.abc import Collection, Container, Sequence
from functools import cache
from itertools import compress
from statistics import mean
from typing import NamedTuple

import numpy as np

from src.base.errors import InputError
from src.tasks.protocol import Protocol
from src.tasks.triplets import Triplet

MORE_TARGETS = 1e-5
"""What i-CIR's evaluator adds to a number of targets before it divides by it: a perfect precision of one is 0.99999."""


class GradedRanks(NamedTuple):
    """All pictures that count as answers, one row per (query, picture) pair: targets, or what annotators graded."""

    queries: np.ndarray
    """The query [graded] that each belongs to."""
    grades: np.ndarray
    """Its grade [graded] in fp32, from -1 to 1; 1 for a target."""
    ranks: np.ndarray
    """Its rank [graded] in the gallery, from 0; beyond every cut-off where it is not ranked."""
    group_ranks: np.ndarray
    """Its rank [graded] among the other members of the query's group, likewise."""


class Ranks(NamedTuple):
    """Where the answers to queries rank, from 0."""

    triplets: Sequence[Triplet]
    """The triplet of each query."""
    ranks: np.ndarray
    """Rank [queries] of each first target in the gallery."""
    group_ranks: np.ndarray | None
    """Rank [queries] of each first target among the other members of its group; None where there are no groups."""
    graded: GradedRanks | None
    """The ranks of all pictures that count, where more than first targets do."""


def require_ranked(triplets: Sequence[Triplet], gallery: Collection[str], protocol: Protocol) -> None:
    """Raise InputError for a triplet whose first target no ranking of `gallery` has, and that may not be lost."""
    for triplet in triplets:
        if protocol.loses(triplet) and not triplet.may_be_lost:
            raise InputError(f"{triplet.reference}: the target is its own reference, which leaves the ranking")
        target = triplet.targets[0]
        if (protocol.group_at or protocol.gallery == "group") and target not in triplet.group:
            raise InputError(f"{target}: the target of {triplet.reference} is not a member of its group")
        if target not in gallery:
            raise InputError(f"{target}: not among the {len(gallery)} pictures of the gallery")


def counting(triplets: Sequence[Triplet], gallery: Container[str], protocol: Protocol) -> list[tuple[int, str, float]]:
    """Return (query, name, grade) of each picture that counts as an answer under a protocol.

    Raises InputError for a triplet without what a soft one counts by.
    """
    if not protocol.soft:
        return [(query, name, 1.0) for query, triplet in enumerate(triplets) for name in triplet.targets]
    lacking = [triplet.reference for triplet in triplets if not triplet.graded]
    if lacking:
        raise InputError(f"{lacking[0]}: its triplet has no target_soft, which the protocol soft counts by")
    return [
        (query, name, grade)
        for query, triplet in enumerate(triplets)
        for name, grade in triplet.graded
        # Annotators may grade the reference itself, which leaves the ranking.
        if name in (triplet.group if protocol.gallery == "group" else gallery)
        and (protocol.reference == "keep" or name != triplet.reference)
    ]


def of_each_query(ranked: Ranks, protocol: Protocol) -> dict[str, np.ndarray]:
    """Return what each query scores, from 0 to 1: {"group_recall_at1": [queries], …, "recall_at1": [queries]}.

    A query scores 1 where its first target is among the first k. Under a soft protocol it scores the best grade among
    these, at least 0, as CIRPLANT and ARTEMIS count. "map_at5" is the average precision of all targets; the mean
    average precision of an aspect, "semantic_map_at10_addition", has a score only for the queries that bear it, and NaN
    for others. "map" is the average precision of the whole ranking, by the trapezoid; `of_groups` says what "mmap" and
    "minmap" are.
    """
    graded = ranked.graded if protocol.soft else None
    # A gallery may have fewer than k pictures, of which what leaves it is the last.
    are_lost = np.array([*map(protocol.loses, ranked.triplets)], dtype=bool)

    def scores(ranks, graded_ranks, k):
        if graded is None:
            return ((ranks < k) & ~are_lost).astype(np.float32)
        best = np.zeros(len(ranks), dtype=np.float32)
        np.maximum.at(best, graded.queries, graded.grades * (graded_ranks < k))
        return best

    of_group = {
        f"group_recall_at{k}": scores(ranked.group_ranks, graded and graded.group_ranks, k) for k in protocol.group_at
    }
    maps = {f"map_at{k}": average_precision(ranked, k) for k in protocol.map_at}
    if protocol.by_trapezoid:
        whole = whole_precision(ranked)
        maps = {"map": whole, **of_groups(whole, ranked.triplets), **maps}
    recalls = {f"recall_at{k}": scores(ranked.ranks, graded and graded.ranks, k) for k in protocol.at}
    return of_group | maps | recalls | _of_aspects(ranked, protocol.aspect_map_at)


def average_precision(ranked: Ranks, k: int) -> np.ndarray:
    """Return the average precision [queries], in fp64, of all targets among the first `k`, as CIRCO's evaluator counts.

    It is the mean over min(targets, k) of the precision at each target's place, 0 for a target after the first k.
    """
    queries, ranks, ahead, counts = _best_first(ranked)
    precision = np.where(ranks < k, (ahead + 1) / (ranks + 1.0), 0)
    return np.bincount(queries, precision, len(counts)) / np.minimum(counts, k)


def whole_precision(ranked: Ranks) -> np.ndarray:
    """Return the average precision [queries], in fp64, of all targets in the whole ranking, as i-CIR's program counts.

    At the place of each target it takes the mean of the precision before that place and at it (the trapezoid, as for
    Oxford and Paris Buildings), and divides their sum by the number of targets plus 1e-5.
    """
    queries, ranks, ahead, counts = _best_first(ranked)
    before = np.where(ranks == 0, 1, ahead / np.maximum(ranks, 1))
    at = (ahead + 1) / (ranks + 1.0)
    return np.bincount(queries, (before + at) / 2, len(counts)) / (counts + MORE_TARGETS)


def _best_first(ranked: Ranks) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the query, the rank and the number of better ranked ones of each picture that counts, and their counts.

    Those of a query are together, best first.
    """
    queries, ranks = ranked.graded.queries, ranked.graded.ranks
    order = np.lexsort((ranks, queries))
    queries, ranks = queries[order], ranks[order]
    counts = np.bincount(queries, minlength=len(ranked.triplets))
    return queries, ranks, np.arange(len(queries)) - (counts.cumsum() - counts)[queries], counts


def of_groups(scores: np.ndarray, triplets: Sequence[Triplet]) -> dict[str, np.ndarray]:
    """Return the mean, "mmap", and the lowest, "minmap", of `scores` [queries] over the queries of each group.

    They stand at the group's first query; NaN at others, so that a mean over queries is one over groups.
    """
    numbers = {}
    group = np.array([numbers.setdefault(triplet.group, len(numbers)) for triplet in triplets], dtype=np.int64)
    _, first = np.unique(group, return_index=True)
    means, lowest = np.full((2, len(scores)), np.nan)
    means[first] = np.bincount(group, scores) / np.bincount(group)
    lowest[first] = [scores[group == number].min() for number in range(len(first))]
    return {"mmap": means, "minmap": lowest}


def _of_aspects(ranked: Ranks, k: int) -> dict[str, np.ndarray]:
    if not k:
        return {}
    scores, of_aspects = average_precision(ranked, k), {}
    for aspect in aspects(ranked.triplets):
        bears = np.array([aspect in triplet.aspects for triplet in ranked.triplets])
        of_aspects[f"semantic_map_at{k}_{aspect}"] = np.where(bears, scores, np.nan)
    return of_aspects


def aspects(triplets: Sequence[Triplet]) -> list[str]:
    """Return the aspects that some of `triplets` bear, in order of the alphabet."""
    return sorted({aspect for triplet in triplets for aspect in triplet.aspects})


def chance(triplets: Sequence[Triplet], pictures: int, protocol: Protocol) -> dict[str, float]:
    """Return the metrics in percent that ranking a gallery of `pictures` at random is worth."""
    # A reference that leaves the ranking is one picture less to guess among.
    others = protocol.ranked(triplets, pictures)
    of_group = {
        f"group_recall_at{k}": mean(min(100, 100 * k / (len(triplet.group) - 1)) for triplet in triplets)
        for k in protocol.group_at
    }
    maps = {f"map_at{k}": _chance_precision(triplets, others, k) for k in protocol.map_at}
    if protocol.by_trapezoid:
        maps = {**_chance_of_whole(triplets, others), **maps}
    recalls = {f"recall_at{k}": mean(min(100, 100 * k / size) for size in others) for k in protocol.at}
    of_aspects = {}
    if protocol.aspect_map_at:
        for aspect in aspects(triplets):
            bears = [aspect in triplet.aspects for triplet in triplets]
            bearing, sizes = ([*compress(values, bears)] for values in (triplets, others))
            name = f"semantic_map_at{protocol.aspect_map_at}_{aspect}"
            of_aspects[name] = _chance_precision(bearing, sizes, protocol.aspect_map_at)
    return of_group | maps | recalls | of_aspects


def _chance_of_whole(triplets: Sequence[Triplet], sizes: Sequence[int]) -> dict[str, float]:
    """Return what of "map" and "mmap" a random ranking is worth; of "minmap" that is not known in a closed form."""

    def expected(targets, pictures):
        # A place holds a target with the probability targets / pictures, and then each place before it another one.
        another = (targets - 1) / max(1, pictures - 1)
        harmonic = (1 / np.arange(1, pictures + 1)).sum()
        before, at = 1 + (pictures - 1) * another, harmonic + another * (pictures - harmonic)
        return targets / pictures * (before + at) / 2 / (targets + MORE_TARGETS)

    values = np.array([expected(len(one.targets), size) for one, size in zip(triplets, sizes, strict=True)])
    scores = {"map": values, "mmap": of_groups(values, triplets)["mmap"]}
    return {name: 100 * float(np.nanmean(of)) for name, of in scores.items()}


def _chance_precision(triplets: Sequence[Triplet], sizes: Sequence[int], k: int) -> float:
    """Return the mean average precision in percent of a random ranking of as many pictures as `sizes` [queries] say."""

    @cache
    def expected(targets, pictures):
        # A place holds a target with the probability targets / pictures, and then each place before it another one.
        another = (targets - 1) / max(1, pictures - 1)
        at_places = [(1 + place * another) / (place + 1) for place in range(min(k, pictures))]
        return targets / pictures * sum(at_places) / min(targets, k)

    return 100 * mean(expected(len(one.targets), size) for one, size in zip(triplets, sizes, strict=True))
