"""Checkpoints in the shapes in which CLIP4Cir, its forks and those who train on it publish theirs."""

import pytest
import torch

import validate
from combiner import Combiner, load_network
from src.base.errors import InputError
from src.models.parts import COMBINER
from src.models.weights import read_state_dict, read_weights
from tests.support.commands import status_of, toy_options
from utils import load_clip


def behind(prefix, weights):
    return {f"{prefix}{name}": value for name, value in weights.items()}


SHAPES = {
    "CLIP4Cir": lambda clip, _: {"epoch": 9, "CLIP": clip},
    "SPN4CIR": lambda clip, _: {"epoch": 2, "state_dict": behind("clip.", clip)},
    "a state dict": lambda clip, _: clip,
    "a wrapper's class": lambda clip, _: {"epoch": 9, "CLIPWrapper": behind("clip_model.", clip)},
    "DataParallel around a wrapper": lambda clip, _: {
        "model_state_dict": behind("module.clip.", clip) | {"module.logit_scale": torch.ones([])},
        "optimizer_state_dict": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 1e-5}]},
    },
    "Lightning": lambda clip, _: {
        "epoch": 3,
        "pytorch-lightning_version": "2.1.0",
        "state_dict": behind("model.clip_model.", clip),
        "callbacks": {"ModelCheckpoint{}": {"best_k_models": {"x.ckpt": torch.tensor(0.4)}, "best_model_path": "x"}},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"params": [0]}]}],
        "rng_state": torch.ones(2, dtype=torch.uint8),
        "losses": [torch.tensor(0.5), torch.tensor(0.4)],
    },
    "a Combiner beside a CLIP": lambda clip, combiner: {"clip_model": clip, "combiner": behind("module.", combiner)},
    "a CLIP in a Combiner": lambda clip, combiner: {"epoch": 9, "Combiner": combiner | behind("clip_model.", clip)},
}


@pytest.fixture(scope="module")
def parts(world):
    """Return the weights of a CLIP, not the one that commands load, and of a Combiner."""
    torch.manual_seed(5)
    clip = torch.load(world / "small_clip.pt", weights_only=True)
    clip["text_projection"] = clip["text_projection"].flip(0)
    return clip, Combiner(64, 16, 32).state_dict()


@pytest.fixture
def judge(world, tmp_path, capsys):
    """Return a function that runs validate.py: its exit status, what it prints, and the lines of its errors."""

    def run(*arguments):
        capsys.readouterr()
        status = status_of(validate.main, ["--dataset", "CIRR", *toy_options(world, tmp_path), *arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err.splitlines()

    return run


def test_all_shapes_print_the_same_recalls(parts, judge, tmp_path):
    printed = {}
    for number, (name, shape) in enumerate(SHAPES.items()):
        path = tmp_path / f"{number}.pt"
        torch.save(shape(*parts), path)
        printed[name] = judge("--clip-model-path", path)[:2]
    assert set(printed.values()) == {printed["CLIP4Cir"]}
    assert "recall_at50" in printed["CLIP4Cir"][1]
    assert (
        f"{path}: the Combiner in it is not used; --combiner-path {path} takes it"
        in judge("--clip-model-path", path)[2]
    )
    assert printed["CLIP4Cir"] != judge()[:2]


@pytest.mark.parametrize("shape", ["a Combiner beside a CLIP", "a CLIP in a Combiner"])
def test_each_option_takes_its_part_of_one_file(shape, parts, judge, world, tmp_path):
    both, clip, combiner = (tmp_path / name for name in ("both.pt", "clip.pt", "combiner.pt"))
    torch.save(SHAPES[shape](*parts), both)
    torch.save({"epoch": 9, "CLIP": parts[0]}, clip)
    torch.save({"epoch": 9, "Combiner": parts[1]}, combiner)
    apart = judge("--clip-model-path", clip, "--combiner-path", combiner)
    assert apart[0] == 0
    assert judge("--clip-model-path", both, "--combiner-path", both)[:2] == apart[:2]
    # The Combiner learned on the CLIP beside it.
    status, _, (*_, line) = judge("--combiner-path", both)
    assert status == 2
    assert f"{both}: holds a CLIP too, and it is another one than was loaded; --clip-model-path {both} takes it" in line


@pytest.mark.parametrize("wrap", ["", "module.", "model.combiner."])
def test_a_combiner_loads_under_any_prefix(wrap, parts, small_clip, tmp_path):
    path = tmp_path / "combiner.pt"
    torch.save({"state_dict": behind(wrap, parts[1])}, path)
    loaded = load_network(path, small_clip).state_dict()
    assert all(torch.equal(loaded[name].cpu(), value) for name, value in parts[1].items())


def test_a_projection_of_the_gallery_belongs_to_a_combiner(parts, tmp_path):
    path, weights = tmp_path / "both.pt", Combiner(64, 16, 32, gallery_projection=8).state_dict()
    torch.save({"CLIP": parts[0], "Combiner": weights}, path)
    assert read_weights(path, "CLIP").keys() == parts[0].keys()
    assert read_weights(path, "Combiner", COMBINER).keys() == weights.keys()
    del weights["gallery_projection.hidden_layer.bias"]
    torch.save({"CLIP": parts[0], "Combiner": weights}, path)
    with pytest.raises(InputError, match="beside a CLIP it holds 15 other weights"):
        read_weights(path, "CLIP")


ADAPTER = {"text_adapter.weight": torch.ones(2, 2)}


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (
            lambda clip, _: {"epoch": 2, "state_dict": behind("clip.", clip) | ADAPTER},
            "beside a CLIP it holds 1 other weight (state_dict.text_adapter.weight), without which results would be",
        ),
        (lambda clip, _: {"CLIP": clip, "text_adapter": {"weight": torch.ones(2)}}, "1 other weight (text_adapter"),
        (lambda clip, _: {"state_dict": behind("clip.", clip), "prompt": torch.ones(2)}, "1 other weight (prompt)"),
        (
            lambda clip, _: {"CLIP": clip, "adapter": {"dim": 3, "weight": torch.ones(2)}},
            "1 other weight (adapter.weight)",
        ),
        (lambda clip, _: {"CLIP": clip, "img2text": [torch.ones(2)]}, "1 other weight (img2text.0)"),
        (lambda clip, _: {"CLIP": clip, "layers": [{"w": torch.ones(2)}, 3]}, "1 other weight (layers.0.w)"),
        (lambda clip, _: {"CLIP": clip, "layers": {0: {"w": torch.ones(2)}}}, "1 other weight (layers.0.w)"),
        (lambda clip, other: {"CLIP": clip, "Combiner": other | ADAPTER}, "beside a CLIP it holds 13 other weights"),
        (lambda clip, _: {"CLIP": clip, "ema": {"CLIP": clip}}, "beside a CLIP it holds 62 other weights (ema.CLIP."),
        (
            lambda clip, _: {"state_dict": clip, "ema_state_dict": clip},
            "holds several CLIPs (state_dict., ema_state_dict.); save the one that is meant by itself",
        ),
        (lambda clip, _: {"state_dict": behind("clip.", dict(list(clip.items())[1:]))}, "they lack "),
        (lambda _, combiner: {"Combiner": combiner}, "holds ['Combiner'] where weights of a CLIP are expected"),
        (lambda *_: {"state_dict": {"blip.visual_encoder.norm.weight": torch.ones(2)}}, "they lack"),
        (lambda *_: {"epoch": 3, "best": 0.5}, "holds ['epoch', 'best'] where weights of a CLIP are expected"),
    ],
)
def test_something_else_is_named(content, fault, parts, judge, tmp_path):
    path = tmp_path / "else.pt"
    torch.save(content(*parts), path)
    status, _, (*_, line) = judge("--clip-model-path", path)
    assert status == 2
    assert f"{path}: " in line
    assert fault in line


