"""Ways of counting: what each asks and ranks, what validate.py prints and keeps of them, and what other tools read."""

import csv
import json
import math
import re

import pytest
import torch

import validate
from combiner import Combiner
from src.evaluation.full import UNGRADED
from src.retrieval.answers import answer, averaged, with_graded
from src.retrieval.gallery import Gallery
from src.retrieval.metrics import of_each_query
from src.retrieval.ranking import best_candidates, best_rows, rank_targets, rank_targets_among
from src.tasks.registry import TASKS
from src.tasks.triplets import Query, Triplet, named_by
from tests.support.commands import COMBINER, status_of
from utils import save_model

FASHIONIQ, CIRR = TASKS["FashionIQ"], TASKS["CIRR"]
PAIR = Triplet("a", ("is red, and long.", "has no belt"), ("b",))


@pytest.mark.parametrize(
    ("captions", "asked"),
    [
        ("joined", {"0": ("Is red, and long and has no belt",)}),
        ("both-avg", {"0": ("Is red, and long and has no belt", "Has no belt and is red, and long")}),
        ("both-two", {"0.0": ("Is red, and long and has no belt",), "0.1": ("Has no belt and is red, and long",)}),
        ("single-two", {"0.0": ("is red, and long",), "0.1": ("has no belt",)}),
        ("cleaned", {"0": ("is red and long and has no belt",)}),
    ],
)
def test_what_is_asked(captions, asked):
    assert {query.id: query.texts for query in FASHIONIQ.queries([PAIR], captions)} == asked


def test_cleaned_takes_out_the_punctuation_that_peers_take_out():
    # The one validation text of FashionIQ with other punctuation than ASCII's, and some that is.
    captions = "They’re coverup_cutlets & not clothes", "It's (dark-)red; size 3.5, NO belt!"
    (query,) = FASHIONIQ.queries([PAIR._replace(captions=captions)], "cleaned")
    assert query.texts == ("they’re coverup cutlets not clothes and it s dark red size 3 5 no belt",)


def test_a_blank_caption_is_no_query_of_its_own():
    blank = PAIR._replace(captions=("..", "has no belt"))
    assert [query.id for query in FASHIONIQ.queries([blank], "single-two")] == ["0.1"]
    assert len(FASHIONIQ.queries([blank], "joined")) == 1
    assert len(CIRR.queries([Triplet("a", (" ",), ("b",))], "caption")) == 1  # asked as published


def test_ids_are_the_data_sets_where_they_tell_queries_apart():
    triplets = [Triplet("a", ("red",), ("b",), id=name) for name in ("17", "4")]
    assert [query.id for query in CIRR.queries(triplets, "caption")] == ["17", "4"]
    same = [triplet._replace(id="17") for triplet in triplets]
    assert [query.id for query in CIRR.queries(same, "caption")] == ["0", "1"]


@pytest.mark.parametrize(
    ("captions", "queries"),
    [
        ("joined", {"dress": 2017, "shirt": 2038, "toptee": 1961}),
        ("both-avg", {"dress": 2017, "shirt": 2038, "toptee": 1961}),
        ("both-two", {"dress": 4034, "shirt": 4076, "toptee": 3922}),
        ("single-two", {"dress": 4034, "shirt": 4075, "toptee": 3920}),
        ("cleaned", {"dress": 2017, "shirt": 2038, "toptee": 1961}),
    ],
)
def test_sizes_of_the_real_fashioniq(captions, queries, shared, tmp_path):
    (tmp_path / "fashionIQ_dataset").symlink_to(shared / "data" / "annotations" / "fashionIQ")
    splits = FASHIONIQ.read_all(tmp_path, "val")
    assert {name: len(FASHIONIQ.queries(split.triplets, captions)) for name, split in splits.items()} == queries
    full = {name: len(split.pictures) for name, split in splits.items()}
    assert full == {"dress": 3817, "shirt": 6346, "toptee": 5373}
    for name, of in {"dress": 2628, "shirt": 3089, "toptee": 2902}.items():
        names = list(splits[name].pictures)
        assert len(Gallery(torch.zeros(len(names), 1), names).part(named_by(splits[name].triplets)).names) == of


