"""Both stages, end to end on the toy world, and back through validate.py from what they wrote."""

import json
import random
import re

import clip
import pandas as pd
import pytest
import torch
from torch import nn

import clip_fine_tune
import combiner_train
import validate
from clip_fine_tune import FineTuning
from combiner import Combiner
from combiner_train import CombinerTraining
from src.models.backbone import ENCODERS
from src.models.openai_clip import OpenAIClip
from src.models.openai_clip import small_clip as random_clip
from src.models.weights import read_weights
from src.pictures.transforms import make_transform
from src.tasks.registry import TASKS
from src.training.batches import TripletRows, encode_triplets
from tests.support.commands import CIRR_RECALLS, COMBINER
from tests.support.splits import published_dataset
from utils import Encoder, collate_fn

SHORT = ["--num-epochs", "3", "--batch-size", "16"]
COLUMNS = {
    "CIRR": [*CIRR_RECALLS, "mean(R@5+R_s@1)", "arithmetic_mean", "harmonic_mean", "geometric_mean"],
    "FashionIQ": [
        *(f"{kind}_recall_at{k}" for kind in ("dress", "toptee", "shirt") for k in (10, 50)),
        "average_recall_at10",
        "average_recall_at50",
        "average_recall",
    ],
}


def fine_tune(dataset, options, *extra):
    clip_fine_tune.main(["--dataset", dataset, "--learning-rate", "1e-3", *SHORT, *options, *extra])


def train_combiner(dataset, options, *extra):
    combiner_train.main(["--dataset", dataset, "--combiner-lr", "1e-3", *SHORT, *COMBINER, *options, *extra])


def metrics_of(folder):
    return pd.read_csv(folder / "train_metrics.csv"), pd.read_csv(folder / "validation_metrics.csv")


@pytest.mark.parametrize("dataset", ["CIRR", "FashionIQ"])
def test_both_stages_and_back_through_validate(dataset, options, tmp_path, capsys):
    fine_tune(dataset, options, "--save-training")
    (stage_1,) = (tmp_path / "models").iterdir()
    short_name = TASKS[dataset].short_name
    assert re.fullmatch(rf"clip_finetuned_on_{short_name}_small_clip_\d{{4}}-\d\d-\d\d_\d\d-\d\d-\d\d", stage_1.name)
    tuned_clip = stage_1 / "saved_models" / "tuned_clip_2.pt"
    check_run(stage_1, dataset, ["tuned_clip_0.pt", "tuned_clip_1.pt", "tuned_clip_2.pt"], [0, 1, 2])
    compare_with_validate(dataset, options, stage_1, capsys, "--clip-model-path", str(tuned_clip))

    tuned = ["--clip-model-path", str(tuned_clip)]
    train_combiner(dataset, options, *tuned, "--save-training", "--validation-frequency", "2")
    stage_2 = next(folder for folder in (tmp_path / "models").iterdir() if folder != stage_1)
    assert stage_2.name.startswith(f"combiner_trained_on_{short_name}_small_clip_")
    check_run(stage_2, dataset, ["combiner_0.pt", "combiner_2.pt"], [0, 2])
    combiner = ["--combiner-path", str(stage_2 / "saved_models" / "combiner_2.pt"), *COMBINER]
    compare_with_validate(dataset, options, stage_2, capsys, *tuned, *combiner)


def check_run(folder, dataset, saved, validated):
    assert sorted(path.name for path in (folder / "saved_models").iterdir()) == saved
    training, validation = metrics_of(folder)
    assert list(training.columns) == ["epoch", "train_epoch_loss"]
    assert training["epoch"].tolist() == [0, 1, 2]
    assert list(validation.columns) == ["epoch", *COLUMNS[dataset]]
    assert validation["epoch"].tolist() == validated
    assert json.loads((folder / "training_hyperparameters.json").read_text())["dataset"] == dataset


def compare_with_validate(dataset, options, folder, capsys, *checkpoints):
    """Compare what validate.py prints with what the last validation of the training wrote."""
    capsys.readouterr()
    validate.main(["--dataset", dataset, *options, *checkpoints])
    printed = [float(line.split(" = ")[1]) for line in capsys.readouterr().out.splitlines()]
    written = metrics_of(folder)[1].iloc[-1]
    if dataset == "CIRR":
        names = CIRR_RECALLS
    else:
        names = [f"{kind}_recall_at{k}" for kind in ("shirt", "dress", "toptee") for k in (10, 50)]
        names += ["average_recall_at10", "average_recall_at50"]
    assert printed == [written[name] for name in names]


