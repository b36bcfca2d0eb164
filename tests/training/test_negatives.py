"""Losses, and their negatives: a bank of all training pictures, or a batch with or without the target's own copies."""

import json
import shutil
import sys
from functools import partial

import clip.model
import pytest
import torch

import clip_fine_tune
import combiner_train
from src.base.reading import read_json
from src.pictures.normalisation import OPENAI_NORMALISATION, normalised
from src.pictures.transforms import make_transform
from src.tasks.own import OwnTriplets
from src.tasks.registry import TASKS
from src.training import losses
from src.training.batches import TripletImages, TripletRows
from src.training.losses import Bank, generalised_cross_entropy, loss_of
from tests.support import gradients
from tests.support.commands import status_of, toy_options
from tests.support.submissions import write


def plain_loss(model, negatives, robustness=None):
    """Return the loss of gradients.py's batch as the definitions have it, query by query, and its gradients.

    `robustness` is the q of the generalised cross-entropy; without it the loss is the cross-entropy.
    """
    stage, given = gradients.stage_of(model, negatives=negatives), gradients.share_of_batch(model)
    references, targets = gradients.picture_rows().tolist()
    features = gradients.picture_features()
    if model in gradients.COMBINERS + gradients.ALONG:
        texts = given[2] if model in gradients.COMBINERS else stage.text_encoder.clip_model.encode_text(given[2])
        predicted = stage.combiner.combine_features(features[references], texts)
    else:
        if model == "transformer":
            features = stage.clip_model.encode_image(normalised(given[0], OPENAI_NORMALISATION).double())
        sums = features[references] + stage.clip_model.encode_text(given[3])
        predicted = sums / sums.norm(dim=1, keepdim=True)
    if model.startswith("projecting"):
        hidden, output = stage.combiner.gallery_projection.hidden_layer, stage.combiner.gallery_projection.output_layer
        moved = (features @ hidden.weight.T + hidden.bias).relu() @ output.weight.T + output.bias
        features = features + moved
    unit = features / features.norm(dim=1, keepdim=True)
    total = 0
    for number, (query, target) in enumerate(zip(predicted, targets, strict=True)):
        if negatives == "bank":
            others = [row for row in range(len(unit)) if row != target]
        else:
            others = [row for place, row in enumerate(targets) if place != number]
            others = [row for row in others if row != target or negatives == "batch"]
        scores = torch.stack([gradients.SCALE * query @ unit[row] for row in (target, *others)])
        probability = scores[0].exp() / scores.exp().sum()
        total += -probability.log() if robustness is None else (1 - probability**robustness) / robustness
    loss = total / gradients.BATCH
    weights = {name: weight for name, weight in stage.trained.named_parameters() if weight.requires_grad}
    return dict(zip(weights, torch.autograd.grad(loss, weights.values()), strict=True)) | {"loss": loss.detach()}


STEPS = [
    *(("combiner", negatives, processes, None) for negatives in ("bank", "masked") for processes in (1, 2, 4)),
    *(("text", "bank", processes, clip_bs) for processes, clip_bs in ((1, None), (1, 5), (2, 8), (4, 1))),
    *(("along", "bank", processes, clip_bs) for processes, clip_bs in ((1, 13), (1, 5), (2, 1), (4, 8))),
    *(("text", "masked", processes, clip_bs) for processes, clip_bs in ((1, 1), (2, None))),
    *(("transformer", "masked", processes, clip_bs) for processes, clip_bs in ((1, 8), (4, None))),
    *(("projecting", negatives, processes, None) for negatives in ("bank", "masked") for processes in (1, 4)),
    *(("projecting_along", "bank", processes, clip_bs) for processes, clip_bs in ((1, 5), (4, 8))),
]
ROBUST_STEPS = [
    *((*step, 0.7) for step in STEPS[:6]),
    *(("text", "bank", processes, clip_bs, 0.7) for processes, clip_bs in ((1, 5), (4, 1))),
    ("along", "bank", 2, 1, 0.7),
    ("text", "masked", 1, 1, 0.7),
    *(("transformer", "masked", processes, clip_bs, 0.7) for processes, clip_bs in ((1, 8), (4, None))),
    ("text", "batch", 2, 5, 0.7),
    ("along", "batch", 4, None, 1.0),
    ("transformer", "batch", 1, 8, 0.7),
    ("transformer", "batch", 2, 8, 0.01),
]


