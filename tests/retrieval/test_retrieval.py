"""Ranks and best rows on a few pictures, by hand."""

import pytest
import torch

from src.base.errors import InputError
from src.retrieval.gallery import Gallery
from src.retrieval.ranking import best_candidates, best_rows, rank_targets, rank_targets_among

# Four pictures at 0, 30, 60 and 90 degrees and a query at 10: it sees them in their order.
ANGLES = torch.deg2rad(torch.tensor([0.0, 30.0, 60.0, 90.0]))
GALLERY = torch.stack([ANGLES.cos(), ANGLES.sin()], dim=1)
QUERY = torch.tensor([[[0.9848, 0.1736]]])  # of one factor


def rows(*numbers):
    return torch.tensor(numbers)


def test_ranks_count_what_scores_higher():
    queries = QUERY.repeat(1, 4, 1)
    assert rank_targets(queries, GALLERY, rows(0, 1, 2, 3)).tolist() == [0, 1, 2, 3]


def test_length_of_features_does_not_matter():
    assert rank_targets(QUERY * 7, GALLERY * rows(1, 9, 2, 5)[:, None], rows(2)).tolist() == [2]


def test_an_excluded_row_leaves_the_ranking():
    assert rank_targets(QUERY, GALLERY, rows(2), excluded_rows=rows(0)).tolist() == [1]
    assert rank_targets(QUERY, GALLERY, rows(2), excluded_rows=rows(3)).tolist() == [2]


def test_equal_scores_rank_in_the_gallerys_order():
    gallery = GALLERY[[1, 0, 1, 1]]
    assert rank_targets(QUERY.repeat(1, 4, 1), gallery, rows(0, 1, 2, 3)).tolist() == [1, 0, 2, 3]
    assert best_rows(QUERY, gallery, 4)[0].tolist() == [[1, 0, 2, 3]]
    members = rows(3, 0, 2)[None]
    assert rank_targets_among(QUERY, gallery, rows(2), members).tolist() == [1]
    assert best_candidates(QUERY, gallery, 3, members).tolist() == [[0, 2, 3]]


def test_ranks_among_candidates():
    assert rank_targets_among(QUERY, GALLERY, rows(3), rows(1, 3)[None]).tolist() == [1]
    assert rank_targets_among(QUERY, GALLERY, rows(1), rows(1, 3)[None]).tolist() == [0]
    assert best_candidates(QUERY, GALLERY, 2, rows(3, 1, 2)[None]).tolist() == [[1, 2]]


def test_features_that_are_not_finite_are_refused():
    with pytest.raises(InputError, match="not finite"):
        rank_targets(QUERY * torch.nan, GALLERY, rows(0))


def test_gallery_finds_names():
    gallery = Gallery(GALLERY, ["a", "b", "c", "d"])
    assert gallery.rows(["c", "a"]).tolist() == [2, 0]
    with pytest.raises(InputError, match="nowhere: not among the 4 pictures"):
        gallery.rows(["a", "nowhere"])
    with pytest.raises(InputError, match="1 names more than once"):
        Gallery(GALLERY, ["a", "b", "c", "a"])
