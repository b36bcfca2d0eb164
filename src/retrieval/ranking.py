"""Ranking a gallery by cosine similarity, in row numbers; names come back only where an answer is written.

A rank is the number of gallery rows that score higher, plus those of equal score in an earlier row. Predicted features
are [factors, queries, dim]: the similarities of several factors are multiplied, one below zero counting as zero.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from src.base.errors import InputError, is_out_of_memory
from src.base.memory import mention

SCORES_AT_ONCE = 2**22
"""Scores held in memory at a time, unless the gallery is so large that these are fewer than QUERIES_AT_ONCE."""
QUERIES_AT_ONCE = 256
"""Queries that are scored at a time at least: a matrix product of a few reads a large gallery too often."""
ROWS_AT_ONCE = 2**12
"""Rows of a gallery normalised and compared at a time: memory may not hold it twice, and a cache holds these."""


def rank_targets(
    predicted_features: Tensor, gallery_features: Tensor, target_rows: Tensor, excluded_rows: Tensor | None = None
) -> Tensor:
    """Return the rank [queries], from 0, of each query's target in the whole gallery.

    `excluded_rows` [queries] leave the ranking.
    """
    scored = _scores(predicted_features, gallery_features, excluded_rows)
    return torch.cat([_ahead_in_gallery(scores, target_rows[queries, None]) for queries, scores in scored])


def rank_targets_and_best_rows(
    predicted_features: Tensor,
    gallery_features: Tensor,
    target_rows: Tensor,
    k: int,
    excluded_rows: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what `rank_targets` and `best_rows` give, with every score computed once."""
    found = [
        (_ahead_in_gallery(scores, target_rows[queries, None]), *best_of_piece(scores, k))
        for queries, scores in _scores(predicted_features, gallery_features, excluded_rows)
    ]
    return tuple(map(torch.cat, zip(*found, strict=True)))


def rank_targets_among(
    predicted_features: Tensor, gallery_features: Tensor, target_rows: Tensor, candidate_rows: Tensor
) -> Tensor:
    """Return the rank [queries], from 0, of each query's target among its `candidate_rows` [queries, candidates].

    A candidate row of -1 is none.
    """
    scores = _candidate_scores(predicted_features, gallery_features, candidate_rows)
    is_target = candidate_rows == target_rows[:, None]
    if not is_target.sum(dim=1).eq(1).all():
        raise ValueError("each target must be exactly one of its candidates")
    target_scores = scores[is_target][:, None]
    tied_earlier = (scores == target_scores) & (candidate_rows < target_rows[:, None])
    return ((scores > target_scores) | tied_earlier).sum(dim=1)


