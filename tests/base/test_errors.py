"""What an error says, as a part of a line."""

import pytest
import torch

from src.base.errors import in_a_line
from src.models.checkpoints import write_checkpoint
from src.models.weights import read_weights


@pytest.mark.parametrize(
    ("said", "line"),
    [
        (ValueError("torn\n  here\x1b[0m\u202e"), "torn here [0m"),
        (ValueError(), "ValueError"),
        (ValueError(" \n"), "ValueError"),
        (KeyError(174812789), "KeyError: 174812789"),
        (KeyError("visual.proj"), "KeyError: 'visual.proj'"),
        (RuntimeError("12, 13"), "RuntimeError: 12, 13"),
        (["a", 1], "['a', 1]"),
        ("7\n", "7"),
        (ValueError("x" * 121), "x" * 117 + "..."),
    ],
)
def test_in_a_line(said, line):
    assert in_a_line(said) == line


def test_the_file_is_not_named_twice():
    file = f"{'/long' * 40}.png"
    assert in_a_line(OSError(f"cannot identify {file}"), file) == "cannot identify the file"


def test_a_writer_that_says_nothing(tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match=r"it needs 0.000 GB \(RuntimeError\)") as raised:
        write_checkpoint(tmp_path / "state.pt", {"weights": torch.ones(3)})
    assert raised.value.filename == str(tmp_path / "state.pt")


def test_junk_in_the_place_of_weights(tmp_path):
    (tmp_path / "junk.pt").write_bytes(b"j junk text")  # for pickle an order to fetch what was never stored
    with pytest.raises(ValueError, match=r"junk\.pt: cannot be read as weights \(it is torn, or no file of weights\)"):
        read_weights(tmp_path / "junk.pt", "CLIP")
