"""Own triplets: tables as people have them, what is counted, and the same numbers as from the published layouts."""

import csv
import json
import shutil

import pytest

import check_data
import clip_fine_tune
import combiner_train
import compare
import report
import validate
from src.apps.own import __main__ as conversion
from src.base.errors import InputError
from src.base.files import write_json
from src.base.folders import pictures_below
from src.base.reading import read_json
from src.tasks.own import OwnTriplets
from tests.support.commands import COMBINER, status_of, toy_options
from tests.support.own_folders import HEADER, read, with_pictures, write


@pytest.fixture
def folder(tmp_path):
    return with_pictures(tmp_path / "my pictures")


# ---- what tables look like ----


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("triplets.val.csv", 'reference,target,caption\na.jpg,in/d e.jpg,"red, and ""new"""\n'),
        ("triplets.val.csv", '\ufeffCaption;Target;REFERENCE;note\r\n"red, and ""new""";in/d e.jpg;a.jpg;x\r\n;;;\r\n'),
        ("triplets.val.csv", 'target , caption,reference\n./in/d e.jpg,"red, and ""new"""," a.jpg"\n\n'),
        ("triplets.val.csv", 'sep=;\r\nreference;target;caption\r\na.jpg;in/d e.jpg;"red, and ""new"""\r\n'),
        ("triplets.val.csv", '\ufeffSEP=\t\nreference\ttarget\tcaption\na.jpg\tin/d e.jpg\t"red, and ""new"""\n'),
        ("triplets.val.tsv", 'target\tcaption\treference\nin\\d e.jpg\t"red, and ""new"""\ta.jpg\n'),
        ("triplets.val.jsonl", '{"caption": "red, and \\"new\\"", "target": ["in/d e.jpg"], "reference": "a.jpg"}\n\n'),
        ("triplets.val.jsonl", '{"Caption": ["red, and \\"new\\""], "target": "in/d e.jpg", "reference": "a.jpg"}'),
    ],
)
def test_one_triplet_in_many_spellings(name, text, folder):
    (triplet,) = read(write(folder, name, text)).triplets
    assert (triplet.reference, triplet.targets, triplet.captions) == ("a.jpg", ("in/d e.jpg",), ('red, and "new"',))


def test_all_columns(folder):
    text = (
        "id,group,reference,target,caption,caption2,category\n"
        "q1,a.jpg|b.PNG|i.jpg,a.jpg,b.PNG | i.jpg,is red,is long,dogs\n"
        'q2,"i.jpg|g,h.jpg",a.jpg,"g,h.jpg",is blue,,cats\n'
    )
    splits = OwnTriplets.in_folder(write(folder, "triplets.val.csv", text)).read_all(folder, "val")
    assert list(splits) == ["dogs", "cats"]
    ((first,), (second,)) = (split.triplets for split in splits.values())
    assert first[:5] == ("a.jpg", ("is red", "is long"), ("b.PNG", "i.jpg"), ("a.jpg", "b.PNG", "i.jpg"), "q1")
    # The reference belongs to its group, whether or not it is listed.
    assert second[:5] == ("a.jpg", ("is blue",), ("g,h.jpg",), ("i.jpg", "g,h.jpg", "a.jpg"), "q2")
    task = OwnTriplets.in_folder(folder)
    assert task.protocol().group_at == (1, 2, 3)
    assert task.protocol().map_at == (5, 10, 25, 50)


def test_the_gallery_is_every_picture_below(folder):
    write(folder, "triplets.val.csv", HEADER + "a.jpg,b.PNG,red\n")
    (folder / ".thumbs").mkdir()
    shutil.copy(folder / "a.jpg", folder / ".thumbs" / "a.jpg")
    names = ["a.jpg", "b.PNG", "g,h.jpg", "i.jpg", "in/c.webp", "in/d e.jpg", "in/deep/f.jpeg"]
    assert list(read(folder).pictures) == list(pictures_below(folder)) == names
    write(folder, "gallery.val.txt", "in/c.webp\n\nb.PNG\na.jpg\n")
    assert list(read(folder).pictures) == ["in/c.webp", "b.PNG", "a.jpg"]
    # A training split has no gallery: only what its rows name is opened.
    write(folder, "triplets.train.csv", HEADER + "a.jpg,b.PNG,red\n")
    assert list(read(folder, "train").pictures) == ["a.jpg", "b.PNG"]


