"""Whole commands on a pretended card: no tensor is on the wrong device, and the host rarely waits for the card."""

import json
from collections import Counter

import pytest
import torch

import cirr_test_submission
import clip_fine_tune
import combiner_train
import search
import validate
from combiner import Combiner
from src.models.weights import read_content
from src.training import loop as training
from src.training import losses
from tests.support.commands import COMBINER, toy_options
from tests.support.forks import only_run
from tests.support.pretended_card import CARD, PretendedCard

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="here is a real card")
FINE_TUNE = ["--dataset", "CIRR", "--learning-rate", "1e-3"]
TRAIN_COMBINER = ["--dataset", "CIRR", "--combiner-lr", "1e-3", *COMBINER]
EPOCHS = ["--num-epochs", "2", "--batch-size", "16", "--save-training"]
TRAININGS = {
    "stage 1": (clip_fine_tune.main, [*FINE_TUNE, "--precision", "fp16"]),
    "stage 1 in pieces": (clip_fine_tune.main, [*FINE_TUNE, "--precision", "fp32", "--clip-bs", "4"]),
    "stage 2 with a bank": (combiner_train.main, [*TRAIN_COMBINER, "--precision", "fp16", "--negatives", "bank"]),
    "stage 2 and the text encoder": (
        combiner_train.main,
        [*TRAIN_COMBINER, "--precision", "fp32", "--encoder", "text", "--clip-bs", "4"],
    ),
}
OTHER_DEVICE = "all tensors to be on the same device"


@pytest.fixture
def card():
    return PretendedCard()


@pytest.fixture
def on_card(card, monkeypatch):
    """Return a function that runs a command on the card."""

    def run(main, arguments):
        with card.inserted(monkeypatch):
            main([str(argument) for argument in arguments])

    return run


def on_cpu(main, arguments):
    main([str(argument) for argument in arguments])


# ---- commands ----


@pytest.mark.parametrize("name", TRAININGS)
def test_a_training_gives_on_the_card_what_it_gives_on_the_cpu(name, world, tmp_path, card, on_card):
    main, arguments = TRAININGS[name]
    on_cpu(main, [*arguments, *EPOCHS, *toy_options(world, tmp_path / "cpu")])
    on_card(main, [*arguments, *EPOCHS, *toy_options(world, tmp_path / "card")])
    assert_same_run(tmp_path)
    assert card.waits


def test_a_training_goes_on_where_it_stopped_on_the_card(world, tmp_path, on_card):
    main, arguments = TRAININGS["stage 2 with a bank"]
    on_cpu(main, [*arguments, *EPOCHS, *toy_options(world, tmp_path / "cpu")])
    arguments = [*arguments, *EPOCHS, *toy_options(world, tmp_path / "card")]
    on_card(main, [*arguments, "--num-epochs", "1"])
    on_card(main, [*arguments, "--resume", only_run(tmp_path / "card")])
    assert_same_run(tmp_path)


def test_what_is_kept_of_each_triplet_is_the_same_on_the_card(world, tmp_path, card, on_card):
    main, arguments = TRAININGS["stage 2 with a bank"]
    for name, run in (("cpu", on_cpu), ("card", on_card)):
        table = ["--per-triplet", tmp_path / f"{name}.csv"]
        run(main, [*arguments, *EPOCHS, *toy_options(world, tmp_path / name), *table])
    waits = Counter(card.waits)
    card.waits.clear()
    on_card(main, [*arguments, *EPOCHS, *toy_options(world, tmp_path / "without")])
    assert (tmp_path / "card.csv").read_text() == (tmp_path / "cpu.csv").read_text()
    more = waits - Counter(card.waits)
    # How often the state is saved depends on how fast the epochs are.
    more = Counter({wait: count for wait, count in more.items() if not wait.ours.startswith("checkpoints.py")})
    assert 0 < more.total() <= 2 * 2  # as the two epochs end, and not in each step


def assert_same_run(folder):
    of_cpu, of_card = only_run(folder / "cpu"), only_run(folder / "card")
    for name in ("train_metrics.csv", "validation_metrics.csv"):
        assert (of_card / name).read_text() == (of_cpu / name).read_text()
    expected, weights = (read_content(run / "training_state.pt")["weights"] for run in (of_cpu, of_card))
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weight, expected[name]) for name, weight in weights.items())


def test_answers_on_the_card_are_those_on_the_cpu(world, tmp_path, on_card, capsys):
    on_cpu(combiner_train.main, [*TRAIN_COMBINER, *EPOCHS, *toy_options(world, tmp_path / "trained")])
    weights = max((only_run(tmp_path / "trained") / "saved_models").iterdir())
    combining = ["--combiner-path", weights, *COMBINER]
    answers = []
    for run, folder in ((on_cpu, tmp_path / "cpu"), (on_card, tmp_path / "card")):
        options = [*combining, *toy_options(world, folder)]
        capsys.readouterr()
        for dataset in ("CIRR", "FashionIQ"):
            run(validate.main, ["--dataset", dataset, *options])
        run(cirr_test_submission.main, ["--submission-name", "toy", *options])
        asked = ["--pictures", world / "my_pictures", "--caption", "a red dress", "--json", folder / "found.json"]
        run(search.main, [*asked, *combining, *toy_options(world, folder)[2:]])  # it has no --data-path
        printed = capsys.readouterr().out.replace(str(folder), "")
        files = [path.read_text() for path in sorted(folder.glob("submission/**/*.json"))]
        (found,) = json.loads((folder / "found.json").read_text())
        answers.append(([printed, *files], found["answers"]))
    (texts, found), (texts_of_card, found_on_card) = answers
    assert texts == texts_of_card
    assert len(texts) == 3
    assert [answer["name"] for answer in found] == [answer["name"] for answer in found_on_card]
    # One question is multiplied in another order on the processor.
    scores = [answer["score"] for answer in found_on_card]
    assert [answer["score"] for answer in found] == pytest.approx(scores, abs=1e-6)


