"""A checksum sees each change, wherever it is."""

import random

import numpy as np
import pytest

from src.base.checksum import checksum


@pytest.mark.parametrize("size", [1, 4095, 4096, 10_000])
def test_a_changed_byte_or_length_is_noticed(size):
    draws = random.Random(size)
    content = draws.randbytes(size)
    seen = {checksum(content), checksum(content[:-1] or b"x"), checksum(content + b"\0")}
    assert len(seen) == 3
    for _ in range(500):
        changed = bytearray(content)
        changed[draws.randrange(size)] ^= 1 << draws.randrange(8)
        assert checksum(changed) not in seen


@pytest.mark.parametrize("change", ["rows", "columns", "two signs", "zeros", "reversed"])
def test_what_crc_would_notice_is_noticed(change):
    array = np.random.default_rng(0).standard_normal((64, 640), dtype=np.float32)
    changed = array.copy()
    if change == "rows":
        changed[[3, 40]] = array[[40, 3]]
    elif change == "columns":
        changed[:, [3, 5]] = array[:, [5, 3]]
    elif change == "two signs":  # the highest bits of two words
        changed[7, [101, 103]] *= -1
    elif change == "zeros":
        changed[8:10] = 0
    else:
        changed = np.ascontiguousarray(array[::-1])
    assert checksum(changed) != checksum(array)


def test_it_is_part_of_a_format():
    assert checksum(bytes(range(256)) * 40).startswith("de214ed6ce84d126")