def test_each_category_may_have_its_gallery(folder):
    write(folder, "triplets.val.csv", "reference,target,caption,category\na.jpg,b.PNG,red,x\na.jpg,i.jpg,red,y\n")
    write(folder, "gallery.val.txt", "a.jpg\nb.PNG\ni.jpg\n")
    write(folder, "gallery.val.y.txt", "a.jpg\ni.jpg\n")
    splits = OwnTriplets.in_folder(folder).read_all(folder, "val")
    assert [len(split.pictures) for split in splits.values()] == [3, 2]


def test_several_targets_train_as_many_triplets(folder):
    write(folder, "triplets.train.csv", HEADER + "a.jpg,b.PNG|i.jpg,red\n")
    assert [triplet.targets for triplet in read(folder, "train").triplets] == [("b.PNG",), ("i.jpg",)]


def test_a_query_is_called_by_its_row(folder):
    write(folder, "triplets.val.csv", HEADER + "\na.jpg,b.PNG,red\na.jpg,i.jpg,red\n")
    task = OwnTriplets.in_folder(folder)
    assert [query.id for query in task.queries(read(folder).triplets, "joined")] == ["3", "4"]


# ---- the same numbers ----


@pytest.fixture(scope="module")
def converted(world, tmp_path_factory):
    """Return a function that gives the toy world's data set as a folder of own triplets."""
    folders = {}

    def convert(dataset):
        if dataset not in folders:
            folders[dataset] = tmp_path_factory.mktemp("converted") / f"own_{dataset}"
            conversion.main(["--dataset", dataset, "--data-path", str(world), "--to", str(folders[dataset])])
        return folders[dataset]

    return convert


@pytest.mark.parametrize("dataset", ["CIRR", "FashionIQ"])
def test_recalls_are_those_of_the_published_layout(dataset, converted, world, tmp_path):
    options = toy_options(world, tmp_path)
    rules = ["--reference", "keep" if dataset == "FashionIQ" else "drop"]

    def metrics(name):
        validate.main(["--dataset", str(name), *rules, "--json", str(tmp_path / "a.json"), *options])
        (of,) = json.loads((tmp_path / "a.json").read_text())["protocols"]
        return {metric: value["percent"] for metric, value in of["metrics"].items()}

    theirs, ours = metrics(dataset), metrics(converted(dataset))
    shared = [name for name in theirs if "recall_at" in name]
    assert len(shared) == (7 if dataset == "CIRR" else 8)
    assert {name: ours[name] for name in shared} == {name: theirs[name] for name in shared}


@pytest.mark.parametrize("dataset", ["CIRR", "FashionIQ"])
@pytest.mark.parametrize(
    ("stage", "arguments"), [(combiner_train, COMBINER), (clip_fine_tune, ["--learning-rate", "1e-4"])]
)
def test_losses_are_those_of_the_published_layout(dataset, stage, arguments, converted, world, tmp_path):
    def losses(name):
        output = tmp_path / str(len(list(tmp_path.iterdir())))
        training = ["--num-epochs", "2", "--batch-size", "16", *arguments, *toy_options(world, output)]
        stage.main(["--dataset", str(name), *training])
        (table,) = output.glob("models/*/train_metrics.csv")
        with table.open() as file:
            return [float(row["train_epoch_loss"]) for row in csv.DictReader(file)]

    assert losses(converted(dataset)) == pytest.approx(losses(dataset), abs=1e-6)


def test_cirr_is_converted_without_some_training_groups(broken_world, tmp_path, capsys):
    path = broken_world / "cirr_dataset" / "cirr" / "captions" / "cap.rc2.train.json"
    entries = read_json(path, list)
    for entry in entries[::2]:
        del entry["img_set"]
    write_json(path, entries)
    folder = tmp_path / "own"
    conversion.main(["--dataset", "CIRR", "--data-path", str(broken_world), "--to", str(folder)])
    assert f"{folder / 'triplets.train.jsonl'}: {len(entries)} triplets" in capsys.readouterr().out
    (split,) = OwnTriplets.in_folder(folder).read_all(tmp_path, "train").values()
    assert [len(triplet.group) for triplet in split.triplets[:4]] == [0, 6, 0, 6]


