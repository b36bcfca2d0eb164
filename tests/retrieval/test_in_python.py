"""What Python code gives and gets: strings for paths, features that are kept, lines about objects, types."""

import os
import re
import subprocess
import sys

import pytest
import torch

import search
import utils
from cirr_test_submission import generate_cirr_test_submissions
from combiner import Combiner, CombiningOptions, RetrieverOptions, load_combined, load_network
from data_utils import TASKS, CIRRDataset, FashionIQDataset, find_task, read_data, targetpad_transform
from src.base.files import PROJECT_ROOT
from src.retrieval.picture_folder import collect
from src.retrieval.searcher import Question, Searcher
from tests.support.own_folders import with_pictures


def test_paths_may_be_strings(world, small_clip, tmp_path):
    dimension = small_clip.dimension
    utils.save_model("tuned", 0, small_clip.model, str(tmp_path))
    utils.save_model("combiner", 0, Combiner(dimension, 4, 6), str(tmp_path))
    utils.require_writable(str(tmp_path))
    tuned, combiner = (tmp_path / "saved_models" / f"{name}.pt" for name in ("tuned", "combiner"))
    small, preprocess = world / "small_clip.pt", targetpad_transform(1.25, 64)
    answers = []
    for path in (str, lambda path: path):
        options = RetrieverOptions(path(small), path(tuned), feature_cache=path(tmp_path / "kept"))
        retriever = load_combined(options, CombiningOptions(combiner_path=path(combiner)))
        gallery, _ = collect(retriever, path(world / "my_pictures"))
        answers.append(Searcher(retriever, gallery).ask(Question(path(world / "my_pictures" / gallery.names[0]))))
        assert len(CIRRDataset("val", "classic", preprocess, path(world))) == 30
        assert len(FashionIQDataset("val", ["dress"], "classic", preprocess, path(world))) == 7
        assert find_task(path(world / "my_pictures")).path == world / "my_pictures"
        data = read_data(TASKS["CIRR"], path(world), "test1")
        assert load_network(path(combiner), utils.load_clip(path(small), path(tuned))).training is False
        written = generate_cirr_test_submissions(
            utils.element_wise_sum, "mine", small_clip, preprocess, path(world), path(tmp_path)
        )
        assert [file.parent for file in written] == [tmp_path / "submission" / "CIRR"] * 2
        one = retriever.pictures({"a": path(next(iter(data["test1"]["rc2"].pictures.values())))})
        assert retriever.gallery(one).names == ["a"]
    assert answers[0] == answers[1]
    assert answers[0]


def test_a_name_is_enough_and_features_are_kept_where_commands_keep_them(world, tmp_path, monkeypatch):
    small = str(world / "small_clip.pt")
    args = search.parse(["--pictures", str(tmp_path), "--caption", "red", "--clip-model-name", small])
    assert RetrieverOptions(small).feature_cache == utils.settings(args).retriever.feature_cache
    assert load_combined(RetrieverOptions(small)).combining_function is utils.element_wise_sum
    options = RetrieverOptions(small, feature_cache=str(tmp_path / "kept"))
    first, _ = collect(load_combined(options), with_pictures(tmp_path / "photos"))
    # Another process would find them as another retriever does.
    again = load_combined(options)
    monkeypatch.setattr(again.backbone, "encode_images", None)
    second, _ = collect(again, tmp_path / "photos")
    assert torch.equal(first.features, second.features)


def test_objects_say_in_a_line_what_they_are(world, tmp_path):
    retriever = load_combined(RetrieverOptions(str(world / "small_clip.pt"), feature_cache=None))
    gallery, _ = collect(retriever, with_pictures(tmp_path / "photos"))
    clip, pictures = (
        "OpenAIClip(64 pixels, 64 dimensions)",
        f"Gallery(7 pictures of {tmp_path / 'photos'}, 64 dimensions)",
    )
    for thing, line in (
        (retriever.backbone, clip),
        (retriever.encoder, f"Encoder({clip}, frozen: image and text, features in memory)"),
        (retriever, f"Retriever({clip}, element_wise_sum)"),
        (retriever.combining_by(Combiner(64, 4, 6).combine_features), f"Retriever({clip}, Combiner.combine_features)"),
        (gallery, pictures),
        (Searcher(retriever, gallery), f"Searcher(Retriever({clip}, element_wise_sum), {pictures})"),
    ):
        assert repr(thing) == line


MORE_LINES = """
import PIL.Image
from data_utils import CIRRDataset, targetpad_transform
from utils import Encoder, load_clip, load_retriever, save_model

clip_model = load_clip("RN50x4", "tuned_clip.pt")
encoder = Encoder(clip_model, ("image",), "features")
dataset = CIRRDataset("val", "classic", targetpad_transform(1.25, clip_model.resolution), "data")
save_model("tuned_clip", 1, clip_model.model, "models/mine")
load_retriever(RetrieverOptions("RN50x4", feature_cache="kept", image_cache="decoded"))
first = searcher.ask(Question(PIL.Image.open("dress.jpg"), "in red"))[0]
score: float = first.score
name: str = first.name
lost: dict[str, str] = unreadable.pictures
"""
"""What type checkers accept beside README's lines, whose names they use."""
# torch, and what is as large, takes half a minute to read.
MYPY_SETTINGS = """
[mypy]
follow_imports = silent
ignore_missing_imports = True
[mypy-torch.*,torchvision.*,numpy.*,pandas.*,comet_ml.*]
follow_imports = skip
"""


def test_a_type_checker_accepts_the_readmes_lines(tmp_path):
    pytest.importorskip("mypy", reason="needs mypy")
    readme = (PROJECT_ROOT / "README.md").read_text(encoding="utf-8")
    (lines,) = re.findall("```python\n(.*?)```", readme, re.DOTALL)
    (tmp_path / "lines.py").write_text(lines + MORE_LINES)
    (tmp_path / "wrong.py").write_text(lines + "gallery.names = 3\n")
    (tmp_path / "mypy.ini").write_text(MYPY_SETTINGS)
    command = [sys.executable, "-m", "mypy", "--config-file=mypy.ini", "--cache-dir=cache", "lines.py", "wrong.py"]
    environment = os.environ | {"MYPYPATH": str(PROJECT_ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert [line.split(":")[0] for line in done.stdout.splitlines() if ": error:" in line] == ["wrong.py"], done.stdout
