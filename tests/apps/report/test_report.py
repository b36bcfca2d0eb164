"""The page of a run: right numbers, whole in one file, and shown by a real browser."""

import base64
import io
import json
import re
import shutil
import subprocess

import PIL.Image
import pytest

import clip_fine_tune
import combiner_train
import report
from src.apps.pages.kit import TEMPLATES
from src.apps.report import queries
from src.retrieval.metrics import chance
from src.tasks.registry import TASKS
from src.tasks.triplets import Triplet
from tests.support.commands import COMBINER, status_of, toy_options
from tests.support.processes import PATIENCE


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
    """Return the ladder that report.py prints, as {rung: cells}, and its page."""
    capsys.readouterr()
    report.main(["--run-folder", str(folder), "--num-workers", "0"])
    *ladder, path = capsys.readouterr().out.splitlines()
    assert path == str(folder / "report.html")
    rows = [re.split(r"\s{2,}", line.strip()) for line in ladder]
    return {row[0]: row[1:] for row in rows[1:]}, (folder / "report.html").read_text()


def test_the_ladder_of_both_stages(finished, capsys):
    dataset, _, stage_2 = finished
    ladder, page = make_page(stage_2, capsys)
    assert list(ladder) == [
        "chance",
        "CLIP before training, sum",
        "tuned CLIP, caption only",
        "tuned CLIP, picture only",
        "tuned CLIP, sum of both",
        "Combiner",
    ]
    if dataset == "CIRR":
        assert ladder["chance"] == ["3.45", "17.24", "34.48", "20.00"]  # 1, 5 and 10 of 29 pictures, 1 of 5
    for name, cells in ladder.items():
        assert f"<td>{name}</td>" + "".join(f"<td>{cell}</td>" for cell in cells) in page
        for cell in cells if name != "chance" else []:
            recall, low, high = map(float, re.fullmatch(r"([\d.]+) \(([\d.]+)–([\d.]+)\)", cell).groups())
            assert low - 0.05 <= recall <= high + 0.05
    assert page.count("<svg") == 1
    assert "stage 1, CLIP" in page
    assert "stage 2, Combiner" in page


def test_a_run_of_stage_1_has_a_page_too(finished, capsys):
    ladder, page = make_page(finished[1], capsys)
    assert list(ladder)[-1] == "tuned CLIP, sum of both"
    assert "stage 2" not in page


def test_the_page_needs_nothing_but_itself(finished, capsys):
    _, page = make_page(finished[2], capsys)
    for script in re.findall(r"<script.*?</script>", page, re.DOTALL):
        assert "src=" not in script
        assert "http" not in script
    sources = re.findall(r'\b(?:src|href)="([^"]*)"', page)
    assert all(source.startswith(("data:image/jpeg;base64,", "#")) for source in sources)
    pictures = [source.partition(",")[2] for source in sources if source.startswith("data:")]
    for data in pictures:
        PIL.Image.open(io.BytesIO(base64.b64decode(data))).load()
    rows = page.count('<div class="query">')
    assert rows > 3
    assert rows * (1 + queries.ANSWERS) <= len(pictures) <= rows * (2 + queries.ANSWERS)


def test_targets_are_framed(finished, capsys):
    _, page = make_page(finished[2], capsys)
    for row in page.split('<div class="query">')[1:]:
        rank = int(re.search(r"target ranked (\d+) of", row)[1])
        framed = [' class="target"' in answer for answer in row.split("<img")[2:]]
        shown = min(rank, queries.ANSWERS + 1)  # a target that is not among the answers stands behind them
        assert framed == [number == shown for number in range(1, max(shown, queries.ANSWERS) + 1)]


