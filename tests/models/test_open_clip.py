"""CLIPs of open_clip: OpenAI's network to the bit, other networks as they are, every command with each of them."""

import json
import shutil
import sys

import pandas as pd
import pytest
import torch

import clip_fine_tune
import combiner_train
import search
import validate
from clip_fine_tune import FineTuning
from src.base.errors import InputError
from src.command.flags import RetrieverOptions
from src.command.parser import name_or_file
from src.models.backbone import ENCODERS
from src.models.facts import read_facts
from src.models.open_clip import usual_normalisation
from src.models.openai_clip import random_clip
from src.models.registry import load_backbone
from src.pictures.normalisation import OPENAI_NORMALISATION
from src.pictures.transforms import make_transform
from src.retrieval.retriever import load_retriever
from src.tasks.registry import TASKS
from src.training.batches import TripletImages
from src.training.loop import Training
from tests.support.commands import COMBINER, status_of, toy_paths
from tests.support.forks import only_run
from tests.support.gradients import plan_of
from tests.support.open_clips import CONFIGS, HALF, PLAIN, load_open_clip, write_open_clip
from utils import caption_tokens, extract_caption_features, load_clip, model_label, save_model

open_clip = pytest.importorskip("open_clip")

CAPTIONS = ["a red dress, but sleeveless", "", "is " + "very " * 100 + "long", "blüe &amp; shiny", " has  Long sleeves"]
OTHER = ["not_causal", "siglip"]


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    """Write a CLIP of each configuration; return {name: its --clip-model-name}."""
    folder = tmp_path_factory.mktemp("open_clips")
    return {name: write_open_clip(folder / name, name) for name in CONFIGS}


@pytest.fixture(scope="module")
def loaded(named):
    return {name: load_clip(full) for name, full in named.items()}


# ---- OpenAI's network ----


def assert_openais(ours, theirs, device):
    """Assert that a CLIP of open_clip is OpenAI's `theirs`."""
    assert (ours.network, ours.normalisation) == ("", OPENAI_NORMALISATION)
    assert (ours.resolution, ours.dimension) == (theirs.resolution, theirs.dimension)
    tensors, expected = ours.model.state_dict(), theirs.model.state_dict()
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in expected.items())
    tokens = ours.tokenize(CAPTIONS)
    assert torch.equal(tokens, theirs.tokenize(CAPTIONS))
    images = torch.randn(2, 3, ours.resolution, ours.resolution, generator=torch.Generator().manual_seed(0)).to(device)
    with torch.inference_mode():
        for some in (tokens.to(device), ours.trimmed(tokens[[0, 1, 3]]).to(device)):
            assert torch.equal(ours.encode_tokens(some), theirs.encode_tokens(some))
        torch.testing.assert_close(ours.encode_images(images), theirs.encode_images(images), rtol=0, atol=1e-5)


def test_openais_network_in_small(small_clip, tmp_path, device):
    ours = load_clip(write_open_clip(tmp_path / "small", "openai", small_clip.model.state_dict()))
    assert_openais(ours, small_clip, device)


SHAPES = {
    "ViT-B-32-quickgelu": (512, 224, 12, 768, 32, 77, 49408, 512, 8, 12),
    "RN50x4-quickgelu": (640, 288, (4, 6, 10, 6), 80, None, 77, 49408, 640, 10, 12),
}


@pytest.mark.slow
@pytest.mark.parametrize("architecture", SHAPES)
def test_openais_networks(architecture, tmp_path, device):
    """As published in shape, each loads the stage-1 checkpoint of the other."""
    torch.manual_seed(0)
    model = random_clip(*SHAPES[architecture])
    for parameter in model.visual.parameters():
        if parameter.ndim == 1:  # a new ResNet's are ones and zeros, which would hide a part of it
            torch.nn.init.uniform_(parameter, 0.1, 0.5)
    save_model("tuned", 0, model, tmp_path)
    path = tmp_path / "saved_models" / "tuned.pt"
    theirs, ours = load_clip(str(path)), load_clip(f"open_clip:{architecture}:{path}")
    assert_openais(ours, theirs, device)
    theirs.load_over(path)
    ours.load_over(path)


