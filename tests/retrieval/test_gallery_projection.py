"""A Combiner with a projection of the gallery, from its training through every command that compares pictures."""

import csv
import json
import re
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import cirr_test_submission
import combiner
import combiner_train
import demo
import report
import search
import validate
from combiner import load_combined
from src.apps.search.places import depends_on
from src.apps.share import __main__ as share
from src.base.errors import InputError
from src.command.flags import CombiningOptions, RetrieverOptions
from src.retrieval.picture_folder import collect
from src.retrieval.searcher import Question, Searcher
from src.tasks.own import OwnTriplets
from src.tasks.registry import TASKS
from tests.apps.search.test_search import assert_ranks_agree
from tests.support.commands import COMBINER, status_of, toy_options, toy_paths
from tests.support.forks import only_run
from utils import element_wise_sum

LONG = ["--batch-size", "16", "--num-epochs", "4", "--validation-frequency", "1", "--combiner-lr", "1e-2", *COMBINER]
WAYS = {
    "plain": [],
    "projecting": ["--gallery-projection", "24", "--negatives", "bank"],
    "along": ["--gallery-projection", "24", "--encoder", "text", "--learning-rate", "1e-4", "--clip-bs", "5"],
}


@pytest.fixture(scope="module")
def runs(world, tmp_path_factory):
    """Train in each of WAYS; return the folders of the runs."""
    folders = {}
    for way, flags in WAYS.items():
        output = tmp_path_factory.mktemp(way)
        combiner_train.main(["--dataset", "CIRR", *toy_options(world, output), *LONG, "--save-training", *flags])
        folders[way] = only_run(output)
    return folders


@pytest.fixture
def pictures(world, tmp_path):
    """Copy the toy world's own pictures, and make their gallery every one of them."""
    shutil.copytree(world / "my_pictures", tmp_path / "pictures")
    (tmp_path / "pictures" / "gallery.val.txt").unlink()
    return tmp_path / "pictures"


def weights_of(run, epoch=3):
    return run / "saved_models" / f"combiner_{epoch}.pt"


def retriever_of(world, path):
    options = RetrieverOptions(str(world / "small_clip.pt"), feature_cache=None)
    return load_combined(options, CombiningOptions(combiner_path=path))


def score_plainly(retriever, path, images, captions, gallery):
    """Return scores [queries, pictures] in fp64, with the projection written out."""
    weights = {name: weight.double() for name, weight in torch.load(path, weights_only=True)["Combiner"].items()}
    layers = [
        weights[f"gallery_projection.{name}_layer.{kind}"]
        for name in ("hidden", "output")
        for kind in ("weight", "bias")
    ]
    hidden = (gallery.double() @ layers[0].T + layers[1]).clamp(min=0)
    moved = F.normalize(gallery.double() + hidden @ layers[2].T + layers[3], dim=-1)
    texts = retriever.encoder.captions(captions)
    return retriever.combining_function(images, texts).double() @ moved.T


def test_both_sides_learn(runs):
    first, last = (torch.load(weights_of(runs["projecting"], epoch), weights_only=True) for epoch in (0, 3))
    assert set(last["Combiner"]) == {*torch.load(weights_of(runs["plain"]), weights_only=True)["Combiner"], *WEIGHTS}
    for name, weight in last["Combiner"].items():
        assert not torch.equal(weight, first["Combiner"][name]), name


WEIGHTS = {
    f"gallery_projection.{layer}.{kind}" for layer in ("hidden_layer", "output_layer") for kind in ("weight", "bias")
}


def test_search_ranks_as_validation_does_and_an_index_keeps_what_it_compares(
    runs, pictures, world, tmp_path, monkeypatch
):
    options = [
        *toy_paths(world, tmp_path)[2:],
        "--clip-model-name",
        str(world / "small_clip.pt"),
        "--precision",
        "fp32",
    ]
    options += ["--combiner-path", str(weights_of(runs["projecting"]))]
    validate.main(["--dataset", str(pictures), *options, "--per-query", str(tmp_path / "p.csv")])
    (val,) = OwnTriplets.in_folder(pictures).read_all(pictures, "val").values()
    with (tmp_path / "q.csv").open("w", newline="") as file:
        rows = [(triplet.reference, triplet.captions[0], triplet.id) for triplet in val.triplets]
        csv.writer(file).writerows([("reference", "caption", "id"), *rows])
    index = ["--index", str(tmp_path / "index"), "--queries", str(tmp_path / "q.csv"), "-k", "50", *options]
    search.main(["--pictures", str(pictures), *index, "--json", str(tmp_path / "a.json")])
    # The index has all that is needed, references included.
    shutil.move(pictures, tmp_path / "away")
    monkeypatch.setattr(combiner.GalleryProjection, "forward", None)
    search.main([*index, "--json", str(tmp_path / "b.json"), "--candidates", str(tmp_path / "c.jsonl")])
    monkeypatch.undo()
    whole, alone = (json.loads((tmp_path / name).read_text()) for name in ("a.json", "b.json"))
    assert whole == alone
    assert_ranks_agree(whole, tmp_path / "p.csv")
    candidates = [json.loads(line)["candidates"] for line in (tmp_path / "c.jsonl").read_text().splitlines()]
    assert [[one["name"] for one in of] for of in candidates] == [
        [one["name"] for one in of["answers"]] for of in alone
    ]

    retriever = retriever_of(world, weights_of(runs["projecting"]))
    gallery, _ = collect(retriever, tmp_path / "away")
    features = gallery.encoded(slice(len(gallery)))
    images = features[gallery.row_numbers([row[0] for row in rows])]
    scores = score_plainly(retriever, weights_of(runs["projecting"]), images, [row[1] for row in rows], features)
    for found, scored in zip(whole, scores, strict=True):
        for answer in found["answers"]:
            assert answer["score"] == pytest.approx(scored[gallery.row(answer["name"])].item(), abs=1e-5)


