"""Searching one's own pictures: the same ranks as validate.py's, an index on disk, and what cannot be asked."""

import contextlib
import csv
import io
import json
import os
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import search
import validate
from combiner import load_combined
from src.base.errors import InputError
from src.base.files import PROJECT_ROOT
from src.base.locks import owning
from src.command.flags import FEATURES, RetrieverOptions
from src.retrieval.gallery import Gallery
from src.retrieval.picture_folder import collect
from src.retrieval.searcher import Question, Searcher
from src.tasks.own import OwnTriplets
from tests.support.browsers import DESK, PHONE, chromium, data_of, opened, require_pictures
from tests.support.commands import status_of, toy_options
from utils import load_clip


@pytest.fixture
def folder(world, tmp_path):
    """Copy the toy world's own pictures, and make their gallery every one of them."""
    shutil.copytree(world / "my_pictures", tmp_path / "my pictures")
    (tmp_path / "my pictures" / "gallery.val.txt").unlink()
    return tmp_path / "my pictures"


@pytest.fixture
def asked(world, tmp_path, capsys):
    """Return a function that runs search.py and gives its answers as plain values."""

    def ask(*arguments, folder=None):
        where = [] if folder is None else ["--pictures", folder]
        paths = ["--output-path", tmp_path, "--clip-model-name", world / "small_clip.pt", "--num-workers", "0"]
        search.main([str(part) for part in (*where, *arguments, *paths, "--json", tmp_path / "found.json")])
        return json.loads((tmp_path / "found.json").read_text())

    return ask


def names(answers):
    return [answer["name"] for answer in answers]


@pytest.mark.parametrize("function", ["sum", "cosines", "product", "image", "text"])
def test_ranks_are_those_of_validation(function, folder, asked, world, tmp_path):
    (val,) = OwnTriplets.in_folder(folder).read_all(folder, "val").values()
    with (tmp_path / "q.csv").open("w", newline="") as file:
        rows = [(triplet.reference, triplet.captions[0], triplet.id) for triplet in val.triplets]
        csv.writer(file).writerows([("reference", "caption", "id"), *rows])
    options = ["--combining-function", function]
    found = asked("--queries", tmp_path / "q.csv", "-k", "50", *options, folder=folder)
    validate.main(
        ["--dataset", str(folder), "--per-query", str(tmp_path / "p.csv"), *options, *toy_options(world, tmp_path)]
    )
    assert len(found) == len(val.triplets)
    assert_ranks_agree(found, tmp_path / "p.csv")


def assert_ranks_agree(found, per_query, name=str):
    """Compare answers of search.py with validate.py's file; `name` makes a picture's name of a path."""
    with per_query.open(newline="") as file:
        judged = {row["query"]: row for row in csv.DictReader(file)}
    assert len(found) == len(judged)
    for of in found:
        row, answers = judged[of["query"]], [name(answer) for answer in names(of["answers"])]
        assert answers.index(row["target"]) + 1 == int(row["rank"])
        assert answers[:10] == row["answers"].split("|")


@pytest.mark.parametrize("function", ["sum", "combiner"])
def test_ranks_on_real_pictures_are_those_of_validation(function, shared, tmp_path):
    """The gallery is the same folder, the reference leaves it. None of its pictures is there twice."""
    data, golden = shared / "data" / "emoji_cir", shared / "golden"
    triplets = json.loads((data / "cirr_dataset" / "cirr" / "captions" / "cap.rc2.val.json").read_text())
    with (tmp_path / "q.csv").open("w", newline="") as file:
        rows = [(f"{triplet['reference']}.png", triplet["caption"], triplet["pairid"]) for triplet in triplets]
        csv.writer(file).writerows([("reference", "caption", "id"), *rows])
    options = ["--clip-model-name", golden / "tiny_clip.pt", "--clip-model-path", golden / "tuned_clip.pt"]
    options += ["--combiner-path", golden / "combiner.pt"] if function == "combiner" else []
    options += ["--output-path", tmp_path, "--num-workers", "0"]
    pictures = ["--pictures", data / "cirr_dataset" / "dev", "--queries", tmp_path / "q.csv", "-k", "248"]
    judged = ["--dataset", "CIRR", "--data-path", data, "--per-query", tmp_path / "p.csv"]
    search.main([str(part) for part in (*pictures, "--json", tmp_path / "found.json", *options)])
    validate.main([str(part) for part in (*judged, *options)])
    found = json.loads((tmp_path / "found.json").read_text())
    assert len(found) == 1984
    assert_ranks_agree(found, tmp_path / "p.csv", lambda path: path.removesuffix(".png"))


