"""CIRCO: several targets, mean average precision as its evaluator counts it, and what reads its files."""

import csv
import json
import shutil

import pytest
import torch

import check_submission
import circo_test_submission
import validate
from src.evaluation.validation import in_percent
from src.retrieval.answers import answer, with_graded
from src.retrieval.gallery import Gallery
from src.retrieval.metrics import average_precision, chance, of_each_query
from src.tasks.registry import TASKS
from src.tasks.triplets import Triplet
from tests.support.circo_world import ASPECTS, write_circo
from tests.support.commands import status_of, toy_options
from tests.support.submissions import write

CIRCO = TASKS["CIRCO"]
AT = (5, 10, 25, 50)


@pytest.fixture(scope="module")
def circo(world, tmp_path_factory):
    """Return a folder with a small CIRCO and the toy world's CIRCO-less CLIP."""
    folder = write_circo(tmp_path_factory.mktemp("circo"))
    shutil.copy(world / "small_clip.pt", folder)
    return folder


@pytest.fixture
def broken(circo, tmp_path):
    """Copy the annotations, to be broken."""
    shutil.copytree(circo / "CIRCO", tmp_path / "CIRCO")
    return tmp_path


@pytest.fixture
def judge(circo, tmp_path, capsys):
    """Return a function that runs validate.py on it and gives {metric: percent} and the line above these."""

    def run(*arguments):
        validate.main(["--dataset", "circo", *map(str, arguments), *toy_options(circo, tmp_path)])
        head, *lines = capsys.readouterr().out.splitlines()
        return {name: float(value) for name, value in (line.split(" = ") for line in lines)}, head

    return run


# ---- the metrics ----


def test_its_evaluators_numbers(shared):
    golden = json.loads((shared / "golden" / "protocols" / "circo.json").read_text())
    names = [str(name) for name in golden["gallery"]]
    place = {name: number for number, name in enumerate(names)}
    triplets, predicted = [], torch.zeros(1, len(golden["rows"]), len(names))
    for number, row in enumerate(golden["rows"]):
        first, others = row["target_img_id"], [name for name in row["gt_img_ids"] if name != row["target_img_id"]]
        targets = tuple(map(str, (first, *others)))
        triplets.append(Triplet(str(row["reference_img_id"]), (), targets, aspects=tuple(row["semantic_aspects"])))
        # Every picture's feature is a direction of its own, so that a query's parts are its similarities.
        ranked = golden["predictions"][str(number)]
        for points, name in enumerate(reversed(ranked), start=1):
            predicted[0, number, place[str(name)]] = points
    protocol = CIRCO.protocol()
    gallery = Gallery(torch.eye(len(names)), names)
    answers = with_graded(answer(triplets, gallery, predicted, protocol), predicted, protocol).counted()
    expected = {f"map_at{k}": value for k, value in golden["mAP"].items()}
    expected |= {f"recall_at{k}": value for k, value in golden["recall"].items()}
    expected |= {f"semantic_map_at10_{aspect}": value for aspect, value in golden["semantic_mAP_at10"].items()}
    assert in_percent(of_each_query(answers, protocol)) == pytest.approx(expected, abs=1e-4)


def test_average_precision_by_hand():
    # Of four targets three are among the six pictures that are scored, at the places 1, 3 and 6.
    names = [*"abcdefgh"]
    gallery, predicted = Gallery(torch.eye(8), names), torch.tensor([[[8.0, 7, 6, 5, 4, 3, 2, 1]]])
    triplets = [Triplet("g", (), ("c", "a", "f", "h"))]
    protocol = CIRCO.protocol()
    answers = with_graded(answer(triplets, gallery, predicted, protocol), predicted, protocol).counted()
    assert average_precision(answers, 5).item() == pytest.approx((1 / 1 + 2 / 3) / 4)
    assert average_precision(answers, 2).item() == pytest.approx((1 / 1) / 2)
    assert average_precision(answers, 50).item() == pytest.approx((1 / 1 + 2 / 3 + 3 / 6 + 4 / 8) / 4)


def test_what_a_random_ranking_is_worth():
    generator = torch.Generator().manual_seed(0)
    names = [str(number) for number in range(30)]
    triplets = [Triplet("29", (), tuple(names[: 1 + number % 3]), aspects=ASPECTS[: number % 2]) for number in range(6)]
    protocol = CIRCO.protocol("covr")
    gallery = Gallery(torch.eye(30), names)
    sums = dict.fromkeys(chance(triplets, 30, protocol), 0)
    for _ in range(2000):
        predicted = torch.rand((1, 6, 30), generator=generator)
        answers = with_graded(answer(triplets, gallery, predicted, protocol), predicted, protocol).counted()
        for name, value in in_percent(of_each_query(answers, protocol)).items():
            sums[name] += value / 2000
    assert sums == pytest.approx(chance(triplets, 30, protocol), rel=0.06)