def test_sizes_of_the_real_cirr(shared, tmp_path):
    (tmp_path / "cirr_dataset").mkdir()
    (tmp_path / "cirr_dataset" / "cirr").symlink_to(shared / "data" / "annotations" / "cirr")
    (split,) = CIRR.read_all(tmp_path, "val").values()
    assert (len(CIRR.queries(split.triplets, "caption")), len(split.pictures)) == (4181, 2297)
    assert sum(len(triplet.graded) > 1 for triplet in split.triplets) == 645


def test_several_texts_are_averaged():
    queries = [Query("0", PAIR, ("a", "b")), Query("1", PAIR, ("c",))]
    (predicted,) = averaged(torch.tensor([[[2.0, 0.0], [0.0, 5.0], [3.0, 0.0]]]), queries)
    assert predicted.tolist() == [pytest.approx([math.sqrt(0.5)] * 2), [1.0, 0.0]]


# Five pictures at 0, 20, 40, 60 and 80 degrees, and a query at 5: it sees them in their order.
ANGLES = torch.deg2rad(torch.tensor([0.0, 20, 40, 60, 80]))
PICTURES = Gallery(torch.stack([ANGLES.cos(), ANGLES.sin()], dim=1), list("abcde"))
QUERY = torch.tensor([[[0.9962, 0.0872]]])  # of one factor


def test_soft_targets_by_hand():
    """Behind the dropped reference come b, c, d, e: of grades -1, .5, 1, and none."""
    graded = (("b", -1), ("c", 0.5), ("d", 1.0), ("a", 1.0))
    triplet = Triplet("a", ("red",), ("d",), tuple("abce") + ("d",), graded=graded)
    protocol = CIRR.protocol("soft")._replace(at=(1, 2, 3), group_at=(1, 2, 3))

    def scores_of(triplet):
        answers = answer([triplet], PICTURES, QUERY, protocol)
        return of_each_query(with_graded(answers, QUERY, protocol).counted(), protocol)

    scores = scores_of(triplet)
    assert [scores[f"recall_at{k}"].item() for k in (1, 2, 3)] == [0, 0.5, 1]
    assert [scores[f"group_recall_at{k}"].item() for k in (1, 2, 3)] == [0, 0.5, 1]
    outside = triplet._replace(group=tuple("abde"))
    scores = scores_of(outside)
    assert [scores[f"group_recall_at{k}"].item() for k in (1, 2, 3)] == [0, 1, 1]


def test_the_product_multiplies_similarities():
    generator = torch.Generator().manual_seed(0)
    gallery, images, texts = (torch.randn(rows, 8, generator=generator) for rows in (50, 20, 20))
    images, texts = images + gallery[:20], texts + gallery[:20]

    def similarities(features):
        return torch.nn.functional.normalize(features, dim=-1) @ torch.nn.functional.normalize(gallery, dim=-1).T

    both = torch.stack([images, texts])
    products = similarities(images).clamp_min(0) * similarities(texts).clamp_min(0)
    order = products.argsort(dim=1, descending=True, stable=True)
    targets = torch.arange(20)
    expected = (order == targets[:, None]).nonzero()[:, 1]
    assert torch.equal(best_rows(both, gallery, 50)[0], order)
    assert torch.equal(rank_targets(both, gallery, targets).long(), expected)
    members = torch.arange(50).repeat(20, 1)
    assert torch.equal(best_candidates(both, gallery, 50, members), order)
    assert torch.equal(rank_targets_among(both, gallery, targets, members), expected)


def test_a_choice_is_called_by_its_preset():
    published = FASHIONIQ.protocol()
    assert published.chosen(FASHIONIQ.protocols, reference="drop").name == "covr"
    assert published.chosen(FASHIONIQ.protocols, gallery="val", captions="cleaned").name == "val-keep-cleaned"
    assert published.chosen(FASHIONIQ.protocols, gallery=None) == published


# ---- the command ----


