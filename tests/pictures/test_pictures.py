"""Pictures as they come: each is treated exactly as the published code treats it, or refused by name in one line."""

import warnings

import PIL.Image
import pytest
import torch
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize, ToTensor

from data_utils import CIRRDataset, SquarePad, TargetPad
from src.base.errors import InputError
from src.pictures.normalisation import OPENAI_NORMALISATION, normalised
from src.pictures.opening import opened
from src.pictures.transforms import make_transform
from tests.support.odd_pictures import PALETTE, REFUSED, RGB, TAKEN, black_png, write, write_taken

DIM = 32
PADDING = {"clip": [], "squarepad": [SquarePad(DIM)], "targetpad": [TargetPad(1.25, DIM)]}


def plainly(path, transform):
    """Make of a picture what the published code makes of it."""
    steps = Resize(DIM, interpolation=InterpolationMode.BICUBIC), CenterCrop(DIM), lambda image: image.convert("RGB")
    with PIL.Image.open(path) as image:
        return Compose([*PADDING[transform], *steps, ToTensor(), Normalize(*OPENAI_NORMALISATION)])(image)


@pytest.mark.parametrize("transform", PADDING)
@pytest.mark.parametrize("case", TAKEN)
def test_taken_as_the_published_code_takes_it(case, transform, tmp_path):
    path = tmp_path / "picture.png"
    write(TAKEN[case], path)
    preprocess = make_transform(transform, 1.25, DIM)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tensor = opened(path, preprocess)
        pixels = torch.from_numpy(opened(path, preprocess.pixels))
    assert tensor.shape == (3, DIM, DIM)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert torch.equal(tensor, plainly(path, transform))
    assert torch.equal(normalised(pixels[None], preprocess.normalisation)[0], tensor)


def test_what_is_said_of_odd_pictures(tmp_path):
    """The first frame counts, EXIF turns nothing, the transparent turns black, 16 bits turn white."""

    paths = write_taken(tmp_path)
    for name, image in (("RGB", RGB), ("invisible", PIL.Image.new("RGBA", (50, 30), (255, 255, 255, 0)))):
        paths[name] = tmp_path / f"{name}.png"
        image.save(paths[name])

    tensor = make_transform("targetpad", 2.0, DIM)
    for name, same_as in (("animated WebP", "RGB"), ("animated PNG", "RGB"), ("turned by EXIF", "JPEG")):
        assert torch.equal(opened(paths[name], tensor), opened(paths[same_as], tensor))
    pixels, padded = (make_transform(name, 1.25, DIM).pixels for name in ("clip", "squarepad"))
    assert not opened(paths["invisible"], pixels).any()
    first_colour = PALETTE.getpalette()[:3]  # of number 0, which is what padding is
    assert opened(paths["palette"], padded)[0, 0].tolist() == first_colour
    assert (opened(paths["16-bit grey"], pixels) == 255).mean() > 0.98


@pytest.fixture
def sizes(monkeypatch):
    """Return a list that receives the size of every picture that is decoded, drawn or resized from now on."""
    seen = []
    load, new, resize = PIL.ImageFile.ImageFile.load, PIL.Image.new, PIL.Image.Image.resize
    decoding = PIL.ImageFile.ImageFile, "load", lambda image: seen.append(image.size) or load(image)
    drawing = PIL.Image, "new", lambda mode, size, *more: seen.append(size) or new(mode, size, *more)
    resizing = PIL.Image.Image, "resize", lambda image, size, *more: seen.append(size) or resize(image, size, *more)
    for place in (decoding, drawing, resizing):
        monkeypatch.setattr(*place)
    return seen


@pytest.mark.parametrize("transform", PADDING)
@pytest.mark.parametrize("case", REFUSED)
def test_refused_by_name(case, transform, tmp_path, sizes):
    path = tmp_path / "picture.png"
    write(REFUSED[case], path)
    sizes.clear()
    with pytest.raises(InputError) as raised:
        opened(path, make_transform(transform, 1.25, 288))
    assert all(width * height <= 10**6 for width, height in sizes), "a bomb is not to be unpacked"
    (line,) = str(raised.value).splitlines()
    assert line.startswith(f"{path}: cannot be read as a picture (")
    assert REFUSED[case].fault in line.replace("'the file'", "the file")


def test_a_folder_in_the_place_of_a_picture(broken_world):
    picture = next((broken_world / "cirr_dataset" / "dev").iterdir())
    picture.unlink()
    picture.mkdir()
    with pytest.raises(InputError, match=f"{picture}: no such picture; 1 of 30 are missing"):
        CIRRDataset("val", "classic", None, broken_world)
    with pytest.raises(InputError, match=f"{picture}: cannot be read as a picture"):
        opened(picture, make_transform("clip", 1.25, DIM))


def test_a_large_picture_makes_no_noise(tmp_path, sizes):
    """Pillow doubts a picture of more than 89 million pixels; it is one all the same."""
    (tmp_path / "large.png").write_bytes(black_png(10_000, 9_000))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert opened(tmp_path / "large.png", make_transform("clip", 1.25, 32)).shape == (3, 32, 32)
    assert (10_000, 9_000) in sizes
