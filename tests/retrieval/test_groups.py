"""A gallery for each query: ranks, first rows and recalls where only a query's group is ranked."""

import csv
import json

import pytest
import torch
import torch.nn.functional as F

import validate
from src.retrieval.ranking import rank_in_groups
from src.tasks.registry import TASKS
from tests.support.commands import status_of, toy_options, toy_paths
from tests.support.submissions import write


@pytest.mark.parametrize("factors", [1, 2])
@pytest.mark.parametrize("excludes", [False, True])
def test_ranks_are_those_of_a_plain_loop(factors, excludes):
    random = torch.Generator().manual_seed(factors)
    gallery = torch.randn(40, 6, generator=random)
    gallery[7] = gallery[3]  # a tie, which the earlier row wins
    predicted = torch.randn(factors, 9, 6, generator=random)
    predicted[0, 1] = gallery[3]
    groups = [([0, 2, 4, 6, 8], [1, 3, 7, 9, 22, 39]), ([1, 3, 5, 7], [0, 3, 7, 8])]
    targets = torch.tensor([7, 7, 1, 8, 39, 3, 9, 0, 22])
    excluded = torch.tensor([3, 3, 5, 0, 22, 8, 1, 39, 7]) if excludes else None
    given = [(torch.tensor(queries), torch.tensor(rows)) for queries, rows in groups]
    ranks, best, similarities = rank_in_groups(predicted, gallery, given, targets, 5, excluded)
    scores = torch.stack([F.normalize(part, dim=-1) @ F.normalize(gallery, dim=-1).T for part in predicted])
    scores = scores[0] if factors == 1 else scores.clamp_min(0).prod(dim=0)
    for queries, rows in groups:
        for query in queries:
            kept = [row for row in rows if excluded is None or row != excluded[query]]
            order = sorted(kept, key=lambda row: -scores[query, row].item())
            assert ranks[query] == order.index(targets[query])
            expected = order[:5] + [-1] * (5 - len(order))
            assert best[query].tolist() == expected
            assert similarities[query, : len(order)].tolist() == pytest.approx(
                scores[query, order[:5]].tolist(), abs=1e-6
            )


def test_a_target_outside_its_group_is_refused():
    features = torch.eye(3)
    with pytest.raises(ValueError, match="in its query's group"):
        rank_in_groups(features[None, :1], features, [(torch.tensor([0]), torch.tensor([0, 2]))], torch.tensor([1]), 0)


def test_groups_of_cirr_as_galleries(world, tmp_path):
    options = ["--dataset", "CIRR", *toy_options(world, tmp_path), "--gallery", "group"]
    files = ["--per-query", tmp_path / "queries.csv", "--json", tmp_path / "a.json", "--trec-run", tmp_path / "a.run"]
    assert status_of(validate.main, [*options, *files]) == 0
    (judged,) = json.loads((tmp_path / "a.json").read_text())["protocols"]
    metrics = {name: of["percent"] for name, of in judged["metrics"].items()}
    assert judged["protocol"] == "group-drop-caption"
    assert judged["ranked"] == {"rc2": 5}
    assert metrics["recall_at1"] == metrics["group_recall_at1"] > 0
    assert metrics["recall_at5"] == metrics["recall_at10"] == 100
    assert judged["ladder"]["chance"]["recall_at1"] == pytest.approx(20)
    (split,) = TASKS["CIRR"].read_all(world, "val").values()
    with (tmp_path / "queries.csv").open() as file:
        for row, triplet in zip(csv.DictReader(file), split.triplets, strict=True):
            assert {*row["answers"].split("|")} == {*triplet.group} - {triplet.reference}
            assert row["rank"] == row["group_rank"]
    # The run ranks all of each group, so it has the same metrics when it comes back.
    again = ["--dataset", "CIRR", *toy_paths(world, tmp_path)[:4], "--gallery", "group"]
    again += ["--run", tmp_path / "a.run"]
    assert status_of(validate.main, [*again, "--json", tmp_path / "b.json"]) == 0
    (ranked,) = json.loads((tmp_path / "b.json").read_text())["protocols"]
    assert {name: of["percent"] for name, of in ranked["metrics"].items()} == pytest.approx(metrics)
    assert ranked["data_sha256"] == judged["data_sha256"]


def test_a_reference_that_is_kept_is_ranked_in_its_group(world, tmp_path):
    options = ["--dataset", "CIRR", *toy_options(world, tmp_path), "--gallery", "group", "--reference", "keep"]
    assert status_of(validate.main, [*options, "--json", tmp_path / "a.json"]) == 0
    (judged,) = json.loads((tmp_path / "a.json").read_text())["protocols"]
    assert judged["ranked"] == {"rc2": 6}
    assert judged["ladder"]["image"]["recall_at1"] == 0  # the reference itself comes first


@pytest.mark.parametrize("dataset", ["FashionIQ", "own"])
def test_triplets_without_groups_are_named(dataset, world, tmp_path, capsys):
    folder = tmp_path / "mine"
    write(folder / "triplets.val.csv", "reference,target,caption\na.jpg,b.jpg,redder\n")
    given = folder if dataset == "own" else dataset
    run = tmp_path / "run.json"
    run.write_text("{}")
    options = ["--dataset", given, *toy_paths(world, tmp_path)[:4], "--gallery", "group", "--run", run]
    assert status_of(validate.main, options) == 2
    assert "triplets without a group, which --gallery group ranks: " in capsys.readouterr().err
