"""i-CIR: the numbers of its evaluator, what a query ranks, and what is refused of its tables."""

import csv
import json
import re
from itertools import permutations

import numpy as np
import pytest
import torch
from PIL import Image

import check_data
import compare
import report
import validate
from src.models.features import FeatureFiles
from src.retrieval.metrics import GradedRanks, Ranks, chance, of_each_query, of_groups
from src.tasks.registry import TASKS
from src.tasks.triplets import Triplet
from tests.support.commands import status_of, toy_paths
from tests.support.submissions import write

QUERIES, DATABASE = "query_files.csv", "database_files.csv"
SMALL = {
    QUERIES: [
        *("icir/query/mug/0.jpg,as a sketch,mug", "icir/query/mug/0.jpg,at sunset,mug"),
        "icir/query/cat/0.jpg,asleep,cat",
    ],
    DATABASE: [
        *("icir/database/mug/0.jpg,as a sketch,mug", "icir/database/mug/1.jpg,at sunset,mug"),
        *("icir/database/mug/2.jpg,None,mug", "icir/database/mug/3.jpg,None,mug"),
        *("icir/database/cat/0.jpg,asleep,cat", "icir/database/cat/1.jpg,asleep,cat", "icir/database/cat/2.jpg,,cat"),
    ],
}  # fmt: skip


def write_icir(folder, tables):
    """Write icir/ to `folder` with tables {name: lines} and a picture of each path; return the folder."""
    for table, lines in tables.items():
        write(folder / "icir" / table, "".join(f"{line}\n" for line in lines))
    for number, path in enumerate(dict.fromkeys(line.split(",")[0] for lines in tables.values() for line in lines)):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (24, 20), (number * 7 % 256, number * 31 % 256, 90)).save(folder / path)
    return folder


@pytest.fixture
def small(tmp_path):
    return write_icir(tmp_path, SMALL)


def printed(text):
    return {name: float(value) for name, value in re.findall(r"^(\w+) = (.+)$", text, re.MULTILINE)}


@pytest.fixture
def golden(shared, tmp_path, monkeypatch):
    """Return the golden numbers, and options of validate.py on their rows and features."""
    content = json.loads((shared / "golden" / "datasets" / "icir.json").read_text())
    # Each query has features of its own, also where pictures and texts are called alike: pictures get other names here,
    # and features of texts are given by the query's number.
    for number, row in enumerate(content["query"]):
        row["path"] = re.sub(r"q\d", rf"{number}_\g<0>", row["path"])
    tables = {QUERIES: content["query"], DATABASE: content["database"]}
    lines = {
        name: [",".join(row[field] for field in ("path", "text", "instance")) for row in rows]
        for name, rows in tables.items()
    }
    write_icir(tmp_path, lines)
    pictures = {row["path"]: row["image"] for rows in tables.values() for row in rows}
    texts = {row["text"]: row["words"] for row in content["query"]}
    for stem, features in (("pictures", pictures), ("texts", texts)):
        write(tmp_path / "features" / f"{stem}.txt", "".join(f"{line}\n" for line in features))
        np.save(tmp_path / "features" / f"{stem}.npy", np.array([*features.values()], np.float32))
    of_pictures = FeatureFiles.held
    words = torch.tensor([row["words"] for row in content["query"]])

    def held(files, encoder, items):
        return of_pictures(files, encoder, items) if encoder == "image" else words

    monkeypatch.setattr(FeatureFiles, "held", held)
    options = ["--clip-model-name", f"features:{tmp_path / 'features'}", *toy_paths(tmp_path, tmp_path / "out")]
    return content, ["--dataset", "i-CIR", *options]


@pytest.mark.parametrize(
    ("function", "theirs"), [("cosines", "sum"), ("product", "product"), ("image", "image"), ("text", "text")]
)
def test_the_numbers_of_its_evaluator(function, theirs, golden, tmp_path, capsys):
    content, options = golden
    table = tmp_path / "queries.csv"
    validate.main([*options, "--combining-function", function, "--per-query", str(table)])
    out = capsys.readouterr().out
    assert "protocol icir: group gallery, reference kept" in out
    assert "16 queries over 12 to 15 pictures each" in " ".join(out.split())
    wanted = [*content["golden"][theirs]["printed"].values()]
    assert [round(printed(out)[name], 2) for name in ("map", "mmap", "minmap")] == wanted
    with table.open() as file:
        precisions = {
            f"{re.sub('[0-9]+_', '', row['reference'])}|{row['caption']}": float(row["map"])
            for row in csv.DictReader(file)
        }
    assert precisions == pytest.approx(content["golden"][theirs]["AP"], abs=1e-6)


