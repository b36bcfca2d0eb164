"""What stands around the model: features, captions, precisions, weights, and what a loop reports."""

import random

import clip
import pytest
import torch
from tqdm import tqdm

from combiner import Combiner, load_combining_function
from data_utils import CIRRDataset
from src.models.openai_clip import small_clip as random_clip
from src.pictures.transforms import make_transform
from utils import (
    autocast,
    caption_tokens,
    collate_fn,
    element_wise_sum,
    extract_caption_features,
    extract_index_features,
    generate_randomized_fiq_caption,
    load_clip,
    save_model,
    set_train_bar_description,
    update_train_running_results,
)


def test_training_captions_are_the_references(golden):
    published = golden("captions")
    flattened = [caption for pair in published["pairs"] for caption in pair]
    for seed, case in enumerate(published["train"]):
        draws = random.Random(seed)
        assert [draws.random() for _ in case["draws"]] == case["draws"]
        assert generate_randomized_fiq_caption(flattened, random.Random(seed)) == case["captions"]
        random.seed(seed)
        assert generate_randomized_fiq_caption(flattened) == case["captions"]


def test_element_wise_sum():
    images, texts = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 4.0]])
    assert element_wise_sum(images, texts).tolist() == [[pytest.approx(0.6), pytest.approx(0.8)]]


def test_collation_keeps_every_sample():
    images, names = collate_fn([(torch.zeros(2), "a"), (torch.ones(2), "b")])
    assert images.tolist() == [[0, 0], [1, 1]]
    assert list(names) == ["a", "b"]
    with pytest.raises(ValueError, match="None"):
        collate_fn([(torch.zeros(2), "a"), None])


def test_running_results_weigh_batches_by_their_size(capsys):
    results = {"images_in_epoch": 0, "accumulated_train_loss": 0}
    update_train_running_results(results, torch.tensor(1.0), 30)
    update_train_running_results(results, torch.tensor(4.0), 10)
    assert results == {"images_in_epoch": 40, "accumulated_train_loss": 70.0}
    with tqdm(range(2)) as bar:
        set_train_bar_description(bar, 3, 10, results)
    assert "[3/10] train loss: 1.750" in capsys.readouterr().err


def test_captions_are_cut_to_the_context(small_clip):
    tokens = caption_tokens(["red " * 200, "red"], small_clip)
    assert tokens.shape == (2, 77)
    end_of_text = tokens.max()
    assert tokens[0, -1] == end_of_text
    assert tokens[1, 2] == end_of_text


@torch.no_grad()
def test_captions_are_encoded_without_what_follows_them(small_clip, device):
    captions = ["a red dress, but sleeveless", "blue", "has long sleeves and is shiny"]
    assert caption_tokens(captions, small_clip).shape == (3, 8)
    whole = small_clip.model.encode_text(clip.tokenize(captions).to(device))
    torch.testing.assert_close(extract_caption_features(captions, small_clip), whole, rtol=0, atol=1e-5)


@pytest.mark.workers
def test_index_features(world, small_clip, device):
    dataset = CIRRDataset("val", "classic", make_transform("targetpad", 1.25, 64), world)
    features, names = extract_index_features(dataset, small_clip)
    assert features.shape == (30, 64)
    assert names == dataset.image_names
    with torch.no_grad():
        alone = small_clip.model.encode_image(dataset[7][1][None].to(device))
    torch.testing.assert_close(features[7], alone[0], rtol=0, atol=1e-5)
    with_workers, _ = extract_index_features(dataset, small_clip, num_workers=2)
    assert torch.equal(features, with_workers)


@pytest.mark.parametrize("precision", ["auto", "fp32", "bf16", "fp16"])
def test_precisions(precision, world, small_clip):
    dataset = CIRRDataset("val", "classic", make_transform("targetpad", 1.25, 64), world)
    features, _ = extract_index_features(dataset, small_clip)
    with autocast(precision):
        reduced, _ = extract_index_features(dataset, small_clip)
    assert reduced.dtype == torch.float32
    assert torch.equal(features, reduced) == (precision in ("auto", "fp32"))
    assert torch.cosine_similarity(features, reduced).min() > 0.999


