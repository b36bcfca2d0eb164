"""Pictures as they come: each is treated exactly as the published code treats it, or refused by name in one line."""

import io
import struct
import subprocess
import sys
import time
import warnings
import zlib

import numpy as np
import PIL.Image
import pytest
import torch
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize, ToTensor

from data_utils import CIRRDataset, SquarePad, TargetPad, make_transform
from src.base.errors import InputError
from src.base.files import PROJECT_ROOT
from src.models.backbone import OPENAI_NORMALISATION
from src.pictures.opening import opened

DIM = 32
PADDING = {"clip": [], "squarepad": [SquarePad(DIM)], "targetpad": [TargetPad(1.25, DIM)]}


def plainly(path, transform):
    """What the published code makes of a picture."""
    steps = Resize(DIM, interpolation=InterpolationMode.BICUBIC), CenterCrop(DIM), lambda image: image.convert("RGB")
    with PIL.Image.open(path) as image:
        return Compose([*PADDING[transform], *steps, ToTensor(), Normalize(*OPENAI_NORMALISATION)])(image)


def noise(*shape, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


RGB = PIL.Image.fromarray(noise(30, 50, 3))
GREY, PALETTE = RGB.convert("L"), RGB.quantize(16)
RGBA = PIL.Image.fromarray(noise(30, 50, 4))
TURNED = PIL.Image.Exif()
TURNED[0x112] = 6
TWO_MORE = {"save_all": True, "append_images": [RGB.rotate(90), RGB.rotate(180)]}
"""More frames for an animation."""

TAKEN = {
    "palette.png": (PALETTE, {}),
    "palette with a transparent colour.png": (PALETTE, {"transparency": 3}),
    "palette with alpha.png": (PALETTE, {"transparency": bytes(range(0, 256, 16))}),
    "black and white.png": (RGB.convert("1"), {}),
    "grey.png": (GREY, {}),
    "grey.jpg": (GREY, {}),
    "grey with alpha.png": (RGBA.convert("LA"), {}),
    "rgba.png": (RGBA, {}),
    "rgb with a transparent colour.png": (RGB, {"transparency": RGB.getpixel((7, 5))}),
    "cmyk.jpg": (RGB.convert("CMYK"), {}),
    "16 bits.png": (PIL.Image.fromarray(noise(30, 50, dtype=np.uint16)), {}),
    "turned by exif.jpg": (RGB, {"exif": TURNED}),
    "animated.gif": (PALETTE, {"save_all": True, "append_images": [PALETTE.rotate(90)]}),
    "animated.png": (RGB, TWO_MORE),
    "animated.webp": (RGB, TWO_MORE | {"lossless": True}),
    "1 x 1.png": (RGB.crop((0, 0, 1, 1)), {}),
    "1 x 1, palette.png": (PALETTE.crop((0, 0, 1, 1)), {}),
    "1 x 1000.png": (RGB.resize((1, 1000)), {}),
    "1000 x 1.png": (RGB.resize((1000, 1)), {}),
    "a jpeg that is called.png": (RGB, {"format": "JPEG"}),
}


@pytest.mark.parametrize("transform", PADDING)
@pytest.mark.parametrize("name", TAKEN)
def test_taken_as_the_published_code_takes_it(name, transform, tmp_path):
    picture, options = TAKEN[name]
    picture.save(tmp_path / name, **options)
    preprocess = make_transform(transform, 1.25, DIM)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tensor = opened(tmp_path / name, preprocess)
        pixels = torch.from_numpy(opened(tmp_path / name, preprocess.pixels))
    assert tensor.shape == (3, DIM, DIM)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert torch.equal(tensor, plainly(tmp_path / name, transform))
    assert torch.equal(preprocess.tensors(pixels[None].numpy())[0], tensor)


def test_what_the_table_in_readme_says(tmp_path):
    """The first frame counts, EXIF turns nothing, the transparent turns black, 16 bits turn white."""
    for name, same_as in (
        ("animated.webp", "rgb.png"),
        ("animated.png", "rgb.png"),
        ("turned by exif.jpg", "rgb.jpg"),
    ):
        picture, options = TAKEN[name]
        picture.save(tmp_path / name, **options)
        picture.convert("RGB").save(tmp_path / same_as)
        transform = make_transform("targetpad", 2.0, DIM)
        assert torch.equal(opened(tmp_path / name, transform), opened(tmp_path / same_as, transform))
    picture, options = TAKEN["16 bits.png"]
    picture.save(tmp_path / "16.png")
    PIL.Image.new("RGBA", (50, 30), (255, 255, 255, 0)).save(tmp_path / "invisible.png")
    assert not opened(tmp_path / "invisible.png", make_transform("clip", 1.25, DIM).pixels).any()
    PALETTE.save(tmp_path / "palette.png")
    padded = opened(tmp_path / "palette.png", make_transform("squarepad", 1.25, DIM).pixels)
    assert padded[0, 0].tolist() == PALETTE.getpalette()[:3]
    white = opened(tmp_path / "16.png", make_transform("clip", 1.25, DIM).pixels)
    assert (white == 255).mean() > 0.98


def png(width, height):
    """A black picture of any size, as bytes: a pixel is a bit."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    rows = zlib.compressobj()
    black = b"".join(rows.compress(bytes(100 * (1 + (width + 7) // 8))) for _ in range(-(-height // 100)))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", black + rows.flush()) + chunk(b"IEND", b"")


def jpeg():
    content = io.BytesIO()
    RGB.resize((200, 200)).save(content, "JPEG")
    return content.getvalue()


REFUSED = {
    "empty.png": (b"", "cannot identify"),
    "text.png": (b"not a picture\n", "cannot identify"),
    "zeros.png": (bytes(500), "cannot identify"),
    "torn.jpg": (jpeg()[:4000], "image file is truncated"),
    "torn.png": (png(1000, 1000)[:80], ""),
    "torn header.png": (png(1000, 1000)[:20], ""),
    "bomb.png": (png(20_000, 20_000), "decompression bomb"),
    "1 x 60000.png": (png(1, 60_000), "pixels, the limit is"),
    "no height.png": (png(50, 0), ""),
}


@pytest.mark.parametrize("transform", PADDING)
@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name(name, transform, tmp_path):
    content, fault = REFUSED[name]
    (tmp_path / name).write_bytes(content)
    started = time.monotonic()
    with pytest.raises(InputError) as raised:
        opened(tmp_path / name, make_transform(transform, 1.25, 288))
    assert time.monotonic() - started < 5
    (line,) = str(raised.value).splitlines()
    assert line.startswith(f"{tmp_path / name}: cannot be read as a picture (")
    assert fault in line


def test_a_folder_in_the_place_of_a_picture(broken_world):
    picture = next((broken_world / "cirr_dataset" / "dev").iterdir())
    picture.unlink()
    picture.mkdir()
    with pytest.raises(InputError, match=f"{picture}: no such picture; 1 of 30 are missing"):
        CIRRDataset("val", "classic", None, broken_world)
    with pytest.raises(InputError, match=f"{picture}: cannot be read as a picture"):
        opened(picture, make_transform("clip", 1.25, DIM))


def test_a_large_picture_makes_no_noise(tmp_path):
    """Pillow doubts a picture of more than 89 million pixels; it is one all the same."""
    (tmp_path / "large.png").write_bytes(png(10_000, 9_000))
    code = (
        "import sys; from data_utils import make_transform; from src.pictures.opening import opened;"
        "print(opened(sys.argv[1], make_transform('clip', 1.25, 32)).shape)"
    )
    command = [sys.executable, "-W", "always::UserWarning", "-c", code, str(tmp_path / "large.png")]
    done = subprocess.run(command, check=True, cwd=PROJECT_ROOT, capture_output=True, text=True)
    assert done.stdout == "torch.Size([3, 32, 32])\n"
    assert "Decompression" not in done.stderr