@pytest.fixture
def judged(options, tmp_path, capsys):
    """Return a function that judges a toy Combiner and gives what was printed."""
    torch.manual_seed(0)
    save_model("combiner", 0, Combiner(64, 16, 32), tmp_path)
    combiner = ["--combiner-path", str(tmp_path / "saved_models" / "combiner.pt"), *COMBINER]

    def judge(*arguments):
        validate.main([*map(str, arguments), *options, *combiner])
        return capsys.readouterr().out

    return judge


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_files_change_no_line_of_the_published_output(judged, tmp_path):
    plain = judged("--dataset", "CIRR")
    assert judged("--dataset", "CIRR", "--json", tmp_path / "a.json", "--per-query", tmp_path / "a.csv") == plain


def test_every_protocol_is_printed_with_its_sizes(judged):
    printed = judged("--dataset", "FashionIQ", "--protocol", "all")
    for name in ("clip4cir: full gallery, reference kept, captions joined", "covr: full", "val: val", "searle: full"):
        assert f"FashionIQ val, protocol {name}" in printed
    assert re.search(r"dress: 8 queries over \d+ pictures, toptee: 8 queries over", printed)
    assert printed.count("average_recall ") == 4
    printed = judged("--dataset", "FashionIQ", "--captions", "both-two", "--gallery", "val")
    assert "protocol val-keep-both-two: val gallery, reference kept" in printed
    assert "dress: 16 queries over" in printed


def test_soft_targets_that_nobody_graded_are_not_printed_again(judged, world, tmp_path):
    printed = judged("--dataset", "CIRR", "--protocol", "all", "--per-query", tmp_path / "a.csv")
    assert f"{UNGRADED}: see above" in printed
    assert printed.count("recall_at50 ") == 1
    # Files keep both, and the protocol that was asked for is printed whole.
    assert {row["protocol"] for row in rows_of(tmp_path / "a.csv")} == {"clip4cir", "soft"}
    printed = judged("--dataset", "CIRR", "--protocol", "soft")
    assert f"{UNGRADED}\n" in printed
    assert printed.count("recall_at50 ") == 1


def test_soft_targets_that_the_annotations_lack_are_left_out(options, broken_world, capsys):
    captions = broken_world / "cirr_dataset" / "cirr" / "captions" / "cap.rc2.val.json"
    entries = [{**entry, "target_soft": {}} for entry in json.loads(captions.read_text())]
    captions.write_text(json.dumps(entries))
    validate.main(["--dataset", "CIRR", "--protocol", "all", *options, "--data-path", str(broken_world)])
    printed, said = capsys.readouterr()
    assert "protocol clip4cir: " in printed
    assert "protocol soft: " not in printed
    assert "protocol soft: left out, no triplet has a target_soft, which it counts by\n" in said


def test_json_says_what_was_judged(judged, tmp_path):
    published = dict(
        line.split(" = ") for line in judged("--dataset", "CIRR", "--json", tmp_path / "a.json").splitlines()
    )
    content = json.loads((tmp_path / "a.json").read_text())
    (protocol,) = content["protocols"]
    assert {name: protocol["metrics"][name]["percent"] for name in published} == {
        name: float(value) for name, value in published.items()
    }
    assert all(metric["low"] <= metric["percent"] <= metric["high"] for metric in protocol["metrics"].values())
    assert protocol["queries"] == {"rc2": 24}
    assert protocol["gallery_size"] == {"rc2": 30}
    assert protocol["ranked"] == {"rc2": 29}
    assert set(protocol["ladder"]) == {"chance", "text", "image", "product", "sum", "combiner"}
    assert {len(digest) for digest in content["weights_sha256"].values()} == {64}
    assert set(content["weights_sha256"]) == {"clip_image", "clip_text", "combiner"}

    judged("--dataset", "CIRR", "--protocol", "all", "--json", tmp_path / "b.json", "--combining-function", "sum")
    other = json.loads((tmp_path / "b.json").read_text())["protocols"]
    assert [protocol["protocol"] for protocol in other] == ["clip4cir", "soft"]
    assert other[0]["data_sha256"] == protocol["data_sha256"] != other[1]["data_sha256"]
    assert other[0]["features_sha256"] == protocol["features_sha256"]


