"""The Combiner is the published one: its weights fit, and it gives the same features and logits."""

import torch

from combiner import Combiner
from src.retrieval.fusion import compared
from src.retrieval.gallery import Gallery
from src.training.losses import Bank
from tests.support.formula import fill_with_sines, sines


def test_state_dict_is_the_published_one(golden):
    with torch.device("meta"):
        combiner = Combiner(640, 2560, 5120)
    published = golden("combiner")
    shapes = {key: list(tensor.shape) for key, tensor in combiner.state_dict().items()}
    assert shapes == published["state_dict"]
    assert list(shapes) == list(published["state_dict"])
    assert sum(parameter.numel() for parameter in combiner.parameters()) == published["parameters_640"]


def test_features_and_logits_are_the_references(golden):
    published = golden("combiner")
    combiner = Combiner(8, 16, 32).eval()
    fill_with_sines(combiner, 0.3)
    images, texts, targets = (sines((rows, 8), 1.5, k) for rows, k in ((3, 100), (3, 200), (5, 300)))
    combined = combiner.combine_features(images, texts)
    torch.testing.assert_close(combined, torch.tensor(published["combined"]), rtol=0, atol=1e-5)
    torch.testing.assert_close(combined.norm(dim=1), torch.ones(3))
    logits = combiner(images, texts, targets)
    torch.testing.assert_close(logits, torch.tensor(published["logits"]), rtol=1e-5, atol=1e-4)


def test_dropout_works_in_training_only():
    combiner = Combiner(8, 16, 32)
    features = sines((4, 8), 1.0, 0), sines((4, 8), 1.0, 1)
    assert not torch.equal(combiner.combine_features(*features), combiner.combine_features(*features))
    combiner.eval()
    assert torch.equal(combiner.combine_features(*features), combiner.combine_features(*features))


def test_a_projection_of_the_gallery_is_its_formula():
    combiner = Combiner(8, 16, 32, gallery_projection=5).double().eval()
    fill_with_sines(combiner, 0.3)
    images, texts, gallery = (sines((rows, 8), 1.5, k).double() for rows, k in ((3, 100), (3, 200), (6, 300)))
    weights = {name: weight.numpy() for name, weight in combiner.gallery_projection.state_dict().items()}
    expected = []
    for picture in gallery.numpy():
        hidden = weights["hidden_layer.weight"] @ picture + weights["hidden_layer.bias"]
        moved = picture + weights["output_layer.weight"] @ hidden.clip(min=0) + weights["output_layer.bias"]
        expected.append(torch.from_numpy(moved / (moved**2).sum() ** 0.5))
    scores = combiner.combine_features(images, texts) @ torch.stack(expected).T
    torch.testing.assert_close(combiner(images, texts, gallery), 100 * scores, rtol=1e-12, atol=1e-12)
    held = Gallery(gallery.float(), [*"abcdef"]).compared_by(combiner.float().combine_features)
    torch.testing.assert_close(held.unit(slice(6)), torch.stack(expected).float())


def test_a_new_projection_changes_nothing():
    """Neither first weights nor how pictures are compared: those of a batch to the bit, those of a bank to rounding."""
    networks = []
    for hidden in (None, 5):
        torch.manual_seed(3)
        networks.append(Combiner(8, 16, 32, gallery_projection=hidden))
    published, projecting = networks
    for name, weight in published.state_dict().items():
        assert torch.equal(weight, projecting.state_dict()[name]), name
    features = sines((6, 8), 1.5, 0)
    assert torch.equal(compared(projecting.combine_features, features), features)
    assert compared(published.combine_features, features) is features
    bank = Bank(features)
    torch.testing.assert_close(bank.compared_by(projecting.combine_features), bank.unit, rtol=0, atol=2e-7)


def test_a_projection_draws_its_dropout_at_two_tenths():
    combiner = Combiner(8, 16, 32, dropout=0, gallery_projection=1000)
    torch.nn.init.ones_(combiner.gallery_projection.output_layer.weight)
    torch.nn.init.zeros_(combiner.gallery_projection.hidden_layer.weight)
    torch.nn.init.ones_(combiner.gallery_projection.hidden_layer.bias)
    features = sines((50, 8), 1.5, 0)
    kept = (combiner.compared_features(features) - features) * 0.8 / 1000
    assert 0.79 < kept.mean() < 0.81
    torch.testing.assert_close(combiner.eval().compared_features(features), features + 1000)
