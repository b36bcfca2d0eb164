"""Transforms and data sets give what the published ones give, and name what they cannot open."""

import numpy as np
import PIL.Image
import pytest
import torch

from data_utils import CIRRDataset, FashionIQDataset, SquarePad, TargetPad, squarepad_transform, targetpad_transform
from src.base.errors import InputError
from src.pictures.transforms import make_transform


def formula_picture(width, height, mode):
    """Draw the picture that tests/golden/transforms.json was made from."""
    y, x = np.mgrid[:height, :width]
    channels = ((3 * x + 5 * y) % 256, (7 * x + 2 * y) % 256, (x * x // 9 + 11 * y) % 256)
    return PIL.Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8)).convert(mode)


TRANSFORMS = {
    "squarepad": squarepad_transform(224),
    "targetpad-1.25": targetpad_transform(1.25, 224),
    "targetpad-1.25-288": targetpad_transform(1.25, 288),
}


def test_transforms_give_the_references_pixels(golden):
    for case in golden("transforms")["cases"]:
        tensor = TRANSFORMS[case["transform"]](formula_picture(case["width"], case["height"], case["mode"]))
        assert list(tensor.shape) == case["shape"]
        pixels = torch.stack([tensor[:, 5, 7], tensor[:, 100, 50], tensor[:, 200, 210]])
        torch.testing.assert_close(pixels, torch.tensor(case["pixels"]), rtol=0, atol=1e-5)
        torch.testing.assert_close(tensor.mean(dim=(1, 2)), torch.tensor(case["mean"]), rtol=0, atol=1e-5)
        torch.testing.assert_close(tensor.std(dim=(1, 2)), torch.tensor(case["std"]), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("pad", "before", "after"),
    [
        (SquarePad(8), (30, 40), (40, 40)),
        (SquarePad(8), (41, 30), (40 + 1, 40)),  # half of 11 is rounded down on each side
        (TargetPad(1.25, 8), (100, 124), (100, 124)),  # 1.24 is below the ratio
        (TargetPad(1.25, 8), (100, 200), (160, 200)),  # 200 / 1.25 = 160
        (TargetPad(1.25, 8), (200, 100), (200, 160)),
        (TargetPad(2.0, 8), (1, 1000), (1 + 2 * 249, 1000)),
    ],
)
def test_padding(pad, before, after):
    padded = pad(PIL.Image.new("RGB", before, "white"))
    assert padded.size == after
    assert (padded.getpixel((0, 0)) == (0, 0, 0)) == (before != after)


def test_transform_by_name():
    picture = formula_picture(90, 37, "RGB")
    assert torch.equal(make_transform("squarepad", None, 32)(picture), squarepad_transform(32)(picture))
    assert not torch.equal(make_transform("clip", None, 32)(picture), squarepad_transform(32)(picture))
    assert torch.equal(make_transform("targetpad", 1.5, 32)(picture), targetpad_transform(1.5, 32)(picture))
    with pytest.raises(InputError, match="'square' is not a transform.*clip, squarepad, targetpad"):
        make_transform("square", 1.25, 32)


def size_of(picture):
    return picture.size


def test_cirr_items(world):
    train, val, test = (CIRRDataset(split, "relative", size_of, world) for split in ("train", "val", "test1"))
    triplet = train.triplets[3]
    reference, target, caption = train[3]
    with PIL.Image.open(train.paths[triplet.reference]) as picture:
        assert reference == picture.size
    with PIL.Image.open(train.paths[triplet.targets[0]]) as picture:
        assert target == picture.size
    assert (caption,) == triplet.captions

    triplet = val.triplets[5]
    assert val[5] == (triplet.reference, *triplet.targets, *triplet.captions, list(triplet.group))
    triplet = test.triplets[5]
    assert test[5] == (int(triplet.id), triplet.reference, *triplet.captions, list(triplet.group))
    assert [len(train), len(val), len(test)] == [48, 24, 33]

    gallery = CIRRDataset("val", "classic", size_of, world)
    assert len(gallery) == 30
    assert {gallery[index][0] for index in range(30)} == set(gallery.image_names)


def test_fashioniq_items(world):
    train, val, test = (
        FashionIQDataset(split, ["dress", "shirt"], "relative", size_of, world) for split in ("train", "val", "test")
    )
    triplet = train.triplets[3]
    images = world / "fashionIQ_dataset" / "images"
    reference, target, captions = train[3]
    with PIL.Image.open(images / f"{triplet.reference}.jpg") as picture:
        assert reference == picture.size
    with PIL.Image.open(images / f"{triplet.targets[0]}.jpg") as picture:
        assert target == picture.size
    assert captions == list(triplet.captions)

    triplet = val.triplets[5]
    assert val[5] == (triplet.reference, triplet.targets[0], list(triplet.captions))
    triplet = test.triplets[5]
    name, reference, captions = test[5]
    assert (name, captions) == (triplet.reference, list(triplet.captions))
    assert len(train) == 2 * 48 // 3

    galleries = [FashionIQDataset("val", [kind], "classic", size_of, world) for kind in ("dress", "toptee", "shirt")]
    assert sum(map(len, galleries)) == 30
    assert galleries[0][0][0] == galleries[0].image_names[0]


@pytest.mark.parametrize(
    ("dataset", "arguments", "fault"),
    [
        (CIRRDataset, ("test", "classic"), "'test' is not a CIRR split: it must be one of train, val, test1"),
        (CIRRDataset, ("val", "absolute"), "'absolute' is not a mode: it must be one of classic, relative"),
        (FashionIQDataset, ("test1", ["dress"], "classic"), "'test1' is not a FashionIQ split"),
        (FashionIQDataset, ("val", ["hat"], "classic"), "'hat' is not a FashionIQ category.*dress, toptee, shirt"),
    ],
)
def test_unknown_names_are_refused(dataset, arguments, fault, world):
    with pytest.raises(InputError, match=fault):
        dataset(*arguments, size_of, world)


def test_missing_pictures_are_counted(broken_world):
    pictures = sorted((broken_world / "cirr_dataset" / "dev").iterdir())
    pictures[4].unlink()
    pictures[7].unlink()
    with pytest.raises(InputError, match="no such picture; 2 of 30 are missing: ") as raised:
        CIRRDataset("val", "classic", size_of, broken_world)
    assert pictures[4].name in str(raised.value)
    assert pictures[7].name in str(raised.value)
    assert str(raised.value).startswith((str(pictures[4]), str(pictures[7])))
    CIRRDataset("val", "relative", size_of, broken_world)  # opens no picture

    next((broken_world / "fashionIQ_dataset" / "images").iterdir()).unlink()
    with pytest.raises(InputError, match="no such picture"):
        for split in ("train", "val", "test"):
            FashionIQDataset(split, ["dress", "shirt", "toptee"], "classic", size_of, broken_world)


def test_a_broken_picture_is_named(broken_world):
    picture = sorted((broken_world / "cirr_dataset" / "dev").iterdir())[0]
    picture.write_bytes(picture.read_bytes()[:200])
    gallery = CIRRDataset("val", "classic", make_transform("clip", None, 32), broken_world)
    with pytest.raises(InputError, match=f"{picture.name}: cannot be read as a picture"):
        gallery[gallery.image_names.index(picture.stem)]
