"""The page of a run: right numbers, whole in one file, and shown by a real browser."""

import base64
import io
import re
import shutil
import subprocess

import PIL.Image
import pytest

import clip_fine_tune
import combiner_train
import report
from src.retrieval.metrics import chance
from src.tasks.registry import TASKS
from src.tasks.triplets import Triplet
from tests.commands import COMBINER, status_of, toy_options
from tests.processes import PATIENCE


@pytest.fixture(scope="module", params=["CIRR", "FashionIQ"])
def finished(request, world, tmp_path_factory):
    """Train both stages for two epochs; return the name of their data set and their run folders."""
    output = tmp_path_factory.mktemp("runs")
    options = ["--dataset", request.param, *toy_options(world, output), "--num-epochs", "2", "--batch-size", "16"]
    options += ["--validation-frequency", "1", "--save-training", "--save-best"]
    clip_fine_tune.main([*options, "--learning-rate", "1e-3"])
    (stage_1,) = (output / "models").iterdir()
    (tuned_clip, *_) = sorted((stage_1 / "saved_models").iterdir())
    combiner_train.main([*options, "--clip-model-path", str(tuned_clip), *COMBINER])
    (stage_2,) = (output / "models").glob("combiner_*")
    return request.param, stage_1, stage_2


def make_page(folder, capsys):
    """Return the ladder that report.py prints, as {rung: numbers}, and its page."""
    capsys.readouterr()
    report.main(["--run-folder", str(folder), "--num-workers", "0"])
    *ladder, path = capsys.readouterr().out.splitlines()
    assert path == str(folder / "report.html")
    rows = [re.split(r"\s{2,}", line.strip()) for line in ladder]
    return {row[0]: [float(cell) for cell in row[1:]] for row in rows[1:]}, (folder / "report.html").read_text()


def test_the_ladder_of_both_stages(finished, capsys):
    dataset, _, stage_2 = finished
    ladder, page = make_page(stage_2, capsys)
    assert list(ladder) == [
        "chance",
        "CLIP before training, sum",
        "tuned CLIP, caption alone",
        "tuned CLIP, picture alone",
        "tuned CLIP, sum of both",
        "Combiner",
    ]
    if dataset == "CIRR":
        assert ladder["chance"] == [3.45, 17.24, 34.48, 20.0]  # 1, 5 and 10 of 29 pictures, 1 of 5
    for name, recalls in ladder.items():
        assert f"<td>{name}</td>" + "".join(f"<td>{recall:.2f}</td>" for recall in recalls) in page
    assert page.count("<svg") == 1
    assert "stage 1, CLIP" in page
    assert "stage 2, Combiner" in page


def test_a_run_of_stage_1_has_a_page_too(finished, capsys):
    ladder, page = make_page(finished[1], capsys)
    assert list(ladder)[-1] == "tuned CLIP, sum of both"
    assert "stage 2" not in page


def test_the_page_needs_nothing_but_itself(finished, capsys):
    _, page = make_page(finished[2], capsys)
    assert "<script" not in page
    sources = re.findall(r'\b(?:src|href)="([^"]*)"', page)
    assert all(source.startswith(("data:image/jpeg;base64,", "#")) for source in sources)
    pictures = [source.partition(",")[2] for source in sources if source.startswith("data:")]
    for data in pictures:
        PIL.Image.open(io.BytesIO(base64.b64decode(data))).load()
    queries = page.count('<div class="query">')
    assert queries > 3
    assert queries * (1 + report.ANSWERS) <= len(pictures) <= queries * (2 + report.ANSWERS)


def test_targets_are_framed(finished, capsys):
    _, page = make_page(finished[2], capsys)
    for row in page.split('<div class="query">')[1:]:
        rank = int(re.search(r"target ranked (\d+) of", row)[1])
        framed = [' class="target"' in answer for answer in row.split("<img")[2:]]
        shown = min(rank, report.ANSWERS + 1)  # a target that is not among the answers stands behind them
        assert framed == [number == shown for number in range(1, max(shown, report.ANSWERS) + 1)]


def test_a_real_browser_shows_the_page(finished, capsys, tmp_path):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("needs Chromium")
    make_page(finished[2], capsys)
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
    size = ["--window-size=1280,800", f"--user-data-dir={tmp_path}", f"--screenshot={tmp_path / 'page.png'}"]
    address = (finished[2] / "report.html").as_uri()
    subprocess.run([browser, *flags, *size, address], check=True, capture_output=True, timeout=PATIENCE)
    with PIL.Image.open(tmp_path / "page.png") as screen:
        assert screen.size == (1280, 800)
        assert len(screen.convert("RGB").getcolors(2**24)) > 20  # text, curves


def test_a_run_without_weights(tmp_path, capsys):
    options = '{"dataset": "CIRR", "combiner_lr": 1}'
    (tmp_path / "training_hyperparameters.json").write_text(options)
    (tmp_path / "empty").mkdir()
    for folder, fault in (
        (tmp_path, "has no weights"),
        (tmp_path / "empty", "empty: not a run folder, it has no training_hyperparameters.json"),
        (tmp_path / "nowhere", f"error: {tmp_path}/nowhere: no such folder, where a run is expected"),
    ):
        assert status_of(report.main, ["--run-folder", folder]) == 2
        assert fault in capsys.readouterr().err


def test_chance_is_no_more_than_certain():
    triplets = [Triplet("a", ("red",), ("b",), tuple("abcdef"))]
    assert max(chance(triplets, 12, TASKS["CIRR"].protocol()).values()) == 100
    assert chance(triplets, 100, TASKS["FashionIQ"].protocol()) == {"recall_at10": 10, "recall_at50": 50}
