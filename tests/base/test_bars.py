"""Bars in a terminal, in a file, and in Python."""

import contextlib
import hashlib
import itertools

import pytest

from src.base import bars
from src.base.bars import Bar, showing_bars
from src.models.openai_clip import clip
from src.retrieval.encoder import extract_caption_features


@pytest.fixture
def clock(monkeypatch):
    """Let each look at the clock take a second."""
    seconds = itertools.count()
    monkeypatch.setattr("src.base.bars.monotonic", lambda: float(next(seconds)))
    return seconds


def shown(description, count=100):
    """Go through a bar that draws itself at each step."""
    with Bar(range(count), desc=description, mininterval=0, miniters=1) as bar:
        for _ in bar:
            pass


def test_in_python_there_is_none_unless_it_is_wanted(small_clip, capsys):
    extract_caption_features(["red", "blue"], small_clip)
    with Bar(range(3), desc="steps") as bar:
        bar.set_description("[0/3]", refresh=False)
        assert list(bar) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")
    assert bars.open_bars() == []


@pytest.mark.usefixtures("clock")
def test_a_file_gets_a_line_every_ten_seconds_and_no_carriage_return(capsys):
    with showing_bars():
        began = bars._next_line - bars.SECONDS_BETWEEN
        shown("captions")
        shown("pictures")
        seconds = bars.monotonic() - began
    written = capsys.readouterr().err
    assert not {"\r", "\x1b"} & set(written)
    lines = written.splitlines()
    assert seconds / 10 - 2 < len(lines) <= seconds / 10
    assert lines[0].startswith("captions: ")
    assert lines[-1].startswith("pictures: ")
    assert all(" of 100 [" in line for line in lines)


def test_short_work_leaves_nothing_in_a_file(capsys):
    with showing_bars():
        for number in range(20):
            shown(f"[{number}/20]", count=3)
    assert capsys.readouterr().err == ""


def test_a_terminal_shows_the_label_before_the_first_step(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with showing_bars(), Bar(range(3), desc="[0/300]"):
        assert capsys.readouterr().err.startswith("\r[0/300]:   0%|")
    assert "\r" in capsys.readouterr().err


def test_a_download_of_clips_own_library_is_such_a_bar(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bars, "SECONDS_BETWEEN", 0)
    weights = bytes(2_000_000)
    file = tmp_path / hashlib.sha256(weights).hexdigest() / "CLIP.pt"
    file.parent.mkdir()
    file.write_bytes(weights)
    for name, shows in (("silent", contextlib.nullcontext), ("shown", showing_bars)):
        with shows():
            clip.clip._download(file.as_uri(), str(tmp_path / name))
        said = capsys.readouterr().err
        assert "\r" not in said
        assert (name == "shown") == said.startswith("downloading CLIP: ")