def test_an_index_answers_alike_without_the_pictures(folder, asked, tmp_path):
    question = ["--reference", folder / sorted(folder.glob("*/*.png"))[0].relative_to(folder), "--caption", "in blue"]
    (whole,) = asked(*question, "--index", tmp_path / "index", folder=folder)
    meta = json.loads((tmp_path / "index" / "meta.json").read_text())
    assert np.load(tmp_path / "index" / meta["features"]).dtype == np.float32
    listed, *_ = map(json.loads, (tmp_path / "index" / meta["items"]).read_text().splitlines())
    assert len(listed["name"]) == meta["pictures"] == len(list(folder.glob("*/*.png")))
    (alone,) = asked(*question, "--index", tmp_path / "index")
    assert names(alone["answers"]) == names(whole["answers"])
    shutil.rmtree(folder)
    (text,) = asked("--caption", "a red dress", "--index", tmp_path / "index")
    assert len(text["answers"]) == 10


def test_half_the_space(folder, asked, tmp_path):
    (of,) = asked("--caption", "red", "--index", tmp_path / "half", "--half", folder=folder)
    (features,) = (tmp_path / "half").glob("features.*.npy")
    assert np.load(features).dtype == np.float16
    (half,) = asked("--caption", "red", "--index", tmp_path / "half")
    for first, second in zip(of["answers"], half["answers"], strict=True):
        assert first["score"] == pytest.approx(second["score"], abs=1e-3)


def test_an_index_says_what_changed_and_is_written_by_one(folder, forks, world, tmp_path):
    """By processes, a second of which is refused before it encodes anything."""
    options = ["--pictures", folder, "--index", tmp_path / "index", "--clip-model-name", world / "small_clip.pt"]
    options += ["--output-path", tmp_path, "--num-workers", "0"]
    with owning_folder(tmp_path / "index"):
        assert forks.run("search", options) == 2
    assert forks.said().splitlines()[-1] == (
        f"error: {tmp_path / 'index'}: another process works on this index; it has to end first"
    )
    assert not (tmp_path / "features").exists()

    paths = sorted(folder.glob("*/*.png"))
    assert forks.run("search", options) == 0
    assert f"pictures: {len(paths)} added, 0 changed, 0 kept, 0 removed" in forks.said()
    paths[0].unlink()
    shutil.copy(paths[2], paths[1])
    assert forks.run("search", options) == 0
    assert f"pictures: 0 added, 1 changed, {len(paths) - 2} kept, 1 removed" in forks.said()
    for path in paths[3:]:
        path.unlink()
    assert forks.run("search", options) == 2
    assert "pictures are gone or cannot be read; name the folder that has them, or remove them" in forks.said()
    assert forks.run("search", [*options, "--remove-missing"]) == 0
    assert f"pictures: 0 added, 0 changed, 2 kept, {len(paths) - 3} removed" in forks.said()


@contextlib.contextmanager
def owning_folder(folder):
    folder.mkdir()
    with owning(folder):
        yield


def test_names_that_some_programs_end_a_line_in(folder, asked, tmp_path):
    Image.new("RGB", (40, 50), "red").save(folder / "a\u2028b.png")
    (whole,) = asked("--caption", "red", "-k", "50", "--index", tmp_path / "index", folder=folder)
    (alone,) = asked("--caption", "red", "-k", "50", "--index", tmp_path / "index")
    assert names(alone["answers"]) == names(whole["answers"])
    assert "a\u2028b.png" in names(alone["answers"])


def test_a_name_that_is_no_text(folder, asked, tmp_path, capsys):
    Image.new("RGB", (40, 50), "red").save(os.fsdecode(os.fsencode(folder) + b"/a\xff.png"))
    outputs = ["--csv", tmp_path / "a.csv", "--page", tmp_path / "a.html", "--index", tmp_path / "index"]
    (of,) = asked("--caption", "red", "-k", "50", *outputs, folder=folder)
    assert "a\udcff.png" in names(of["answers"])
    assert "a\\udcff.png" in capsys.readouterr().out
    assert "/a\\udcff.png\n" in (tmp_path / "a.csv").read_text(encoding="utf-8")
    assert "a\\udcff.png</figcaption>" in (tmp_path / "a.html").read_text(encoding="utf-8")
    (alone,) = asked("--reference", "a\udcff.png", "-k", "50", "--include-reference", "--index", tmp_path / "index")
    assert names(alone["answers"])[0] == "a\udcff.png"


