"""The page of a run: right numbers, whole in one file, and shown by a real browser."""

import base64
import io
import json
import re
from functools import partial

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
from tests.support.browsers import DESK, PHONE, data_of, opened, require_pictures
from tests.support.commands import COMBINER, status_of, toy_options


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
    rows = re.findall("<tr>.*?</tr>", page)
    table = [[re.sub("<.*?>", "", cell) for cell in re.findall("<td.*?</td>", row)] for row in rows]
    for name, cells in ladder.items():
        assert [name, *cells] in table, "the page has other numbers"
        for cell in cells if name != "chance" else []:
            recall, low, high = map(float, re.fullmatch(r"([\d.]+) \(([\d.]+)–([\d.]+)\)", cell).groups())
            assert low - 0.05 <= recall <= high + 0.05
    assert page.count("<svg") == 4
    assert "stage 1, CLIP" in page
    assert "stage 2, Combiner" in page


def test_a_run_of_stage_1_has_a_page_too(finished, capsys):
    ladder, page = make_page(finished[1], capsys)
    assert list(ladder)[-1] == "tuned CLIP, sum of both"
    assert "stage 2" not in page


def test_the_page_needs_nothing_but_itself(finished, capsys):
    _, page = make_page(finished[2], capsys)
    assert re.findall(r'\bsrc="|@import|url\((?!#)|<link', page) == []
    assert all(link.startswith("#") for link in re.findall(r'\bhref="([^"]*)"', page))
    for script in re.findall(r"<script>.*?</script>", page, re.DOTALL):
        assert "http" not in script
    pictures = data_of(page, "pictures")
    for _, source in pictures:
        assert source.startswith("data:image/jpeg;base64,")
        PIL.Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))).load()
    rows, places = page.count('<div class="query">'), list(map(int, re.findall(r'data-picture="(\d+)"', page)))
    assert rows > 3
    assert rows * (1 + queries.ANSWERS) <= len(places) <= rows * (2 + queries.ANSWERS)
    # Each picture stands there once, however often it is shown.
    drawn = [number for three in data_of(page, "rows")["drawn"] for numbers in three for number in numbers]
    assert {*drawn, *places} == set(range(len(pictures)))
    assert len(drawn) > 2 * len(pictures)


def test_targets_are_framed(finished, capsys):
    _, page = make_page(finished[2], capsys)
    for row in page.replace("</section>", '<div class="query">').split('<div class="query">'):
        if "target ranked" not in row:
            continue
        rank = int(re.search(r"target ranked (\d+) of", row)[1])
        framed = [' class="target"' in answer for answer in row.split("<figure")[2:]]
        shown = min(rank, queries.ANSWERS + 1)  # a target that is not among the answers stands after them
        assert framed == [number == shown for number in range(1, max(shown, queries.ANSWERS) + 1)]
        label = "target" if shown > queries.ANSWERS else f"{rank}. target"
        assert f"<figcaption>{label}</figcaption>" in row
        assert row.count("<figcaption>reference</figcaption>") == 1


def test_the_introduction_counts_queries_and_pictures(finished, capsys):
    _, page = make_page(finished[2], capsys)
    counted = "24 queries over 30 pictures"
    if finished[0] == "FashionIQ":
        counted = ", ".join(f"{name}: [0-9]+ queries over [0-9]+ pictures" for name in ("dress", "toptee", "shirt"))
    assert re.search(f"captions [^;]+; {counted}", page)


# ---- in a browser ----


@pytest.mark.parametrize("size", [DESK, PHONE])
def test_a_real_browser_shows_the_page(finished, capsys, browser, size):
    make_page(finished[2], capsys)
    with opened(browser, (finished[2] / "report.html").as_uri(), size, color_scheme="dark") as page:
        require_pictures(page)
        headings = page.locator("h2").all_inner_texts()
        assert page.locator("nav a").all_inner_texts() == headings
        page.locator("nav a").last.click()
        assert page.locator("h2").last.bounding_box()["y"] < size[1] / 2
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert max(map(int, re.findall(r"\d+", background))) < 60, "it is not dark"
        # No interval is broken over two lines, and curves are no smaller than two thirds of what was drawn.
        heights = page.locator("td span").evaluate_all("spans => spans.map(span => span.getClientRects().length)")
        assert set(heights) == {1}
        assert page.locator(".curves svg").first.bounding_box()["width"] > 320