def test_every_command_takes_a_folder(converted, world, tmp_path, capsys):
    folder = converted("CIRR")
    options = toy_options(world, tmp_path)
    training = ["--dataset", str(folder), "--batch-size", "16", *COMBINER, "--save-training", "--save-best", *options]
    combiner_train.main(["--num-epochs", "1", *training])
    (run,) = (tmp_path / "models").iterdir()
    assert run.name.startswith("combiner_trained_on_own_CIRR_small_clip_")
    combiner_train.main(["--resume", str(run), "--num-epochs", "2"])
    weights = run / "saved_models" / "combiner.pt"
    files = ["--per-query", str(tmp_path / "combiner.csv")]
    validate.main(["--dataset", str(folder), "--combiner-path", str(weights), *files, *options])
    validate.main(["--dataset", str(folder), "--per-query", str(tmp_path / "sum.csv"), *options])
    page = ["--page", str(tmp_path / "c.html"), "--data-path", str(folder.parent)]
    compare.main([str(tmp_path / "sum.csv"), str(tmp_path / "combiner.csv"), *page])
    said = capsys.readouterr().out
    assert "combiner beside sum: own_CIRR val, protocol own, 24 queries" in said
    assert "protocol own: full gallery, reference dropped, captions joined; 24 queries over 30 pictures" in said
    report.main(["--run-folder", str(run), "--num-workers", "0"])
    assert "own_CIRR val, protocol own" in (run / "report.html").read_text()
    # On another data set than that of the run.
    report.main(["--run-folder", str(run), "--dataset", "FashionIQ", "--num-workers", "0"])
    assert "FashionIQ val, protocol clip4cir" in (run / "report.html").read_text()
    assert status_of(check_data.main, ["--dataset", folder, "--num-workers", "0"]) == 0
    assert "train         40 pictures" in capsys.readouterr().out


def test_groups_of_several_sizes_and_several_targets(folder, world, tmp_path):
    text = (
        "reference,target,caption,group\n"
        "a.jpg,b.PNG|i.jpg,red,b.PNG|i.jpg|in/c.webp|in/d e.jpg\n"
        "b.PNG,a.jpg,green,a.jpg|i.jpg\n"
        "i.jpg,in/c.webp,blue,in/c.webp\n"
    )
    write(folder, "triplets.val.csv", text)
    files = ["--json", str(tmp_path / "a.json"), "--trec-run", str(tmp_path / "a.run")]
    validate.main(["--dataset", str(folder), "--gallery", "val", *files, *toy_options(world, tmp_path)])
    (of,) = json.loads((tmp_path / "a.json").read_text())["protocols"]
    assert (of["gallery_size"], of["ranked"], of["queries"]) == ({"all": 5}, {"all": 4}, {"all": 3})
    # Guessing one of four, of two, and of one.
    assert of["ladder"]["chance"]["group_recall_at1"] == pytest.approx(100 * (1 / 4 + 1 / 2 + 1) / 3)
    assert {"map_at5", "group_recall_at3", "recall_at50", "mean_recall"} <= of["metrics"].keys()
    assert of["metrics"]["recall_at5"]["percent"] == 100
    ranked = [line.split()[0] for line in (tmp_path / "a.group.run").read_text().splitlines()]
    assert [ranked.count(query) for query in ("2", "3", "4")] == [4, 2, 1]


# ---- other tables ----


def test_a_table_with_columns_of_other_names(folder, tmp_path, capsys):
    table = tmp_path / "pairs.jsonl"
    table.write_text('{"src": "a.jpg", "edit": "red", "dst": "in/d e.jpg", "n": 3}\n')
    columns = ["--reference-column", "src", "--caption-column", "edit", "--target-column", "dst", "--id-column", "n"]
    arguments = ["--table", table, "--split", "val", "--pictures", folder, "--to", tmp_path / "own", *columns]
    assert status_of(conversion.main, arguments) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'own' / 'triplets.val.jsonl'}: 1 triplets\n"
    (triplet,) = read(tmp_path / "own").triplets
    assert triplet[:5] == ("a.jpg", ("red",), ("in/d e.jpg",), (), "3")
    assert (tmp_path / "own" / "in" / "d e.jpg").resolve() == folder / "in" / "d e.jpg"


def test_lascos_table(folder, tmp_path):
    entry = {"qid": 5, "query-image": [3, "a.jpg"], "query-text": "red", "target-image": [4, "i.jpg"]}
    (tmp_path / "lasco_val.json").write_text(json.dumps([entry]))
    arguments = ["--table", str(tmp_path / "lasco_val.json"), "--lasco", "--split", "val", "--copy"]
    conversion.main([*arguments, "--pictures", str(folder), "--to", str(tmp_path / "own")])
    (triplet,) = read(tmp_path / "own").triplets
    assert triplet[:5] == ("a.jpg", ("red",), ("i.jpg",), (), "5")
    assert not (tmp_path / "own" / "a.jpg").is_symlink()


