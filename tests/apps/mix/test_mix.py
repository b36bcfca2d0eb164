"""Mixtures of CLIPs: weights that can be checked by hand, and what is refused."""

import shutil

import pytest
import torch

import clip_fine_tune
import validate
from combiner import Combiner
from src.apps.mix import __main__ as mix
from src.models.facts import read_facts
from src.models.openai_clip import random_clip
from src.models.registry import load_backbone
from src.models.weights import read_content
from tests.support.commands import status_of, toy_options, toy_paths
from tests.support.forks import only_run
from tests.support.open_clips import write_open_clip

VIT = 8, 16, 1, 64, 8, 8, 16, 64, 1, 1
RESNET = 8, 32, (1, 1, 1, 1), 2, None, 8, 16, 64, 1, 1


def filled(value, size=VIT):
    """Return the weights of a small CLIP, all with one value."""
    return {name: torch.full_like(tensor, value) for name, tensor in random_clip(*size).state_dict().items()}


@pytest.fixture
def clips(tmp_path):
    """Return a function that saves contents; it returns their files."""

    def save(*contents):
        paths = [tmp_path / f"{'abcdef'[number]}.pt" for number in range(len(contents))]
        for path, content in zip(paths, contents, strict=True):
            torch.save(content, path)
        return paths

    return save


@pytest.fixture
def mixed(tmp_path):
    """Return a function that mixes to a new file; it returns the weights."""

    def run(*arguments):
        to = tmp_path / "mixed.pt"
        mix.main([*map(str, arguments), "--to", str(to)])
        return read_content(to)["CLIP"]

    return run


@pytest.mark.parametrize(
    ("values", "options", "expected"),
    [
        ((1, 3), ("--share", "0"), 1),
        ((1, 3), ("--share", ".25"), 1.5),
        ((1, 3), ("--share", "1"), 3),
        ((1, 3), (), 2),
        ((1, 3, 8), (), 4),
        ((0.1, 0.1, 0.1), (), 0.1),
    ],
)
def test_every_weight_is_the_mean(values, options, expected, clips, mixed):
    weights = mixed(*clips(*map(filled, values)), *options)
    assert weights.keys() == filled(1).keys()
    assert all(torch.equal(weight, torch.full_like(weight, expected)) for weight in weights.values())


def test_half_precision_is_mixed_in_full(clips, mixed):
    # Between these two fp16 has no number.
    halves = [{name: weight.half() for name, weight in filled(value).items()} for value in (1, 1 + 2**-10)]
    weights = mixed(*clips(*halves))
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
    assert all((weight == 1 + 2**-11).all() for weight in weights.values())


def test_counters_of_a_resnet_are_the_first_ones(clips, mixed):
    weights = mixed(*clips(filled(2, RESNET), filled(4, RESNET)))
    name = "visual.bn1.num_batches_tracked"
    assert weights[name] == 2
    assert weights[name].dtype == torch.int64
    assert (weights["visual.bn1.running_var"] == 3).all()


def test_a_mixture_says_what_it_is_made_of_and_is_judged(world, tmp_path, capsys):
    short = ["--batch-size", "16", "--num-epochs", "1", "--save-training", "--learning-rate", "1e-3"]
    squared = ["--dataset", "CIRR", *short, "--transform", "squarepad"]
    clip_fine_tune.main([*squared, *toy_options(world, tmp_path)])
    tuned = only_run(tmp_path) / "saved_models" / "tuned_clip_0.pt"
    untuned, to = world / "small_clip.pt", tmp_path / "mixed.pt"
    capsys.readouterr()
    mix.main([str(untuned), str(tuned), "--share", ".25", "--to", str(to)])
    assert capsys.readouterr().out == f"{to}: 0.75 of {untuned}, 0.25 of {tuned}\n"
    shares = {untuned: 0.75, tuned: 0.25}
    made_of = [
        {"clip": str(path), "weights": load_backbone(str(path)).digest(), "share": share}
        for path, share in shares.items()
    ]
    expected = {"clip_model_name": str(untuned), "transform": "squarepad", "mixed": made_of}
    assert read_facts(to) == expected
    arguments = ["--dataset", "CIRR", *toy_paths(world, tmp_path), "--clip-model-path", to]
    assert status_of(validate.main, arguments) == 0
    # What it was judged with is what the tuned one was trained with.
    assert status_of(validate.main, [*arguments, "--transform", "targetpad"]) == 2


