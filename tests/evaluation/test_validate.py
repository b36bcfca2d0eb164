"""Validation gives the reference's recalls, and counts as each protocol says."""

import json
from statistics import mean

import pytest
import torch

import validate
from combiner import Combiner
from src.base.errors import InputError
from src.retrieval.answers import answer, predict_features
from src.retrieval.gallery import Gallery
from src.tasks.registry import TASKS
from src.tasks.triplets import Triplet
from tests.support.commands import CIRR_RECALLS, COMBINER
from utils import save_model
from validate import compute_cirr_val_metrics, compute_fiq_val_metrics


class Queries(list):
    """A relative dataset: a list of its items."""


def given(features):
    """Return a combining function that gives these predicted features, whatever the picture and the caption."""
    return lambda image_features, text_features: torch.tensor(features, device=image_features.device)


def test_recalls_are_the_references(golden, small_clip, device):
    published = golden("metrics")
    gallery = torch.tensor(published["index_features"], device=device), published["index_names"]
    names = published["reference_names"], published["target_names"]
    combine = given(published["predicted_features"])

    cirr = Queries(zip(*names, ["caption"] * 24, published["group_members"], strict=True))
    assert compute_cirr_val_metrics(cirr, small_clip, *gallery, combine) == tuple(published["cirr"].values())
    fashioniq = Queries(zip(*names, [("a", "b")] * 24, strict=True))
    assert compute_fiq_val_metrics(fashioniq, small_clip, *gallery, combine) == tuple(published["fashioniq"].values())


@pytest.mark.parametrize(
    ("counted", "protocol"), [("full keep", "clip4cir"), ("full drop", "covr"), ("val drop", "val")]
)
def test_protocols_count_as_published_programs_do(counted, protocol, shared, small_clip, device):
    for of in json.loads((shared / "golden" / "protocols" / "fashioniq.json").read_text()).values():
        queries = Queries((*names, ("a", "b")) for names in of["triplets"])
        gallery = torch.tensor(of["index_features"], device=device), of["names"]
        combine = given(of["predicted_features"])
        recalls = compute_fiq_val_metrics(queries, small_clip, *gallery, combine, protocol=protocol)
        assert recalls == pytest.approx([of["recalls"][counted][f"r{k}"] for k in (10, 50)], abs=1e-4)


# Five pictures at 0, 20, 40, 60 and 80 degrees, and two queries at 5: they see them in their order.
ANGLES = torch.deg2rad(torch.tensor([0.0, 20, 40, 60, 80]))
PICTURES = Gallery(torch.stack([ANGLES.cos(), ANGLES.sin()], dim=1), list("abcde"))
QUERIES = torch.tensor([[[0.9962, 0.0872]]]).repeat(1, 2, 1)  # of one factor
TRIPLETS = [Triplet("a", ("bluer", "longer"), ("d",)), Triplet("c", ("shorter", "red"), ("e",))]


@pytest.mark.parametrize(
    ("protocol", "gallery", "ranks", "best"),
    [
        ("clip4cir", "abcde", [3, 4], ["abcde", "abcde"]),
        ("covr", "abcde", [2, 3], ["bcde", "abde"]),  # without each query's own reference
        ("val", "acde", [1, 2], ["cde", "ade"]),  # and without what no triplet names
    ],
)
def test_protocols_by_hand(protocol, gallery, ranks, best):
    answers = answer(TRIPLETS, PICTURES, QUERIES, TASKS["FashionIQ"].protocol(protocol), best=5)
    assert "".join(answers.gallery.names) == gallery
    assert answers.ranks.tolist() == ranks
    assert ["".join(answers.gallery.names[row] for row in rows) for rows in answers.best.tolist()] == best
    assert answers.group_ranks is answers.group_best is None
    few = answer(TRIPLETS, PICTURES, QUERIES, TASKS["FashionIQ"].protocol(protocol), best=2)
    assert few.best.tolist() == answers.best[:, :2].tolist()


def test_groups_by_hand():
    """The reference leaves both rankings, and of a group only the others are ranked."""
    asked = [triplet._replace(group=tuple("abde" if triplet.reference == "a" else "bcde")) for triplet in TRIPLETS]
    answers = answer(asked, PICTURES, QUERIES, TASKS["CIRR"].protocol(), best=1)
    assert answers.ranks.tolist() == [2, 3]
    assert answers.group_ranks.tolist() == [1, 2]
    assert answers.best.tolist() == [[1], [0]]
    assert answers.group_best.tolist() == [[1, 3, 4], [1, 3, 4]]


def test_best_rows_only_where_they_are_asked_for():
    answers = answer(TRIPLETS, PICTURES, QUERIES, TASKS["FashionIQ"].protocol())
    assert answers.best is answers.group_best is None
    unanswered = [triplet._replace(targets=()) for triplet in TRIPLETS]
    answers = answer(unanswered, PICTURES, QUERIES, TASKS["FashionIQ"].protocol(), best=1)
    assert answers.ranks is None
    assert answers.best.tolist() == [[0], [0]]


@pytest.mark.parametrize(
    ("compute", "known"),
    [(compute_cirr_val_metrics, "clip4cir, soft$"), (compute_fiq_val_metrics, "clip4cir, covr, val, searle$")],
)
def test_an_unknown_protocol_is_refused(compute, known, small_clip):
    queries = [("a", "b", *(["red", "abcdef"] if compute is compute_cirr_val_metrics else [("red", "blue")]))]
    with pytest.raises(InputError, match=f"'vall' is not a protocol of .*: it must be one of {known}"):
        compute(queries, small_clip, PICTURES.features, PICTURES.names, given([[0.0, 1.0]]), protocol="vall")