def test_means_of_instances_have_intervals_and_are_compared(golden, tmp_path, capsys):
    _, options = golden
    for name in ("sum", "cosines"):
        more = ["--combining-function", name, "--protocol", "icir", "--per-query", tmp_path / f"{name}.csv"]
        assert status_of(validate.main, [*options, *more, "--json", tmp_path / f"{name}.json"]) == 0
    ladder = capsys.readouterr().out.split("minmap\n")[-1]
    assert [line.split("  ")[0].strip() for line in ladder.splitlines()[:6]] == [
        *("chance", "caption only", "picture only", "product", "sum of cosines", "sum"),
    ]
    (protocol,) = json.loads((tmp_path / "cosines.json").read_text())["protocols"]
    assert protocol["ranked"] == {"icir": [12, 15]}
    assert all(0 <= of["low"] <= of["percent"] <= of["high"] <= 100 for of in protocol["metrics"].values())
    assert "minmap" not in protocol["ladder"]["chance"]
    assert status_of(compare.main, [tmp_path / "sum.csv", tmp_path / "cosines.csv"]) == 0
    assert {"map", "mmap", "minmap"} <= set(re.findall(r"^(\w+)", capsys.readouterr().out, re.MULTILINE))


def test_the_whole_ranking_of_a_query_by_hand():
    # The example of the paper's evaluator: two targets, at places 0 and 3; then one query of another group, at 0.
    triplets = [Triplet("q", ("x",), ("a", "b"), ("a", "b", "c", "d")), Triplet("r", ("x",), ("e",), ("e", "f"))]
    ranks = np.array([3, 0, 0])
    graded = GradedRanks(np.array([0, 0, 1]), np.ones(3, np.float32), ranks, ranks)
    scores = of_each_query(Ranks(triplets, np.array([0, 0]), None, graded), TASKS["i-CIR"].protocol())
    assert scores["map"] == pytest.approx([((1 + 1) / 2 + (1 / 3 + 2 / 4) / 2) / 2.00001, 1 / 1.00001], abs=1e-12)
    assert scores["mmap"].tolist() == scores["minmap"].tolist() == scores["map"].tolist()
    same = [triplet._replace(group=triplets[0].group) for triplet in triplets]
    groups = of_groups(np.array([0.25, 0.75]), same)
    assert groups["mmap"][0] == 0.5
    assert groups["minmap"][0] == 0.25
    assert np.isnan([groups["mmap"][1], groups["minmap"][1]]).all()


def test_chance_is_the_mean_over_all_rankings():
    protocol = TASKS["i-CIR"].protocol()
    triplet = Triplet("q", ("x",), ("a", "b"), tuple("abcde"))
    every = [
        of_each_query(
            Ranks([triplet], np.array([0]), None, GradedRanks(np.zeros(2, int), np.ones(2), np.array(ranks), None)),
            protocol,
        )["map"][0]
        for ranks in permutations(range(5), 2)
    ]
    assert chance([triplet], 99, protocol)["map"] == pytest.approx(100 * np.mean(every))