def test_each_loads_the_others_stage_1(small_clip, loaded, tmp_path):
    for one, other in ((small_clip, loaded["openai"]), (loaded["openai"], small_clip)):
        save_model("tuned", 0, one.model, tmp_path, {"clip_model_name": "some"})
        whole = {name: tensor.clone() for name, tensor in other.model.state_dict().items()}
        try:
            other.load_over(tmp_path / "saved_models" / "tuned.pt")
            for name, tensor in one.model.state_dict().items():
                assert torch.equal(other.model.state_dict()[name], tensor)
        finally:
            other.model.load_state_dict(whole)


# ---- other networks ----


@pytest.mark.parametrize(
    ("name", "trims"), [("openai", 1), ("gelu", 1), ("eos", 1), ("not_causal", 0), ("siglip", 0), ("coca", 0)]
)
def test_captions_as_used_are_those_of_the_whole_context(name, trims, loaded, device):
    backbone = loaded[name]
    tokens = backbone.tokenize(CAPTIONS).to(device)
    assert tokens.shape == (5, CONFIGS[name]["text_cfg"]["context_length"])
    with torch.inference_mode():
        whole = backbone.model.encode_text(tokens, normalize=False)
        shorter = caption_tokens([CAPTIONS[0], CAPTIONS[3]], backbone)
        assert (shorter.shape[1] < 12) == bool(trims)
        used = backbone.encode_tokens(shorter)
    torch.testing.assert_close(extract_caption_features(CAPTIONS, backbone, 2), whole, rtol=0, atol=1e-5)
    torch.testing.assert_close(used, whole[[0, 3]], rtol=0, atol=1e-5)


def test_padding_counts_where_nothing_is_trimmed(loaded, device):
    for name in OTHER:
        backbone = loaded[name]
        tokens = backbone.tokenize([CAPTIONS[0]]).to(device)
        other = tokens.clone()
        other[0, -2] = 7
        with torch.inference_mode():
            change = backbone.encode_tokens(tokens) - backbone.encode_tokens(other)
        assert change.abs().max() > 1e-3


def test_mean_and_std_are_the_models_own(named, loaded):
    settings = load_retriever(RetrieverOptions(named["siglip"], feature_cache=None)).preprocess.settings
    assert HALF.items() <= settings.items()
    assert loaded["not_causal"].normalisation == OPENAI_NORMALISATION


def test_a_file_has_the_mean_and_std_of_its_architecture():
    """All published weights of SigLIP were trained with these, and a file of them does not tell."""
    assert usual_normalisation(open_clip, "ViT-B-16-SigLIP") == tuple(map(tuple, HALF.values()))
    assert usual_normalisation(open_clip, "RN50x4") == OPENAI_NORMALISATION


