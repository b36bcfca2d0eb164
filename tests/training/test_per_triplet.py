"""--per-triplet: how a training holds each triplet, as its file says it and as it is read back."""

import csv
import math
from functools import partial

import pandas as pd
import pytest
import torch

import clip_fine_tune
import combiner_train
from clip_fine_tune import FineTuning
from src.apps.checking.per_triplet import read_per_triplet, require_same_triplets
from src.base.errors import InputError
from src.models.backbone import ENCODERS
from src.models.weights import read_content
from src.pictures.transforms import make_transform
from src.tasks.own import read_extra
from src.tasks.registry import TASKS
from src.training import losses
from src.training.batches import TripletImages
from src.training.holding import LAST, Holding
from src.training.losses import contrastive_loss
from src.training.per_triplet import COLUMNS, Held, data_of
from tests.support.commands import COMBINER, status_of, toy_options
from tests.support.forks import only_run

STAGES = {
    "clip_fine_tune": (clip_fine_tune.main, ["--learning-rate", "1e-3"]),
    "combiner_train": (combiner_train.main, ["--combiner-lr", "1e-3", *COMBINER]),
}
SHORT = ["--num-epochs", "2", "--batch-size", "16"]
STILL = ["--learning-rate", "1e-30"]
"""A rate at which nothing is learned."""


def flags_of(command, world, output, *extra, dataset="CIRR"):
    _, own = STAGES[command]
    table = ["--per-triplet", str(output / "held.csv")]
    return ["--dataset", dataset, *toy_options(world, output), *own, *SHORT, *table, *map(str, extra)]


@pytest.fixture
def train(world, tmp_path):
    """Return a function that trains with --per-triplet; it returns the table."""

    def run(command, *extra, dataset="CIRR", name="run"):
        STAGES[command][0](flags_of(command, world, tmp_path / name, *extra, dataset=dataset))
        return pd.read_csv(tmp_path / name / "held.csv")

    return run


# ---- ranks and losses ----


def test_ranks_and_losses_by_hand(device):
    logits = torch.tensor([[2.0, 1, 0, 2], [0, 5, 5, 5], [3, 3, 3, -torch.inf], [0, 0, 0, 9]], device=device)
    holding = Holding(6, "")
    holding.begin()
    holding.note(torch.tensor([5, 0, 3, 1]), logits, torch.tensor([0, 3, 2, 0], device=device))
    holding.end()
    (ranks, found), e = holding.epochs[0].tolist(), math.exp
    assert ranks == [3, 2, 0, 3, 0, 1]
    expected = [
        math.log(3 + e(-5)),
        9 + math.log(1 + 3 * e(-9)),
        0,
        math.log(3),
        0,
        math.log(2 + e(-1) + e(-2)),
    ]
    assert found == pytest.approx(expected, rel=1e-6)


def test_means_are_those_of_the_last_epochs_that_had_the_triplet():
    holding = Holding(2, "")
    for epoch in range(1, LAST + 3):
        holding.begin()
        rows = [0, 1] if epoch == LAST + 1 else [0]
        logits = torch.tensor([[0.0] + [1.0] * epoch]).expand(len(rows), -1)
        holding.note(torch.tensor(rows), logits, torch.zeros(len(rows), dtype=torch.long))
        holding.end()
    first, second = holding.means()
    assert (first.epochs, second.epochs) == (LAST, 1)
    assert first.rank == sum(range(4, LAST + 4)) / LAST  # epochs 3 to LAST + 2, whose ranks are one higher
    assert second.loss == pytest.approx(math.log(1 + (LAST + 1) * math.e))