def test_a_combiner_with_more_to_it_is_named(parts, small_clip, tmp_path):
    path = tmp_path / "more.pt"
    torch.save({"Combiner": parts[1] | {"attention.weight": torch.ones(2)}}, path)
    with pytest.raises(InputError, match=r"do not fit this Combiner, which has no attention\.weight"):
        load_network(path, small_clip)


def test_names_without_end_take_no_time(tmp_path):
    path = tmp_path / "names.pt"
    torch.save({"a." * 100_000 + str(number): torch.ones(1) for number in range(20)}, path)
    read_weights(path, "CLIP")
    torch.save({f"{number}.{name}": torch.ones(1) for number in range(3000) for name in ("logit_scale",)}, path)
    read_weights(path, "CLIP")
    torch.save({f"{n}.{name}": torch.ones(1) for n in range(3000) for name in ("logit_scale", "visual.proj")}, path)
    with pytest.raises(InputError, match="holds several CLIPs"):
        read_weights(path, "CLIP")


def test_a_clip_of_hugging_face_is_found_under_a_prefix(tmp_path):
    path = tmp_path / "wrapped.pt"
    theirs = {"logit_scale": torch.ones([]), "vision_model.embeddings.class_embedding": torch.ones(2)}
    torch.save({"state_dict": behind("clip.", theirs)}, path)
    assert read_state_dict(path, "CLIPModel").keys() == theirs.keys()
    with pytest.raises(InputError, match="a model of Hugging Face"):
        read_weights(path, "CLIP")


def test_weights_of_open_clip_are_not_read_as_openais(parts, judge, tmp_path):
    torch.save(parts[0], tmp_path / "clip.pt")
    (tmp_path / "open_clip_config.json").write_text("{}")
    fault = f"{tmp_path}/clip.pt: open_clip's weights by the open_clip_config.json beside them, which OpenAI's network"
    for option in ("--clip-model-name", "--clip-model-path"):
        status, _, (*_, line) = judge(option, tmp_path / "clip.pt")
        assert status == 2
        assert f"{fault} may read wrongly; --clip-model-name open_clip:local-dir:{tmp_path} takes them" in line


def test_a_shape_is_a_clip_by_its_name_too(parts, tmp_path):
    torch.save(SHAPES["SPN4CIR"](*parts), tmp_path / "spn.pt")
    loaded = load_clip(tmp_path / "spn.pt").model.state_dict()
    assert all(torch.equal(loaded[name].cpu(), value) for name, value in parts[0].items())
