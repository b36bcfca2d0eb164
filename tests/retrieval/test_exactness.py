"""Every faster way gives what the plain one gives: the published algorithms as benchmarks/plain.py writes them."""

import random

import pytest
import torch
import torch.nn.functional as F

from benchmarks import plain
from clip_fine_tune import FineTuning
from src.models.backbone import ENCODERS
from src.models.openai_clip import OpenAIClip
from src.models.openai_clip import small_clip as random_clip
from src.pictures import pictures
from src.pictures.normalisation import OPENAI_NORMALISATION, normalised
from src.pictures.transforms import make_transform
from src.retrieval import ranking
from src.retrieval.gallery import Gallery
from src.retrieval.ranking import best_rows, nearest, rank_targets, rank_targets_among
from src.tasks.registry import TASKS
from src.training.batches import TripletImages
from src.training.loop import Training
from tests.support.gradients import plan_of
from tests.support.processes import python
from tests.support.splits import published_dataset
from utils import autocast, extract_caption_features
from validate import compute_cirr_val_metrics

SIZES = (1, 60), (1, 4), (1, 4), (1, 80), (0, 3)
"""Of pictures, queries, factors, answers and rows left out of each query: from, to below."""


@pytest.fixture(params=[False, True], ids=["whole", "in pieces"])
def pieces(request, monkeypatch):
    """Let ranking take the whole at once, or many small pieces."""
    if request.param:
        for name, number in (("SCORES_AT_ONCE", 300), ("QUERIES_AT_ONCE", 3), ("ROWS_AT_ONCE", 16)):
            monkeypatch.setattr(ranking, name, number)


@pytest.fixture
def question(device):
    """Return features of 90 pictures, some the same, predicted features of 50 queries, and rows [50, 6] of groups."""
    draws = torch.Generator().manual_seed(1)
    features = torch.randn(90, 8, generator=draws)
    features[40:60] = features[10:30]
    rows = torch.stack([torch.randperm(90, generator=draws)[:6] for _ in range(50)])
    predicted = features[rows[:, 1]] + torch.randn(50, 8, generator=draws)
    return features.to(device), predicted.to(device), rows.to(device)