@pytest.mark.parametrize(
    ("model", "negatives", "processes", "clip_bs", "robustness"), [*((*step, None) for step in STEPS), *ROBUST_STEPS]
)
def test_a_step_is_that_of_the_definition(
    model, negatives, processes, clip_bs, robustness, forks, tmp_path, monkeypatch
):
    """In float64. 13 queries name 20 pictures, some of them several times."""
    loss = [negatives] if robustness is None else [negatives, robustness]
    order = [tmp_path / "found", model, clip_bs, "fp64", *loss]
    assert forks.run("gradients", order, processes=processes) == 0, forks.said()
    found = torch.load(tmp_path / "found", weights_only=True)
    monkeypatch.setattr(clip.model.LayerNorm, "forward", clip.model.LayerNorm.forward)  # gradients.py replaces it
    expected = plain_loss(model, negatives, robustness)
    assert found.keys() == expected.keys()
    assert len(set(gradients.picture_rows()[1].tolist())) < gradients.BATCH
    torch.testing.assert_close(found["loss"], expected["loss"], rtol=1e-10, atol=0)
    largest = max(gradient.norm() for gradient in expected.values())
    for name, gradient in expected.items():
        assert (found[name] - gradient).norm() <= 1e-10 * gradient.norm() + 1e-13 * largest, name