def test_soft_targets_are_refused_where_items_have_none(small_clip):
    queries = Queries([("a", "b", "red", tuple("abcde"))])
    with pytest.raises(InputError, match="^a: its triplet has no target_soft"):
        compute_cirr_val_metrics(
            queries, small_clip, PICTURES.features, PICTURES.names, given([[0.0, 1.0]]), torch.ones(1, 2), "soft"
        )


def test_fashioniq_captions_are_the_references(golden, small_clip, monkeypatch):
    captions = []
    monkeypatch.setattr(
        validate, "extract_caption_features", lambda texts, clip_model: captions.extend(texts) or torch.zeros(4, 2)
    )
    queries = Queries(("a", "b", pair) for pair in golden("captions")["pairs"])
    compute_fiq_val_metrics(queries, small_clip, torch.eye(2), ["a", "b"], lambda image, text: image)
    assert captions == golden("captions")["validation"]


def test_a_query_is_its_references_feature_and_its_caption(small_clip, device):
    gallery = Gallery(torch.eye(64, device=device), [str(number) for number in range(64)])
    rows = [5, 3] * 20
    captions = torch.rand(40, 64, device=device)
    names = [str(row) for row in rows]
    (predicted,) = predict_features(gallery, names, captions, lambda image, text: image + text, batch_size=7)
    assert torch.equal(predicted, torch.eye(64, device=device)[rows] + captions)


def cirr_columns(*seven):
    return TASKS["CIRR"].columns({"rc2": dict(zip(CIRR_RECALLS, seven, strict=True))})


def test_means_of_cirr():
    metrics = cirr_columns(40.0, 50.0, 60.0, 10.0, 20.0, 30.0, 70.0)
    assert metrics["mean(R@5+R_s@1)"] == 30
    assert metrics["arithmetic_mean"] == 40
    assert metrics["harmonic_mean"] == pytest.approx(7 / sum(1 / r for r in (40, 50, 60, 10, 20, 30, 70)))
    assert metrics["geometric_mean"] == pytest.approx((40 * 50 * 60 * 10 * 20 * 30 * 70) ** (1 / 7))


def test_a_zero_recall_makes_two_means_zero():
    metrics = cirr_columns(40.0, 50.0, 60.0, 0.0, 20.0, 30.0, 70.0)
    assert metrics["harmonic_mean"] == metrics["geometric_mean"] == 0
    assert metrics["arithmetic_mean"] == pytest.approx(270 / 7)


def test_means_of_fashioniq():
    pairs = {"dress": (1.0, 2.0), "toptee": (4.0, 6.0), "shirt": (7.0, 13.0)}
    recalls = {kind: {"recall_at10": at10, "recall_at50": at50} for kind, (at10, at50) in pairs.items()}
    metrics = TASKS["FashionIQ"].columns(recalls)
    assert list(metrics.items()) == [
        ("dress_recall_at10", 1),
        ("dress_recall_at50", 2),
        ("toptee_recall_at10", 4),
        ("toptee_recall_at50", 6),
        ("shirt_recall_at10", 7),
        ("shirt_recall_at50", 13),
        ("average_recall_at10", 4),
        ("average_recall_at50", 7),
        ("average_recall", 5.5),
    ]


@pytest.mark.parametrize(
    ("query", "fault"),
    [
        (("a", "z", "red", list("abcdef")), "z: the target of a is not a member of its group"),
        (("a", "a", "red", list("abcdef")), "a: the target is its own reference, which leaves the ranking"),
        (("g", "b", "red", list("abcdef")), "g: not a member of its own group"),
        (("a", "b", "red", list("abcdez")), "z: not among the 7 pictures"),
    ],
)
def test_queries_that_cannot_be_judged(query, fault, small_clip, device):
    with pytest.raises(InputError, match=fault):
        compute_cirr_val_metrics(Queries([query]), small_clip, torch.eye(7, device=device), list("abcdefg"), given([]))


def printed(capsys):
    return dict(line.split(" = ") for line in capsys.readouterr().out.splitlines())


def test_validate_prints_cirrs_recalls(options, capsys):
    validate.main(["--dataset", "cirr", *options])
    recalls = printed(capsys)
    assert list(recalls) == CIRR_RECALLS
    assert all(0 <= float(recall) <= 100 for recall in recalls.values())
    assert float(recalls["recall_at50"]) == 100  # the gallery has 30 pictures


def test_validate_prints_fashioniqs_recalls(options, capsys, tmp_path, device):
    save_model("combiner", 0, Combiner(64, 16, 32), tmp_path)
    combiner = ["--combiner-path", str(tmp_path / "saved_models" / "combiner.pt"), *COMBINER]
    validate.main(["--dataset", "FASHIONIQ", *options, *combiner])
    recalls = printed(capsys)
    kinds = ("shirt", "dress", "toptee")
    names = [f"{kind}_recallat{k}" for kind in kinds for k in (10, 50)]
    assert list(recalls) == [*names, "average recall10", "average recall50"]
    assert float(recalls["average recall10"]) == mean(float(recalls[f"{kind}_recallat10"]) for kind in kinds)


@pytest.mark.workers
def test_other_transforms_and_precisions(options, capsys):
    def recall(*extra):
        validate.main(["--dataset", "CIRR", *options, *extra])
        return printed(capsys)

    default = recall()
    assert recall("--precision", "fp32", "--num-workers", "2") == default
    assert recall("--transform", "squarepad") != default
    assert recall("--transform", "clip") != default
    assert recall("--target-ratio", "3") != default
    assert recall("--precision", "bf16").keys() == default.keys()
