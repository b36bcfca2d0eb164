"""What benchmarks/scaling.py says of many cards, checked by hand."""

from types import SimpleNamespace

import pytest

from benchmarks.scaling import Cost, exchanged, line, table

LINKS = SimpleNamespace(tflops=100, node_link=200, network=20, cards_per_node=8)


def test_bytes_of_a_step():
    """By hand for 2 processes, 8 triplets, 4 numbers a feature and 10 weights.

    A process sends half of 4 bytes a number: 3 times 8 · 4 numbers of features, and twice 10 of gradients.
    """
    assert exchanged(8, 2, 4, 10) == (192, 40)
    assert exchanged(8, 1, 4, 10) == (0, 0)


def test_efficiency_follows_from_triplets_per_card():
    cost = Cost(weights=10**9, dim=4, resolution=10, operations=1e12, seconds=3.0)
    alone, node, nodes = (line("any", cost, 64, cards, LINKS) for cards in (1, 8, 64))
    assert alone["computing"] == pytest.approx(0.64)
    assert alone["efficiency"] == 1
    assert (node["computing"], node["exchanging"]) == pytest.approx((0.08, 7 / 200), rel=1e-4)
    assert (nodes["computing"], nodes["exchanging"]) == pytest.approx((0.01, 8 * 63 / 64 / 20), rel=1e-4)
    assert node["here"] == 24
    assert alone["pictures"] == 2 * 64 * 3 * 100 * 4
    assert "| any | 64 | 8 | 8 |" in table([node])