def test_candidates_are_the_answers(folder, asked, tmp_path):
    picture, file = sorted(folder.glob("*/*.png"))[0], tmp_path / "candidates.jsonl"
    (of,) = asked("--reference", picture, "--caption", "red", "-k", "3", "--candidates", file, folder=folder)
    (line,) = map(json.loads, file.read_text().splitlines())
    assert line["reference"] == {"name": picture.relative_to(folder).as_posix(), "path": str(picture)}
    assert line["texts"] == ["red"]
    assert line["candidates"] == [{key: one[key] for key in ("name", "path", "score")} for one in of["answers"]]


def test_only_what_is_new_is_encoded(folder, asked, monkeypatch, world):
    clip_class, counts = type(load_clip(str(world / "small_clip.pt")).model), []
    encode = clip_class.encode_image
    monkeypatch.setattr(
        clip_class, "encode_image", lambda self, batch: (counts.append(len(batch)), encode(self, batch))[1]
    )
    number = len(list(folder.glob("*/*.png")))
    asked("--caption", "red", folder=folder)
    Image.new("RGB", (40, 50), "red").save(folder / "new.jpg")
    asked("--caption", "red", folder=folder)
    assert sum(counts) == number + 1


def test_the_reference_and_its_copies_are_left_out(folder, asked):
    picture = sorted(folder.glob("*/*.png"))[0]
    shutil.copy(picture, folder / "copy.png")
    name = picture.relative_to(folder).as_posix()
    (without,) = asked("--reference", picture, "-k", "50", folder=folder)
    assert not {name, "copy.png"} & set(names(without["answers"]))
    (included,) = asked("--reference", picture, "--include-reference", folder=folder)
    assert {name, "copy.png"} == set(names(included["answers"][:2]))
    (outside,) = asked("--reference", shutil.copy(picture, folder.parent / "x.png"), "-k", "50", folder=folder)
    assert names(outside["answers"]) == names(without["answers"])


def test_a_reference_may_be_a_picture_of_pil(folder, world):
    retriever = load_combined(RetrieverOptions(world / "small_clip.pt", feature_cache=None))
    gallery, _ = collect(retriever, folder)
    searcher, name = Searcher(retriever, gallery), gallery.names[0]
    with Image.open(folder / name) as picture:
        by_picture, of_both = searcher.ask_all([Question(picture), Question(picture, "in red")], len(gallery))
        (by_file,) = searcher.ask_all([Question(name, include_reference=True)], len(gallery))
        with_caption = searcher.ask(Question(name, "in red", include_reference=True), len(gallery))
    # It has no file, so the picture that it was opened from is an answer.
    assert by_picture[0].name == name
    for found, expected in ((by_picture, by_file), (of_both, with_caption)):
        assert len(found) == len(gallery)
        scores = {answer.name: answer.score for answer in expected}
        assert [answer.score for answer in found] == pytest.approx([scores[answer.name] for answer in found], abs=1e-5)
    with Image.open(folder / name) as closed:
        torn = (folder / name).read_bytes()[:200]
    for reference, fault in (
        (closed, "cannot be read as a picture"),
        (Image.open(io.BytesIO(torn)), "cannot be read as a picture"),
        (Image.new("RGB", (0, 5)), "it is 0 x 5 pixels"),
        (np.zeros((3, 4, 4)), "reference: a ndarray, expected a name, a path or a picture of PIL"),
    ):
        with pytest.raises(InputError, match=fault):
            searcher.ask(Question(reference))
    with pytest.raises(InputError, match="a gallery without a folder"):
        Searcher(retriever, Gallery(gallery.features, gallery.names))