def browse(address, folder, *flags):
    """Open an address in a real browser; return what this prints."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("needs Chromium")
    quiet = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
    command = [browser, *quiet, "--window-size=1280,800", f"--user-data-dir={folder / 'profile'}", *flags, address]
    return subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE).stdout.decode()


def test_a_real_browser_shows_the_page(finished, capsys, tmp_path):
    make_page(finished[2], capsys)
    browse((finished[2] / "report.html").as_uri(), tmp_path, f"--screenshot={tmp_path / 'page.png'}")
    with PIL.Image.open(tmp_path / "page.png") as screen:
        assert screen.size == (1280, 800)
        assert len(screen.convert("RGB").getcolors(2**24)) > 20  # text, curves


def test_filters_of_the_list(finished, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(queries, "MOST", 5)
    _, page = make_page(finished[2], capsys)
    rows = listed(page)
    word = rows[0][2].split()[-1].upper()
    for filters, expected in {
        "": rows,
        f"text={word}": [row for row in rows if word.lower() in row[2].lower()],
        "from=2&to=9": [row for row in rows if 2 <= row[5] <= 9],
        "alone=on": [row for row in rows if not (row[7] or row[8])],
        "of=shirt&from=2": [row for row in rows if (row[1] == "shirt" or finished[0] == "CIRR") and row[5] >= 2],
    }.items():
        shown = browse(f"{(finished[2] / 'report.html').as_uri()}#{filters}", tmp_path, "--dump-dom")
        assert f"{len(expected)} of {len(rows)} queries match" in shown
        (table,) = re.findall(r'<table id="list">.*?</table>', shown, re.DOTALL)
        assert table.count("<tr>") == 1 + min(5, len(expected))
        assert ("the first 5 are shown" in shown.partition('id="matching"')[2][:80]) == (len(expected) > 5)


def listed(page):
    """Return the rows of the page's list of all queries."""
    (data,) = re.findall(r'<script type="application/json" id="rows">(.*?)</script>', page, re.DOTALL)
    return json.loads(data)["rows"]


def test_the_page_counts_its_misses(finished, capsys):
    dataset, _, stage_2 = finished
    _, page = make_page(stage_2, capsys)
    rows, first = listed(page), {"CIRR": 1, "FashionIQ": 10}[dataset]
    assert "protocol clip4cir" in page
    assert f"missed at {first}, %" in page
    assert ("<th>category</th>" in page) == (dataset == "FashionIQ")
    for _, _, caption, reference, target, rank, group_rank, *solved in rows:
        assert caption and reference != target
        assert (group_rank is None) == (dataset == "FashionIQ")
        assert (rank <= first) == bool(solved[-1])  # the Combiner's own
    # The worst first, and no query that is right.
    worst = page[page.index("<h2>Worst misses") : page.index("<h2>Queries")]
    ranks = [int(rank) for rank in re.findall(r"target ranked (\d+) of", worst)]
    assert ranks == sorted((row[5] for row in rows if row[5] > 1), reverse=True)[: queries.WORST]


def test_misses_by_hand():
    captions = "is red and has dots, but no belt", "with a white belt", "make it bandy; also longer.", ""
    assert [queries.changes(caption) for caption in captions] == [3, 1, 2, 1]
    assert queries.grouped([0, 1, 5, 6, 10, 15, 16, 99], queries.WORDS) == [
        *("1–5", "1–5", "1–5", "6–10", "6–10", "11–15", "16 or more", "16 or more")
    ]
    assert queries.missed_by(["a", "b", "a", "a"], [True, False, False, True]) == {"a": (3, 200 / 3), "b": (1, 0)}
    histogram = [("1", 2), ("2–5", 1), ("6–10", 0), ("11–50", 1), ("51–100", 0), ("101–500", 1), ("501 or more", 1)]
    assert queries.rank_histogram([1, 1, 5, 11, 500, 501], last=2297) == histogram
    assert queries.rank_histogram([1, 7], last=10) == [("1", 1), ("2–5", 0), ("6–10", 1)]


def test_no_caption_ends_the_script():
    rows = ["</script><script>alert(1)</script><!--", "\u2028é"]
    text = TEMPLATES.from_string("{{ rows | tojson }}").render(rows=rows)
    assert "<" not in text
    assert json.loads(text) == rows


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
