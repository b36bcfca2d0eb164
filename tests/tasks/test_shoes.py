"""Shoes: TG-CIR's numbers, the pairs of each split, and what is refused of its files."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

import combiner_train
import compare
import validate
from src.tasks.registry import TASKS
from tests.support.commands import status_of, toy_options, toy_paths
from tests.support.submissions import write

SHOES = TASKS["Shoes"]
CAPTIONS, EVAL, TRAIN = "relative_captions_shoes.json", "eval_im_names.txt", "train_im_names.txt"
NAMES = [f"img_womens_{kind}_{number}.jpg" for number, kind in enumerate(["boots", "clogs", "flats", "pumps"] * 4)]


def row(reference, target, caption="has a higher heel"):
    return {"ImageName": target, "ReferenceImageName": reference, "RelativeCaption": caption}


def write_shoes(folder, rows, names, training=()):
    """Write shoes_dataset/ to `folder`, its pictures three folders down; return it."""
    root = folder / SHOES.folder
    write(root / CAPTIONS, rows)
    for listing, listed in ((EVAL, names), (TRAIN, training)):
        write(root / listing, "".join(f"{name}\n" for name in listed))
    for number, name in enumerate([*names, *training]):
        path = root / "attributedata" / name.rsplit("_", 1)[0].removeprefix("img_") / str(number % 3) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (24, 20), (number * 7 % 256, number * 31 % 256, 90)).save(path)
    return folder


@pytest.fixture
def small(tmp_path):
    """Return a folder with pairs of both splits, of neither, with an unlisted target, and with itself as target."""
    rows = [row(NAMES[n], NAMES[(n + 3) % 8], f"is {n} shades darker") for n in range(8)]
    rows += [row(NAMES[8 + n], NAMES[8 + (n + 1) % 8]) for n in range(8)]
    rows += [
        row(NAMES[0], "img_womens_boots_99.jpg"),
        row("img_womens_boots_98.jpg", NAMES[0]),
        row(NAMES[1], NAMES[1]),
    ]
    return write_shoes(tmp_path, rows, NAMES[:8], NAMES[8:])


def test_the_numbers_of_tg_cir(shared, tmp_path, capsys):
    golden = json.loads((shared / "golden" / "datasets" / "shoes.json").read_text())
    rows = [{key: value for key, value in entry.items() if key != "words"} for entry in golden["triplets"]]
    write_shoes(tmp_path, rows, golden["eval_im_names"])
    (split,) = SHOES.read_all(tmp_path, "val").values()
    pictures = {path.relative_to(tmp_path).as_posix(): name for name, path in split.pictures.items()}
    texts = {entry["RelativeCaption"]: entry["words"] for entry in golden["triplets"]}
    for stem, features in (("pictures", {path: golden["pictures"][name] for path, name in pictures.items()}),
                           ("texts", texts)):  # fmt: skip
        write(tmp_path / "features" / f"{stem}.txt", "".join(f"{line}\n" for line in features))
        np.save(tmp_path / "features" / f"{stem}.npy", np.array([*features.values()], np.float32))
    options = ["--clip-model-name", f"features:{tmp_path / 'features'}", *toy_paths(tmp_path, tmp_path / "out")]
    validate.main(["--dataset", "Shoes", *options])
    head, *lines = capsys.readouterr().out.splitlines()
    assert "protocol tg-cir: full gallery, reference dropped" in head
    three = [golden["golden"][f"shoes_r{k}"] for k in (1, 10, 50)]
    printed = {name: float(value) for name, value in (line.split(" = ") for line in lines)}
    assert list(printed) == ["recall_at1", "recall_at10", "recall_at50", "average_recall"]
    assert [*printed.values()] == pytest.approx([*three, sum(three) / 3], abs=1e-3)


def test_the_pairs_of_each_split(small, capsys):
    (val,), (train,) = (SHOES.read_all(small, split).values() for split in ("val", "train"))
    assert [triplet.id for triplet in val.triplets] == [*map(str, range(8)), "18"]
    assert [triplet.id for triplet in train.triplets] == [*map(str, range(8, 16))]
    assert [*val.pictures] == NAMES[:8]
    assert all(path.is_file() for split in (val, train) for path in split.pictures.values())
    file, two = small / SHOES.folder / CAPTIONS, "img_womens_boots_99.jpg, img_womens_boots_98.jpg"
    assert capsys.readouterr().err.splitlines() == [
        f"{file}: of 10 triplets tg-cir asks 9, without 1 whose target {EVAL} does not list: img_womens_boots_99.jpg",
        f"{file}: val does not ask 2 triplets, as there is no file of a picture that no list has: {two}",
    ]


def test_vals_way_asks_a_triplet_for_each_picture_that_the_list_has(small, world, tmp_path, capsys):
    others = ["img_womens_boots_98.jpg", "img_womens_boots_99.jpg"]
    for name in others:
        Image.new("RGB", (24, 20), (7, 7, 90)).save(small / SHOES.folder / name)
    (split,) = SHOES.read_all(small, "val").values()
    assert [*split.pictures] == [*NAMES[:8], *others]
    # Both ends of eight triplets are in the list; of one a single end each, and the last is its own target.
    times = {query.id.partition(".")[0]: 0 for query in SHOES.queries(split.triplets, "twice")}
    for query in SHOES.queries(split.triplets, "twice"):
        times[query.id.partition(".")[0]] += 1
    assert times == dict.fromkeys(map(str, range(8)), 2) | {"16": 1, "17": 1, "18": 1}
    assert [query.id for query in SHOES.queries(split.triplets, "caption")] == [*map(str, range(8)), "18"]
    options = ["--dataset", "shoes", *toy_options(small, tmp_path / "out")]
    options[options.index("--clip-model-name") + 1] = str(world / "small_clip.pt")
    files = ["--per-query", tmp_path / "queries.csv", "--json", tmp_path / "a.json"]
    assert status_of(validate.main, [*options, "--protocol", "all", *files]) == 0
    sizes = {of["protocol"]: (of["queries"]["shoes"], of["gallery_size"]["shoes"], of["ranked"]["shoes"])
             for of in json.loads((tmp_path / "a.json").read_text())["protocols"]}  # fmt: skip
    assert sizes == {"tg-cir": (9, 8, 7), "val": (19, 10, 9)}
    assert "8 pictures" in capsys.readouterr().out
    # What it ranks, judged as the ranking of another program.
    run = {row["query"]: row["answers"].split("|") for row in csv.DictReader((tmp_path / "queries.csv").open())
           if row["protocol"] == "val"}  # fmt: skip
    write(tmp_path / "run.json", run)
    assert status_of(validate.main, [*options[:4], "--run", tmp_path / "run.json", "--protocol", "val"]) == 0
    assert "19 queries over 10 pictures" in capsys.readouterr().out
    # Where only the list is ranked, two targets are in no ranking.
    narrower = ["--protocol", "val", "--gallery", "full"]
    for judged in (options, [*options[:4], "--run", tmp_path / "run.json"]):
        assert status_of(validate.main, [*judged, *narrower]) == 2
        assert "img_womens_boots_99.jpg: not among the 8 pictures of the gallery" in capsys.readouterr().err


@pytest.mark.parametrize("protocol", SHOES.protocols)
def test_a_target_that_is_its_reference_is_a_miss_in_every_file(protocol, small, world, tmp_path, capsys):
    options = ["--dataset", "shoes", *toy_options(small, tmp_path / "out"), "--protocol", protocol.name]
    options[options.index("--clip-model-name") + 1] = str(world / "small_clip.pt")
    files = {name: tmp_path / name for name in ("queries.csv", "a.run", "again.csv")}
    assert status_of(validate.main, [*options, "--per-query", files["queries.csv"], "--trec-run", files["a.run"]]) == 0
    lost = []
    for judged in ("queries.csv", "a.run"):
        run = [*options[:4], "--protocol", protocol.name, "--run", files[judged]]
        assert status_of(validate.main, [*run, "--per-query", files["again.csv"]]) == 0
        for file in (files["queries.csv"], files["again.csv"]):
            lost += [row for row in csv.DictReader(file.open()) if row["reference"] == row["target"]]
    # All seven others that are ranked come before it, and are fewer than ten.
    assert [(row["rank"], row["recall_at10"]) for row in lost] == [("8", "0")] * 4
    assert status_of(compare.main, [files["queries.csv"], files["a.run"], "--data-path", small]) == 0


def test_training_and_judging(small, world, tmp_path):
    options = ["--dataset", "shoes", *toy_options(small, tmp_path / "out")]
    options[options.index("--clip-model-name") + 1] = str(world / "small_clip.pt")
    assert status_of(validate.main, [*options, "--per-query", tmp_path / "queries.csv"]) == 0
    with (tmp_path / "queries.csv").open() as file:
        (lost,) = [line for line in csv.DictReader(file) if line["reference"] == line["target"]]
    # Its target is the reference, after all others that are ranked.
    assert (lost["rank"], lost["recall_at1"]) == ("8", "0")
    sizes = ["--projection-dim", "8", "--hidden-dim", "8", "--num-epochs", "1", "--batch-size", "4"]
    assert status_of(combiner_train.main, [*options, *sizes, "--save-training"]) == 0
    (metrics,) = (tmp_path / "out").rglob("validation_metrics.csv")
    assert "average_recall" in metrics.read_text()
    assert [path.name for path in (metrics.parent / "saved_models").glob("combiner*.pt")] == ["combiner_0.pt"]


@pytest.mark.parametrize(
    ("file", "content", "fault"),
    [
        (CAPTIONS, [], "holds no triplets"),
        (CAPTIONS, [row("a.jpg", NAMES[0])], "holds no triplets of pictures that eval_im_names.txt lists"),
        (CAPTIONS, [row(NAMES[0], 3)], "1 of 1 entries without text under 'ImageName': entry 0"),
        (CAPTIONS, {}, CAPTIONS),
        (CAPTIONS, "[", CAPTIONS),
        (EVAL, "\n", "holds no pictures"),
        (EVAL, f"{NAMES[0]}\n{NAMES[0]}\n", f"1 of 2 names listed again: {NAMES[0]}"),
        (EVAL, f"{NAMES[0]}\n../a.jpg\n", "1 of 2 lines that are no file names without folders: ../a.jpg"),
        (EVAL, b"\xff", "line 1: not UTF-8"),
        (EVAL, f"{NAMES[0]}\nnone.jpg\n{NAMES[3]}", "none.jpg"),
        (f"again/{NAMES[0]}", "", f"1 of 8 pictures that lie in several folders of {SHOES.folder}/"),
    ],
)
def test_faulty_files_are_named(file, content, fault, small, world, capsys):
    write(small / SHOES.folder / file, content)
    options = ["--data-path", small, "--clip-model-name", world / "small_clip.pt"]
    assert status_of(validate.main, ["--dataset", "Shoes", *options]) == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert fault in line