def test_saved_weights_are_the_published_format(tmp_path):
    combiner = Combiner(8, 4, 6)
    save_model("combiner_7", 7, combiner, tmp_path)
    saved = torch.load(tmp_path / "saved_models" / "combiner_7.pt", weights_only=True)
    assert list(saved) == ["epoch", "Combiner"]
    assert saved["epoch"] == 7
    assert list(saved["Combiner"]) == list(combiner.state_dict())
    assert [path.name for path in (tmp_path / "saved_models").iterdir()] == ["combiner_7.pt"]


@pytest.fixture(scope="module")
def fp32_clip():
    """Make a CLIP whose weights do not survive a visit to fp16."""
    torch.manual_seed(1)
    return random_clip().eval()


def archive_of(clip_model, path):
    """Write the model as OpenAI publishes its own: a TorchScript archive that lists sizes among its weights."""
    clip_model.register_buffer("input_resolution", torch.tensor(64))
    traced = torch.jit.trace(clip_model, (torch.zeros(1, 3, 64, 64), torch.zeros(1, 77, dtype=torch.long)))
    del clip_model.input_resolution
    traced.save(str(path))


@pytest.mark.filterwarnings("ignore")  # tracing TorchScript says in several ways that it is deprecated
@pytest.mark.parametrize("form", ["plain", "checkpoint", "archive"])
def test_a_clip_is_read_from_every_kind_of_file(form, fp32_clip, tmp_path):
    path = tmp_path / "clip.pt"
    if form == "archive":
        archive_of(fp32_clip, path)
    else:
        weights = fp32_clip.state_dict()
        torch.save(weights if form == "plain" else {"epoch": 3, "CLIP": weights}, path)

    for backbone in (load_clip(str(path)), load_clip(str(path), path)):
        clip_model = backbone.model
        assert not clip_model.training
        for key, tensor in fp32_clip.state_dict().items():
            assert torch.equal(clip_model.state_dict()[key].cpu(), tensor), key


def test_a_checkpoint_is_loaded_over_a_clip(world, fp32_clip, tmp_path):
    save_model("tuned", 2, fp32_clip, tmp_path)
    clip_model = load_clip(str(world / "small_clip.pt"), tmp_path / "saved_models" / "tuned.pt").model
    assert torch.equal(clip_model.text_projection.cpu(), fp32_clip.text_projection)


def test_combining_functions(small_clip, tmp_path, device):
    assert load_combining_function(None, None, small_clip) is element_wise_sum
    assert load_combining_function("sum", None, small_clip) is element_wise_sum
    image, text = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 3.0]])
    assert load_combining_function("image", None, small_clip)(image, text).tolist() == [[1, 0]]
    assert load_combining_function("text", None, small_clip)(image, text).tolist() == [[0, 1]]
    combiner = Combiner(64, 4, 6)
    save_model("combiner", 0, combiner, tmp_path)
    path = tmp_path / "saved_models" / "combiner.pt"
    images, texts = torch.randn(2, 64), torch.randn(2, 64)
    expected = combiner.eval().combine_features(images, texts)
    for name in (None, "combiner"):
        combine = load_combining_function(name, path, small_clip)
        torch.testing.assert_close(combine(images.to(device), texts.to(device)).cpu(), expected)


def test_an_unused_combiner_is_mentioned(small_clip, capsys, tmp_path):
    assert load_combining_function("sum", tmp_path / "combiner.pt", small_clip) is element_wise_sum
    assert "combiner.pt is not used" in capsys.readouterr().err
    assert load_combining_function(None, None, small_clip, hidden_dim=8) is element_wise_sum
    assert capsys.readouterr().err == "--combining-function sum: --hidden-dim 8 is not used\n"
