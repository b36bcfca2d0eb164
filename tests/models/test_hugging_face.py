"""Files that Hugging Face's transformers writes: CLIPModels give their own features here, and nothing in them runs."""

import copy
import json
import sys

import pytest
import torch

import clip_fine_tune
import validate
from src.base.errors import InputError
from src.command.parser import name_or_file
from src.models.facts import read_facts
from src.models.hugging_face import to_openai
from src.pictures.normalisation import OPENAI_NORMALISATION
from tests.support.commands import status_of
from tests.support.forks import only_run
from tests.support.touch import Touch
from utils import load_clip, model_label

transformers = pytest.importorskip("transformers")
safetensors = pytest.importorskip("safetensors.torch")

CAPTIONS = ["a red dress, but sleeveless", "", "is " + "very " * 100 + "long", "blue"]
TEXT = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "vocab_size": 49408, "projection_dim": 32}
TEXT |= {"bos_token_id": 49406, "eos_token_id": 49407}
VISION = {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 2, "image_size": 64, "patch_size": 16}
NETWORKS = {"openai": ("quick_gelu", 2, 1), "laion": ("gelu", 2, 1), "heads": ("gelu", 4, 4)}
"""{name: activation, heads of the vision tower, heads of the text tower}"""


@pytest.fixture(scope="module")
def models():
    """Return {name: a CLIPModel of random weights}."""
    made = {}
    for name, (activation, vision_heads, text_heads) in NETWORKS.items():
        torch.manual_seed(0)
        text = TEXT | {"hidden_act": activation, "num_attention_heads": text_heads}
        vision = VISION | {"hidden_act": activation, "num_attention_heads": vision_heads}
        config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=32)
        made[name] = transformers.CLIPModel(config).eval()
        with torch.no_grad():  # new biases are zeros, which would hide one that is lost
            for weight in made[name].parameters():
                weight.add_(torch.randn_like(weight), alpha=0.02)
    return made


def saved(model, folder, form):
    """Save a CLIPModel in one of both forms to a folder; return its file of weights."""
    model.save_pretrained(folder)
    if form == "safetensors":
        return folder / "model.safetensors"
    (folder / "model.safetensors").unlink()
    ids = {"text_model.embeddings.position_ids": torch.arange(77)[None]}  # which older versions wrote as well
    torch.save(model.state_dict() | ids, folder / "pytorch_model.bin")
    return folder / "pytorch_model.bin"


def features_of(output):
    """Return the features of what transformers gives, which was a tensor once."""
    return getattr(output, "pooler_output", output)


