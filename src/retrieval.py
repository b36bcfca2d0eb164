"""Ranking a gallery by cosine similarity, in row numbers; names come back only where an answer is written."""

import torch
import torch.nn.functional as F

from src.errors import InputError

SCORES_AT_ONCE = 2**23
"""Scores held in memory at a time: queries are ranked in chunks, whatever the gallery's size."""


class Gallery:
    """The pictures an answer is looked for in: features [images, dim] as the encoder gives them, and their names."""

    def __init__(self, features, names):
        if len(features) != len(names):
            raise ValueError(f"{len(features)} features for {len(names)} names")
        self.features = features
        self.names = list(names)
        self._row = {name: row for row, name in enumerate(self.names)}
        if len(self._row) != len(self.names):
            raise InputError(f"the gallery holds {len(self.names) - len(self._row)} names more than once")

    def rows(self, names):
        """Row numbers [names] of `names`; raises InputError with the first name that is not in the gallery."""
        absent = [name for name in names if name not in self._row]
        if absent:
            raise InputError(f"{absent[0]}: not among the {len(self.names)} pictures of the gallery")
        return torch.tensor([self._row[name] for name in names], device=self.features.device)


def rank_targets(predicted_features, gallery_features, target_rows, excluded_rows=None):
    """Rank [queries], from 0, of each query's target in the whole gallery.

    A rank is the number of gallery rows that score higher, plus those of equal score in an earlier row.
    `excluded_rows` [queries] leave the ranking: the reference pictures, where a benchmark says so.
    """
    ranks = []
    columns = torch.arange(len(gallery_features), device=gallery_features.device)
    for queries, scores in _scores(predicted_features, gallery_features, excluded_rows):
        ranks.append(_ahead(scores, columns, target_rows[queries, None], scores.gather(1, target_rows[queries, None])))
    return torch.cat(ranks)


def rank_targets_among(predicted_features, gallery_features, target_rows, candidate_rows):
    """Rank [queries], from 0, of each query's target among its own `candidate_rows` [queries, candidates]."""
    scores = _candidate_scores(predicted_features, gallery_features, candidate_rows)
    is_target = candidate_rows == target_rows[:, None]
    assert is_target.sum(dim=1).eq(1).all(), "each target is exactly one of its candidates"
    return _ahead(scores, candidate_rows, target_rows[:, None], scores[is_target][:, None])


def best_rows(predicted_features, gallery_features, k, excluded_rows=None):
    """The first `k` gallery rows [queries, k] of each query, best first, equal scores in the gallery's order."""
    scored = _scores(predicted_features, gallery_features, excluded_rows)
    return torch.cat([scores.argsort(dim=1, descending=True, stable=True)[:, :k] for _, scores in scored])


def best_candidates(predicted_features, gallery_features, k, candidate_rows):
    """The first `k` of each query's `candidate_rows` [queries, candidates], best first, ties in the gallery's order."""
    candidate_rows = candidate_rows.sort(dim=1).values
    scores = _candidate_scores(predicted_features, gallery_features, candidate_rows)
    return candidate_rows.gather(1, scores.argsort(dim=1, descending=True, stable=True)[:, :k])


def recall_at(ranks, k):
    """Percentage of ranks (from 0) below `k`, divided in fp32 as the published code does."""
    return (ranks < k).float().mean().item() * 100


def _scores(predicted_features, gallery_features, excluded_rows):
    """Yield (slice of queries, their cosine similarities [queries, images]), the excluded rows at minus infinity."""
    predicted_features, gallery_features = _normalised(predicted_features), _normalised(gallery_features)
    step = max(1, SCORES_AT_ONCE // len(gallery_features))
    for start in range(0, len(predicted_features), step):
        queries = slice(start, start + step)
        scores = predicted_features[queries] @ gallery_features.T
        if excluded_rows is not None:
            scores.scatter_(1, excluded_rows[queries, None], -torch.inf)
        yield queries, scores


def _candidate_scores(predicted_features, gallery_features, candidate_rows):
    predicted_features, gallery_features = _normalised(predicted_features), _normalised(gallery_features)
    return torch.einsum("qd,qcd->qc", predicted_features, gallery_features[candidate_rows])


def _ahead(scores, rows, target_rows, target_scores):
    tied_earlier = (scores == target_scores) & (rows < target_rows)
    return ((scores > target_scores) | tied_earlier).sum(dim=1)


def _normalised(features):
    # Every comparison with a NaN is false, which would put the target first.
    if not features.isfinite().all():
        raise InputError("the features are not finite: the weights that made them cannot be ranked with")
    return F.normalize(features.float(), dim=-1)
