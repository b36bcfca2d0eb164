"""Training triplets beyond a data set's own: tables that join it, and CIRR's without groups."""

import csv
import json
import shutil

import pandas as pd
import pytest
import torch

import combiner_train
from src.base.files import write_json
from src.base.reading import read_json
from src.tasks.cirr import CIRR
from src.tasks.own import read_extra
from src.tasks.registry import TASKS
from src.training.state import STATE_FILE
from tests.support.commands import COMBINER, status_of, toy_options
from tests.support.forks import only_run

CAPTIONS = "cirr_dataset/cirr/captions/cap.rc2.{}.json"


@pytest.fixture
def train(world, tmp_path):
    """Return a function that trains stage 2 for two epochs; it returns the run folder."""

    def run(name, *arguments):
        short = ["--num-epochs", "2", "--batch-size", "8", "--combiner-lr", "1e-3", "--save-training"]
        options = [*toy_options(world, tmp_path / name), *COMBINER, *short]
        combiner_train.main([str(part) for part in (*options, *arguments)])
        return only_run(tmp_path / name)

    return run


def losses_of(run):
    return pd.read_csv(run / "train_metrics.csv")["train_epoch_loss"].tolist()


def test_a_table_in_two_parts_trains_as_the_whole(train, world, tmp_path):
    folder = shutil.copytree(world / "my_pictures", tmp_path / "mine")
    table = folder / "triplets.train.csv"
    header, *rows = table.read_text().splitlines()
    whole = train("whole", "--dataset", folder)
    for path, part in ((table, rows[:7]), (folder / "more.csv", rows[7:9]), (folder / "most.tsv", rows[9:])):
        with path.open("w", newline="") as file:
            writer = csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writerows([header.split(","), *csv.reader(part)])
    extra = ["--extra-triplets", folder / "more.csv", "--extra-triplets", folder / "most.tsv"]
    parts = train("parts", "--dataset", folder, *extra)
    assert losses_of(parts) == pytest.approx(losses_of(whole), rel=1e-5)
    assert losses_of(train("fewer", "--dataset", folder, "--batch-size", "7")) != losses_of(whole)


@pytest.mark.parametrize("dataset", ["CIRR", "FashionIQ"])
def test_any_data_set_takes_them_and_a_run_goes_on_with_them(dataset, train, world):
    table = world / "my_pictures" / "triplets.train.csv"
    rows = len(table.read_text().splitlines()) - 1
    run = train("run", "--dataset", dataset, "--extra-triplets", table)
    assert torch.load(run / STATE_FILE, weights_only=True)["triplets"] == 48 + rows
    assert read_json(run / "training_hyperparameters.json", dict)["extra_triplets"] == [str(table)]
    combiner_train.main(["--resume", str(run), "--num-epochs", "3"])
    assert len(losses_of(run)) == 3


def generated(world, dataset, captions, extra=None):
    """Return the entries of a file as SPN4CIR generates them, of the first two training triplets of a data set."""
    splits = TASKS[dataset].read_all(world, "train").values()
    pairs = [(triplet.reference, triplet.targets[0]) for split in splits for triplet in split.triplets][:2]
    described = {"caption1": "a shirt", "caption2": "a red dress"} | (extra or {})
    if dataset == "CIRR":
        group = {"pairid": 0, "img_set": {"members": ["xxx"]}}
        return [{"target_hard": b, "reference": a, "caption": captions} | group | described for a, b in pairs]
    return [{"target": b, "candidate": a, "captions": captions} | described for a, b in pairs]


INSTEAD = ["a red dress instead of a shirt.", "Unlike a shirt, I want a red dress"]


@pytest.mark.parametrize("dataset", ["CIRR", "FashionIQ"])
@pytest.mark.parametrize(
    ("captions", "more", "texts"),
    [
        (INSTEAD, {}, INSTEAD),
        (["a red dress"], {}, ["a red dress"]),
        ("a red dress", {}, ["a red dress"]),
        (INSTEAD, {"llm_caption": "make it a red dress"}, ["make it a red dress"]),
    ],
)
def test_generated_triplets_name_training_pictures_and_one_caption_is_drawn(
    dataset, captions, more, texts, world, tmp_path
):
    path, task = tmp_path / "extend.json", TASKS[dataset]
    write_json(path, generated(world, dataset, captions, more))
    train = task.read_all(world, "train").values()
    (split,) = read_extra([path], train).values()
    pictures = {name: file for one in train for name, file in one.pictures.items()}
    assert split.pictures.items() <= pictures.items()
    assert split.pictures.keys() == {name for one in split.triplets for name in (one.reference, *one.targets)}
    # As its program draws them: neither joined nor cleaned.
    assert [task.training_texts(one.captions) for one in split.triplets] == [tuple(texts)] * 2


