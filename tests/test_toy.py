"""The toy world is a real retrieval problem: one answer a query, nothing given away."""

import json
import random

import PIL.Image
import pytest

from src import toy
from src.tasks.own import OwnTriplets
from tests.support.commands import status_of


def cirr(world, split):
    """Return captions and listing of a split, as they are on disk."""
    folder = world / "cirr_dataset" / "cirr"
    captions = json.loads((folder / "captions" / f"cap.rc2.{split}.json").read_text())
    return captions, json.loads((folder / "image_splits" / f"split.rc2.{split}.json").read_text())


def test_a_seed_decides_the_world(tmp_path):
    for name, seed in (("first", 1), ("second", 1), ("third", 2)):
        toy.write_world(tmp_path / name, (20, 20, 20), (6, 6, 6), seed)
    first, second, third = (
        {path.relative_to(tmp_path / name): path.read_bytes() for path in (tmp_path / name).rglob("*.*")}
        for name in ("first", "second", "third")
    )
    assert first == second
    assert first.keys() != third.keys()


def test_pictures_differ_in_shape(world):
    sizes = set()
    for path in (world / "cirr_dataset" / "dev").iterdir():
        with PIL.Image.open(path) as picture:
            sizes.add(picture.size)
    assert len(sizes) > 25
    assert any(width / height > 1.25 for width, height in sizes)
    assert any(height / width > 1.25 for width, height in sizes)


def test_splits_share_no_picture(world):
    pictures = [path.read_bytes() for path in (world / "cirr_dataset").rglob("*.png")]
    assert len(pictures) == len(set(pictures)) == 100
    names = [set(cirr(world, split)[1]) for split in ("train", "val", "test1")]
    assert [len(split) for split in names] == [40, 30, 30]
    assert not (names[0] & names[1] or names[0] & names[2] or names[1] & names[2])


def test_groups_do_not_give_the_target_away(world):
    triplets, _ = cirr(world, "train")
    places = [triplet["img_set"]["members"].index(triplet["target_hard"]) for triplet in triplets]
    assert set(places) == set(range(6))
    assert "target_hard" not in cirr(world, "test1")[0][0]


@pytest.fixture(scope="module")
def garments():
    rng = random.Random(0)
    return [{name: rng.choice(values) for name, values in toy.ATTRIBUTES.items()} for _ in range(400)]


def test_pairs_differ_in_one_to_three_attributes(garments):
    pairs = toy.draw_pairs(garments, 500, random.Random(0))
    differences = [
        sum(garments[reference][name] != garments[target][name] for name in toy.ATTRIBUTES)
        for reference, target in pairs
    ]
    assert len(pairs) == 500
    assert set(differences) == {1, 2, 3}


def test_a_caption_says_what_changes_and_nothing_else(garments):
    reference = garments[0] | {"colour": "red", "sleeves": "no"}
    target = reference | {"colour": "blue", "sleeves": "long"}
    captions = {toy.describe(reference, target, random.Random(seed)) for seed in range(60)}
    assert len(captions) > 30
    for caption in captions:
        assert "blue" in caption
        assert "long sleeves" in caption
        assert not any(word in caption for word in ("neck", "belt", "background", "hem", "fabric"))


def test_the_command(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(toy, "PICTURES", (20, 20, 20))
    monkeypatch.setattr(toy, "QUERIES", (6, 6, 6))
    toy.main([str(tmp_path / "toy")])
    assert capsys.readouterr().out.strip() == str(tmp_path / "toy")
    assert {path.name for path in (tmp_path / "toy").iterdir()} == {
        "cirr_dataset",
        "fashionIQ_dataset",
        "my_pictures",
        "small_clip.pt",
    }


def test_own_triplets_share_no_picture_with_the_layouts(tmp_path):
    toy.write_world(tmp_path, (40, 40, 20), (16, 16, 6))
    task = OwnTriplets.in_folder(tmp_path / toy.OWN)
    train, val = (task.read_all(tmp_path, split)["all"] for split in ("train", "val"))
    assert (len(train.triplets), len(val.triplets), len(val.pictures)) == (4, 4, 10)
    pictures = [path.read_bytes() for path in tmp_path.rglob("*.png")]
    assert len(pictures) == len(set(pictures)) == 120


@pytest.mark.parametrize(("place", "fault"), [("file", "is a file"), ("file/toy", "Not a directory")])
def test_a_place_that_is_no_folder(place, fault, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert status_of(toy.main, [tmp_path / place]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {tmp_path / place}: {fault}")
