"""The Combiner is the published one: its weights fit, and it gives the same features and logits."""

import torch

from combiner import Combiner
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
