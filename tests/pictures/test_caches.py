"""What the feature cache and the image cache promise: the same values, computed once, and never an old one."""

import json
import multiprocessing
import shutil
from functools import partial
from pathlib import Path

import PIL.Image
import pytest
import torch

import clip_fine_tune
import combiner_train
import validate
from src.base.errors import InputError
from src.models.backbone import ENCODERS
from src.models.openai_clip import OpenAIClip
from src.models.openai_clip import small_clip as random_clip
from src.models.weights import read_weights
from src.pictures.cache import ImageCache
from src.pictures.pictures import Pictures
from src.pictures.transforms import make_transform
from src.processes.each import each_in_workers
from tests.support.commands import COMBINER
from tests.support.odd_pictures import write_taken
from tests.support.splits import read_cirr
from utils import Encoder, autocast, extract_caption_features, extract_index_features

STAGE_1 = ["--dataset", "CIRR", "--num-epochs", "2", "--batch-size", "16", "--learning-rate", "1e-3"]
STAGE_2 = ["--num-epochs", "2", "--batch-size", "16", *COMBINER]
SAVED = ["--save-training", "--save-best"]


@pytest.fixture
def own_world(world, tmp_path):
    """Copy the toy world, to change its pictures."""
    return shutil.copytree(world, tmp_path / "world")


def gallery_of(folder, transform="targetpad", ratio=1.25, dim=64):
    return Pictures(read_cirr(folder, "val").pictures, make_transform(transform, ratio, dim))


@pytest.fixture
def encoded(small_clip, monkeypatch):
    """Return a function that tells how many pictures and captions a CLIP encoded since the last call."""
    clip_class = type(small_clip.model)
    counts = {"encode_image": 0, "encode_text": 0}

    def counting(name, encode):
        def counted(self, batch):
            counts[name] += len(batch)
            return encode(self, batch)

        return counted

    for name in counts:
        monkeypatch.setattr(clip_class, name, counting(name, getattr(clip_class, name)))

    def since_last():
        seen = tuple(counts.values())
        counts.update(dict.fromkeys(counts, 0))
        return seen

    return since_last


# ---- features ----


def test_cached_features_are_those_of_extraction(world, small_clip, tmp_path, encoded):
    gallery, captions = gallery_of(world), ["blue", "a red dress, but sleeveless", "blue"]
    plain = extract_index_features(gallery, small_clip)[0], extract_caption_features(captions, small_clip)
    encoded()
    for expected in ((30, 2), (0, 0)):
        encoder = Encoder(small_clip, ENCODERS, tmp_path)
        ours = encoder.pictures(gallery), encoder.captions(captions)
        for features, extracted in zip(ours, plain, strict=True):
            torch.testing.assert_close(features, extracted, rtol=0, atol=1e-5)
        assert encoded() == expected


def test_only_a_changed_picture_is_encoded_again(own_world, small_clip, tmp_path, encoded):
    gallery = gallery_of(own_world)
    before = Encoder(small_clip, ENCODERS, tmp_path / "cache").pictures(gallery)
    encoded()
    PIL.Image.new("RGB", (70, 50), "red").save(gallery.paths[gallery.names[7]], "PNG")
    after = Encoder(small_clip, ENCODERS, tmp_path / "cache").pictures(gallery)
    assert encoded() == (1, 0)
    assert (before != after).any(dim=1).nonzero().flatten().tolist() == [7]
    torch.testing.assert_close(after, extract_index_features(gallery, small_clip)[0], rtol=0, atol=1e-5)


