"""Random faults: see tests/support/storm.py, which blows as long as it is told."""

import pytest

from tests.support import storm


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_storm_is_survived():
    ends = storm.main(runs=40, seed=1)
    assert sum(ends.values()) == 40
    assert {status for _, status in ends} - {0}, "some runs were disturbed"