def test_a_parquet_table_that_holds_its_pictures(folder, tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    pictures = [{"bytes": (folder / name).read_bytes(), "path": name} for name in ("a.jpg", "i.jpg", "b.PNG")]
    rows = [
        {"source_image": pictures[0], "edited_image": pictures[1], "edit": "red"},
        {"source_image": pictures[0], "edited_image": pictures[2], "edit": "blue"},
    ]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "pairs.parquet")
    columns = ["--reference-column", "source_image", "--target-column", "edited_image", "--caption-column", "edit"]
    table = ["--table", str(tmp_path / "pairs.parquet"), "--split", "train"]
    conversion.main([*table, "--to", str(tmp_path / "own"), *columns])
    split = read(tmp_path / "own", "train")
    assert [triplet.captions for triplet in split.triplets] == [("red",), ("blue",)]
    assert len(split.pictures) == 3
    assert split.pictures[split.triplets[1].targets[0]].read_bytes() == pictures[2]["bytes"]


@pytest.mark.parametrize(
    ("line", "arguments", "fault"),
    [
        ('{"a": 1}', ["--reference-column", "src"], "line 1: has no src, only a"),
        ("[1]", [], "line 1: no object"),
        ("{", [], "line 1: not JSON"),
        ('{"reference": 3}', [], "line 1: has no caption, only reference"),
        ('{"reference": 3, "caption": ""}', [], "line 1: reference is not the path of a picture and holds none"),
        ('{"reference": "no.jpg", "target": "a.jpg", "caption": "red"}', [], "no.jpg: no such picture"),
        ('{"reference": "a.jpg", "target": "a.jpg", "caption": {}}', [], "line 1: caption is not text"),
        (
            '{"reference": "a.jpg", "target": "a.jpg", "caption": "x"}',
            [],
            "t.jsonl: 1 of 1 rows whose target is their reference: line 1",
        ),
        (
            '{"reference": "A.jpg", "target": "b.PNG", "caption": "x"}',
            [],
            "t.jsonl are missing: A.jpg (line 1: there is a.jpg, in other case) (--pictures says",
        ),
        (
            '{"reference": "../x.jpg", "target": "b.PNG", "caption": "x"}',
            [],
            "t.jsonl: 1 of 1 rows with a reference outside the folder: line 1 (../x.jpg)",
        ),
        (
            '{"reference": "a.jpg", "target": "b.PNG", "caption": ["x", "y", "z"]}',
            [],
            "line 1: has more than two captions",
        ),
        ('{"reference": " ", "caption": null}', [], "t.jsonl: holds no triplets"),
    ],
)
def test_faults_of_tables(line, arguments, fault, folder, tmp_path, capsys):
    (tmp_path / "t.jsonl").write_text(line)
    to = ["--to", tmp_path / "own", "--pictures", folder]
    assert status_of(conversion.main, ["--table", tmp_path / "t.jsonl", "--split", "val", *arguments, *to]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert fault in said
    assert [path.name for path in tmp_path.iterdir() if path != folder] == ["t.jsonl"]


ENTRIES = [{"reference": "a.jpg ", "target": ["in\\d e.jpg", " b.PNG"], "caption": " red "}, {"reference": "i.jpg"}]
ENTRIES[1] |= {"target": "a.jpg", "caption": ["red", "long"], "id": None}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.JSONL", "\n".join(map(json.dumps, ENTRIES))),
        ("t.json", json.dumps(ENTRIES)),
        ("t.json", "\n".join(map(json.dumps, [*ENTRIES, {"reference": "", "caption": " ", "target": []}]))),
        (
            "t.CSV",
            "sep=;\r\nreference;target;caption;caption2;;\r\n"
            "a.jpg ;in\\d e.jpg| b.PNG; red ;;;\r\ni.jpg;a.jpg;red;long;;\r\n;;;;;\r\n ;;;;;\r\n",
        ),
    ],
)
def test_a_table_in_any_spelling_becomes_the_same_folder(name, text, folder, tmp_path):
    (tmp_path / name).write_text(text, newline="")
    to = ["--to", tmp_path / "own", "--pictures", folder, "--split", "val"]
    assert status_of(conversion.main, ["--table", tmp_path / name, *to]) == 0
    first, second = read(tmp_path / "own").triplets
    assert first[:3] == ("a.jpg", ("red",), ("in/d e.jpg", "b.PNG"))
    assert second[:3] == ("i.jpg", ("red", "long"), ("a.jpg",))