def test_a_combiner_beside_a_clip_is_left_out_with_a_line(clips, mixed, capsys):
    first, second = clips({"CLIP": filled(1), "Combiner": Combiner(8, 4, 4).state_dict()}, filled(3))
    assert (mixed(first, second)["logit_scale"] == 2).all()
    assert capsys.readouterr().err == f"{first}: the Combiner in it is not used\n"


def test_clips_of_open_clip_are_mixed(tmp_path):
    pytest.importorskip("open_clip")
    name = write_open_clip(tmp_path / "gelu", "gelu")
    folder = tmp_path / "other"
    shutil.copytree(tmp_path / "gelu", folder)
    weights = torch.load(folder / "open_clip_pytorch_model.bin", weights_only=True)
    torch.save({key: -tensor for key, tensor in weights.items()}, folder / "open_clip_pytorch_model.bin")
    to = tmp_path / "mixed.pt"
    mix.main([name, f"open_clip:local-dir:{folder}", "--to", str(to)])
    backbone = load_backbone(name)
    backbone.load_over(to)
    assert not any(weight.any() for weight in backbone.model.state_dict().values())
    openai = write_open_clip(tmp_path / "openai", "openai")
    assert status_of(mix.main, [name, openai, "--to", tmp_path / "no.pt"]) == 2
    # A mixture is a checkpoint of its network, which its metadata name.
    mix.main([str(to), name, "--share", "1", "--to", str(tmp_path / "again.pt")])


OTHER_SIZE = 8, 16, 2, 64, 8, 8, 16, 64, 1, 1


def trained(value, **facts):
    return {"CLIP": filled(value), "facts": facts}


@pytest.mark.parametrize(
    ("contents", "options", "fault"),
    [
        ((filled(1), filled(1, OTHER_SIZE)), (), "b.pt: its weights do not fit this CLIP, which has no visual.transf"),
        ((filled(1, OTHER_SIZE), filled(1)), (), "b.pt: its weights do not fit this CLIP, they lack visual.transform"),
        ((filled(1), filled(float("nan"))), (), "b.pt: positional_embedding holds values that are not finite"),
        ((filled(1), {"Combiner": Combiner(8, 4, 4).state_dict()}), (), "b.pt: holds ['Combiner'] where weights of a"),
        ((filled(1), {"epoch": 3}), (), "b.pt: holds"),
        ((filled(1), filled(3)), ("--share", "1.5"), "'1.5' is not a number from 0 to 1"),
        ((filled(1), filled(3)), ("--share", "nan"), "'nan' is not a number from 0 to 1"),
        ((filled(1),) * 3, ("--share", ".5"), "--share is for two CLIPs; of 3 the mean is taken"),
        ((filled(1),), (), "a mixture is of two CLIPs or more"),
        ((filled(1), filled(3)), ("--clip-model-name", "missing.pt"), "missing.pt: neither a file nor one of"),
        (
            (trained(1, transform="squarepad"), trained(3, transform="targetpad")),
            (),
            "b.pt: was trained with --transform targetpad, one before it with --transform squarepad",
        ),
        (
            (filled(1), trained(3, clip_network="image gelu")),
            (),
            "b.pt: was trained with --clip-model-name None, which is another network (image gelu, not OpenAI's)",
        ),
    ],
)
def test_other_inputs_are_refused_in_a_line(contents, options, fault, clips, tmp_path, capsys):
    to = tmp_path / "mixed.pt"
    assert status_of(mix.main, [*clips(*contents), *options, "--to", to]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert fault in line
    assert not to.exists()


def test_files_are_neither_replaced_nor_taken_twice(clips, tmp_path, capsys):
    first, second = clips(filled(1), filled(3))
    content = first.read_bytes()
    for arguments, fault in (
        ([first, second, "--to", first], f"{first}: exists; name a new file"),
        ([first, second, "--to", tmp_path], f"{tmp_path}: exists; name a new file"),
        ([first, second, "--to", second / "mixed.pt"], f"{second}: is a file, a folder is needed to write to"),
        ([first, first, "--to", tmp_path / "new.pt"], f"{first}: is named twice"),
    ):
        assert status_of(mix.main, arguments) == 2
        assert capsys.readouterr().err == f"error: {fault}\n"
    assert first.read_bytes() == content
