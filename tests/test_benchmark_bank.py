"""python -m benchmarks.bank: its two ways are the product's, and its table says all of them."""

import pytest

from benchmarks import bank
from benchmarks.bank import CombinerSteps
from benchmarks.measure import alternate
from tests.commands import status_of


def test_the_ways_tell_targets_from_as_many_pictures_as_they_say():
    """Random queries find it harder to tell a target from 2,000 pictures than from 32, and a step holds its logits."""
    steps = CombinerSteps(2000, 16, 32)
    assert steps.step("bank", 32) > steps.step("batch", 32) + 1
    large = CombinerSteps(40_000, 16, 32)
    ways = {name: (lambda name=name: large.step(name, 256)) for name in ("batch", "bank")}
    measured = alternate(ways, 1, warm_up=True)
    if measured["bank"].peak_bytes is not None:  # where the system says it
        assert measured["bank"].peak_bytes > measured["batch"].peak_bytes + 4 * 256 * 40_000


def test_a_row_for_each_size(tmp_path, capsys):
    small = ["--pictures", "50", "3000", "--batches", "8", "14", "--projection-dim", "16", "--hidden-dim", "32"]
    assert status_of(bank.main, [*small, "--turns", "1", "--output", tmp_path]) == 0
    table = (tmp_path / "bank.md").read_text()
    assert table in capsys.readouterr().out
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()[2:]]
    assert [(row[0], row[2]) for row in rows] == [("50", "8"), ("50", "14"), ("3,000", "8"), ("3,000", "14")]
    assert rows[2][1] == "8 MB"  # 3,000 features of 640 numbers of 4 bytes


@pytest.mark.parametrize("flags", [["--pictures", "0"], ["--batches", "-3"]])
def test_bad_input(flags, capsys):
    assert status_of(bank.main, flags) == 2
    assert "is not a whole number above 0" in capsys.readouterr().err
