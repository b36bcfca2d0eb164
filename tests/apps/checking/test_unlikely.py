"""check_data.py --per-triplet: the training rows that a model holds least likely, as lines and as a page."""

import csv
import re
import shutil

import pytest

import check_data
import combiner_train
from src.tasks.own import OwnTriplets, read_extra
from src.training.per_triplet import COLUMNS, Held, write_per_triplet
from src.training.per_triplet import data_of as digest_of
from tests.support.browsers import DESK, PHONE, opened, require_pictures
from tests.support.commands import COMBINER, status_of, toy_options
from tests.support.own_folders import HEADER, with_pictures, write


def run(*options):
    return status_of(check_data.main, options)


@pytest.fixture
def own(tmp_path):
    """Write a folder of own triplets, one row with two targets."""
    folder = with_pictures(tmp_path / "mine")
    rows = ["a.jpg,b.PNG|in/c.webp,in red", "in/c.webp,i.jpg,in blue", "i.jpg,a.jpg,in green", "i.jpg,b.PNG,so"]
    return write(folder, "triplets.train.csv", HEADER + "\n".join(rows))


@pytest.fixture
def hold(own, tmp_path):
    """Return a function that writes a file about the folder's triplets: the losses, ranks, and epochs of each."""

    def held(losses, ranks=None, epochs=None, extra=()):
        splits = OwnTriplets.in_folder(own).read_all(own, "train")
        splits |= read_extra(extra)
        ranks, epochs = ranks or [1] * len(losses), epochs or [5] * len(losses)
        rows = [Held(*row) for row in zip(epochs, ranks, losses, strict=True)]
        path = tmp_path / "held.csv"
        write_per_triplet(path, digest_of("mine", splits), splits, list(splits.values()), rows)
        return path

    return held


def listed(capsys):
    return re.findall(r"^ +([\d.]+) +([\d.]+)  (.+)\n +(.+)$", capsys.readouterr().out, re.MULTILINE)


def test_the_largest_loss_comes_first(own, hold, capsys):
    """The two triplets of a row are two; of equal losses the worse rank comes first."""
    path = hold([0.5, 4, 0.5, 0.25, 9.5], [1, 7, 2.25, 1, 12])
    assert run("--dataset", own, "--per-triplet", path) == 0
    assert listed(capsys) == [
        ("9.50", "12.0", "triplets.train.csv, row 5", "i.jpg + “so” → b.PNG"),
        ("4.00", "7.0", "triplets.train.csv, row 2", "a.jpg + “in red” → in/c.webp"),
        ("0.50", "2.2", "triplets.train.csv, row 3", "in/c.webp + “in blue” → i.jpg"),
        ("0.50", "1.0", "triplets.train.csv, row 2", "a.jpg + “in red” → b.PNG"),
        ("0.25", "1.0", "triplets.train.csv, row 4", "i.jpg + “in green” → a.jpg"),
    ]


def test_what_was_in_no_batch_is_counted(own, hold, capsys):
    path = hold([1, float("nan"), 3, 2, 5], [1, float("nan"), 1, 1, 1], [5, 0, 1, 2, 3])
    assert run("--dataset", own, "--per-triplet", path) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(
        "mine, 4 training triplets by their loss, without 1 that were in no batch; half have less than 2.50\n"
    )
    assert "in/c.webp\n" not in printed
    assert run("--dataset", own, "--per-triplet", hold([float("nan")] * 5, [float("nan")] * 5, [0] * 5)) == 2
    assert capsys.readouterr().err == f"error: {path}: no triplet was in a batch\n"


def test_twenty_lines_and_a_count(own, hold, capsys):
    rows = "".join(f"a.jpg,b.PNG,number {number}\n" for number in range(25))
    write(own, "more.csv", HEADER + rows)
    path = hold([0.5, 0.4, 0.3, 0.2, 0.1, *range(1, 26)], extra=[own / "more.csv"])
    assert run("--dataset", own, "--per-triplet", path) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1] == f"and 10 more in {path}"
    assert printed.count("more.csv, row ") == 20
    assert "25.00       1.0  more.csv, row 26\n" in printed