@pytest.mark.parametrize(
    ("dataset", "stage_1", "stage_2"),
    [
        (
            "CIRR",
            {f"tuned_clip_{kind}.pt": f"{kind}_mean" for kind in ("arithmetic", "harmonic", "geometric")},
            {f"combiner_{kind}.pt": f"{kind}_mean" for kind in ("arithmetic", "harmonic", "geometric")},
        ),
        ("FashionIQ", {"tuned_clip_best.pt": "average_recall"}, {"combiner.pt": "average_recall"}),
    ],
)
def test_the_best_weights_are_kept_by_each_mean(dataset, stage_1, stage_2, options, tmp_path, world):
    fine_tune(dataset, options, "--save-training", "--save-best")
    train_combiner(dataset, options, "--save-training", "--save-best", "--validation-frequency", "1")
    tuned, combined = sorted((tmp_path / "models").iterdir())
    for folder, files in ((tuned, stage_1), (combined, stage_2)):
        validation = metrics_of(folder)[1]
        assert {path.name for path in (folder / "saved_models").iterdir()} == set(files)
        for file, metric in files.items():
            saved = torch.load(folder / "saved_models" / file, weights_only=True)
            assert saved["epoch"] == validation[metric].idxmax(), (file, metric)


def test_nothing_is_saved_unless_asked(options, run_folder, capsys):
    fine_tune("CIRR", options, "--save-best", "--num-epochs", "1")
    assert "--save-best: saves nothing without --save-training\n" in capsys.readouterr().err
    assert sorted(path.name for path in run_folder().iterdir()) == [
        "train_metrics.csv",
        "training_hyperparameters.json",
        "validation_metrics.csv",
    ]


@pytest.mark.parametrize("encoder", ["both", "text", "image"])
def test_only_the_chosen_encoder_learns(encoder, options, run_folder, world):
    fine_tune("CIRR", options, "--encoder", encoder, "--save-training", "--save-best", "--num-epochs", "1")
    before = read_weights(world / "small_clip.pt", "CLIP")
    after = read_weights(run_folder() / "saved_models" / "tuned_clip_arithmetic.pt", "CLIP")
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    visual = {key for key in before if key.startswith("visual.")}
    textual = set(before) - visual - {"logit_scale"}
    assert changed == {"both": visual | textual, "text": textual, "image": visual}[encoder]


def test_clip_does_not_leave_eval_mode():
    clip_model = random_clip().eval()
    stage = FineTuning(OpenAIClip(clip_model), ENCODERS)
    stage.train()
    assert stage.training
    assert not any(module.training for module in clip_model.modules())


@pytest.mark.parametrize("dataset", ["CIRR", "FashionIQ"])
def test_stage_2_sees_what_clip_would_give_each_batch(dataset, world, small_clip):
    """Features extracted once are those that the published code gets by encoding a batch's pictures and captions."""
    task, preprocess = TASKS[dataset], make_transform("targetpad", 1.25, 64)
    triplets = TripletRows(list(task.read_all(world, "train").values()), preprocess)
    encoder = Encoder(small_clip, ENCODERS, batch_size=7)
    stage = CombinerTraining(Combiner(64, 8, 8), *encode_triplets(triplets, task, encoder))
    chosen = [5, 0, 17, 30]
    batch = triplets[chosen]
    texts = [random.Random(0).choice(task.training_texts(some)) for some in batch.captions]
    given = stage.inputs(batch, texts)

    published = published_dataset(dataset, "train", "relative", preprocess, world)
    images = collate_fn([published[index][:2] for index in chosen])
    with torch.no_grad():
        plain = [small_clip.encode_images(side.to(given[0].device)) for side in images]
        plain.append(small_clip.encode_tokens(clip.tokenize(texts).to(given[0].device)))
    for ours, theirs in zip(given, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("train", [fine_tune, train_combiner])
@pytest.mark.workers
def test_seed_decides_a_run_and_workers_do_not(train, options, tmp_path):
    def run(name, *extra):
        train(
            "FashionIQ",
            [*options, "--output-path", str(tmp_path / name)],
            "--save-training",
            "--num-epochs",
            "2",
            *extra,
        )
        (folder,) = (tmp_path / name / "models").iterdir()
        weights = sorted((folder / "saved_models").iterdir())[-1]
        name = "CLIP" if train is fine_tune else "Combiner"
        return (folder / "train_metrics.csv").read_text(), read_weights(weights, name)

    losses, weights = run("first", "--seed", "5")
    same_losses, same_weights = run("second", "--seed", "5", "--num-workers", "2")
    assert losses == same_losses
    assert all(torch.equal(weights[key], same_weights[key]) for key in weights)
    assert run("third", "--seed", "6")[0] != losses


def test_bfloat16_trains_alike(options, tmp_path):
    gently = ["--learning-rate", "1e-5", "--num-epochs", "1"]
    for precision in ("fp32", "bf16"):
        fine_tune("CIRR", [*options, "--output-path", str(tmp_path / precision)], "--precision", precision, *gently)
    fp32, bf16 = (
        metrics_of(next((tmp_path / precision / "models").iterdir()))[0]["train_epoch_loss"]
        for precision in ("fp32", "bf16")
    )
    assert not fp32.equals(bf16)
    assert (fp32 / bf16 - 1).abs().max() < 0.05


@pytest.mark.parametrize(("given", "found"), [((), 0.5), ((0.2,), 0.2)])
def test_dropout_of_the_combiner_is_a_half_unless_given(given, found):
    assert {module.p for module in Combiner(4, 4, 4, *given).modules() if isinstance(module, nn.Dropout)} == {found}