# ---- mistakes ----


def test_labels_that_stay_on_the_cpu_are_noticed(world, tmp_path, on_card, monkeypatch):
    loss = losses.contrastive_loss

    def with_labels_left_behind(*features, labels, **options):
        return loss(*features, labels=labels.cpu(), **options)

    monkeypatch.setattr(losses, "contrastive_loss", with_labels_left_behind)
    main, arguments = TRAININGS["stage 1"]
    with pytest.raises(RuntimeError, match=OTHER_DEVICE):
        on_card(main, [*arguments, *EPOCHS, *toy_options(world, tmp_path)])


def test_weights_that_stay_on_the_cpu_are_noticed(world, tmp_path, on_card, monkeypatch):
    monkeypatch.setattr(Combiner, "to", lambda combiner, device: combiner)
    main, arguments = TRAININGS["stage 2 with a bank"]
    with pytest.raises(RuntimeError, match=OTHER_DEVICE):
        on_card(main, [*arguments, *EPOCHS, *toy_options(world, tmp_path)])


@pytest.mark.parametrize(
    "mistake",
    [
        lambda there: there + torch.zeros(3),
        lambda there: there[:, None] @ torch.zeros(1, 3),
        lambda there: torch.zeros(3)[there.long()],
        lambda there: torch.zeros(()).add_(there.sum()),
        lambda there: torch.cat([there, torch.zeros(1)]),
        torch.nn.Linear(3, 3),
    ],
)
def test_two_devices_do_not_mix(mistake, card, monkeypatch):
    with card.inserted(monkeypatch), pytest.raises(RuntimeError, match=OTHER_DEVICE):
        mistake(torch.zeros(3, device=CARD))


def test_numpy_does_not_take_what_is_on_the_card(card, monkeypatch):
    with card.inserted(monkeypatch), pytest.raises(TypeError, match="cuda:0 device type tensor"):
        torch.zeros(3, device=CARD).numpy()


# ---- waits ----


@pytest.mark.parametrize(
    "waits, work",
    [
        (0, lambda there: (there * 2 + torch.tensor(1.0)).softmax(0).sort()),
        (0, lambda there: torch.arange(3, device=there.device).to(there.dtype).to(CARD)),
        (0, lambda there: torch.zeros(3).to(CARD, non_blocking=True) + there),
        (0, lambda there: there.masked_fill(there > 0, 1)[there.long()]),
        (0, lambda there: there.__setitem__(there > 0, 1)),
        (0, lambda there: there.__setitem__(0, 1)),
        (1, lambda there: torch.zeros(3).to(CARD)),
        (1, lambda there: there.cpu()),
        (1, lambda there: there.sum().item()),
        (1, lambda there: bool(there.isfinite().all())),
        (1, lambda there: f"{there[0]:.2f}"),
        (1, lambda there: torch.zeros(9)[: there.sum().long()]),
        (1, lambda there: there.tolist()),
        (1, lambda there: torch.tensor([1, 2], device=CARD)),
        (1, lambda there: there[there > 0]),
        (1, lambda there: there.nonzero()),
        (1, lambda there: there.unique()),
        (1, lambda there: there[torch.tensor([1, 2])]),
        (1, lambda there: there[[1, 2]]),
        (1, lambda there: there.copy_(torch.zeros(3))),
        (2, lambda there: torch.nn.Linear(3, 3).to(CARD)),
    ],
)
def test_waits_for_the_card_are_counted(waits, work, card, monkeypatch):
    with card.inserted(monkeypatch):
        there = torch.zeros(3, device=CARD)
        work(there)
    assert len(card.waits) == waits, card.waits
    assert all(wait.ours.startswith("test_pretended_card.py:") for wait in card.waits)


class Prepared(Exception):
    """Holds the training that a command has made ready."""


def waits_of_a_step(card, monkeypatch, main, arguments):
    """Return {wait: how often a step of training has it}: what steps add to an epoch, without its begin and end."""

    def stop(ready, *_):
        raise Prepared(ready)

    monkeypatch.setattr(training.Training, "train", stop)
    counted = []
    with card.inserted(monkeypatch):
        with pytest.raises(Prepared) as prepared:
            main(arguments)
        (ready,) = prepared.value.args
        batches = list(ready.loader)
        for some in (batches[:1], batches[:2], batches[:5]):  # the first step of all makes the optimizer's state
            ready.loader = some
            card.waits.clear()
            ready.train_epoch(0, lambda *_: None)
            counted.append(Counter(card.waits))
    return {wait: number / 3 for wait, number in (counted[2] - counted[1]).items()}


@pytest.mark.parametrize("name", TRAININGS)
def test_the_host_waits_for_the_card_once_a_step(name, world, tmp_path, card, monkeypatch):
    main, arguments = TRAININGS[name]
    arguments = [*arguments, "--num-epochs", "1", "--batch-size", "8", *toy_options(world, tmp_path)]
    waits = waits_of_a_step(card, monkeypatch, main, arguments)
    told = "\n".join(f"{number:g} x {wait.what}: {wait.ours} {wait.library}" for wait, number in waits.items())
    assert sum(waits.values()) <= 1, told