def test_a_tokenizer_of_its_own(tmp_path, device):
    """A folder as the hub has it brings its tokenizer, of another kind and vocabulary."""
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    words = {"<pad>": 0, "</s>": 1, "<unk>": 2, "red": 3, "dress": 4}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    name = write_open_clip(tmp_path / "siglip", "siglip", text={"hf_tokenizer_name": "some", "vocab_size": 5})
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(tmp_path / "siglip")
    backbone = load_clip(name)
    tokens = backbone.tokenize(["red dress", "a dress " * 9])
    assert tokens.tolist() == [[3, 4, 1] + [0] * 9, [2, 4] * 5 + [2, 1]]
    features = extract_caption_features(["red dress", "dress"], backbone)
    assert features.shape == (2, 64)
    with torch.inference_mode():
        whole = backbone.model.encode_text(tokens.to(device))
    torch.testing.assert_close(features[0], whole[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["gelu", "siglip", "coca"])
def test_pieces_have_the_gradients_of_the_whole(name, world, loaded):
    backbone = loaded[name]
    preprocess = make_transform("targetpad", 1.25, backbone.resolution, backbone.normalisation)
    batch = TripletImages(list(TASKS["CIRR"].read_all(world, "train").values()), preprocess)[list(range(14))]
    texts, found = [caption for (caption,) in batch.captions], []
    for clip_bs in (None, 4):
        stage = FineTuning(backbone, ENCODERS, clip_bs=clip_bs)
        learning = {name: value for name, value in stage.trained.named_parameters() if value.requires_grad}
        optimizer = torch.optim.SGD(learning.values(), lr=0)
        training = Training(stage.train(), optimizer, None, TASKS["CIRR"], plan_of(len(texts), "fp32"))
        training.train_step(stage.inputs(batch, texts))
        assert all(value.grad is not None for value in learning.values())
        found.append({name: value.grad.clone() for name, value in learning.items()})
    assert not {"logit_scale", "logit_bias"} & learning.keys()
    largest = max(gradient.norm() for gradient in found[0].values())
    for weight, gradient in found[0].items():
        assert (found[1][weight] - gradient).norm() <= 1e-4 * gradient.norm() + 1e-6 * largest, weight


# ---- every command ----


def flags_of(world, output, *extra):
    return [*toy_paths(world, output), *map(str, extra)]


STAGE_1 = ["--dataset", "CIRR", "--batch-size", "14", "--learning-rate", "1e-3", "--save-training"]


@pytest.mark.parametrize("name", OTHER)
def test_every_command(name, named, world, tmp_path, capsys):
    """Stage 1 stopped and resumed ends as if it was not; what follows takes the CLIP that checkpoints tell."""
    clip = ["--clip-model-name", named[name]]
    ends = []
    for output, epochs in ((tmp_path / "whole", ["2"]), (tmp_path / "parts", ["1", "2"])):
        clip_fine_tune.main(flags_of(world, output, *STAGE_1, *clip, "--num-epochs", epochs[0]))
        for more in epochs[1:]:
            clip_fine_tune.main(["--resume", str(only_run(output)), "--num-epochs", more])
        (tuned,) = output.glob("models/*/saved_models/tuned_clip_1.pt")
        ends.append(tuned)
    key = "CustomTextCLIP" if name == "siglip" else "CLIP"
    whole, parts = (torch.load(path, weights_only=True) for path in ends)
    assert set(whole) == {"epoch", key, "facts"}
    assert all(torch.equal(parts[key][part], tensor) for part, tensor in whole[key].items())
    assert read_facts(ends[0])["clip_model_name"] == named[name]
    assert only_run(tmp_path / "whole").name.startswith(f"clip_finetuned_on_cirr_open_clip-local-dir-{name}_")

    tuned = ["--clip-model-path", ends[0]]
    combiner_train.main(
        flags_of(world, tmp_path, *STAGE_1[2:4], "--num-epochs", "1", "--save-training", *COMBINER, *tuned)
    )
    (combiner,) = tmp_path.glob("models/*/saved_models/combiner_0.pt")
    assert read_facts(combiner)["clip_model_name"] == named[name]
    capsys.readouterr()
    recalls = []
    for cache in ([], [], ["--no-feature-cache"]):
        validate.main(flags_of(world, tmp_path, "--dataset", "CIRR", *tuned, "--combiner-path", combiner, *cache))
        recalls.append(capsys.readouterr().out)
    assert "recall_at50 = " in recalls[0]
    assert recalls[0] == recalls[1] == recalls[2]
    asked = ["--pictures", world / "my_pictures", "--caption", "in blue", "--clip-model-path", ends[0]]
    search.main(["--output-path", str(tmp_path), "--num-workers", "0", *clip, *map(str, asked)])
    assert ".png" in capsys.readouterr().out


@pytest.mark.slow
def test_two_processes_train_as_one(named, forks, world, tmp_path):
    flags = [*STAGE_1[:6], "--num-epochs", "2", "--clip-model-name", named["siglip"]]
    clip_fine_tune.main(flags_of(world, tmp_path / "one", *flags))
    assert forks.run("clip_fine_tune", flags_of(world, tmp_path / "two", *flags), processes=2) == 0, forks.said()
    one, two = (pd.read_csv(only_run(tmp_path / name) / "train_metrics.csv") for name in ("one", "two"))
    pd.testing.assert_frame_equal(one, two, rtol=1e-4, atol=0)


def test_equal_weights_of_two_networks_are_told_apart(loaded, tmp_path):
    """GELU and quick GELU have no weights, so neither a cache nor a Combiner may take one for the other."""
    gelu = load_open_clip(tmp_path / "gelu", "gelu", loaded["openai"].model.state_dict())
    assert gelu.network == "image gelu, text gelu"
    for encoder in (*ENCODERS, None):
        assert gelu.digest(encoder) != loaded["openai"].digest(encoder)


# ---- names and refusals ----


def test_names_of_files(named, tmp_path, monkeypatch):
    folder = named["openai"].rpartition(":")[2]
    shutil.copytree(folder, tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    assert name_or_file("open_clip:local-dir:mine") == f"open_clip:local-dir:{tmp_path / 'mine'}"
    weights = "mine/open_clip_pytorch_model.bin"
    assert name_or_file(f"open_clip:ViT-B-32:{weights}") == f"open_clip:ViT-B-32:{tmp_path / weights}"
    assert name_or_file("open_clip:ViT-B-32:openai") == "open_clip:ViT-B-32:openai"
    (tmp_path / "RN50x4").mkdir()
    assert name_or_file("RN50x4") == "RN50x4"
    assert model_label(f"open_clip:ViT-B-32:{tmp_path / weights}") == "open_clip-ViT-B-32-open_clip_pytorch_model"
    assert model_label("open_clip:ViT-B-32:openai") == "open_clip-ViT-B-32-openai"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("open_clip:ViT-B-32", "open_clip:ARCHITECTURE:PRETRAINED_OR_FILE is expected"),
        ("open_clip:ViT-B-33:openai", "no architecture ViT-B-33, but ViT-B-32"),
        (
            "open_clip:ViT-B-32:opennai",
            "opennai is neither a file nor pretrained weights of ViT-B-32 (openai, laion400m",
        ),
        ("open_clip:ViT-B-32:openai", "were trained with quick GELU; ViT-B-32-quickgelu has them"),
        ("open_clip:RN50x4:openai", "were trained with quick GELU; RN50x4-quickgelu has them"),
        ("open_clip:local-dir:/nowhere", "no such folder; if it was moved, give its new path"),
    ],
)
def test_names_that_are_refused(name, said, world, tmp_path, capsys):
    options = ["--dataset", "CIRR", "--clip-model-name", name]
    assert status_of(validate.main, flags_of(world, tmp_path, *options)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: --clip-model-name {name}: ")
    assert said in line


def test_without_the_library(world, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)  # what makes Python say that there is no such module
    options = ["--dataset", "CIRR", "--clip-model-name", "open_clip:ViT-B-32:openai"]
    assert status_of(validate.main, flags_of(world, tmp_path, *options)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "needs open_clip; `pip install -r requirements/backbones.txt` installs it" in line


@pytest.mark.filterwarnings("ignore")  # tracing TorchScript says in several ways that it is deprecated
def test_openais_archive_wants_quick_gelu(small_clip, tmp_path):
    """The form tells: only OpenAI publishes archives."""
    (tmp_path / "plain.json").write_text(json.dumps(PLAIN))
    open_clip.add_model_config(tmp_path / "plain.json")
    inputs = torch.zeros(1, 3, 64, 64), torch.zeros(1, 77, dtype=torch.long)
    torch.jit.trace(small_clip.model.cpu(), inputs).save(str(tmp_path / "openai.pt"))
    with pytest.raises(InputError, match="were trained with quick GELU; plain-quickgelu has them"):
        load_backbone(f"open_clip:plain:{tmp_path / 'openai.pt'}")
    torch.save(small_clip.model.state_dict(), tmp_path / "cannot_tell.pt")
    assert load_backbone(f"open_clip:plain:{tmp_path / 'cannot_tell.pt'}").network == "image gelu, text gelu"


def test_a_checkpoint_of_another_network_is_refused(named, loaded, small_clip, tmp_path):
    facts = {"clip_model_name": named["gelu"], "clip_network": loaded["gelu"].network}
    save_model("tuned", 0, loaded["gelu"].model, tmp_path, facts)
    path = tmp_path / "saved_models" / "tuned.pt"
    said = rf"was trained with --clip-model-name {named['gelu']}, which is another network \(image gelu, text gelu, not"
    for load in (
        lambda: small_clip.load_over(path),
        lambda: load_clip(str(path)),
        lambda: loaded["openai"].load_over(path),
    ):
        with pytest.raises(InputError, match=said):
            load()
    loaded["gelu"].load_over(path)