# ---- the command ----


def test_what_is_printed(judge):
    metrics, head = judge()
    assert head == (
        "CIRCO val, protocol searle: full gallery, reference kept, captions caption; 20 queries over 60 pictures"
    )
    of_aspects = [f"semantic_map_at10_{aspect}" for aspect in sorted(ASPECTS)]
    assert list(metrics) == [*(f"map_at{k}" for k in AT), *(f"recall_at{k}" for k in AT), *of_aspects]
    assert all(0 <= value <= 100 for value in metrics.values())
    # Fifty of sixty pictures hold most targets.
    assert metrics["recall_at50"] > 50


def test_what_changes_the_counting_is_named(circo, tmp_path, capsys):
    validate.main(["--dataset", "CIRCO", "--protocol", "all", *toy_options(circo, tmp_path)])
    heads = [line for line in capsys.readouterr().out.splitlines() if "protocol" in line]
    counted = [line.split("protocol ")[1].split(";")[0] for line in heads]
    assert counted == [
        "searle: full gallery, reference kept, captions caption",
        "covr: full gallery, reference dropped, captions caption",
        "magiclens: full gallery, reference kept, captions concept",
    ]


def test_the_concept_is_asked():
    triplet = TASKS["CIRCO"].queries([Triplet("1", ("has two",), concept="a dog")], "concept")
    assert triplet[0].texts == ("find a dog but has two",)


