"""Ranking a gallery by cosine similarity, in row numbers; names come back only where an answer is written.

A rank is the number of gallery rows that score higher, plus those of equal score in an earlier row. Predicted features
are [factors, queries, dim]: the similarities of several factors are multiplied, one below zero counting as zero.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
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
FEW = 16
"""Queries up to which reading the gallery is most of the work."""
Rows = Callable[[slice], Tensor]
"""Gives rows of a gallery [rows, dim] in fp32, normalised: a piece of it at a time."""


# ---- readers of scores ----


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
    scored = _scores(predicted_features, gallery_features, excluded_rows)
    return _concatenated(
        (_ahead_in_gallery(scores, target_rows[queries, None]), *_best(scores, k)) for queries, scores in scored
    )


def rank_in_groups(
    predicted_features: Tensor,
    gallery_features: Tensor,
    groups: Iterable[tuple[Tensor, Tensor]],
    target_rows: Tensor | None,
    k: int,
    excluded_rows: Tensor | None = None,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Return what `rank_targets_and_best_rows` gives where each query ranks only the rows of its group.

    `groups` are (queries, rows), rows ascending, and together have each query once: those of a group are scored at
    once. Without `target_rows` no rank is given, with a `k` of 0 no row. Rows of a smaller group end in -1.
    """
    queries, on = predicted_features.shape[1], gallery_features.device
    ranks = None if target_rows is None else torch.empty(queries, dtype=torch.int32, device=on)
    best = torch.full((queries, k), -1, device=on) if k else None
    similarities = torch.full((queries, k), -torch.inf, device=on) if k else None
    for of_group, rows in groups:
        features, predicted = gallery_features[rows], predicted_features[:, of_group]
        excluded = None if excluded_rows is None else _columns_of(rows, excluded_rows[of_group])
        for part, scores in _scores(predicted, features, excluded):
            numbers = of_group[part]
            if target_rows is not None:
                columns = _columns_of(rows, target_rows[numbers])
                if (columns < 0).any():
                    raise ValueError("each target must be in its query's group")
                ranks[numbers] = _ahead_in_gallery(scores, columns[:, None])
            if k:
                columns, found = _best(scores, min(k, len(rows)))
                best[numbers, : columns.shape[1]] = rows[columns].masked_fill(found == -torch.inf, -1)
                similarities[numbers, : columns.shape[1]] = found
    return ranks, best, similarities


def _columns_of(rows: Tensor, wanted: Tensor) -> Tensor:
    """Return the place of each `wanted` row among ascending `rows`, -1 where it is not there."""
    places = torch.searchsorted(rows, wanted).clamp_max(len(rows) - 1)
    return places.masked_fill(rows[places] != wanted, -1)


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
    return _concatenated(_best(scores, k) for _, scores in scored)