def best_rows(
    predicted_features: Tensor, gallery_features: Tensor, k: int, excluded_rows: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the first `k` gallery rows [queries, k] of each query, and their scores [queries, k], best first.

    Ties are in the gallery's order.
    """
    scored = _scores(predicted_features, gallery_features, excluded_rows)
    rows, best = zip(*(best_of_piece(scores, k) for _, scores in scored), strict=True)
    return torch.cat(rows), torch.cat(best)


def best_of_piece(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the columns [queries, k] of the `k` highest of `scores` [queries, images], and these, best first.

    Ties are in the columns' order.
    """
    rows = _first(scores, k)
    return rows, scores.gather(1, rows)


def best_candidates(predicted_features: Tensor, gallery_features: Tensor, k: int, candidate_rows: Tensor) -> Tensor:
    """Return the first `k` of each query's `candidate_rows` [queries, candidates], ties in the gallery's order.

    A candidate row of -1 is none, and comes last.
    """
    candidate_rows = candidate_rows.sort(dim=1).values
    scores = _candidate_scores(predicted_features, gallery_features, candidate_rows)
    return candidate_rows.gather(1, scores.argsort(dim=1, descending=True, stable=True)[:, :k])


def _scores(predicted_features, gallery_features, excluded_rows) -> Iterator[tuple[slice, Tensor]]:
    """Yield (slice of queries, their cosine similarities [queries, images]), the excluded rows at minus infinity.

    Always in fp32, whatever the autocast around it: half precision ties scores that differ.
    """
    factors = normalised_factors(predicted_features)
    predicted_features = factors[0]
    images = len(gallery_features)
    lengths = torch.cat([lengths_of(gallery_features[rows]) for rows in _pieces(images)])
    step = max(QUERIES_AT_ONCE, SCORES_AT_ONCE // images)
    step, memory = _memory_for(min(step, len(predicted_features)), predicted_features, images)
    for start in range(0, len(predicted_features), step):
        queries = slice(start, start + step)
        scores = memory[: len(predicted_features[queries])]
        for rows in _pieces(images):
            piece = gallery_features[rows] / lengths[rows]
            # With `out`, autocast leaves a product alone.
            torch.mm(predicted_features[queries], piece.T, out=scores[:, rows])
            for other in factors[1:]:
                similarities = torch.mm(other[queries], piece.T, out=torch.empty_like(scores[:, rows]))
                scores[:, rows].clamp_min_(0).mul_(similarities.clamp_min_(0))
        if excluded_rows is not None:
            scores.scatter_(1, excluded_rows[queries, None], -torch.inf)
        yield queries, scores


def _memory_for(step: int, predicted_features: Tensor, images: int) -> tuple[int, Tensor]:
    """Return memory [step, images] for scores, of fewer queries than `step` where it is short."""
    fitting = step
    while True:
        try:
            memory = predicted_features.new_empty(fitting, images)
            break
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error) or fitting == 1:
                raise
        fitting //= 2
    if fitting < step:
        mention("scores", f"the memory is full with the scores of {step} queries: {fitting} are ranked at once")
    return fitting, memory


def _pieces(images: int) -> list[slice]:
    return [slice(start, start + ROWS_AT_ONCE) for start in range(0, images, ROWS_AT_ONCE)]


def _candidate_scores(predicted_features, gallery_features, candidate_rows) -> Tensor:
    # A sum of products, since autocast would round a matrix product.
    distinct, places = candidate_rows.unique(return_inverse=True)  # most are a candidate of several queries
    candidates = _normalised(gallery_features[distinct])[places]
    scores, *others = [(factor[:, None] * candidates).sum(dim=-1) for factor in normalised_factors(predicted_features)]
    for other in others:
        scores = scores.clamp_min(0) * other.clamp_min(0)
    return scores.masked_fill_(candidate_rows < 0, -torch.inf)


def normalised_factors(predicted_features: Tensor) -> list[Tensor]:
    """Return each factor [queries, dim] of predicted features in fp32, normalised; raises InputError for a NaN."""
    return [_normalised(factor) for factor in predicted_features]


def _ahead_in_gallery(scores, target_rows) -> Tensor:
    """Count how many of `scores` [queries, images] are ahead of the score at each of `target_rows` [queries, 1]."""
    target_scores = scores.gather(1, target_rows)
    ahead, tied = torch.zeros(2, len(scores), dtype=torch.int32, device=scores.device)
    for rows in _pieces(scores.shape[1]):
        ahead += (scores[:, rows] > target_scores).sum(dim=1, dtype=torch.int32)
        tied += (scores[:, rows] == target_scores).sum(dim=1, dtype=torch.int32)
    # Ties are rare. Comparing row numbers for every score would double the time.
    rivals = (tied > 1).nonzero().flatten()  # one is the target itself
    for query, target in zip(rivals.tolist(), target_rows[rivals, 0].tolist(), strict=True):
        ahead[query] += (scores[query, :target] == target_scores[query]).sum()
    return ahead


def _first(scores, k) -> Tensor:
    """Return the columns [queries, k] of the `k` highest of `scores` [queries, images], ties in the columns' order.

    topk breaks ties as it likes. Where the k-th score has a rival behind it, all that reach it are sorted stably.
    """
    values, columns = scores.topk(min(k + 1, scores.shape[1]), dim=1)
    lowest = values[:, k - 1 : k]
    if not (values[:, k:] == lowest).any():
        columns = columns[:, :k].sort(dim=1).values
        return columns.gather(1, scores.gather(1, columns).argsort(dim=1, descending=True, stable=True))
    rows, columns = (scores >= lowest).nonzero(as_tuple=True)  # in the columns' order, more than k where the last ties
    by_score = scores[rows, columns].argsort(descending=True, stable=True)
    by_query = by_score[rows[by_score].argsort(stable=True)]
    counts = rows.bincount(minlength=len(scores))
    begins = counts.cumsum(0) - counts
    return columns[by_query][begins[:, None] + torch.arange(k, device=scores.device)]


def _normalised(features) -> Tensor:
    features = features.float()
    return features / lengths_of(features)


def lengths_of(features: Tensor) -> Tensor:
    """Return the Euclidean length [features, 1] of each feature, at least 1e-12 as in torch's normalize."""
    # Every comparison with a NaN is false, which would put the target first.
    if not features.isfinite().all():
        raise InputError("the features are not finite, so nothing can be ranked: the weights that made them are broken")
    return features.float().norm(dim=-1, keepdim=True).clamp_min(1e-12)