def test_each_query_is_kept_and_read_by_others(circo, ir_measures, tmp_path):
    files = ["--per-query", str(tmp_path / "a.csv"), "--trec-run", str(tmp_path / "a.run"), "--json"]
    arguments = ["--dataset", "CIRCO", *files, str(tmp_path / "a.json")]
    validate.main([*arguments, *toy_options(circo, tmp_path)])
    (of,) = json.loads((tmp_path / "a.json").read_text())["protocols"]
    metrics = {name: value["percent"] for name, value in of["metrics"].items()}
    with (tmp_path / "a.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [len(row["target"].split("|")) for row in rows] == [1 + number % 3 for number in range(20)]
    for name, percent in metrics.items():
        counted = [float(row[name]) for row in rows if row[name]]
        assert 100 * sum(counted) / len(counted) == pytest.approx(percent, abs=1e-4)
        assert of["metrics"][name]["low"] <= percent <= of["metrics"][name]["high"]
    # At a cut-off below the number of targets the two definitions differ, so only this one is compared.
    judgements = list(ir_measures.read_trec_qrels(str(tmp_path / "a.qrels")))
    answers = list(ir_measures.read_trec_run(str(tmp_path / "a.run")))
    for k in AT:
        theirs = ir_measures.calc_aggregate([ir_measures.AP @ k], judgements, answers)[ir_measures.AP @ k]
        assert 100 * theirs == pytest.approx(metrics[f"map_at{k}"], abs=1e-4)


def test_the_list_of_pictures_lies_anywhere(broken, tmp_path):
    unpacked = broken / "CIRCO" / "COCO2017_unlabeled"
    (unpacked / "annotations").rename(broken / "CIRCO" / "annotations_info")
    (unpacked / "unlabeled2017").rename(broken / "CIRCO" / "unlabeled2017")
    (split,) = CIRCO.read_all(broken, "val").values()
    assert len(split.pictures) == 60
    assert all(path.is_file() for path in split.pictures.values())


def test_the_real_annotations(shared, tmp_path):
    root = tmp_path / "CIRCO"
    root.mkdir()
    (root / "annotations").symlink_to(shared / "data" / "annotations" / "circo" / "annotations")
    entries = [
        entry for split in ("val", "test") for entry in json.loads((root / f"annotations/{split}.json").read_text())
    ]
    named = {name for of in entries for name in (of["reference_img_id"], *of.get("gt_img_ids", ()))}
    images = [{"id": name, "file_name": f"{name:012}.jpg"} for name in sorted(named)]
    write(root / LISTING, {"images": images})
    (val,), (test,) = (CIRCO.read_all(tmp_path, split).values() for split in ("val", "test"))
    assert (len(val.triplets), len(test.triplets)) == (220, 800)
    assert sum(len(triplet.targets) for triplet in val.triplets) / 220 == pytest.approx(4.16, abs=0.005)
    assert max(len(triplet.targets) for triplet in val.triplets) == 14
    bearing = {
        aspect: sum(aspect in triplet.aspects for triplet in val.triplets) for aspect in ("negation", "addition")
    }
    assert bearing == {"negation": 21, "addition": 80}


# ---- bad input ----


ENTRIES = "annotations/val.json"
LISTING = "COCO2017_unlabeled/annotations/image_info_unlabeled2017.json"
FAULTS = {
    ENTRIES: [
        (lambda rows: rows.pop(3), "entries whose id is not their place, counted from 0: entry 3, "),
        (lambda rows: rows[2].pop("shared_concept"), "1 of 20 entries without text under 'shared_concept': entry 2"),
        (lambda rows: rows[2].update(gt_img_ids=[1]), "entries whose target_img_id is not in gt_img_ids: entry 2"),
        (lambda rows: rows[2].update(gt_img_ids="1"), "without a list of ids under 'gt_img_ids': entry 2"),
        (lambda rows: rows[2]["gt_img_ids"].append(""), "without a list of ids under 'gt_img_ids': entry 2"),
        (lambda rows: rows[2]["gt_img_ids"].append(rows[2]["target_img_id"]), "entries with a target twice: entry 2"),
        (
            lambda rows: rows[2]["gt_img_ids"].append(rows[2]["reference_img_id"]),
            "whose reference is a target: entry 2",
        ),
        (
            lambda rows: rows[2]["gt_img_ids"].append(7),
            "with a target that image_info_unlabeled2017.json does not list: 7",
        ),
        (
            lambda rows: rows[2].update(reference_img_id=7),
            "with a reference that image_info_unlabeled2017.json does not",
        ),
        (lambda rows: rows[2].update(semantic_aspects=[1]), "entries whose semantic_aspects are no texts: entry 2"),
    ],
    LISTING: [
        (lambda listing: listing.pop("images"), "holds no list of pictures under 'images'"),
        (lambda listing: listing["images"].append(3), "1 of 61 entries without an id and a file_name: entry 60"),
        (lambda listing: listing["images"].append(listing["images"][0]), "1 of 61 ids listed again"),
        (lambda listing: listing["images"][4].update(file_name="../4.jpg"), "outside the folder of pictures: ../4.jpg"),
        (lambda listing: listing["images"][4].update(file_name="4.jpg"), "4.jpg: no such picture"),
    ],
}


@pytest.mark.parametrize(
    ("file", "change", "fault"), [(file, *case) for file, cases in FAULTS.items() for case in cases]
)
def test_faulty_entries_and_lists_of_pictures_are_named(file, change, fault, broken, capsys):
    path = broken / "CIRCO" / file
    content = json.loads(path.read_text())
    change(content)
    write(path, content)
    assert status_of(validate.main, ["--dataset", "CIRCO", "--data-path", broken]) == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert fault in line


def test_another_size_than_cocos_is_said(circo, tmp_path, capsys):
    CIRCO.read_all(circo.parent / circo.name, "val")
    validate.main(["--dataset", "CIRCO", *toy_options(circo, tmp_path)])
    CIRCO.read_all(write_circo(tmp_path, pictures=30, queries=(3, 3)), "val")
    assert "lists 30 pictures, CIRCO's gallery has 123,403" in capsys.readouterr().err


# ---- the submission ----


@pytest.mark.parametrize("arguments", [[], ["--reference", "drop", "--captions", "concept"]])
def test_a_submission(arguments, tmp_path, world, capsys):
    folder = write_circo(tmp_path, pictures=60, queries=(3, 12))
    shutil.copy(world / "small_clip.pt", tmp_path)
    options = toy_options(folder, tmp_path)
    circo_test_submission.main(["--submission-name", "mine", *arguments, *options])
    said = capsys.readouterr()
    path = tmp_path / "submission" / "CIRCO" / "submission_mine.json"
    head, printed = said.out.splitlines()
    counted = "reference dropped, captions concept" if arguments else "reference kept, captions caption"
    assert head == f"CIRCO test, protocol {head.split()[3]} full gallery, {counted}; 12 queries over 60 pictures"
    assert printed == str(path)
    content = json.loads(path.read_text())
    entries = json.loads((tmp_path / "CIRCO" / "annotations" / "test.json").read_text())
    assert list(content) == [str(number) for number in range(12)]
    holding = [entry["reference_img_id"] in content[str(entry["id"])] for entry in entries]
    assert not any(holding) if arguments else any(holding)
    assert "ready to upload to CIRCO's server" in said.err
    assert status_of(check_submission.main, ["--dataset", "circo", path, "--data-path", folder]) == 0