@pytest.mark.parametrize("robustness", [sys.float_info.min, 1e-50, 1e-12, 1e-6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_generalised_cross_entropy_becomes_the_cross_entropy(dtype, robustness, device):
    logits = 5 * torch.randn(9, 30, dtype=dtype, device=device)
    labels = torch.randint(30, (9,), device=device)
    results = []
    for measure in (partial(generalised_cross_entropy, robustness=robustness), torch.nn.functional.cross_entropy):
        given = logits.clone().requires_grad_()
        loss = measure(given, labels)
        results.append((loss, *torch.autograd.grad(loss, given)))
    rounding = 1e-6 if dtype == torch.float32 else 1e-14
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=rounding + 100 * robustness, atol=0)


def test_a_target_without_any_probability_has_a_loss_and_no_gradient(device):
    """In fp32 its probability is 0 from e^-104 on."""
    logits = torch.tensor([[0.0, 90, 0], [0, 150, 0], [0, 1e30, 0], [1e30, 0, 0]], device=device, requires_grad=True)
    loss = generalised_cross_entropy(logits, torch.zeros(4, dtype=torch.long, device=device), "sum", robustness=0.7)
    (gradient,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(loss.cpu(), torch.tensor(3 / 0.7))
    assert gradient.isfinite().all()
    assert gradient.abs().max() < 1e-20


@pytest.mark.parametrize("loss", ["cross-entropy", "gce"])
def test_a_large_bank_is_taken_in_pieces(loss, monkeypatch, device):
    plan = gradients.plan_of(10)._replace(scale=50, loss=loss)
    bank = Bank(torch.randn(30, 4, dtype=torch.double, device=device))
    labels = torch.randint(30, (10,), device=device)
    predicted = torch.nn.functional.normalize(torch.randn(10, 4, dtype=torch.double, device=device), dim=-1)
    results = []
    for at_once in (2**26, 70):  # two queries, since thirty logits each fit twice
        monkeypatch.setattr(losses, "LOGITS_AT_ONCE", at_once)
        given = predicted.clone().requires_grad_()
        loss = loss_of(plan)(given, bank.unit, labels=labels, pictures=torch.arange(30, device=device) // 2)
        results.append((loss, *torch.autograd.grad(loss, given)))
    for whole, pieces in zip(*results, strict=True):
        torch.testing.assert_close(pieces, whole, rtol=1e-12, atol=1e-12)


def test_a_bank_holds_features_once():
    features = 5 * torch.randn(9, 4)
    before = features.clone()
    bank = Bank(features)
    assert bank.unit.data_ptr() == features.data_ptr()
    torch.testing.assert_close(bank.unit.norm(dim=1), torch.ones(9))
    torch.testing.assert_close(bank[torch.tensor([3, 3, 0])], before[[3, 3, 0]])


@pytest.mark.parametrize("batches", [TripletRows, TripletImages])
def test_pictures_with_the_same_bytes_are_one(batches, broken_world):
    splits = list(TASKS["CIRR"].read_all(broken_world, "train").values())
    ends = [(triplet.reference, triplet.targets[0]) for triplet in splits[0].triplets]
    original, copy = ends[0][1], next(name for pair in ends[1:] for name in pair if name not in ends[0])
    shutil.copy(splits[0].pictures[original], splits[0].pictures[copy])
    preprocess = make_transform("targetpad", 1.25, 64)
    all_of_them, distinct = batches(splits, preprocess), batches(splits, preprocess, distinct=True)
    assert set(all_of_them.pictures.names) - set(distinct.pictures.names) == {copy}
    numbers = list(range(len(ends)))
    batch, targets = distinct[numbers], distinct[numbers].all_targets.tolist()
    names = [distinct.pictures.names[row] for row in targets]
    assert names == [original if target == copy else target for _, target in ends]
    if batches is TripletImages:
        whole = all_of_them[numbers]
        assert len(batch.pixels) == len(whole.pixels) - 1
        assert torch.equal(batch.pixels[batch.references], whole.pixels[whole.references])


def test_the_same_parts_of_pictures_with_the_same_bytes_are_one(world, tmp_path):
    picture = next((world / "fashionIQ_dataset" / "images").iterdir())
    for name in ("a.jpg", "b.jpg"):
        shutil.copy(picture, tmp_path / name)
    first, same, other, whole = "a.jpg#xywh=0,0,9,9", "b.jpg#xywh=0,0,9,9", "a.jpg#xywh=1,0,9,9", "b.jpg"
    rows = [
        {"reference": reference, "target": target, "caption": "redder"}
        for reference, target in ((first, same), (other, whole))
    ]
    write(tmp_path / "triplets.train.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows))
    splits = list(OwnTriplets.in_folder(tmp_path).read_all(tmp_path, "train").values())
    distinct = TripletRows(splits, make_transform("targetpad", 1.25, 64), distinct=True)
    assert distinct.pictures.names == [first, other, whole]


@pytest.mark.parametrize("encoder", ["both", "image"])
def test_a_bank_of_pictures_that_learn_is_refused(encoder, options, capsys):
    bank = ["--dataset", "CIRR", *options, "--negatives", "bank"]
    assert status_of(clip_fine_tune.main, [*bank, "--encoder", encoder]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert f"--negatives bank: --encoder {encoder} cannot use it, --encoder text can: the bank's features" in line


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ("--negatives bank --mask-same-target", "--mask-same-target is for --negatives batch"),
        ("--robustness .5", "--robustness is for --loss gce"),
        ("--loss gce --robustness 0", "argument --robustness: '0' is not a number above 0, up to 1"),
        ("--loss gce --robustness 1.01", "argument --robustness: '1.01' is not a number above 0, up to 1"),
        ("--loss gce --robustness nan", "argument --robustness: 'nan' is not a number above 0, up to 1"),
        ("--loss mae", "argument --loss: invalid choice: 'mae'"),
    ],
)
@pytest.mark.parametrize("command", [clip_fine_tune, combiner_train])
def test_options_that_cannot_go_together_are_refused(command, flags, line, options, capsys):
    encoder = ["--encoder", "text"] if command is clip_fine_tune else []
    assert status_of(command.main, ["--dataset", "CIRR", *options, *encoder, *flags.split()]) == 2
    assert line in capsys.readouterr().err.splitlines()[-1]


def test_a_run_says_its_loss(world, tmp_path, run_folder):
    short = ["--num-epochs", "1", "--batch-size", "16", "--projection-dim", "8", "--hidden-dim", "8"]
    combiner_train.main(
        [*toy_options(world, tmp_path), *short, "--negatives", "bank", "--scale", "50", "--loss", "gce"]
    )
    options = read_json(run_folder() / "training_hyperparameters.json", dict)
    assert (options["negatives"], options["scale"], options["mask_same_target"]) == ("bank", 50, False)
    assert (options["loss"], options["robustness"]) == ("gce", 0.7)
