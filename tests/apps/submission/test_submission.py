"""The two submission files hold what the reference's hold, in the form that CIRR's server takes."""

import json

import torch

import cirr_test_submission
from cirr_test_submission import named_answers
from data_utils import CIRRDataset
from src.retrieval.answers import answer
from src.retrieval.gallery import Gallery
from src.tasks.registry import TASKS
from src.tasks.triplets import Triplet
from tests.support.commands import status_of


def test_answers_are_the_references(golden, device):
    published = golden("metrics")
    ids = list(map(str, published["pair_ids"]))
    asked = zip(published["reference_names"], published["group_members"], strict=True)
    triplets = [Triplet(reference, ("caption",), group=tuple(group)) for reference, group in asked]
    gallery = Gallery(torch.tensor(published["index_features"], device=device), published["index_names"])
    predicted = torch.tensor([published["predicted_features"]], device=device)
    ranked = answer(triplets, gallery, predicted, TASKS["CIRR"].protocol(), best=50)
    answers, group_answers = named_answers(ids, ranked)
    assert answers == published["submission_recall"]
    assert group_answers == published["submission_recall_subset"]


def test_files_are_what_the_server_takes(options, world, tmp_path, capsys):
    cirr_test_submission.main(["--submission-name", "mine", *options])
    folder = tmp_path / "submission" / "CIRR"
    paths = [folder / "recall_submission_mine.json", folder / "recall_subset_submission_mine.json"]
    assert capsys.readouterr().out.splitlines() == [str(path) for path in paths]
    assert sorted(folder.iterdir()) == paths

    queries = CIRRDataset("test1", "relative", None, world)
    assert len(queries) % 32 == 1  # the last batch is of one query
    for path, metric, length in zip(paths, ("recall", "recall_subset"), (29, 3), strict=True):
        submission = json.loads(path.read_text())
        assert list(submission) == sorted(submission)
        assert submission.pop("version") == "rc2"
        assert submission.pop("metric") == metric
        assert len(submission) == 33
        for pair_id, reference, _, members in queries:
            answer = submission[str(pair_id)]
            assert len(set(answer)) == length
            assert reference not in answer
            assert set(answer) <= set(members if metric == "recall_subset" else queries.image_names)


def test_name_is_the_time_by_default(options, tmp_path):
    cirr_test_submission.main(options)
    names = [path.name for path in (tmp_path / "submission" / "CIRR").iterdir()]
    assert len(names) == 2
    assert not any(":" in name for name in names)


def test_a_name_is_no_path(options, capsys, tmp_path):
    assert status_of(cirr_test_submission.main, ["--submission-name", "../mine", *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--submission-name: '../mine' is not a part of a file name, which has no slashes" in line
    assert not (tmp_path / "submission").exists()


def test_help_says_the_time_and_not_which(capsys):
    assert status_of(cirr_test_submission.main, ["--help"]) == 0
    assert "end of the submission's file names (default: the time)" in " ".join(capsys.readouterr().out.split())