@pytest.mark.usefixtures("pieces")
def test_recalls_are_those_of_sorted_names(question):
    features, predicted, rows = question
    features = features + 1e-3 * torch.arange(90, device=features.device)[:, None]  # no ties: names sort them by luck
    names = [f"picture {number}" for number in range(90)]
    groups = [[names[row] for row in group] for group in rows.tolist()]
    references, targets = ([group[place] for group in groups] for place in (0, 1))
    queries = [(*pair, "", group) for *pair, group in zip(references, targets, groups, strict=True)]
    ours = compute_cirr_val_metrics(queries, None, features, names, lambda image, text: text, predicted)
    assert ours == plain.cirr_recalls(predicted, features, names, references, targets, groups)
    assert 0 < ours[3] < 100


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_ranks_and_answers_are_those_of_a_stable_sort(question, precision):
    features, predicted, rows = question
    scores = F.normalize(predicted, dim=-1) @ F.normalize(features, dim=-1).T
    scores[torch.arange(50), rows[:, 0]] = -torch.inf
    order = scores.argsort(dim=1, descending=True, stable=True)
    with autocast(precision):
        ranks = rank_targets(predicted[None], features, rows[:, 1], excluded_rows=rows[:, 0])
        answers = best_rows(predicted[None], features, 20, excluded_rows=rows[:, 0])[0]
        group_ranks = rank_targets_among(predicted[None], features, rows[:, 1], rows[:, 1:])
    assert ranks.tolist() == (order == rows[:, 1:2]).int().argmax(dim=1).tolist()
    assert answers.tolist() == order[:, :20].tolist()
    own, others = scores.gather(1, rows[:, 1:2]), scores.gather(1, rows[:, 2:])
    assert group_ranks.tolist() == ((others > own) | ((others == own) & (rows[:, 2:] < rows[:, 1:2]))).sum(1).tolist()


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("queries", [1, 3, 50])
def test_the_nearest_are_those_of_a_stable_sort(question, queries):
    """In parts of the gallery, with none to several rows left out of each query; two factors are multiplied."""
    features, predicted, rows = question
    unit, excluded = F.normalize(features, dim=-1), rows[:queries, :3].clone()
    excluded[0] = -1
    both = torch.stack([predicted[:queries], predicted.flip(0)[:queries]])
    for factors in (both[:1], both):
        scores = F.normalize(factors, dim=-1) @ unit.T
        if len(factors) == 2:
            scores = scores.clamp_min(0).pow(0.6) * scores.flip(0).clamp_min(0).pow(1.4)
        scores = scores[0]
        scores[1:].scatter_(1, excluded[1:], -torch.inf)
        exponents = (0.6, 1.4) if len(factors) == 2 else ()
        best = scores.sort(dim=1, descending=True, stable=True)
        found, values = nearest(factors, lambda part: unit[part], len(unit), 20, excluded, exponents)
        torch.testing.assert_close(values, best.values[:, :20], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(scores.gather(1, found), values, rtol=1e-5, atol=1e-6)
        # Of equal scores the earlier row comes first.
        tied = values[:, 1:] == values[:, :-1]
        assert (found[:, 1:] > found[:, :-1])[tied].all()


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_nearest_are_those_of_a_stable_sort_to_the_bit(dtype):
    """Of 1,000 random galleries with products that no order of summing rounds, so that ties are ties."""
    draws = torch.Generator().manual_seed(3)

    def draw(low, high, *size):
        return torch.randint(low, high, size, generator=draws)

    for _ in range(1000):
        images, queries, factors, k, most = (int(draw(low, high, 1)) for low, high in SIZES)
        features = draw(-1, 2, images, 16).to(dtype)
        features[draw(0, images, 2)] = 0
        # Of length one: four of its numbers are a half.
        places = torch.rand(factors, queries, 16, generator=draws).argsort()[..., :4]
        predicted = torch.zeros(factors, queries, 16).scatter_(2, places, 0.5)
        predicted *= draw(0, 2, *predicted.shape) * 2 - 1
        excluded = draw(0, images, queries, most).tolist()
        scores = predicted @ features.float().T
        scores = scores[0] if factors == 1 else scores.clamp_min(0).prod(dim=0)
        for query, rows in enumerate(excluded):
            scores[query, rows] = -torch.inf
        best = scores.sort(dim=1, descending=True, stable=True)
        gallery = Gallery(features, [str(row) for row in range(images)], torch.ones(images))
        found, values = gallery.nearest(predicted, k, excluded)
        assert torch.equal(found, best.indices[:, :k])
        assert torch.equal(values, best.values[:, :k])


def test_all_scores_equal(device):
    features, predicted = torch.ones(50, 4, device=device), torch.ones(1, 3, 4, device=device)
    targets = torch.tensor([0, 7, 49], device=device)
    assert rank_targets(predicted, features, targets).tolist() == [0, 7, 49]
    assert best_rows(predicted, features, 5)[0].tolist() == [[0, 1, 2, 3, 4]] * 3


def test_captions_are_those_of_the_whole_context(small_clip):
    captions = ["a red dress, but sleeveless", "", "is " + "very " * 100 + "long", "blue", "has long sleeves"] * 9
    ours = extract_caption_features(captions, small_clip, batch_size=4)
    torch.testing.assert_close(ours, plain.encode_captions(captions, small_clip.model), rtol=0, atol=1e-5)


@pytest.mark.parametrize("dataset", ["CIRR", "FashionIQ"])
def test_a_batch_opens_each_of_its_pictures_once(dataset, world, monkeypatch):
    task, preprocess = TASKS[dataset], make_transform("targetpad", 1.25, 64)
    triplets = TripletImages(list(task.read_all(world, "train").values()), preprocess)
    opened = []
    original = pictures.opened
    monkeypatch.setattr(pictures, "opened", lambda *arguments: opened.append(arguments[0]) or original(*arguments))
    chosen = list(range(20))
    random.Random(0).shuffle(chosen)
    references, targets, captions, pixels, *_ = triplets[chosen]
    images = normalised(pixels, OPENAI_NORMALISATION)
    assert len(opened) == len(set(opened)) == len(images)
    published = published_dataset(dataset, "train", "relative", preprocess, world)
    for place, number in enumerate(chosen):
        reference, target, caption = published[number]
        assert torch.equal(images[references[place]], reference)
        assert torch.equal(images[targets[place]], target)
        assert list(captions[place]) == ([caption] if dataset == "CIRR" else caption)


def test_a_step_of_stage_1_is_the_plain_one(world, device):
    """Loss and gradients are those of a step without shortcuts.

    Ours takes each picture once through the tower, trims captions, keeps channels last and fuses AdamW.
    """
    splits = list(TASKS["CIRR"].read_all(world, "train").values())
    batch = TripletImages(splits, make_transform("targetpad", 1.25, 64))[list(range(24))]
    references, targets, captions, pixels, *_ = batch
    images = normalised(pixels, OPENAI_NORMALISATION)
    captions = [caption for (caption,) in captions]
    assert len(images) < 48
    results = []
    for ours in (False, True):
        torch.manual_seed(0)
        clip_model = random_clip().to(device).eval()
        stage = FineTuning(OpenAIClip(clip_model), ENCODERS)
        learning = [parameter for parameter in stage.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(learning, lr=1e-3, eps=1e-7, fused=ours)
        if ours:
            clip_model.to(memory_format=torch.channels_last)
            training = Training(stage, optimizer, None, TASKS["CIRR"], plan_of(len(captions), "fp32"))
            loss = training.train_step(stage.inputs(batch, captions)).item()
        else:
            loss = plain.fine_tuning_step(
                images[references].to(device), images[targets].to(device), captions, clip_model, optimizer
            )
        results.append((loss, clip_model.visual.conv1.weight.grad, clip_model.token_embedding.weight.grad))
    (loss, *gradients), (plain_loss, *plain_gradients) = results
    assert loss == pytest.approx(plain_loss, rel=1e-5)
    for ours, theirs in zip(gradients, plain_gradients, strict=True):
        assert (ours - theirs).norm() < 1e-5 * theirs.norm()


@pytest.mark.parametrize(
    "command",
    [
        *("clip_fine_tune", "combiner_train", "validate", "cirr_test_submission", "report"),
        *("benchmarks.__main__", "benchmarks.machine", "benchmarks.search"),
    ],
)
@pytest.mark.parametrize(("flag", "status"), [("--help", 0), ("--no-such-flag", 2)])
def test_flags_are_answered_before_torch_is_imported(command, flag, status):
    program = (
        f"import runpy, sys; sys.argv = ['{command}', '{flag}']\n"
        f"try: runpy.run_module('{command}', run_name='__main__')\n"
        "except SystemExit as end: print({'torch', 'pandas', 'numpy', 'PIL'} & set(sys.modules), end.code or 0)\n"
    )
    ran = python("-c", program)
    assert ran.stdout.splitlines()[-1] == f"set() {status}"