def test_weights_move_from_the_picture_to_the_caption(folder, asked):
    reference = ["--reference", sorted(folder.glob("*/*.png"))[0]]
    (picture,) = asked(*reference, folder=folder)
    (text,) = asked("--caption", "a red dress", "--without", "a belt", folder=folder)
    both = [*reference, "--caption", "a red dress"]
    (first,) = asked(*both, "--caption-weight", "0", folder=folder)
    (last,) = asked(*both, "--caption-weight", "1", "--without", "a belt", "--include-reference", folder=folder)
    assert names(first["answers"]) == names(picture["answers"])
    assert names(last["answers"]) == names(text["answers"])
    lowest = text["answers"][3]["score"]
    (some,) = asked("--caption", "a red dress", "--without", "a belt", "--min-score", lowest - 1e-6, folder=folder)
    assert len(some["answers"]) == 4


def test_broken_pictures_are_listed_and_left_out(folder, asked, capsys, tmp_path):
    (folder / "broken.jpg").write_bytes(b"no picture")
    (folder / "empty.png").write_bytes(b"")
    (folder / "link.png").symlink_to(folder / "nowhere.png")
    asked("--caption", "red", "--page", tmp_path / "a.html", "--csv", tmp_path / "a.csv", folder=folder)
    said = capsys.readouterr()
    assert "3 of" in said.err
    unknown = "cannot identify image file the file"
    reasons = f"broken.jpg ({unknown}), empty.png ({unknown}: it is an empty file), link.png (No such file"
    assert f"pictures cannot be read and are left out: {reasons} or directory)\n" in said.err
    assert (tmp_path / "a.html").read_text().count("<figure>") == 10
    assert len((tmp_path / "a.csv").read_text().splitlines()) == 11


def test_the_page_holds_each_picture_once(folder, asked, tmp_path):
    names = [path.relative_to(folder) for path in sorted(folder.rglob("*.png"))[:12]]
    (tmp_path / "q.csv").write_text("reference,caption\n" + "".join(f"{name},in red\n" for name in names))
    asked("--queries", tmp_path / "q.csv", "-k", "9", "--page", tmp_path / "a.html", folder=folder)
    text = (tmp_path / "a.html").read_text()
    places = list(map(int, re.findall(r'data-picture="(\d+)"', text)))
    assert len(places) == 12 * 10
    assert len(data_of(text, "pictures")) == len(set(places)) < 60
    assert text.count("data:image/jpeg") == len(set(places))
    with chromium() as browser:
        for size in (DESK, PHONE):
            with opened(browser, (tmp_path / "a.html").as_uri(), size) as page:
                require_pictures(page)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("queries", [1, 3, 40])
def test_the_first_are_those_of_a_plain_sort(dtype, queries):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn((9000, 16), generator=generator)
    features[5000] = features[17]  # ties are in the gallery's order
    gallery = Gallery(features.clone(), [str(row) for row in range(9000)])
    gallery.normalise()
    gallery.features = gallery.features.to(dtype)
    predicted = torch.randn((1, queries, 16), generator=generator)
    predicted[0, 0] = features[17]
    excluded = [[3, 5001]] + [[]] * (queries - 1)
    rows, scores = gallery.nearest(predicted, 7, excluded)
    plain = torch.nn.functional.normalize(predicted[0]) @ gallery.features.float().T
    plain[0, [3, 5001]] = -torch.inf
    best = plain.sort(dim=1, descending=True, stable=True)
    torch.testing.assert_close(scores, best.values[:, :7])
    assert rows[0, :2].tolist() == [17, 5000]
    if dtype is torch.float32:
        torch.testing.assert_close(gallery.encoded([17]), features[[17]], rtol=1e-5, atol=1e-5)