def test_a_query_ranks_the_pictures_of_its_instance(small, world, tmp_path):
    (split,) = TASKS["i-CIR"].read_all(small, "val").values()
    sketch, sunset, asleep = split.triplets
    assert sketch.targets == ("icir/database/mug/0.jpg",)
    assert asleep.targets == ("icir/database/cat/0.jpg", "icir/database/cat/1.jpg")
    assert sketch.group is sunset.group
    assert all(path.is_file() for path in split.pictures.values())
    options = ["--dataset", "i-cir", *toy_paths(small, tmp_path / "out")]
    judged = [*options, "--clip-model-name", world / "small_clip.pt", "--precision", "fp32"]
    assert (
        status_of(validate.main, [*judged, "--trec-run", tmp_path / "run", "--per-query", tmp_path / "queries.csv"])
        == 0
    )
    with (tmp_path / "queries.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [set(row["answers"].split("|")) for row in rows] == [set(triplet.group) for triplet in split.triplets]
    assert [bool(row["minmap"]) for row in rows] == [True, False, True]
    # The rankings come back as those of another program, whole as these are.
    assert status_of(validate.main, [*options[:4], "--run", tmp_path / "run", "--per-query", tmp_path / "b.csv"]) == 0
    with (tmp_path / "b.csv").open() as file:
        again = list(csv.DictReader(file))
    assert [(row["rank"], row["map"], row["mmap"]) for row in again] == [
        (row["rank"], row["map"], row["mmap"]) for row in rows
    ]


def test_pages_of_its_rankings(small, world, tmp_path, capsys):
    options = ["--dataset", "i-cir", *toy_paths(small, tmp_path / "out"), "--clip-model-name", world / "small_clip.pt"]
    files = ["--trec-run", tmp_path / "a.run", "--per-query", tmp_path / "a.csv", "--candidates", tmp_path / "a.jsonl"]
    assert status_of(validate.main, [*options, *files]) == 0
    asked = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [len(of["candidates"]) for of in asked] == [4, 4, 3]
    capsys.readouterr()
    page = ["--dataset", "i-CIR", "--data-path", small, "--output", tmp_path / "a.html"]
    assert status_of(report.main, ["--run", tmp_path / "a.run", *page]) == 0
    assert re.search(r"^chance +[\d.]+ +[\d.]+ +–$", capsys.readouterr().out, re.MULTILINE)
    assert "of 3" in (tmp_path / "a.html").read_text()
    assert status_of(compare.main, [tmp_path / "a.csv", tmp_path / "a.run", "--data-path", small]) == 0


def test_a_short_ranking_has_no_means_of_instances(small, world, tmp_path, capsys):
    lists = {"0": ["icir/database/mug/0.jpg"], "1": ["icir/database/mug/1.jpg"], "2": ["icir/database/cat/0.jpg"]}
    write(tmp_path / "run.json", lists)
    paths = ["--dataset", "i-CIR", *toy_paths(small, tmp_path)[:4]]
    assert status_of(validate.main, [*paths, "--run", tmp_path / "run.json"]) == 0
    said = capsys.readouterr()
    assert printed(said.out) == {"recall_at1": 100, "recall_at5": 100, "recall_at10": 100}
    assert "minmap is not known: 1 of 3 lists end too early (2)" in said.err


def test_a_lost_picture_takes_the_queries_that_rank_it(small, world, tmp_path, capsys):
    (small / "icir/database/cat/2.jpg").unlink()
    options = ["--dataset", "i-cir", *toy_paths(small, tmp_path / "out"), "--clip-model-name", world / "small_clip.pt"]
    assert status_of(validate.main, [*options, "--skip-missing"]) == 0
    said = capsys.readouterr()
    assert "leaves out 1 of 9 pictures and 1 of 3 triplets: 2.jpg" in said.err
    assert "2 queries over 4 pictures each" in said.out
    assert "(not comparable: without 1 of 9 pictures, 1 of 3 triplets)" in said.out


@pytest.mark.parametrize("database", [SMALL[DATABASE], ["icir/query/mug/0.jpg,as a sketch,mug"]])
def test_a_reference_that_is_the_target_cannot_leave_a_ranking(database, world, tmp_path, capsys):
    target = database[0]
    data = write_icir(tmp_path, {QUERIES: [target], DATABASE: database})
    options = ["--dataset", "i-CIR", *toy_paths(data, tmp_path / "out")]
    judged = [*options, "--clip-model-name", world / "small_clip.pt", "--trec-run", tmp_path / "a.run"]
    assert status_of(validate.main, judged) == 0
    for dropped in (judged, [*options[:4], "--run", tmp_path / "a.run"]):
        capsys.readouterr()
        assert status_of(validate.main, [*dropped, "--reference", "drop"]) == 2
        line = f"{target.split(',')[0]}: the target is its own reference, which leaves the ranking"
        assert line in capsys.readouterr().err


def test_check_data(small, tmp_path):
    report = tmp_path / "findings.json"
    assert status_of(check_data.main, ["--dataset", "i-CIR", "--data-path", small, "--output", report]) == 0
    assert "missing" in report.read_text()


@pytest.mark.parametrize(
    ("table", "lines", "fault"),
    [
        (QUERIES, [], "holds no lines"),
        (
            QUERIES,
            ["icir/query/mug/0.jpg,on a table, at sunset,mug"],
            "1 of 1 lines that are not a picture, a text and",
        ),
        (QUERIES, ["../0.jpg,at sunset,mug"], "1 of 1 lines with a path outside the folder of the data sets: line 1"),
        (
            QUERIES,
            ["icir/query/mug/0.jpg,at sunset,dog"],
            f"1 of 1 lines with an instance that {DATABASE} lacks: line 1",
        ),
        (QUERIES, ["icir/query/mug/0.jpg,asleep,mug"], "1 of 1 lines whose text no picture of their instance"),
        (DATABASE, [*SMALL[DATABASE], SMALL[DATABASE][0]], "a picture that their instance has already: line 8"),
        (DATABASE, [*SMALL[DATABASE], "icir/database/mug/9.jpg,None,mug"], "icir/database/mug/9.jpg: no such picture"),
    ],
)
def test_faulty_tables_are_named(table, lines, fault, small, world, capsys):
    write(small / "icir" / table, "".join(f"{line}\n" for line in lines))
    options = ["--data-path", small, "--clip-model-name", world / "small_clip.pt"]
    assert status_of(validate.main, ["--dataset", "i-CIR", *options]) == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert fault in line
