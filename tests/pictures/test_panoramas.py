"""Pictures too large to pad or resize whole: in strips they become, to the bit, what the published code makes."""

import warnings
from functools import partial

import numpy as np
import PIL.Image
import pytest
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

from data_utils import SquarePad, TargetPad
from src.base.errors import InputError
from src.pictures import strips, transforms
from src.pictures.kinds import look_at
from src.pictures.opening import opened
from src.pictures.padding import MOST_PIXELS, MOST_RATIO, TRANSFORMS, refusing
from src.pictures.transforms import make_transform
from tests.support.odd_pictures import black_png, saved
from tests.support.processes import python

MODES = ("1", "L", "P", "PA", "LA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "I;16", "I;16B")
SIZES = [(60, 40), (40, 60), (33, 33), (1, 700), (700, 1), (3, 650), (201, 2), (37, 4100), (89, 31)]


def drawn(mode, size, seed=0):
    """Draw noise in a mode, some of it transparent where that can be."""
    rng, (width, height) = np.random.default_rng(seed), size
    noise = partial(rng.integers, 0, 256, dtype=np.uint8)
    if mode in ("I", "F"):
        return PIL.Image.fromarray(
            rng.normal(100, 300, (height, width)).astype(np.int32 if mode == "I" else np.float32)
        )
    if mode in ("I;16", "I;16B", "LAB"):
        return PIL.Image.frombytes(mode, size, noise((height, width, 3 if mode == "LAB" else 2)).tobytes())
    image = PIL.Image.fromarray(noise((height, width, 4 if mode.endswith("A") and mode != "PA" else 3)))
    return image.quantize(16).convert(mode) if mode in ("P", "PA") else image.convert(mode)


def made(image, transform):
    """Return the bytes that a transform makes of a picture, or why none: older Pillows do not resize some modes."""
    try:
        return transform.pixels(image.copy()).tolist()
    except ValueError as error:
        return str(error)


@pytest.mark.parametrize("at_once", [300, 2**24])
@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("mode", MODES)
def test_strips_change_no_bit(mode, name, at_once, monkeypatch):
    monkeypatch.setattr(strips, "AT_ONCE", at_once)
    for number, size in enumerate(SIZES):
        image, dim, ratio = drawn(mode, size, number), (32, 45)[number % 2], (1.25, 1.9, 120.0)[number % 3]
        transform = make_transform(name, ratio, dim)
        whole = made(image, transform)
        with monkeypatch.context() as patched:
            patched.setattr(transforms, "WHOLE", 0)
            assert made(image, transform) == whole, (size, dim, ratio)


def published(image, name, dim):
    pad = {"clip": [], "squarepad": [SquarePad(dim)], "targetpad": [TargetPad(1.25, dim)]}[name]
    square = Compose([*pad, Resize(dim, interpolation=InterpolationMode.BICUBIC), CenterCrop(dim)])
    return np.array(square(image).convert("RGB"))


@pytest.mark.parametrize(("size", "mode"), [((16_382, 3_628), "RGB"), ((3_628, 16_382), "L")])
@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_panorama_is_taken_as_published(name, size, mode, tmp_path):
    small = drawn(mode, (size[0] // 40, size[1] // 40))
    image = small.resize(size, PIL.Image.Resampling.NEAREST)
    (tmp_path / "x.png").write_bytes(saved(image, "PNG", compress_level=1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = published(image, name, 288)
    assert np.array_equal(opened(tmp_path / "x.png", make_transform(name, 1.25, 288).pixels), wanted)
    assert look_at(tmp_path / "x.png").kinds == ()


MEMORY = """
import resource, sys, pathlib
from src.pictures.transforms import make_transform
from src.pictures.opening import opened
preprocess = make_transform("squarepad", 1.25, 288)
opened(pathlib.Path(sys.argv[1]), preprocess.pixels)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
opened(pathlib.Path(sys.argv[2]), preprocess.pixels)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def test_the_padded_giant_is_never_built(tmp_path):
    """Padded, this one would be 1.6 billion pixels, 1.6 GB in black and white and four times that in colour."""
    (tmp_path / "small.png").write_bytes(black_png(400, 300))
    (tmp_path / "long.png").write_bytes(black_png(1_000, 40_000))
    megabytes = float(python("-c", MEMORY, tmp_path / "small.png", tmp_path / "long.png").stdout)
    assert megabytes < 400


@pytest.mark.parametrize(
    ("size", "names"),
    [
        ((16_382, 3_628), []),
        ((46_000, 3_000), []),
        ((47_000, 3_000), ["squarepad"]),
        ((3_000, 55_000), ["squarepad", "targetpad"]),
        ((1, 60_000), ["clip", "squarepad", "targetpad"]),
    ],
)
def test_check_data_says_which_transforms_refuse(size, names, tmp_path):
    """Exactly those refuse: whoever trains with another one has nothing to mend."""
    assert refusing(*size) == names
    path = tmp_path / "x.png"
    path.write_bytes(black_png(*size))
    look = look_at(path)
    assert look.kinds == (("too long",) if names else ())
    assert look.fault == (f"refused by --transform {', '.join(names)}" if names else "")
    for name in names:
        with pytest.raises(InputError, match=rf"pixels, the limit is (a ratio of {MOST_RATIO}|{MOST_PIXELS})\)$"):
            opened(path, make_transform(name, 1.25, 32))
    if "clip" not in names:
        assert opened(path, make_transform("clip", 1.25, 32)).shape == (3, 32, 32)