@pytest.mark.parametrize("half", [False, True])
def test_an_index_is_refused_by_another_network(half, runs, pictures, world, tmp_path, capsys):
    plain, first, last = weights_of(runs["plain"]), weights_of(runs["projecting"], 0), weights_of(runs["projecting"])
    options = [*toy_paths(world, tmp_path)[2:], "--clip-model-name", world / "small_clip.pt", "--caption", "in blue"]
    written = ["--pictures", pictures, *(["--half"] if half else [])]
    for name, path in (("plain", plain), ("projecting", last)):
        assert status_of(search.main, [*options, *written, "--index", tmp_path / name, "--combiner-path", path]) == 0
    meta = json.loads((tmp_path / "projecting" / "meta.json").read_text())
    kept = np.load(tmp_path / "projecting" / meta["projected"])
    assert kept.shape == (meta["pictures"], meta["projected_dim"])
    assert kept.dtype == (np.float16 if half else np.float32)
    assert "projected" not in (tmp_path / "plain" / "meta.json").read_text()
    capsys.readouterr()
    remedy = "use the network that made it, or a new --index"
    for index, path, found in [
        ("projecting", first, f"network: {meta['depends_on']['network'][:12]}, and not "),
        ("projecting", plain, f"network: {meta['depends_on']['network'][:12]}, and not none); {remedy}"),
        ("projecting", None, f"network: {meta['depends_on']['network'][:12]}, and not none); {remedy}"),
        ("plain", last, f"(network: none, and not {meta['depends_on']['network'][:12]}); {remedy}"),
    ]:
        network = [] if path is None else ["--combiner-path", path]
        for where in ([], ["--pictures", pictures]):
            assert status_of(search.main, [*options, *where, "--index", tmp_path / index, *network]) == 2
            line = capsys.readouterr().err.splitlines()[-1]
            assert f"{tmp_path / index}: an index of another network (" in line
            assert found in line
    asked = [*options, "--index", tmp_path / "projecting", "--combiner-path", last]
    assert status_of(search.main, asked) == 0
    (tmp_path / "projecting" / meta["projected"]).unlink()
    assert status_of(search.main, asked) == 2
    assert f"{tmp_path / 'projecting'}: lacks {meta['projected']};" in capsys.readouterr().err


def test_an_update_projects_what_is_new(runs, pictures, world, tmp_path, capsys):
    options = [*toy_paths(world, tmp_path)[2:], "--clip-model-name", world / "small_clip.pt", "--index", tmp_path / "i"]
    options += ["--combiner-path", weights_of(runs["projecting"])]
    gone = sorted(pictures.glob("*/*.png"))[0].rename(tmp_path / "gone.png")
    assert status_of(search.main, [*options, "--pictures", pictures]) == 0
    gone.rename(pictures / "new.png")
    assert status_of(search.main, [*options, "--pictures", pictures]) == 0
    assert "1 added, 0 changed" in capsys.readouterr().err
    asked = [*options, "--reference", "new.png", "--caption", "in blue", "-k", "100"]
    answers = []
    for where in ([], ["--pictures", pictures]):
        assert status_of(search.main, [*asked, *where, "--json", tmp_path / "a.json"]) == 0
        answers.append(json.loads((tmp_path / "a.json").read_text()))
    assert answers[0] == answers[1]
    assert len(list((tmp_path / "i").iterdir())) == 4  # features, projected, items, meta.json


def test_questions_of_one_part_compare_pictures_as_they_are(runs, pictures, world):
    with_projection = retriever_of(world, weights_of(runs["projecting"]))
    gallery, _ = collect(with_projection, pictures)
    plain = with_projection.combining_by(retriever_of(world, weights_of(runs["plain"])).combining_function)
    name = gallery.names[3]
    for question in (Question(name), Question(caption="in blue")):
        found, expected = (Searcher(one, gallery).ask(question, 30) for one in (with_projection, plain))
        assert found == expected
    combined = Question(name, "in blue")
    assert Searcher(with_projection, gallery).ask(combined, 30) != Searcher(plain, gallery).ask(combined, 30)
    for odd in (combined._replace(caption_weight=0.7), combined._replace(without="a belt")):
        with pytest.raises(InputError, match="--caption-weight, --without: not for a network"):
            Searcher(with_projection, gallery).ask(odd)