@pytest.mark.parametrize("dataset", ["CIRR", "FashionIQ"])
def test_generated_triplets_train_with_those_of_a_data_set(dataset, train, world, tmp_path):
    path = tmp_path / "extend.json"
    write_json(path, generated(world, dataset, INSTEAD))
    run = train("run", "--dataset", dataset, "--extra-triplets", path)
    assert torch.load(run / STATE_FILE, weights_only=True)["triplets"] == 48 + 2
    assert len(losses_of(run)) == 2


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ([], "holds no triplets"),
        ({}, "holds"),
        ([1], "1 of 1 entries that are not objects: entry 0"),
        ([{"reference": "a", "caption": "c"}], "entries without a name under 'target_hard' or 'target': entry 0"),
        ([{"candidate": 3, "target": "b"}], "entries without a name under 'reference' or 'candidate': entry 0"),
        ([{"candidate": "a", "target": "b"}], "entries without a caption, or a list of captions, none of them blank"),
        ([{"candidate": "a", "target": "b", "captions": []}], "entries without a caption"),
        ([{"candidate": "a", "target": "b", "captions": ["c", " "]}], "entries without a caption"),
        ([{"candidate": "a", "target": "b", "captions": {"c": 1}}], "entries without a caption"),
        ([{"candidate": "a", "target": "a", "captions": ["c"]}], "1 of 1 entries whose target is their reference"),
        (
            [{"candidate": "a", "target": "b", "captions": ["c"]}],
            "2 of 2 names that are not of the data set's training pictures: a, b",
        ),
    ],
)
def test_faulty_generated_triplets_are_named(content, fault, options, tmp_path, capsys):
    path = tmp_path / "extend.json"
    write_json(path, content)
    assert status_of(combiner_train.main, [*options, "--dataset", "CIRR", "--extra-triplets", path]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{path}: " in line
    assert fault in line


def test_names_of_two_folders_stay_apart(world, tmp_path):
    tables = []
    for name in ("a", "b"):
        folder = shutil.copytree(world / "my_pictures", tmp_path / name)
        table = folder / "more.jsonl"
        table.write_text(json.dumps({"reference": "x.png", "target": ["y.png", "z.png"], "caption": "in red"}))
        tables.append(table)
    first, second = read_extra(tables).values()
    assert [triplet.targets for triplet in first.triplets] == [(f"{tmp_path}/a/y.png",), (f"{tmp_path}/a/z.png",)]
    assert first.pictures.keys().isdisjoint(second.pictures)
    assert second.pictures[f"{tmp_path}/b/x.png"] == tmp_path / "b" / "x.png"


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["more.txt"], "more.txt: a table of triplets is a .csv, .tsv, .xlsx, .jsonl, or SPN4CIR's .json"),
        (["gone.csv"], "a.png"),
        (["outside.csv"], "outside.csv: 1 of 1 rows with a reference outside the folder: row 2 (../a.png)"),
        (["gone.csv", "gone.csv"], "gone.csv: is named twice as extra triplets"),
        (["nowhere.csv"], "nowhere.csv: no such file"),
    ],
)
def test_faulty_tables_are_named(names, said, options, tmp_path, capsys):
    (tmp_path / "more.txt").write_text("[]")
    (tmp_path / "gone.csv").write_text("reference,target,caption\na.png,b.png,in red\n")
    (tmp_path / "outside.csv").write_text("reference,target,caption\n../a.png,b.png,in red\n")
    extra = [part for name in names for part in ("--extra-triplets", tmp_path / name)]
    assert status_of(combiner_train.main, [*options, *extra]) == 2
    assert f"{tmp_path}/{said}" in capsys.readouterr().err


def test_cirr_trains_without_groups(train, broken_world):
    path = broken_world / CAPTIONS.format("train")
    whole = train("whole", "--dataset", "CIRR", "--data-path", broken_world)
    entries = read_json(path, list)
    for number, entry in enumerate(entries):
        if number % 3:
            del entry["img_set"]
    write_json(path, entries)
    (split,) = CIRR().read_all(broken_world, "train").values()
    assert [bool(triplet.group) for triplet in split.triplets[:4]] == [True, False, False, True]
    fewer = train("fewer", "--dataset", "CIRR", "--data-path", broken_world)
    assert (fewer / "train_metrics.csv").read_text() == (whole / "train_metrics.csv").read_text()


def test_cirr_is_not_judged_without_groups(broken_world, options, capsys):
    path = broken_world / CAPTIONS.format("val")
    entries = read_json(path, list)
    del entries[2]["img_set"]
    write_json(path, entries)
    assert status_of(combiner_train.main, [*options, "--data-path", broken_world]) == 2
    assert "entries without an img_set of 6 different members: entry 2" in capsys.readouterr().err
