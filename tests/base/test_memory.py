"""Memory that is full: work is halved, pieces of a batch are found, and the last epoch is kept."""

from pathlib import Path

import pandas as pd
import pytest
import torch

import clip_fine_tune
from src.base.errors import InputError
from src.base.memory import _MENTIONED
from src.retrieval import ranking
from tests.support.commands import status_of
from tests.support.forks import only_run
from tests.support.processes import last_line
from utils import extract_caption_features, extract_index_features

SHORT = ["--dataset", "CIRR", "--batch-size", "16", "--num-epochs", "1", "--learning-rate", "1e-3"]


@pytest.fixture
def little_memory(small_clip, monkeypatch):
    """Let CLIP's encoders run out of memory, as torch says it, with more rows than a number that can be set."""
    clip_class, most = type(small_clip.model), {"encode_image": 1000, "encode_text": 1000}

    def limited(name, encode):
        def encode_few(self, rows):
            if len(rows) > most[name]:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB.")
            return encode(self, rows)

        return encode_few

    for name in most:
        monkeypatch.setattr(clip_class, name, limited(name, getattr(clip_class, name)))
    _MENTIONED.clear()
    return most.update


def test_encoding_is_halved(little_memory, small_clip, world, capsys):
    pictures = [(str(number), torch.randn(3, 64, 64)) for number in range(30)]
    captions = [f"a {'very ' * number}red dress" for number in range(30)]
    whole = extract_index_features(pictures, small_clip)[0], extract_caption_features(captions, small_clip)
    capsys.readouterr()
    little_memory(encode_image=7, encode_text=7)
    halved = extract_index_features(pictures, small_clip)[0], extract_caption_features(captions, small_clip)
    for ours, expected in zip(halved, whole, strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)
    said = capsys.readouterr().err
    assert said.count("the memory is full with 30 pictures at once: they are taken in halves") == 1
    assert said.count("the memory is full with 30 captions at once") == 1
    little_memory(encode_image=0)
    with pytest.raises(InputError, match=r"the memory is full with one of the pictures, \[3, 64, 64\]"):
        extract_index_features(pictures, small_clip)


def test_ranking_is_halved(monkeypatch, capsys):
    _MENTIONED.clear()
    gallery, queries = torch.randn(50, 8), torch.randn(1, 40, 8)
    targets = torch.arange(40)
    whole = ranking.rank_targets(queries, gallery, targets)
    new_empty = torch.Tensor.new_empty

    def little(self, *size):
        if size[0] > 10:
            raise RuntimeError(
                "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory"
            )
        return new_empty(self, *size)

    monkeypatch.setattr(torch.Tensor, "new_empty", little)
    assert torch.equal(ranking.rank_targets(queries, gallery, targets), whole)
    assert "10 are ranked at once" in capsys.readouterr().err


def test_stage_1_finds_the_pieces_that_fit(little_memory, options, tmp_path, capsys):
    clip_fine_tune.main([*SHORT, *options, "--output-path", str(tmp_path / "whole")])
    little_memory(encode_image=5, encode_text=5)
    clip_fine_tune.main([*SHORT, *options, "--output-path", str(tmp_path / "pieces"), "--no-feature-cache"])
    said = capsys.readouterr().err
    assert said.count("CLIP takes") == 1
    assert "--batch-size 16: the memory is full; CLIP takes 4 pictures or captions at once (--clip-bs 4 saves" in said
    whole, pieces = (
        pd.read_csv(only_run(tmp_path / name) / "train_metrics.csv")["train_epoch_loss"] for name in ("whole", "pieces")
    )
    assert pieces.tolist() == pytest.approx(whole.tolist(), rel=1e-4)


def test_pieces_given_by_hand_are_kept(little_memory, options, tmp_path, capsys):
    little_memory(encode_image=5, encode_text=5)
    flags = [*SHORT, *options, "--clip-bs", "8", "--save-training"]
    assert status_of(clip_fine_tune.main, flags) == 2
    line = last_line(capsys.readouterr().err)
    assert "--clip-bs 8: the memory is full; --clip-bs 4 fits" in line
    assert f"--resume {only_run(tmp_path)} goes on from no finished epoch" in line


def test_where_nothing_helps(little_memory, options, tmp_path, capsys):
    little_memory(encode_image=0)
    assert status_of(clip_fine_tune.main, [*SHORT, *options]) == 2
    line = last_line(capsys.readouterr().err)
    assert "--batch-size 16: the memory is full (CUDA out of memory." in line
    assert "; not even one picture at a time fits; " in line


def test_memory_that_ends_later_keeps_the_last_epoch(options, tmp_path, monkeypatch, capsys):
    steps = []
    backward = torch.Tensor.backward

    def once(self, *arguments, **more):
        steps.append(1)
        if len(steps) == 5:  # in the second epoch of three steps
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory")
        return backward(self, *arguments, **more)

    monkeypatch.setattr(torch.Tensor, "backward", once)
    assert status_of(clip_fine_tune.main, [*SHORT, *options, "--save-training", "--num-epochs", "2"]) == 2
    line = last_line(capsys.readouterr().err)
    assert "the memory is full" in line
    assert f"--resume {only_run(tmp_path)} goes on from 1 finished epoch" in line
    assert status_of(clip_fine_tune.main, ["--resume", only_run(tmp_path)]) == 0
    assert len(pd.read_csv(Path(only_run(tmp_path)) / "train_metrics.csv")) == 2