@pytest.mark.parametrize("loss", ["cross-entropy", "gce"])
def test_a_loss_in_pieces_notes_what_the_whole_one_does(loss, monkeypatch, device):
    predicted, targets = torch.nn.functional.normalize(torch.randn(2, 10, 4, device=device), dim=-1)
    measure = partial(losses.generalised_cross_entropy, robustness=0.7)
    measure = {"measure": measure} if loss == "gce" else {}
    found = []
    for at_once in (10, 4):
        monkeypatch.setattr(losses, "QUERIES_AT_ONCE", at_once)
        holding = Holding(12, "")
        holding.begin()
        numbers = torch.tensor([7, 3, 11, 0, 1, 2, 9])
        given = predicted[2:9].clone().requires_grad_()
        labels = torch.arange(2, 9, device=device)
        contrastive_loss(given, targets, labels=labels, note=partial(holding.note, numbers), **measure).backward()
        holding.end()
        found.append(holding.epochs[0])
    torch.testing.assert_close(found[0], found[1])
    assert (found[0][0] > 0).sum() == 7
    assert found[0][0].max() > 1


@pytest.mark.parametrize("command", STAGES)
def test_the_mean_of_all_losses_is_that_of_the_epoch(command, train, tmp_path):
    table = train(command, "--num-epochs", "1")
    metrics = pd.read_csv(only_run(tmp_path / "run") / "train_metrics.csv")
    assert table.loss.mean() == pytest.approx(metrics.train_epoch_loss[0], rel=1e-6)
    assert list(table.columns) == list(COLUMNS)
    assert table.epochs.tolist() == [1] * 48
    assert table["rank"].between(1, 16).all()


def test_a_file_says_what_the_definitions_say(world, train):
    """In one batch of all triplets, of a CLIP that stays as it is."""
    splits = list(TASKS["CIRR"].read_all(world, "train").values())
    triplets = TripletImages(splits, make_transform("targetpad", 1.25, 64))
    stage = FineTuning(small_clip_of(world), ENCODERS)
    batch = triplets[list(range(48))]
    with torch.no_grad():
        predicted, targets = stage(stage.inputs(batch, [caption for (caption,) in batch.captions]))
    scores = 100 * predicted @ targets.T
    table = train("clip_fine_tune", *STILL, "--batch-size", "48")
    for number, row in enumerate(scores.double()):
        assert table.loss[number] == pytest.approx((row.logsumexp(0) - row[number]).item(), rel=1e-3)
        # In another order of the batch, equal targets come before or after each other.
        least, most = ((row > row[number] + much).sum() for much in (1e-3, -1e-3))
        assert least + 1 <= table["rank"][number] <= most
    assert table["rank"].nunique() > 9
    assert table.reference.tolist() == [triplet.reference for triplet in splits[0].triplets]


def small_clip_of(world):
    from utils import load_clip

    return load_clip(str(world / "small_clip.pt"))


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        ("clip_fine_tune", ("--clip-bs", "5")),
        ("clip_fine_tune", ("--loss", "gce")),
        ("combiner_train", ("--encoder", "text", "--clip-bs", "3", "--dropout", "0")),
    ],
)
def test_pieces_and_another_loss_change_nothing_of_what_is_held(command, extra, train):
    still = STILL if command == "clip_fine_tune" or "--encoder" in extra else []
    still = [*still, *(["--combiner-lr", "1e-30"] if command == "combiner_train" else [])]
    other = ["--encoder", "text", "--dropout", "0"] if "--encoder" in extra else []
    plain, varied = train(command, *still, *other), train(command, *still, *extra, name="varied")
    assert varied.loss.tolist() == pytest.approx(plain.loss.tolist(), rel=1e-3)
    assert (varied["rank"] - plain["rank"]).abs().max() <= 1
    assert varied.drop(columns=["rank", "loss"]).equals(plain.drop(columns=["rank", "loss"]))