def test_each_query_is_told(judged, tmp_path):
    judged("--dataset", "CIRR", "--per-query", tmp_path / "a.csv", "--json", tmp_path / "a.json")
    rows = rows_of(tmp_path / "a.csv")
    metrics = json.loads((tmp_path / "a.json").read_text())["protocols"][0]["metrics"]
    assert len(rows) == 24
    for name in ("recall_at1", "recall_at5", "group_recall_at2"):
        assert 100 * sum(float(row[name]) for row in rows) / 24 == pytest.approx(metrics[name]["percent"], abs=1e-4)
    for row in rows:
        answers, rank = row["answers"].split("|"), int(row["rank"])
        assert len(answers) == 10
        assert row["reference"] not in answers
        assert (answers[rank - 1] == row["target"]) if rank <= 10 else (row["target"] not in answers)
        assert row["solved_by_combiner"] == row["recall_at1"] == str(int(rank == 1))
        assert 1 <= int(row["group_rank"]) <= 5
        assert row["data"].startswith("CIRR.val.")


@pytest.mark.parametrize(("dataset", "cutoffs"), [("CIRR", (1, 5, 10, 50)), ("FashionIQ", (10, 50))])
def test_other_tools_compute_the_same_recalls(dataset, cutoffs, judged, ir_measures, tmp_path):
    judged("--dataset", dataset, "--trec-run", tmp_path / "toy.run", "--json", tmp_path / "toy.json")
    metrics = json.loads((tmp_path / "toy.json").read_text())["protocols"][0]["metrics"]
    judgements = list(ir_measures.read_trec_qrels(str(tmp_path / "toy.qrels")))

    def recalls(run, at):
        answers = list(ir_measures.read_trec_run(str(run)))
        return ir_measures.calc_aggregate([ir_measures.R @ k for k in at], judgements, answers)

    if dataset == "CIRR":
        expected = {k: metrics[f"recall_at{k}"]["percent"] for k in cutoffs}
        of_group = recalls(tmp_path / "toy.group.run", (1, 2, 3))
        for k in (1, 2, 3):
            assert 100 * of_group[ir_measures.R @ k] == pytest.approx(
                metrics[f"group_recall_at{k}"]["percent"], abs=1e-4
            )
    else:
        expected = {k: metrics[f"average_recall_at{k}"]["percent"] for k in cutoffs}  # of equally many queries each
    computed = recalls(tmp_path / "toy.run", cutoffs)
    assert {k: 100 * computed[ir_measures.R @ k] for k in cutoffs} == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (
            ["--dataset", "CIRR", "--protocol", "covr"],
            "'covr' is not a protocol of CIRR: it must be one of clip4cir, soft",
        ),
        (["--dataset", "CIRR", "--captions", "joined"], "'joined' is not a way to ask CIRR's captions"),
        (["--dataset", "CIRR", "--protocol", "all", "nothing"], "'nothing' is none of clip4cir, soft, covr"),
    ],
)
def test_a_protocol_that_a_data_set_lacks(arguments, fault, options, capsys):
    assert status_of(validate.main, [*arguments, *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert fault in line


def test_shortcuts_are_what_one_part_alone_solves(options, judged, tmp_path):
    judged("--dataset", "CIRR", "--per-query", tmp_path / "a.csv", "--json", tmp_path / "a.json")
    hard = [row for row in rows_of(tmp_path / "a.csv") if row["solved_by_text"] == row["solved_by_image"] == "0"]
    told = json.loads((tmp_path / "a.json").read_text())["protocols"][0]["without_shortcuts"]
    assert told["queries"] == len(hard)
    expected = 100 * sum(float(row["recall_at10"]) for row in hard) / len(hard)
    assert told["metrics"]["recall_at10"] == pytest.approx(expected)
    for rung in ("text", "image"):
        validate.main(
            ["--dataset", "CIRR", *options, "--combining-function", rung, "--per-query", str(tmp_path / "b.csv")]
        )
        alone = [row["recall_at1"] for row in rows_of(tmp_path / "b.csv")]
        assert alone == [row[f"solved_by_{rung}"] for row in rows_of(tmp_path / "a.csv")]