def test_what_cannot_be_asked(folder, asked, world, tmp_path, capsys):
    (tmp_path / "none").mkdir()
    (tmp_path / "no.jpg").write_text("no picture")
    (tmp_path / "q.csv").write_text("reference,caption\n,red\nx.png,\ny.png,red\n")
    name = min((folder / "dress").iterdir()).relative_to(folder).with_suffix("")
    asked("--caption", "red", "--index", tmp_path / "index", folder=folder)
    shutil.copytree(tmp_path / "index", tmp_path / "torn")
    next((tmp_path / "torn").glob("items.*.jsonl")).write_text("{}\n")
    shutil.copytree(tmp_path / "index", tmp_path / "other")
    meta = json.loads((tmp_path / "other" / "meta.json").read_text())
    meta["depends_on"]["weights"] = "0" * 64
    (tmp_path / "other" / "meta.json").write_text(json.dumps(meta))
    capsys.readouterr()
    clip = ["--clip-model-name", world / "small_clip.pt", "--output-path", tmp_path, "--num-workers", "0"]
    for arguments, fault in [
        ([], "--pictures or --index is needed"),
        (["--index", tmp_path / "index"], "--reference, --caption or --queries is needed"),
        (["--index", tmp_path / "index", "--caption", "red", "--half"], "--half is for an --index that --pictures"),
        (["--pictures", folder, "--caption", "red", "--collection", "mine"], "--collection is for an --index that is"),
        (["--index", tmp_path / "index", "--caption", "red", "--collection", "mine"], "--collection is for an --index"),
        (["--index", "http://x", "--pictures", folder, "--half"], "--half is for an --index that --pictures"),
        (["--index", "http://x", "--caption", "red", "--remove-missing"], "--remove-missing is for an --index"),
        (["--index", "ftp://x", "--caption", "red"], "ftp://x: is not the address of a Qdrant server"),
        (["--qdrant", "http://x", "--caption", "red"], "unknown option --qdrant"),
        (["--index", "http://x", "--combining-function", "product", "--caption", "red"], "product cannot be"),
        (["--pictures", folder], "--reference, --caption or --queries is needed"),
        (["--index", tmp_path / "index", "--caption", "red", "--remove-missing"], "--remove-missing is for an --index"),
        (["--pictures", folder, "--caption", " "], "--caption: ' ' is empty"),
        (["--pictures", folder, "--caption", "red", "--caption-weight", "2"], "is not a number from 0 to 1"),
        (["--pictures", tmp_path / "nowhere", "--caption", "red"], "nowhere: no such folder"),
        (["--pictures", tmp_path / "none", "--caption", "red"], "none: holds no pictures"),
        (["--pictures", folder, "--reference", "gone.jpg"], "--reference gone.jpg: neither a file nor a picture of"),
        (["--pictures", folder, "--reference", f"{name}.jpg"], f"--reference {name}.jpg (there is {name}.png, with an"),
        (["--index", tmp_path / "index", "--reference", "gone.jpg"], "gone.jpg: neither a file nor a picture of"),
        (["--pictures", folder, "--queries", tmp_path / "q.csv"], "row 3: x.png, row 4: y.png: neither a file nor"),
        (["--pictures", tmp_path / "no.jpg", "--caption", "red"], "no.jpg: is a file, not a folder"),
        (["--pictures", folder, "--index", tmp_path / "other"], "an index of another CLIP or transform (weights: 000"),
        (["--pictures", folder, "--reference", tmp_path / "no.jpg"], "no.jpg: cannot be read as a picture"),
        (["--index", tmp_path / "none", "--caption", "red"], "none: is not an index"),
        (["--index", tmp_path / "torn", "--caption", "red"], ".jsonl: is not as it was written; --pictures FOLDER"),
        (["--index", tmp_path / "other", "--caption", "red"], "an index of another CLIP or transform (weights: 000"),
    ]:
        assert status_of(search.main, [*arguments, *clip]) == 2, arguments
        line = capsys.readouterr().err.splitlines()[-1]
        assert fault in line


def test_the_readmes_lines_of_python(folder, shared, tmp_path, monkeypatch, capsys):
    readme = (PROJECT_ROOT / "README.md").read_text(encoding="utf-8")
    (lines,) = re.findall("```python\n(.*?)```", readme, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    folder.rename("photos")
    min((tmp_path / "photos").glob("dress/*.png")).rename("photos/dress.jpg")
    for name in ("tuned_clip.pt", "combiner.pt"):
        (tmp_path / name).symlink_to(shared / "golden" / name)
    # Features go to the project's folder, which a test leaves as it was.
    defaults = [tmp_path / "kept" if value == FEATURES else value for value in RetrieverOptions.__new__.__defaults__]
    monkeypatch.setattr(RetrieverOptions.__new__, "__defaults__", tuple(defaults))
    exec(lines.replace("RN50x4", str(shared / "golden" / "tiny_clip.pt")), {})
    scores, paths = zip(*(line.split(" ", 1) for line in capsys.readouterr().out.splitlines()), strict=True)
    assert sorted(scores, reverse=True) == list(scores)
    assert len(paths) == 5
    assert all(path.startswith("photos/") for path in paths)
    assert list((tmp_path / "kept").rglob("*.npy"))