def nearest(
    predicted_features: Tensor,
    unit: Rows,
    images: int,
    k: int,
    excluded_rows: Tensor | None = None,
    exponents: Sequence[float] = (),
    piece: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Return what `best_rows` gives, of a gallery of any size: the scores of a part of it are in memory at a time.

    `excluded_rows` [queries, rows] are several of a query, filled up with -1. `piece` is how many rows `unit` is asked
    for at a time, ROWS_AT_ONCE where it has to compute them.
    """
    factors = normalised_factors(predicted_features)
    queries, k = len(factors[0]), min(k, images)
    if k == 0:
        nothing = factors[0].new_empty(queries, 0)
        return nothing.long(), nothing
    # Whole multiples: products with a row length of, say, 16,777 took half as long again as with 16,384.
    width = ROWS_AT_ONCE * max(1, SCORES_AT_ONCE // (ROWS_AT_ONCE * max(1, queries)))
    multiply = _multiply_few if queries <= FEW else _multiply
    found = []
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # it starts no thread before it has work
        if queries == 1 and factors[0].device.type == "cpu":
            multiply = partial(_multiply_one, pool)
        for _, rows, scores in _blocks(factors, unit, images, excluded_rows, exponents, width, piece, multiply):
            columns, best = _best(scores, min(k, scores.shape[1]))
            columns = columns + rows.start
            if rows.start > 0:
                # Earlier rows come first, so that a stable sort leaves ties in the gallery's order.
                columns, best = (torch.cat(both, dim=1) for both in zip(found.pop(), (columns, best), strict=True))
                order = best.argsort(dim=1, descending=True, stable=True)[:, :k]
                columns, best = columns.gather(1, order), best.gather(1, order)
            found.append((columns, best))
    return _concatenated(found)


def _concatenated(found: Iterable[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """Concatenate what was found for each slice of queries, part by part."""
    return tuple(torch.cat(part) for part in zip(*found, strict=True))


def _best(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
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


# ---- the scorer ----


def _scores(predicted_features, gallery_features, excluded_rows) -> Iterator[tuple[slice, Tensor]]:
    """Yield (slice of queries, their scores [queries, images]) of a whole gallery [images, dim].

    `excluded_rows` [queries] score minus infinity.
    """
    images = len(gallery_features)
    lengths = torch.cat([lengths_of(gallery_features[rows]) for rows in pieces(images, ROWS_AT_ONCE)])
    excluded_rows = None if excluded_rows is None else excluded_rows[:, None]
    factors = normalised_factors(predicted_features)
    blocks = _blocks(factors, lambda rows: gallery_features[rows] / lengths[rows], images, excluded_rows)
    return ((queries, scores) for queries, _, scores in blocks)


def _multiply(queries: Tensor, unit: Tensor, out: Tensor) -> None:
    """Write the products of `queries` [queries, dim] with `unit` [rows, dim] to `out` [queries, rows]."""
    # With `out`, autocast leaves a product alone.
    torch.mm(queries, unit.T, out=out)


def _multiply_one(pool: ThreadPoolExecutor, query: Tensor, unit: Tensor, out: Tensor) -> None:
    """Do what `_multiply` does, for one query on the processor, in as many parts as torch has threads."""
    # A plain loop multiplies as fast as memory is read. A library's product of one query took as long on an Intel Xeon
    # and five times as long on an AMD EPYC; of the query twice, with the features on the left, 2.2 and 1.6 times.
    rows, numbers, scores = unit.numpy(), query[0].numpy(), out[0].numpy()
    parts = pieces(len(rows), -(-len(rows) // torch.get_num_threads()))
    list(pool.map(lambda part: np.einsum("ij,j->i", rows[part], numbers, out=scores[part]), parts))


def _multiply_few(queries: Tensor, unit: Tensor, out: Tensor) -> None:
    """Do what `_multiply` does, for a few queries."""
    # On an AMD EPYC the libraries that multiply came nearest to the time of reading with the features on the left. On
    # an Intel Xeon that took twice as long as `_multiply`.
    out.copy_(torch.mm(unit, queries.T, out=unit.new_empty(len(unit), len(queries))).T)


def _blocks(
    factors: list[Tensor],
    unit: Rows,
    images: int,
    excluded_rows: Tensor | None = None,
    exponents: Sequence[float] = (),
    width: int | None = None,
    piece: int | None = None,
    multiply: Callable[[Tensor, Tensor, Tensor], None] = _multiply,
) -> Iterator[tuple[slice, slice, Tensor]]:
    """Yield (queries, rows, scores [queries, rows]) for all queries and rows, in memory that the next block takes over.

    `factors` [queries, dim] are normalised. `width` is how many rows a block has, None for all of them. Always in fp32,
    whatever the autocast around it: half precision ties scores that differ.
    """
    queries, width = len(factors[0]), min(images, width or images)
    step = max(QUERIES_AT_ONCE, SCORES_AT_ONCE // max(1, width))
    step, memory = _memory_for(min(step, queries), factors[0], width)
    for chosen in pieces(queries, step):
        for rows in pieces(images, width):
            scores = memory[: chosen.stop - chosen.start, : rows.stop - rows.start]
            for part in pieces(rows.stop - rows.start, piece or ROWS_AT_ONCE):
                unit_rows, out = unit(slice(rows.start + part.start, rows.start + part.stop)), scores[:, part]
                outs = [out, *(torch.empty_like(out) for _ in factors[1:])]
                for factor, similarities in zip(factors, outs, strict=True):
                    multiply(factor[chosen], unit_rows, similarities)
                _multiplied(outs, exponents)
            if excluded_rows is not None:
                _exclude(scores, excluded_rows[chosen] - rows.start)
            yield chosen, rows, scores


def _multiplied(similarities: list[Tensor], exponents: Sequence[float] = ()) -> Tensor:
    """Return the product of several similarities, in the place of the first: their powers, one below zero as zero."""
    first, *others = similarities
    if others:
        for factor, exponent in zip(similarities, exponents or [1] * len(similarities), strict=True):
            factor.clamp_min_(0)
            if exponent != 1:
                factor.pow_(exponent)
        for other in others:
            first.mul_(other)
    return first


def _exclude(scores: Tensor, columns: Tensor) -> None:
    """Set `scores` [queries, rows] at `columns` [queries, several] to minus infinity; other numbers are no columns."""
    inside = (columns >= 0) & (columns < scores.shape[1])
    # The lesser of a score and plus infinity is the score, so nothing has to wait for which columns there are.
    limits = torch.full(columns.shape, torch.inf, device=scores.device).masked_fill_(inside, -torch.inf)
    scores.scatter_reduce_(1, columns.clamp(0, scores.shape[1] - 1), limits, "amin")


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


def pieces(total: int, size: int) -> list[slice]:
    """Return slices of `size`, the last one shorter, that cover `total`."""
    return [slice(start, min(start + size, total)) for start in range(0, total, size)]


def _candidate_scores(predicted_features, gallery_features, candidate_rows) -> Tensor:
    # A sum of products, since autocast would round a matrix product.
    distinct, places = candidate_rows.unique(return_inverse=True)  # most are a candidate of several queries
    candidates = _normalised(gallery_features[distinct])[places]
    factors = normalised_factors(predicted_features)
    scores = _multiplied([(factor[:, None] * candidates).sum(dim=-1) for factor in factors])
    return scores.masked_fill_(candidate_rows < 0, -torch.inf)


def normalised_factors(predicted_features: Tensor) -> list[Tensor]:
    """Return each factor [queries, dim] of predicted features in fp32, normalised; raises InputError for a NaN."""
    return [_normalised(factor) for factor in predicted_features]


def _ahead_in_gallery(scores, target_rows) -> Tensor:
    """Count how many of `scores` [queries, images] are ahead of the score at each of `target_rows` [queries, 1]."""
    target_scores = scores.gather(1, target_rows)
    ahead, tied = torch.zeros(2, len(scores), dtype=torch.int32, device=scores.device)
    for rows in pieces(scores.shape[1], ROWS_AT_ONCE):
        ahead += (scores[:, rows] > target_scores).sum(dim=1, dtype=torch.int32)
        tied += (scores[:, rows] == target_scores).sum(dim=1, dtype=torch.int32)
    # Ties are rare. Comparing row numbers for every score would double the time.
    rivals = (tied > 1).nonzero().flatten()  # one is the target itself
    for query, target in zip(rivals.tolist(), target_rows[rivals, 0].tolist(), strict=True):
        ahead[query] += (scores[query, :target] == target_scores[query]).sum()
    return ahead


def _first(scores, k) -> Tensor:
    """Return the columns [queries, k] of the `k` highest of `scores` [queries, images], ties in the columns' order.

    topk breaks ties as it likes. Where the next score equals the k-th, all that reach it are sorted stably.
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