def test_the_demo_answers_as_a_search_does(runs, pictures, world, tmp_path):
    options = ["--pictures", pictures, *toy_paths(world, tmp_path)[2:], "--clip-model-name", world / "small_clip.pt"]
    options += ["--precision", "fp32", "--combiner-path", weights_of(runs["projecting"])]
    args = demo.parse_judging(demo.make_parser(), demo.FUNCTIONS, list(map(str, options)))
    engine = demo.load_engine(demo.settings(args), args.pictures, args.k, args.precision)
    engine.encode()
    query = engine.first._replace(reference=engine.names[0], caption="in blue", k=30, beside="sum")
    retriever = retriever_of(world, weights_of(runs["projecting"]))
    gallery, _ = collect(retriever, pictures)
    question, sums = Question(engine.names[0], "in blue"), retriever.combining_by(element_wise_sum)
    for name, one in (("combiner", retriever), ("sum", sums)):
        found, expected = engine.ask(query)[name], Searcher(one, gallery).ask(question, 30)
        assert [(answer.name, answer.score) for answer in found] == [(answer.name, answer.score) for answer in expected]


def test_a_qdrant_collection_has_both_vectors(runs, pictures, world, tmp_path):
    qdrant_client = pytest.importorskip("qdrant_client")
    from src.apps.search.qdrant import QdrantGallery, upload

    retriever, other = (retriever_of(world, weights_of(runs["projecting"], epoch)) for epoch in (3, 0))
    gallery, _ = collect(retriever, pictures)
    gallery.project(retriever.combining_function)
    client = qdrant_client.QdrantClient(path=str(tmp_path / "qdrant"))
    assert upload(client, "pictures", gallery, depends_on(retriever)).added == len(gallery)
    assert upload(client, "pictures", gallery, depends_on(retriever)).kept == len(gallery)
    remote = Searcher(retriever, QdrantGallery(client, depends_on(retriever), "pictures"))
    questions = [Question(gallery.names[0], "in blue"), Question(gallery.names[1]), Question(caption="a belt")]
    for found, expected in zip(
        *(searcher.ask_all(questions, 100) for searcher in (remote, Searcher(retriever, gallery))), strict=True
    ):
        scores = {answer.name: answer.score for answer in expected}
        assert {answer.name: answer.score for answer in found} == pytest.approx(scores, abs=2e-6)
    plain = retriever_of(world, weights_of(runs["plain"]))
    for one in (other, plain):
        refused = "Qdrant collection pictures: pictures of another network .*; upload them to a collection of another"
        with pytest.raises(InputError, match=refused):
            QdrantGallery(client, depends_on(one), "pictures")
        with pytest.raises(InputError, match=refused):
            upload(client, "pictures", gallery, depends_on(one))
    with pytest.raises(InputError, match="pictures of another network"):
        Searcher(other, remote.gallery)
    client.close()


@pytest.mark.parametrize("way", ["projecting", "along"])
def test_submission_report_and_shared_weights_compare_alike(way, runs, world, tmp_path, capsys):
    path, run = weights_of(runs[way]), tmp_path / "run"
    own_clip = [] if way == "along" else ["--clip-model-name", str(world / "small_clip.pt")]
    options = [*toy_paths(world, tmp_path), *own_clip, "--precision", "fp32", "--combiner-path", str(path)]
    cirr_test_submission.main([*options, "--submission-name", "a"])
    answers = json.loads((tmp_path / "submission" / "CIRR" / "recall_submission_a.json").read_text())
    (split,) = TASKS["CIRR"].read_all(world, "test1").values()
    clip_path = str(path) if way == "along" else None
    clip = RetrieverOptions(str(world / "small_clip.pt"), clip_path, feature_cache=None)
    retriever = load_combined(clip, CombiningOptions(combiner_path=path))
    gallery = retriever.gallery(retriever.pictures(split.pictures))
    references = gallery.row_numbers([triplet.reference for triplet in split.triplets])
    captions = [triplet.captions[0] for triplet in split.triplets]
    scores = score_plainly(retriever, path, gallery.features[references], captions, gallery.features)
    scores[torch.arange(len(references)), references] = -torch.inf
    for triplet, order in zip(split.triplets, scores.argsort(dim=1, descending=True), strict=True):
        assert answers[triplet.id] == [gallery.names[row] for row in order[:-1].tolist()][:50]

    shutil.copytree(runs[way], run)
    report.main(["--run-folder", str(run), "--num-workers", "0"])
    share.main([str(run), "--to", str(tmp_path / "shared"), "--license", "mit"])
    printed = []
    for place in (path, tmp_path / "shared"):
        capsys.readouterr()
        validate.main(["--dataset", "CIRR", *options[:-1], str(place)])
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    (recall,) = re.findall("recall_at10 = (.*)", printed[0])
    assert f">{float(recall):.2f}" in (run / "report.html").read_text()
