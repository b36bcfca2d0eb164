"""From references and captions to ranks: the one place that decides what a query is ranked among."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from src.base.errors import InputError
from src.retrieval.fusion import Fusion, predict
from src.retrieval.gallery import Gallery
from src.retrieval.metrics import GradedRanks, Ranks, counting, require_ranked
from src.retrieval.ranking import (
    best_candidates,
    best_rows,
    rank_in_groups,
    rank_targets,
    rank_targets_among,
    rank_targets_and_best_rows,
)
from src.tasks.protocol import Protocol
from src.tasks.triplets import Query, Triplet


class Graded(NamedTuple):
    """All pictures that count as answers, one row per (query, picture) pair: targets, or what annotators graded."""

    queries: Tensor
    """The query [graded] that each belongs to."""
    grades: Tensor
    """Its grade [graded], from -1 to 1; 1 for a target."""
    ranks: Tensor
    """Its rank [graded] in the gallery, from 0."""
    group_ranks: Tensor
    """Its rank [graded] among the other members of the query's group; UNRANKED for those outside."""


UNRANKED = torch.iinfo(torch.int64).max
"""The rank of what is not ranked: beyond every cut-off."""


class Answers(NamedTuple):
    """What a retriever answered to queries; ranks count from 0, rows are those of `gallery`."""

    triplets: Sequence[Triplet]
    """The triplet of each query."""
    gallery: Gallery
    """The pictures that were ranked, with the features that queries are compared with."""
    ranked: list[int]
    """How many of its pictures each query ranks: one fewer where the reference leaves."""
    ranks: Tensor | None
    """Rank [queries] of each first target in the gallery; None where targets are not known."""
    group_ranks: Tensor | None
    """Rank [queries] of each first target among the other members of its group; None where there are no groups."""
    best: Tensor | None
    """The first rows [queries, best], where they were asked for. Those of a smaller group end in -1."""
    group_best: Tensor | None
    """The other members of each group [queries, members - 1], best first, where the first rows were asked for.

    Shorter groups are padded with -1.
    """
    similarities: Tensor | None
    """What the first rows score [queries, best], where they were asked for."""
    graded: Graded | None = None
    """The ranks of all pictures that count, where `with_graded` added them."""

    def counted(self) -> Ranks:
        """Return the ranks in numpy, which metrics are made of."""
        graded = self.graded and GradedRanks(*(column.cpu().numpy() for column in self.graded))
        group_ranks = None if self.group_ranks is None else self.group_ranks.cpu().numpy()
        return Ranks(self.triplets, self.ranks.cpu().numpy(), group_ranks, graded)


@torch.inference_mode()
def predict_features(
    gallery: Gallery,
    references: Sequence[str],
    caption_features: Tensor,
    combining_function: Fusion,
    batch_size: int = 512,
) -> Tensor:
    """Return predicted features [factors, queries, dim]: each reference's feature combined with its caption's."""
    # From the gallery, not from the picture again: the published validation does so, and it is free.
    rows = gallery.rows(references)
    batches = zip(rows.split(batch_size), caption_features.split(batch_size), strict=True)
    predicted = [predict(combining_function, gallery.encoded(row), caption) for row, caption in batches]
    return torch.cat(predicted, dim=1).float()


def predict_queries(
    gallery: Gallery,
    queries: Sequence[Query],
    text_features: Tensor,
    combining_function: Fusion,
) -> Tensor:
    """Return predicted features [factors, queries, dim] from features [texts, dim] of all that is asked in words."""
    references = [query.triplet.reference for query in queries for _ in query.texts]
    return averaged(predict_features(gallery, references, text_features, combining_function), queries)


def averaged(predicted: Tensor, queries: Sequence[Query]) -> Tensor:
    """Return predicted features [factors, queries, dim] from those of each query's texts [factors, texts, dim].

    Those of several texts are averaged, each normalised before, and the mean is normalised again.
    """
    # A single text's features stay as they are, to the bit.
    if all(len(query.texts) == 1 for query in queries):
        return predicted
    counts = torch.tensor([len(query.texts) for query in queries], device=predicted.device)
    query = torch.arange(len(queries), device=predicted.device).repeat_interleave(counts)
    sums = predicted.new_zeros(len(predicted), len(queries), predicted.shape[2])
    return F.normalize(sums.index_add_(1, query, F.normalize(predicted, dim=-1)), dim=-1)


def answer(
    triplets: Sequence[Triplet], gallery: Gallery, predicted: Tensor, protocol: Protocol, best: int = 0
) -> Answers:
    """Rank the gallery for each triplet's predicted features [factors, queries, dim], as `protocol` counts.

    `gallery` has the features that these are compared with; the similarities of several factors are multiplied.

    `best` is how many of the first rows to give; there are fewer in a smaller gallery. Raises InputError for a name
    that is not in the gallery, and for a target that is its own reference or no member of its group.
    """
    # Features of references are of the whole gallery, so it is narrowed only now.
    gallery = gallery.ranked_by(protocol, triplets)
    targets = _target_rows(triplets, gallery, protocol)
    members = _other_members(triplets, gallery) if protocol.group_at else None

    features = gallery.features
    ranked = protocol.ranked(triplets, len(gallery))
    # A toy gallery may have fewer pictures than a server wants answers.
    best = min(best, max(ranked, default=0))
    ranks, rows, similarities = _rank(triplets, gallery, predicted, protocol, targets, best)
    group_ranks = group_best = None
    if members is not None and targets is not None:
        group_ranks = rank_targets_among(predicted, features, targets, members)
    if members is not None and best:
        group_best = best_candidates(predicted, features, members.shape[1], members)
    return Answers(triplets, gallery, ranked, ranks, group_ranks, rows, group_best, similarities)


