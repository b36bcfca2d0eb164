"""What a training step holds in memory, what waits for it, and what its validation asks of a card."""

import pytest
import torch
from torch import nn

from clip_fine_tune import FineTuning
from src.models.backbone import ENCODERS
from src.models.openai_clip import OpenAIClip, small_clip
from src.pictures.transforms import make_transform
from src.processes import gradients
from src.processes.gradients import _ShareOfDropout
from src.retrieval.answers import answer
from src.retrieval.gallery import Gallery
from src.tasks.registry import TASKS
from src.tasks.triplets import Triplet
from src.training.batches import TripletImages, TripletLoader
from src.training.loop import Training
from tests.support.gradients import plan_of
from tests.support.pretended_card import PretendedCard


@pytest.fixture
def triplets(world):
    return TripletImages(list(TASKS["CIRR"].read_all(world, "train").values()), make_transform("targetpad", 1.25, 64))


def test_no_gradient_is_held_during_a_forward_pass(triplets):
    stage = FineTuning(OpenAIClip(small_clip()), ENCODERS)
    optimizer = torch.optim.AdamW(stage.trained.parameters(), lr=1e-6)
    training = Training(stage.train(), optimizer, None, TASKS["CIRR"], plan_of(4, "fp32"))
    held = []
    stage.register_forward_pre_hook(lambda *_: held.append(sum(w.grad is not None for w in stage.parameters())))
    batch = triplets[[0, 1, 2, 3]]
    for _ in range(2):
        training.train_step(stage.inputs(batch, [caption for (caption,) in batch.captions]))
    assert held == [0, 0]


def test_the_optimizers_state_has_its_room_before_the_first_step_alone():
    stage = FineTuning(OpenAIClip(small_clip()), ENCODERS)
    learning = [weight for weight in stage.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=1e-6)
    training = Training(stage, optimizer, None, TASKS["CIRR"], plan_of(4, "fp32"))
    assert training.state.room_for_optimizer().nbytes == 2 * 4 * sum(weight.numel() for weight in learning)
    for weight in learning:
        weight.grad = torch.zeros_like(weight)
    optimizer.step()
    kept = sum(value.nbytes for state in optimizer.state.values() for value in state.values() if value.dim() > 0)
    assert kept == 2 * 4 * sum(weight.numel() for weight in learning)
    assert training.state.room_for_optimizer() is None


def test_a_share_keeps_its_own_part_of_the_dropout_mask(monkeypatch):
    monkeypatch.setattr(gradients, "share", lambda total: slice(3, 5))
    rows = torch.ones(2, 16, requires_grad=True)
    torch.manual_seed(0)
    dropped = _ShareOfDropout(0.5, total=8)(rows)
    kept = [tensor for tensor in (dropped.grad_fn._saved_self, dropped.grad_fn._saved_other) if tensor is not None]
    assert {tensor.untyped_storage().nbytes() for tensor in kept} == {2 * 16 * 4}
    torch.manual_seed(0)
    assert torch.equal(dropped, nn.functional.dropout(torch.ones(8, 16), 0.5)[3:5])


@pytest.mark.parametrize(("workers", "sizes"), [(0, [7]), (1, [7]), (3, [3, 3, 1]), (9, [1] * 7)])
@pytest.mark.workers
def test_workers_share_each_batch(workers, sizes, triplets):
    loader = TripletLoader(triplets, batch_size=8, num_workers=workers, seed=0)
    parts = loader._parts([5, 8, 2, 0, 1, 9, 4])
    assert list(map(len, parts)) == sizes
    assert sum(parts, []) == [5, 8, 2, 0, 1, 9, 4]


@pytest.mark.workers
def test_shared_batches_are_the_same(triplets):
    alone, shared = (list(TripletLoader(triplets, 8, workers, seed=3)) for workers in (0, 3))
    assert len(alone) == len(shared) == 6
    for one, other in zip(alone, shared, strict=True):
        assert one.captions == other.captions
        assert torch.equal(one.pixels, other.pixels)
        assert one.pixels.dtype == torch.uint8
        assert torch.equal(torch.stack(one[:2]), torch.stack(other[:2]))


def test_an_answer_waits_for_the_card_as_often_for_many_queries(monkeypatch):
    card, names = PretendedCard(), [f"picture {number}" for number in range(30)]
    counted = []
    with card.inserted(monkeypatch):
        features = torch.randn(30, 8, generator=torch.Generator().manual_seed(0)).to("cuda")
        gallery = Gallery(features, names)
        for queries in (4, 24):
            asked = [
                Triplet(names[number], ("a",), (names[number + 1],), tuple(names[number : number + 3 + number % 2]))
                for number in range(queries)
            ]
            card.waits.clear()
            answer(asked, gallery, features[None, :queries], TASKS["CIRR"].protocol())
            counted.append(len(card.waits))
    assert counted[0] == counted[1]