@pytest.mark.parametrize("dataset", ["CIRR", "FashionIQ"])
def test_a_training_is_listed_and_a_spreadsheet_may_have_sorted_it(dataset, world, tmp_path, capsys):
    path, extra = tmp_path / "held.csv", world / "my_pictures" / "triplets.train.csv"
    short = ["--num-epochs", "1", "--batch-size", "48", *COMBINER]
    own = ["--per-triplet", str(path), "--extra-triplets", str(extra)]
    combiner_train.main(["--dataset", dataset, *toy_options(world, tmp_path), *short, *own])
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    rows.sort(key=lambda row: float(row["loss"] or 0), reverse=True)
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, COLUMNS[::-1], delimiter=";")
        writer.writeheader()
        writer.writerows(rows)
    capsys.readouterr()
    assert run("--data-path", world, "--per-triplet", path) == 0  # of both data sets the one that the file is of
    found = listed(capsys)
    assert [place for _, _, place, _ in found] == [row["row"] for row in rows[:20]]
    assert [loss for loss, *_ in found] == [f"{float(row['loss']):.2f}" for row in rows[:20]]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--page", "x.html"], "--page is for --per-triplet"),
        (["--per-triplet", "x.csv", "--output", "x.json"], "--output is for a check of the pictures"),
        (["--per-triplet", "x.csv"], "x.csv: no such file"),
        (["--per-triplet", "held.csv", "--page", "held.csv"], "is an input of this command (--per-triplet)"),
        (["--per-triplet", "held.csv", "--page", "mine/a.jpg"], "is a picture"),
        (["--per-triplet", "mine/triplets.train.csv"], "not a file of --per-triplet, it has no column row"),
    ],
)
def test_options_that_cannot_be_used(options, words, own, hold, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    hold([1, 2, 3, 4, 5])
    assert run("--dataset", own, *options) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: ")
    assert words in line


def test_files_of_other_tables(own, hold, world, tmp_path, capsys):
    path = hold([1, 2, 3, 4, 5])

    def refused(*options):
        assert run("--per-triplet", path, *options) == 2
        return capsys.readouterr().err

    assert "is of mine, but --dataset and --data-path give CIRR, FashionIQ" in refused("--data-path", world)
    text = path.read_text()
    path.write_text(text.replace(",all,", ",al,"))
    assert f"{path}: al is not a category of mine" in refused("--dataset", own)
    path.write_text(text.replace(",all,0,", f",{tmp_path}/gone.csv,0,"))
    assert f"{tmp_path}/gone.csv: no such file" in refused("--dataset", own)
    path.write_text(text.replace(",all,0,", ",/a\0,0,"))
    assert f"{path}: /a\\x00 is not a category of mine" in refused("--dataset", own)
    path.write_text(text)
    write(own, "triplets.train.csv", (own / "triplets.train.csv").read_text().replace("in blue", "in light blue"))
    said = refused("--dataset", own)
    assert re.fullmatch(
        rf"error: {path}: is of mine\.train\.\w+, but triplets\.train\.csv of mine\.train\.\w+: the triplets are no "
        r"longer those that were trained on\n",
        said,
    )


def test_the_page_shows_the_pictures(own, hold, tmp_path, browser):
    page = tmp_path / "page.html"
    assert run("--dataset", own, "--per-triplet", hold([0.5, 4, 0.5, 0.25, 9.5]), "--page", page) == 0
    shutil.rmtree(own)  # it needs no other file
    for size in (DESK, PHONE):
        with opened(browser, page.as_uri(), size) as shown:
            require_pictures(shown)
            rows = shown.locator(".query")
            assert rows.count() == 5
            first = rows.first.locator("img")
            assert [first.nth(number).get_attribute("alt") for number in range(first.count())] == ["i", "b"]
            assert rows.first.inner_text().split("\n")[:3] == [
                "reference",
                "so",
                "loss 9.50, rank 1.0: triplets.train.csv, row 5",
            ]
            reference, target = (first.nth(number).bounding_box() for number in (0, 1))
            assert target["y"] < reference["y"] + 3 * reference["height"]


def test_the_page_names_a_picture_that_is_not_there(own, hold, tmp_path, capsys):
    path = hold([0.5, 4, 0.5, 0.25, 9.5])
    (own / "i.jpg").write_bytes(b"")
    assert run("--dataset", own, "--per-triplet", path, "--page", tmp_path / "page.html") == 2
    assert f"error: {own}/i.jpg: " in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists()