def with_graded(answers: Answers, predicted: Tensor, protocol: Protocol) -> Answers:
    """Add the ranks of all counted pictures to `answers`, if `protocol` counts more than first targets.

    Raises InputError for a triplet without what it counts.
    """
    if not protocol.counts_all:
        return answers
    triplets, gallery = answers.triplets, answers.gallery
    queries, names, grades = zip(*counting(triplets, gallery, protocol), strict=True)
    is_first = [name == triplets[query].targets[0] for query, name in zip(queries, names, strict=True)]
    columns = queries, gallery.row_numbers(names), grades, is_first
    queries, targets, grades, is_first = (torch.tensor(column, device=answers.ranks.device) for column in columns)
    ranks, group_ranks = answers.ranks[queries], torch.full_like(queries, UNRANKED)
    if answers.group_ranks is not None:
        group_ranks[is_first] = answers.group_ranks[queries[is_first]].long()
    # First targets are already ranked; each other picture is ranked as if it were its query's target.
    others = (~is_first).nonzero().flatten()
    if len(others):
        rows, features, predicted = targets[others], gallery.features, predicted[:, queries[others]]
        repeated = [triplets[query] for query in queries[others].tolist()]
        ranks[others], _, _ = _rank(repeated, gallery, predicted, protocol, rows)
        if protocol.group_at:
            members = _other_members(repeated, gallery)
            inside = (members == rows[:, None]).any(dim=1).nonzero().flatten()
            ranked = rank_targets_among(predicted[:, inside], features, rows[inside], members[inside])
            group_ranks[others[inside]] = ranked
    answers = answers._replace(graded=Graded(queries, grades.float(), ranks, group_ranks))
    if protocol.any_target:
        best = answers.ranks.scatter_reduce(0, queries, ranks.to(answers.ranks.dtype), "amin")
        answers = answers._replace(ranks=best)
        if answers.group_ranks is not None:
            known = group_ranks.clamp_max(torch.iinfo(answers.group_ranks.dtype).max).to(answers.group_ranks.dtype)
            answers = answers._replace(group_ranks=answers.group_ranks.scatter_reduce(0, queries, known, "amin"))
    return answers


def _rank(
    triplets: Sequence[Triplet],
    gallery: Gallery,
    predicted: Tensor,
    protocol: Protocol,
    targets: Tensor | None,
    best: int = 0,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Return the ranks [queries] of `targets`, the first rows and their scores [queries, best], as far as asked for."""
    features, excluded = gallery.features, _excluded_rows(triplets, gallery, protocol)
    if protocol.gallery == "group":
        return rank_in_groups(predicted, features, _groups(triplets, gallery), targets, best, excluded)
    if targets is None:
        return (None, *best_rows(predicted, features, best, excluded)) if best else (None, None, None)
    if best:
        return rank_targets_and_best_rows(predicted, features, targets, best, excluded)
    return rank_targets(predicted, features, targets, excluded), None, None


def _groups(triplets: Sequence[Triplet], gallery: Gallery) -> list[tuple[Tensor, Tensor]]:
    """Return the queries and the rows, in the gallery's order, of each group; raises InputError for one without."""
    queries = {}
    for number, triplet in enumerate(triplets):
        if not triplet.group:
            raise InputError(f"{triplet.reference}: its triplet has no group, which the gallery group ranks")
        queries.setdefault(triplet.group, []).append(number)
    on = gallery.features.device
    return [(torch.tensor(numbers, device=on), gallery.rows(names).sort().values) for names, numbers in queries.items()]


def _excluded_rows(triplets: Sequence[Triplet], gallery: Gallery, protocol: Protocol) -> Tensor | None:
    """Return the rows [queries] of the references where these leave the ranking; raises InputError for an unknown one.

    Nothing else decides it: the score of an excluded row becomes minus infinity.
    """
    references = gallery.rows([triplet.reference for triplet in triplets])
    return references if protocol.reference == "drop" else None


def _target_rows(triplets: Sequence[Triplet], gallery: Gallery, protocol: Protocol) -> Tensor | None:
    # A test split has no targets at all; answers are still wanted.
    if not all(triplet.targets for triplet in triplets):
        return None
    require_ranked(triplets, gallery, protocol)
    return gallery.rows([triplet.targets[0] for triplet in triplets])


def _other_members(triplets: Sequence[Triplet], gallery: Gallery) -> Tensor:
    """Return the rows [queries, members - 1] of each group but for the query's own reference, padded with -1."""
    others = []
    for triplet in triplets:
        if triplet.reference not in triplet.group:
            raise InputError(f"{triplet.reference}: not a member of its own group of {len(triplet.group)}")
        # In every group's own order; ties rank by row, whatever that order.
        others.append([member for member in triplet.group if member != triplet.reference])
    # One tensor for all: thousands of small transfers to a card are slow.
    longest = max(map(len, others), default=0)
    padded = [gallery.row_numbers(members) + [-1] * (longest - len(members)) for members in others]
    return torch.tensor(padded, device=gallery.features.device)
