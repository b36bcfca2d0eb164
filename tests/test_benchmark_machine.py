"""python -m benchmarks.machine: its output, what fits, hours by hand, and checks that catch faults."""

import shlex

import pytest
import torch

import clip_fine_tune
from benchmarks import machine
from benchmarks.checks import RATE, Check, features, losses, moved, relative, run, write_toy
from benchmarks.fit import LARGEST, fit_on_processor, largest_that_fits
from benchmarks.machine import Amounts, Computing, held, hours
from benchmarks.measure import rooms_of_groups
from benchmarks.steps import Steps
from src.models.openai_clip import OpenAIClip
from src.models.openai_clip import small_clip as random_clip
from tests.support.commands import status_of

CPU = torch.device("cpu")


@pytest.fixture
def arguments(world):
    return ["--clip-model-name", world / "small_clip.pt", "--pictures", world / "cirr_dataset", "--triplets", 1]


def test_a_small_clip_on_this_machine(arguments, capsys):
    """On a card it compares the card with the processor, here the processor with itself; both have to hold."""
    assert status_of(machine.main, [*arguments, "--check"]) == 0
    lines = capsys.readouterr().out.splitlines()
    checks = [line for line in lines if line.startswith("check: ")]
    assert len(checks) == 8
    assert all(line.endswith(": holds") for line in checks)
    topics = [line.partition(":")[0] for line in lines if line not in checks]
    measured = ["precision", "through CLIP", "from disk", "workers", "fits", "hours on CIRR", "hours on FashionIQ"]
    assert topics[:-1] == ["machine", "CLIP", *measured]
    python, script, *flags = shlex.split(lines[-1])
    assert (python, script) == ("python", "clip_fine_tune.py")
    options = clip_fine_tune.make_parser().parse_args(flags)
    assert (options.dataset, options.num_epochs, options.batch_size) == ("CIRR", 100, 128)
    assert options.clip_model_name == str(arguments[1])


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--pictures", "nowhere"], "nowhere: No such file"),
        (["--pictures", "."], "holds no pictures"),
        (
            ["--clip-model-name", "RN49"],
            "--clip-model-name RN49: neither a file nor one of features:FOLDER",
        ),
        (["--triplets", "0"], "is not a whole number above 0"),
    ],
)
def test_bad_input(flags, words, arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert status_of(machine.main, [*arguments, *flags]) == 2
    assert words in capsys.readouterr().err.splitlines()[-1]


def test_a_broken_picture_is_named(arguments, tmp_path, capsys):
    (tmp_path / "torn.png").write_bytes(b"\x89PNG")
    assert status_of(machine.main, [*arguments, "--pictures", tmp_path]) == 2
    assert "torn.png: cannot be read as a picture" in capsys.readouterr().err


# ---- checks ----


class Drifting(OpenAIClip):
    """A CLIP whose features are slightly wrong at every other call, as on a faulty device."""

    off = 0

    def encode_images(self, images):
        self.off = 1e-3 - self.off
        return super().encode_images(images) * (1 + self.off)


def test_features_that_differ_are_caught():
    image, text = features(Drifting(random_clip().eval()), CPU, CPU)
    assert image.difference == pytest.approx(1e-3, rel=0.1)
    assert not image.holds
    assert str(image).endswith(": FAILS")
    assert text.holds


def test_losses_of_a_step_that_is_a_little_wrong_are_caught(tmp_path):
    """Steps of 1.05 times the size are the mistake."""
    write_toy(tmp_path)
    right, wrong = (
        losses(run(clip_fine_tune.main, ["--learning-rate", rate], tmp_path, rate)) for rate in (RATE, "1.05e-3")
    )
    assert right[-1] < 0.9 * right[0]
    assert relative(wrong, right) > 1e-3


def test_a_failed_check_ends_with_status_1(arguments, monkeypatch, capsys):
    monkeypatch.setattr(machine, "checks", lambda *_: [Check("planted results", 1.0, 0.1)])
    monkeypatch.setattr(machine, "report", lambda *_: [])  # speeds
    assert status_of(machine.main, [*arguments, "--check"]) == 1
    assert "check: planted results differ by 1, limit 0.1: FAILS" in capsys.readouterr().out


def test_what_cannot_be_compared_does_not_hold():
    assert not Check("losses", relative(torch.ones(4), torch.ones(5)), 1.0).holds
    assert not Check("losses", relative(torch.tensor([1.0, torch.nan]), torch.ones(2)), 1.0).holds


def test_losses_of_skipped_steps_do_not_count():
    assert moved(torch.tensor([3.0, 3.0, 3.0, 2.5, 2.500001, 2.0])).tolist() == [3.0, 2.5, 2.0]


# ---- what fits, and hours ----


def test_a_card_is_tried_until_it_is_full():
    tried = []
    assert largest_that_fits(lambda size: tried.append(size) or size <= 300, 64) == 256
    assert tried == [128, 256, 512]
    assert largest_that_fits(lambda _: True, 64) == LARGEST


def test_small_steps_predict_what_fits_on_a_processor():
    """By hand: of 100 GB 80 are planned for; passes of 2 hold 3 GB and of 4 hold 5, so one of n holds 1 + n.

    Gradients take 4 GB, so with 1 GB that waits n take 5 + 2 n. In pieces of 32 pictures, half a GB each, they take
    1 + 2 * 4 + 16 + n.
    """
    assert fit_on_processor(int(100e9), int(4e9), 2, (int(3e9), int(5e9)), int(1e9)) == (37, 32, 55)
    assert fit_on_processor(int(2e9), int(4e9), 2, (int(3e9), int(5e9)), int(1e9)) == (0, 1, 0)


def test_what_a_pass_holds_grows_with_its_triplets(small_clip):
    """Two pictures of 64 pixels in fp32 are the least that a triplet adds."""
    small, large = held(Steps(small_clip), "fp32", 32)
    assert large - small > 32 * 2 * 3 * 64**2 * 4


def test_a_group_of_processes_may_have_less_memory_than_the_machine(tmp_path):
    inner = tmp_path / "job" / "step"
    inner.mkdir(parents=True)
    for folder, limit, used in ((inner, "max", 5), (inner.parent, "1000", 300)):
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.stat").write_text(f"anon {used}\nfile 7\n")
    assert list(rooms_of_groups(inner)) == [700]


def test_hours_by_hand():
    """300 triplets are 2 steps of 128 in stage 1; an epoch validates 10 pictures and 40 captions."""
    amounts = Amounts(triplets=300, pictures=50, texts=60, gallery=10, queries=40)
    computed = Computing(pictures=5.0, captions=20.0, precisions={}, precision="fp32")
    first, second = hours(amounts, 0.5, computed, loaded=100.0, combiner=lambda triplets: triplets / 40)
    assert first * 3600 == pytest.approx(100 * (256 * 0.5 + 10 / 5 + 40 / 20))
    assert second * 3600 == pytest.approx(50 / 5 + 60 / 20 + 10 / 5 + 40 / 20 + 300 * 40 / 40 / 3)
    slow, _ = hours(amounts, 0.5, computed, loaded=2.0, combiner=lambda triplets: 0)
    assert slow * 3600 == pytest.approx(100 * (256 * 1 + 10 / 2 + 40 / 20))