def test_what_was_encoded_before_an_interruption_is_kept(world, small_clip, tmp_path, encoded, monkeypatch):
    gallery = gallery_of(world)
    open_picture = gallery.images

    def interrupted(numbers):
        if numbers[0] >= 20:
            raise KeyboardInterrupt
        return open_picture(numbers)

    monkeypatch.setattr(gallery, "images", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Encoder(small_clip, ENCODERS, tmp_path, batch_size=4).pictures(gallery)
    assert encoded() == (20, 0)
    monkeypatch.setattr(gallery, "images", open_picture)
    features = Encoder(small_clip, ENCODERS, tmp_path, batch_size=4).pictures(gallery)
    assert encoded() == (10, 0)
    torch.testing.assert_close(features, extract_index_features(gallery, small_clip)[0], rtol=0, atol=1e-5)


def test_everything_that_features_depend_on_is_told_apart(world, small_clip, tmp_path, encoded, device):
    def pictures(clip_model=small_clip, precision="fp32", **transform):
        with autocast(precision):
            Encoder(clip_model, ENCODERS, tmp_path).pictures(gallery_of(world, **transform))
        return encoded()[0]

    other_tower, other_text = (OpenAIClip(random_clip()).to(device) for _ in range(2))
    for backbone in (other_tower, other_text):
        backbone.model.load_state_dict(small_clip.model.state_dict())
    with torch.no_grad():
        other_tower.model.visual.proj[3, 3] += 1e-6
        other_text.model.text_projection[3, 3] += 1e-6

    assert pictures() == 30
    assert pictures(transform="squarepad") == pictures(transform="clip") == pictures(ratio=1.5) == 30
    assert pictures(precision="bf16") == 30
    assert pictures(other_tower) == 30
    assert pictures() == pictures(ratio=1.5) == pictures(precision="bf16") == pictures(other_tower) == 0
    assert pictures(other_text) == 0, "pictures do not depend on the text encoder"
    for clip_model, captions in ((small_clip, 1), (other_text, 1), (other_tower, 0)):
        Encoder(clip_model, ENCODERS, tmp_path).captions(["red"])
        assert encoded()[1] == captions


def test_a_learning_encoder_is_never_cached(world, small_clip, tmp_path, encoded):
    encoder = Encoder(small_clip, ("image",), tmp_path)
    for expected in ((30, 1), (0, 1)):
        encoder.pictures(gallery_of(world))
        encoder.captions(["red"])
        assert encoded() == expected


@pytest.mark.parametrize("dataset", ["CIRR", "FashionIQ"])
def test_the_next_command_encodes_nothing(dataset, options, tmp_path, run_folder, encoded, capsys):
    combiner_train.main(["--dataset", dataset, *STAGE_2, *SAVED, *options])
    first = run_folder() / "train_metrics.csv"
    losses = first.read_text()
    assert min(encoded()) > 0
    shutil.rmtree(run_folder())
    combiner_train.main(["--dataset", dataset, *STAGE_2, *SAVED, *options])
    assert encoded() == (0, 0)
    assert (run_folder() / "train_metrics.csv").read_text() == losses

    capsys.readouterr()
    combiner = next(run_folder().glob("saved_models/*.pt"))
    judged = ["--dataset", dataset, *options, "--combiner-path", str(combiner), *COMBINER]
    validate.main(judged)
    assert encoded() == (0, 0)
    cached = capsys.readouterr().out
    validate.main([*judged, "--no-feature-cache"])
    assert min(encoded()) > 0
    assert capsys.readouterr().out == cached


def test_where_features_are_kept(options, tmp_path, world):
    validate.main(["--dataset", "CIRR", *options, "--no-feature-cache"])
    assert not (tmp_path / "features").exists()
    validate.main(["--dataset", "CIRR", *options])
    validate.main(["--dataset", "CIRR", *options, "--feature-cache", str(tmp_path / "elsewhere")])
    here, there = (
        sorted(path.relative_to(tmp_path / name) for path in (tmp_path / name).rglob("*"))
        for name in ("features", "elsewhere")
    )
    assert here == there
    keys = [json.loads(path.read_text())["keys"] for path in (tmp_path / "features").rglob("*.json")]
    captions, pictures = sorted(map(len, keys))
    assert captions <= 24
    assert pictures == 30
    assert all(str(world) in key for key in max(keys, key=len))


def test_a_frozen_image_encoder_sees_each_picture_once(options, encoded):
    clip_fine_tune.main([*STAGE_1, "--encoder", "text", *options])
    pictures, _ = encoded()
    assert pictures <= 40 + 30
    clip_fine_tune.main([*STAGE_1, "--encoder", "text", *options])
    assert encoded()[0] == 0


# ---- pictures ----


@pytest.mark.parametrize("transform", [("clip", 1.25), ("squarepad", 1.25), ("targetpad", 1.25), ("targetpad", 2.0)])
def test_cached_pictures_are_the_same_to_the_bit(transform, world, tmp_path):
    """Odd ones too: palette, grey, alpha, CMYK, 16-bit, animated and extreme pictures."""
    preprocess = make_transform(*transform, 48)
    files = write_taken(tmp_path) | read_cirr(world, "val").pictures
    uncached = Pictures(files, preprocess)
    cache = ImageCache(tmp_path / "cache", preprocess)
    cache.fill(list(files.values()), num_workers=0)
    cached = Pictures(files, preprocess, cache)
    for number, name in enumerate(files):
        assert cached[number][0] == uncached[number][0]
        assert torch.equal(cached[number][1], uncached[number][1]), name
        assert cached[number][1].dtype == torch.float32
    assert torch.equal(cached.images([3, 0, 3]), uncached.images([3, 0, 3]))


@pytest.mark.parametrize(("dataset", "workers"), [("CIRR", "2"), ("FashionIQ", "0")])
@pytest.mark.workers
def test_training_from_the_image_cache_is_the_same_to_the_bit(dataset, workers, options, tmp_path, capsys):
    results = []
    for name, cache in (("without", []), ("with", ["--image-cache", str(tmp_path / "images")])):
        output = ["--output-path", str(tmp_path / name), "--num-workers", workers]
        clip_fine_tune.main([*STAGE_1, "--dataset", dataset, *SAVED, *options, *output, *cache])
        (folder,) = (tmp_path / name / "models").iterdir()
        csvs = [(folder / f"{table}_metrics.csv").read_text() for table in ("train", "validation")]
        results.append((csvs, read_weights(next(folder.glob("saved_models/*.pt")), "CLIP")))
    (csvs, weights), (same_csvs, same_weights) = results
    assert csvs == same_csvs
    assert all(torch.equal(weights[key], same_weights[key]) for key in weights)
    assert "decoding once, 0.00 GB for 70 pictures" in capsys.readouterr().out


def cached_gallery(folder, tmp_path):
    """Return the gallery behind an image cache that has all of it."""
    plain = gallery_of(folder)
    cache = ImageCache(tmp_path / "cache", plain.preprocess)
    cache.fill(list(plain.paths.values()), num_workers=0)
    return Pictures(plain.paths, plain.preprocess, cache)


def test_a_picture_is_decoded_once(own_world, tmp_path, monkeypatch, capsys):
    opened = []
    original = PIL.Image.open

    def noting(file, **how):
        opened.append(Path(file.raw.name))
        return original(file, **how)

    monkeypatch.setattr(PIL.Image, "open", noting)
    for expected in (30, 0):
        opened.clear()
        cached_gallery(own_world, tmp_path).images([0, 5])
        assert len(opened) == expected
    assert len(capsys.readouterr().out.splitlines()) == 1

    changed = list(gallery_of(own_world).paths.values())[4]
    PIL.Image.new("RGB", (70, 50), "red").save(changed, "PNG")
    opened.clear()
    gallery = cached_gallery(own_world, tmp_path)
    assert opened == [changed]
    assert torch.equal(gallery.images([4, 3]), gallery_of(own_world).images([4, 3]))


def image_of(gallery, number):
    return gallery.images([number])[0]


@pytest.mark.workers
@pytest.mark.parametrize("workers", [0, 1])
def test_flipped_pixels_are_decoded_again(workers, own_world, tmp_path, capfd):
    cached_gallery(own_world, tmp_path)
    (rows_path,) = (tmp_path / "cache").rglob("*.npy")
    content = bytearray(rows_path.read_bytes())
    content[-64 * 64 * 3 * 2 - 5] ^= 0x40  # in the last picture but two
    rows_path.write_bytes(content)
    gallery, plain = cached_gallery(own_world, tmp_path), gallery_of(own_world)
    batches = each_in_workers(partial(image_of, gallery), range(30), workers, "")
    assert torch.equal(torch.cat(list(batches)), plain.images(range(30)))
    if workers == 0 or multiprocessing.get_start_method() == "fork":  # a fork server has kept the stderr of its start
        assert capfd.readouterr().err.count(f"{rows_path}: holds rows that are torn") == 1


def test_a_disk_without_space_is_refused_beforehand(world, tmp_path, monkeypatch):
    gallery = gallery_of(world, dim=64)
    free = shutil.disk_usage(tmp_path)._replace(free=30 * 64 * 64 * 3 - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: free)
    with pytest.raises(InputError, match=r"--image-cache .*: needs 0.00 GB for 30 pictures, its disk has 0.00 GB free"):
        ImageCache(tmp_path / "cache", gallery.preprocess).fill(list(gallery.paths.values()), num_workers=0)
    assert list((tmp_path / "cache").rglob("*.npy")) == []