def test_a_bank_ranks_among_all_pictures(train):
    table = train("combiner_train", "--negatives", "bank", "--combiner-lr", "1e-30", "--batch-size", "24")
    assert table["rank"].max() > 24


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        ("combiner_train", ("--negatives", "bank", "--batch-size", "13")),
        ("clip_fine_tune", ("--clip-bs", "5", "--mask-same-target")),
    ],
)
def test_processes_hold_their_shares(command, extra, forks, train, world, tmp_path):
    alone = train(command, "--dropout", "0", *extra) if command == "combiner_train" else train(command, *extra)
    more = ("--dropout", "0", *extra) if command == "combiner_train" else extra
    flags = flags_of(command, world, tmp_path / "two", *more)
    assert forks.run(command, flags, processes=2) == 0, forks.said()
    table = pd.read_csv(tmp_path / "two" / "held.csv")
    assert table.loss.tolist() == pytest.approx(alone.loss.tolist(), rel=1e-3, nan_ok=True)
    assert table.epochs.tolist() == alone.epochs.tolist()
    assert forks.said(0).count("wrote ") == 1


# ---- whole runs ----


def test_without_the_option_nothing_is_kept(world, tmp_path, monkeypatch):
    for name in ("begin", "note", "end"):
        monkeypatch.setattr(Holding, name, lambda *_: pytest.fail("nobody asked for it"))
    options = [*toy_options(world, tmp_path), *COMBINER, *SHORT, "--save-training"]
    combiner_train.main(["--dataset", "CIRR", *options])
    assert "held" not in read_content(only_run(tmp_path) / "training_state.pt")


def test_the_option_changes_no_bit_of_a_training(world, train, tmp_path):
    train("combiner_train", "--save-training")
    flags = flags_of("combiner_train", world, tmp_path / "without", "--save-training")
    place = flags.index("--per-triplet")
    combiner_train.main(flags[:place] + flags[place + 2 :])
    runs = only_run(tmp_path / "run"), only_run(tmp_path / "without")
    one, other = (read_content(run / "training_state.pt")["weights"] for run in runs)
    assert all(torch.equal(one[name], other[name]) for name in one)
    one, other = ((run / "train_metrics.csv").read_text() for run in runs)
    assert one == other


@pytest.mark.parametrize(
    ("command", "extra"),
    [("clip_fine_tune", ()), ("combiner_train", ("--negatives", "bank", "--batch-size", "13"))],
)
def test_a_resumed_run_writes_the_same_file(command, extra, world, train, tmp_path):
    """It is stopped before and after the epochs that are kept begin."""
    epochs = str(LAST + 3)
    train(command, "--save-training", *extra, "--num-epochs", epochs, name="whole")
    train(command, "--save-training", *extra, "--num-epochs", "2", name="parts")
    run, moved = only_run(tmp_path / "parts"), tmp_path / "moved.csv"
    main = STAGES[command][0]
    main(["--resume", str(run), "--num-epochs", str(LAST + 1)])
    main(["--resume", str(run), "--num-epochs", epochs, "--per-triplet", str(moved)])
    assert moved.read_bytes() == (tmp_path / "whole" / "held.csv").read_bytes()
    moved.unlink()
    main(["--resume", str(run)])  # a finished one writes it again
    assert moved.read_bytes() == (tmp_path / "whole" / "held.csv").read_bytes()


def test_what_a_state_does_not_have_is_refused(world, tmp_path, capsys):
    output = tmp_path / "run"
    flags = flags_of("combiner_train", world, output, "--save-training")
    place = flags.index("--per-triplet")
    combiner_train.main(flags[:place] + flags[place + 2 :])
    again = ["--resume", only_run(output), "--num-epochs", "3", "--per-triplet", tmp_path / "held.csv"]
    assert status_of(combiner_train.main, again) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "training_state.pt: has no ranks and losses, which only a run begun with --per-triplet keeps" in line
    assert not (tmp_path / "held.csv").exists()