def assert_own_features(backbone, model, device):
    tokens = backbone.tokenize(CAPTIONS)
    images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        theirs = features_of(model.get_text_features(input_ids=tokens))
        for some in (tokens, backbone.trimmed(tokens)):
            ours = backbone.encode_tokens(some.to(device)).cpu()
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
        theirs = features_of(model.get_image_features(pixel_values=images))
        torch.testing.assert_close(backbone.encode_images(images.to(device)).cpu(), theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("form", ["safetensors", "bin"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_clip_model_gives_its_own_features(name, form, models, tmp_path, device):
    file = saved(models[name], tmp_path / "clip", form)
    for given in (file, file.parent):
        backbone = load_clip(str(given))
        assert (backbone.dimension, backbone.resolution) == (32, 64)
        assert backbone.normalisation == OPENAI_NORMALISATION
        assert_own_features(backbone, models[name], device)


def test_without_a_configuration_it_is_openais_network(models, tmp_path, device):
    for name in ("openai", "laion"):
        file = saved(models[name], tmp_path / name, "safetensors")
        (file.parent / "config.json").unlink()
        backbone = load_clip(str(file))
        assert backbone.network == ""
    with pytest.raises(AssertionError):  # which only the configuration tells
        assert_own_features(backbone, models["laion"], device)
    assert_own_features(load_clip(str(tmp_path / "openai")), models["openai"], device)


def test_half_precision_and_mean_and_std_are_the_files(models, tmp_path):
    half = copy.deepcopy(models["openai"]).half()
    file = saved(half, tmp_path / "clip", "safetensors")
    pictures = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
    (file.parent / "preprocessor_config.json").write_text(json.dumps(pictures))
    backbone = load_clip(str(file.parent))
    assert backbone.normalisation == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    expected = to_openai(half.state_dict())
    for name, tensor in backbone.model.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor.cpu(), expected[name].float()), name


def test_it_trains_and_is_judged(models, world, tmp_path, monkeypatch, capsys):
    """Its folder is named once, by a path from anywhere; stage 1 tells it to what follows."""
    saved(models["heads"], tmp_path / "clip-of-mine.v2", "safetensors")
    monkeypatch.chdir(tmp_path)
    paths = ["--data-path", str(world), "--output-path", str(tmp_path / "out"), "--num-workers", "0"]
    short = ["--dataset", "CIRR", "--num-epochs", "1", "--batch-size", "16", "--save-training"]
    clip_fine_tune.main([*paths, *short, "--clip-model-name", "clip-of-mine.v2"])
    assert only_run(tmp_path / "out").name.startswith("clip_finetuned_on_cirr_clip-of-mine.v2_")
    (tuned,) = (tmp_path / "out").glob("models/*/saved_models/tuned_clip_0.pt")
    assert read_facts(tuned)["clip_model_name"] == str(tmp_path / "clip-of-mine.v2")
    capsys.readouterr()
    validate.main([*paths, "--dataset", "CIRR", "--clip-model-path", str(tuned)])
    assert "recall_at50 = " in capsys.readouterr().out
    # Its heads and its activation are not in its weights, so the checkpoint alone is not enough.
    assert status_of(validate.main, [*paths, "--dataset", "CIRR", "--clip-model-name", tuned]) == 2
    assert "text heads of 16, not OpenAI's" in capsys.readouterr().err


def test_names(models, tmp_path, monkeypatch):
    saved(models["openai"], tmp_path / "RN50x4", "safetensors")
    monkeypatch.chdir(tmp_path)
    assert name_or_file("RN50x4") == str(tmp_path / "RN50x4")
    (tmp_path / "RN50x4" / "model.safetensors").rename(tmp_path / "model.safetensors")
    assert name_or_file("RN50x4") == "RN50x4", "a folder without weights is called so by chance"
    assert name_or_file("model.safetensors") == str(tmp_path / "model.safetensors")
    assert model_label(str(tmp_path / "RN50x4")) == "RN50x4"


# ---- files that do not do ----


def test_files_that_are_refused(models, tmp_path, monkeypatch):
    def said(path):
        with pytest.raises(InputError) as raised:
            load_clip(str(path))
        (line,) = str(raised.value).splitlines()
        assert line.startswith(str(tmp_path))
        return line

    file = saved(models["openai"], tmp_path / "clip", "safetensors")
    config = json.loads((file.parent / "config.json").read_text())
    for change, line in (
        ({"model_type": "siglip"}, "a siglip by its config.json; a clip is needed"),
        ({"text_config": {"hidden_act": "relu"}}, "hidden_act quick_gelu or gelu, layer_norm_eps"),
        ({"vision_config": {"num_attention_heads": 7}}, "heads that divide the width are needed in its vision_config"),
    ):
        (file.parent / "config.json").write_text(json.dumps(config | change))
        assert line in said(file.parent)

    weights = safetensors.load_file(file)
    torch.save(weights, tmp_path / "other_name.pt")
    assert "takes it as model.safetensors or pytorch_model.bin" in said(tmp_path / "other_name.pt")
    del weights["vision_model.encoder.layers.1.self_attn.k_proj.bias"]
    safetensors.save_file(weights, file)
    lacking = "visual.transformer.resblocks.1.self_attn.k_proj.bias"
    assert f"not the weights of a CLIPModel (KeyError: '{lacking}')" in said(file)
    file.write_bytes(file.read_bytes()[:-1000])
    assert "cannot be read as weights" in said(file)
    file.rename(file.with_name("model-00001-of-00002.safetensors"))
    assert "a folder without model.safetensors or pytorch_model.bin" in said(file.parent)
    (file.parent / "model.safetensors.index.json").write_text("{}")
    assert "its weights are in several files; save_pretrained" in said(file.parent)


def test_without_the_library(models, tmp_path, monkeypatch):
    file = saved(models["openai"], tmp_path / "clip", "safetensors")
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)  # what makes Python say that there is no such module
    with pytest.raises(InputError, match="a safetensors file needs `pip install safetensors`"):
        load_clip(str(file))


def test_openais_layout_in_a_safetensors_file(small_clip, tmp_path):
    weights = {name: tensor.contiguous() for name, tensor in small_clip.model.state_dict().items()}
    safetensors.save_file(weights, tmp_path / "clip.safetensors")
    loaded = load_clip(str(tmp_path / "clip.safetensors")).model.state_dict()
    assert all(torch.equal(loaded[name].cpu(), tensor.cpu()) for name, tensor in weights.items())


def test_no_code_runs(tmp_path):
    torch.save({"vision_model.x": Touch(tmp_path / "touched")}, tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match="which is code"):
        load_clip(str(tmp_path))
    assert not (tmp_path / "touched").exists()