def test_a_refusal_leaves_what_was_there(folder, tmp_path, capsys):
    """Also of pictures that the table itself holds, and in a folder where something lies already."""
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    picture = {"bytes": (folder / "a.jpg").read_bytes(), "path": "a/../../b.exe"}
    good, bad = ({"reference": picture, "target": name, "caption": "red"} for name in ("i.jpg", "lost.jpg"))
    for name, rows in (("good", [good]), ("bad", [good, bad])):
        parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / f"{name}.parquet")
    to = tmp_path / "own"
    pictures = ["--pictures", folder, "--split", "val", "--to", to]
    assert status_of(conversion.main, ["--table", tmp_path / "bad.parquet", *pictures]) == 2
    assert "lost.jpg (entry 2)" in capsys.readouterr().err
    assert not to.exists()
    to.mkdir()
    (to / "mine.jpg").write_bytes(b"x")
    (to / "in").symlink_to(tmp_path)
    assert status_of(conversion.main, ["--table", tmp_path / "bad.parquet", *pictures]) == 2
    (tmp_path / "out.jsonl").write_text('{"reference": "a.jpg", "target": "in/c.webp", "caption": "red"}')
    assert status_of(conversion.main, ["--table", tmp_path / "out.jsonl", *pictures]) == 2
    assert "own/in/c.webp: lies outside" in capsys.readouterr().err
    assert sorted(path.name for path in to.iterdir()) == ["in", "mine.jpg"]
    assert status_of(conversion.main, ["--table", tmp_path / "good.parquet", *pictures]) == 0
    assert [path.suffix for path in (to / "pictures").iterdir()] == [".png"]


def test_graded_targets(folder, world, tmp_path):
    rows = "a.jpg,b.PNG|i.jpg:0.5,red\ni.jpg,a.jpg:0.25,blue\n"
    write(folder, "triplets.val.csv", HEADER + rows)
    first, second = read(folder).triplets
    assert (first.targets, first.graded) == (("b.PNG", "i.jpg"), (("b.PNG", 1), ("i.jpg", 0.5)))
    assert (second.targets, second.graded) == (("a.jpg",), (("a.jpg", 0.25),))
    options = ["--dataset", folder, *toy_options(world, tmp_path / "out"), "--protocol", "all"]
    for name in ("a.csv", "b.csv"):
        assert status_of(validate.main, [*options, "--per-query", tmp_path / name]) == 0
    with (tmp_path / "a.csv").open() as file:
        rows = list(csv.DictReader(file))
    graded = {(row["protocol"], row["query"]): (float(row["recall_at1"]), float(row["recall_at50"])) for row in rows}
    best = rows[0]["answers"].split("|")[0]
    assert graded["own", "2"] == (float(best in first.targets), 1)
    assert graded["soft", "2"] == (dict(first.graded).get(best, 0), 1)
    assert graded["soft", "3"][1] == 0.25
    assert status_of(compare.main, [tmp_path / "a.csv", tmp_path / "b.csv"]) == 0


def test_converted_grades_are_those_of_the_table(folder, tmp_path):
    grades = 0.123456789, 1e-05, 1
    rows = "".join(f"a.jpg,b.PNG:{grade},red\n" for grade in grades)
    write(folder, "mine.csv", HEADER + rows)
    to = tmp_path / "to"
    options = ["--table", folder / "mine.csv", "--pictures", folder, "--split", "val", "--to", to]
    assert status_of(conversion.main, options) == 0
    assert [triplet.graded for triplet in read(to).triplets] == [(("b.PNG", grade),) for grade in grades]


@pytest.mark.parametrize("target", ["b.PNG:0", "b.PNG:1.5", "b.PNG:1e-400", "b.PNG:1E+3", "b.PNG|i.jpg:-1"])
def test_grades_that_are_none(target, folder):
    write(folder, "triplets.val.csv", HEADER + f"a.jpg,{target},red\n")
    with pytest.raises(InputError, match=r"1 of 1 rows with a grade that is not above 0 and at most 1: row 2 \("):
        read(folder)