def test_a_run_does_not_go_on_with_other_triplets_of_the_same_number(broken_world, world, tmp_path, capsys):
    options = flags_of("combiner_train", world, tmp_path / "run", "--save-training", "--data-path", broken_world)
    combiner_train.main(options)
    path = broken_world / "cirr_dataset" / "cirr" / "captions" / "cap.rc2.train.json"
    path.write_text(path.read_text().replace('"caption": "', '"caption": "now ', 1))
    assert status_of(combiner_train.main, ["--resume", only_run(tmp_path / "run"), "--num-epochs", "3"]) == 2
    assert "not the state of this run (its triplets are those of CIRR.train." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ({"data": "others", "epochs": []}, "its triplets are those of others, not of these"),
        ({"data": "these", "epochs": [torch.ones(2, 4)]}, "of another number of triplets"),
        ({"data": "these", "epochs": [torch.ones(2, 3), torch.tensor([[1, 2, 3], [0, torch.nan, 1]])]}, "no numbers"),
    ],
)
def test_ranks_and_losses_that_cannot_be_those_of_the_run_are_refused(content, fault):
    with pytest.raises(ValueError, match=fault):
        Holding(3, "these").restore(content)


def test_extra_triplets_and_missing_pictures_have_rows_too(broken_world, world, tmp_path):
    extra = world / "my_pictures" / "triplets.train.csv"
    splits = TASKS["FashionIQ"].read_all(broken_world, "train")
    lost = splits["dress"].triplets[0].reference
    splits["dress"].pictures[lost].unlink()
    more = ["--extra-triplets", extra, "--skip-missing", "--data-path", broken_world]
    combiner_train.main(flags_of("combiner_train", world, tmp_path / "run", *more, dataset="FashionIQ"))
    path = tmp_path / "run" / "held.csv"
    splits |= read_extra([extra], splits.values())
    found = read_per_triplet(path)
    require_same_triplets(found, "FashionIQ", splits)
    assert found.categories() == ["dress", "toptee", "shirt", str(extra)]
    for (category, number), held in found.held.items():
        is_lost = category == "dress" and lost in splits[category].needed(splits[category].triplets[number])
        assert (held.epochs == 0) >= is_lost  # of the others a last batch that is not full may be left out
        assert math.isnan(held.loss) == (held.epochs == 0)
    rows = list(csv.DictReader(path.open()))
    assert rows[0]["row"] == "cap.dress.train.json[0]"
    assert " | " in rows[0]["caption"]
    assert rows[-1]["row"].startswith("triplets.train.csv, row ")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cirr_dataset/cirr/captions/cap.rc2.train.json", "is a table of a data set"),
        ("my_pictures", "is a folder"),
        ("small_clip.pt", "holds weights"),
        ("held.tsv", "is written as CSV"),
    ],
)
def test_what_cannot_be_the_file_is_refused(name, words, broken_world, world, tmp_path, capsys):
    path = (broken_world if name.startswith("cirr") else world) / name
    flags = [*flags_of("combiner_train", world, tmp_path / "run"), "--per-triplet", path]
    assert status_of(combiner_train.main, [*flags, "--data-path", broken_world]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert str(path) in line
    assert words in line


def test_a_file_of_the_run_is_not_replaced(train, tmp_path, capsys):
    train("combiner_train", "--save-training")
    run = only_run(tmp_path / "run")
    for name in ("train_metrics.csv", "training_hyperparameters.json"):
        assert status_of(combiner_train.main, ["--resume", run, "--per-triplet", run / name]) == 2
        assert "is an input of this command (--resume)" in capsys.readouterr().err


# ---- reading ----

HEADER = ",".join(COLUMNS)
FIRST = "t.json[0],rc2,0,CIRR.train.abc,a,in red,b,5,1.5,0.25"


def test_what_is_read_is_what_was_written(tmp_path):
    path = tmp_path / "held.csv"
    path.write_text(f"{HEADER}\n{FIRST}\nt.json[1],rc2,1,CIRR.train.abc,a,in red,b,0,,\n", encoding="utf-8-sig")
    found = read_per_triplet(path)
    assert (found.dataset, found.data, found.categories()) == ("CIRR", "CIRR.train.abc", ["rc2"])
    assert found.held["rc2", 0] == Held(5, 1.5, 0.25)
    assert found.held["rc2", 1].epochs == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ": not a file of --per-triplet, it has no column row"),
        (HEADER, ": holds no triplets"),
        (HEADER.replace("loss", "Loss"), ": not a file of --per-triplet, it has no column loss"),
        (f"{HEADER},loss", ": has two columns called loss"),
        (f"{HEADER}\n{FIRST}\nt.json[1],rc2,1,CIRR.tr", ", line 3: has another number of cells than the header"),
        (f"{HEADER}\n{FIRST}\n{FIRST}", ", line 3: triplet 0 of rc2 stands in it twice"),
        (f"{HEADER}\n{FIRST}\n{FIRST.replace('abc', 'abd').replace(',0,', ',1,')}", ", line 3: is of other data"),
        (f"{HEADER}\n{FIRST.replace('.train', '.val')}", ", line 2: 'CIRR.val.abc' is not a data set, train and a"),
        (f"{HEADER}\n{FIRST.replace('rc2,0', 'rc2,-1')}", ", line 2: '-1' is not a number of triplets"),
        (f"{HEADER}\n{FIRST.replace('b,5', 'b,five')}", ", line 2: 'five' is not a number of epochs"),
        (f"{HEADER}\n{FIRST.replace('b,5', 'b,' + 5000 * '5')}", "5555...' is not a number of epochs"),
        (f"{HEADER}\n{FIRST.replace('1.5', '0.5')}", ", line 2: '0.5' is not a rank of 5 epochs, a number from 1 on"),
        (f"{HEADER}\n{FIRST.replace('0.25', 'nan')}", ", line 2: 'nan' is not a loss of 5 epochs, a number from 0 on"),
        (f"{HEADER}\n{FIRST.replace('0.25', '-1')}", ", line 2: '-1' is not a loss of 5 epochs, a number from 0 on"),
        (f"{HEADER}\n{FIRST.replace('0.25', 'inf')}", ", line 2: 'inf' is not a loss of 5 epochs, a number from 0"),
        (f"{HEADER}\n{FIRST.replace('1.5', '')}", ", line 2: '' is not a rank of 5 epochs, a number from 1 on"),
        (f"{HEADER}\n{FIRST.replace('b,5', 'b,0')}", ", line 2: '1.5' is not a rank of no epoch, empty"),
        (f'{HEADER}\n"t.json', ", line 2: not a CSV file (unexpected end of data)"),
    ],
)
def test_torn_and_foreign_files_are_named(text, words, tmp_path):
    path = tmp_path / "held.csv"
    path.write_text(text)
    with pytest.raises(InputError) as fault:
        read_per_triplet(path)
    assert str(fault.value).startswith(str(path))
    assert words in str(fault.value)
    assert "\n" not in str(fault.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda lines: lines[:-2], "lacks 2 of 48 triplets: cap.rc2.train.json[46], cap.rc2.train.json[47]"),
        (lambda lines: [*lines, lines[-1].replace(",47,", ",48,")], "other triplets than 1 of 48 triplets: 48 of rc2"),
        (lambda lines: [line.replace("CIRR.train.", "CIRR.train.f") for line in lines], "is of CIRR.train.f"),
    ],
)
def test_a_file_of_other_triplets_is_refused(change, words, world, train, tmp_path):
    train("combiner_train", "--num-epochs", "1")
    path, splits = tmp_path / "run" / "held.csv", TASKS["CIRR"].read_all(world, "train")
    require_same_triplets(read_per_triplet(path), "CIRR", splits)
    path.write_text("\n".join(change(path.read_text().splitlines())))
    with pytest.raises(InputError, match=words.replace("[", r"\[")):
        require_same_triplets(read_per_triplet(path), "CIRR", splits)


def test_the_digest_is_that_of_all_that_is_trained_on(world):
    splits = TASKS["CIRR"].read_all(world, "train")
    (split,), known = splits.values(), {data_of("CIRR", splits)}
    first, *others = split.triplets
    for change in ({"reference": "x"}, {"captions": ("x",)}, {"targets": ("x",)}):
        known.add(data_of("CIRR", {"rc2": split._replace(triplets=[first._replace(**change), *others])}))
    known |= {data_of("CIRR", splits | {"more.csv": split}), data_of("Mine", splits)}
    assert len(known) == 6