def test_a_click_on_a_query_shows_its_pictures(finished, capsys, browser):
    make_page(finished[2], capsys)
    text = (finished[2] / "report.html").read_text()
    rows, pictures = data_of(text, "rows")["rows"], data_of(text, "pictures")
    with opened(browser, (finished[2] / "report.html").as_uri(), PHONE) as page:
        line = page.locator("#list tbody tr").nth(1)
        line.locator("button").press("Enter")
        drawn = page.locator("#list .drawn figure")
        _, _, _, reference, target, rank, *_ = rows[1]
        names = drawn.locator("img").evaluate_all("images => images.map(image => image.alt)")
        assert names[0] == reference
        assert drawn.locator("figcaption").first.inner_text() == "reference"
        (labelled,) = page.locator("#list .drawn .target").all()
        assert labelled.locator("img").get_attribute("alt") == target
        assert labelled.inner_text() == (f"{rank}. target" if rank <= queries.ANSWERS else "target")
        assert set(names) <= {name for name, _ in pictures}
        require_pictures(page)
        line.locator("button").click()
        assert page.locator("#list .drawn").count() == 0


def test_the_list_is_sorted_by_its_titles(finished, capsys, browser, monkeypatch):
    monkeypatch.setattr(queries, "MOST", 9)
    _, page = make_page(finished[2], capsys)
    rows = data_of(page, "rows")["rows"]
    with opened(browser, (finished[2] / "report.html").as_uri()) as page:
        title = page.locator("#list th").filter(has_text=re.compile("^rank$"))
        for direction, ranks in (("ascending", sorted), ("descending", partial(sorted, reverse=True))):
            title.locator("button").click()
            assert title.get_attribute("aria-sort") == direction
            expected = ranks(row[5] for row in rows)[:9]
            assert page.locator('#list td[data-title="rank"]').all_inner_texts() == list(map(str, expected))


def test_filters_of_the_list(finished, capsys, browser, monkeypatch):
    monkeypatch.setattr(queries, "MOST", 5)
    _, page = make_page(finished[2], capsys)
    rows = data_of(page, "rows")["rows"]
    word = rows[0][2].split()[-1].upper()
    for filters, expected in {
        "": rows,
        f"text={word}": [row for row in rows if word.lower() in row[2].lower()],
        "from=2&to=9": [row for row in rows if 2 <= row[5] <= 9],
        "alone=on": [row for row in rows if not (row[7] or row[8])],
        "of=shirt&from=2": [row for row in rows if (row[1] == "shirt" or finished[0] == "CIRR") and row[5] >= 2],
    }.items():
        with opened(browser, f"{(finished[2] / 'report.html').as_uri()}#{filters}") as page:
            said = page.locator("#matching").inner_text()
            assert f"{len(expected)} of {len(rows)} queries match" in said
            assert page.locator("#list tr").count() == 1 + min(5, len(expected))
            assert ("the first 5 are shown" in said) == (len(expected) > 5)


def test_the_page_counts_its_misses(finished, capsys):
    dataset, _, stage_2 = finished
    _, page = make_page(stage_2, capsys)
    rows, first = data_of(page, "rows")["rows"], {"CIRR": 1, "FashionIQ": 10}[dataset]
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


@pytest.mark.parametrize("cut", [2, 30])
def test_a_page_of_another_programs_ranking(cut, world, tmp_path, capsys):
    """Of a list that ends too early it says so, and draws no rank that is not known."""
    (split,) = TASKS["CIRR"].read_all(world, "val").values()
    queries = TASKS["CIRR"].queries(split.triplets, "caption")
    ranked = {one.id: [name for name in split.pictures if name != one.triplet.reference][:cut] for one in queries}
    run = tmp_path / "other.json"
    run.write_text(json.dumps(ranked))
    report.main(["--run", str(run), "--dataset", "CIRR", "--data-path", str(world)])
    said = capsys.readouterr()
    assert said.out.splitlines()[-1] == str(tmp_path / "other.report.html")
    page = (tmp_path / "other.report.html").read_text()
    assert ("target ranked after the first 2 of 29" in page) == (cut == 2)
    assert ("after the list" in page) == (cut == 2)
    assert ("recall_at5 is not known" in page) == (cut == 2)
    assert "Curves" not in page
    assert "not solved by" not in page


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ([], "one of the arguments --run-folder --run is required"),
        (["--run", "{run}"], "--run needs --dataset"),
        (["--run", "{run}", "--dataset", "CIRR", "--skip-missing"], "--skip-missing is for a --run-folder"),
        (["--run", "{run}", "--dataset", "CIRR", "--num-workers", "0"], "--num-workers is for a --run-folder"),
        (["--run", "{run}", "--dataset", "CIRR", "--no-feature-cache"], "--no-feature-cache is for a --run-folder"),
    ],
)
def test_options_of_such_a_page(options, fault, tmp_path, capsys):
    run = tmp_path / "other.json"
    run.write_text("{}")
    assert status_of(report.main, [option.format(run=run) for option in options]) == 2
    assert fault in capsys.readouterr().err
