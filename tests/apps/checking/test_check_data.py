"""check_data.py on copies of the toy world in which one thing is wrong."""

import json
import re

import pytest

import check_data
from src.apps.checking.findings import is_blank
from src.base.files import write_json
from src.base.reading import read_json
from src.tasks.captions import cleaned_caption
from src.tasks.registry import TASKS
from tests.conftest import SHARED
from tests.support.commands import status_of
from tests.support.odd_pictures import REFUSED, TAKEN, write
from tests.support.processes import python
from tests.support.splits import read_cirr, read_fashioniq

DATASETS = "CIRR", "FashionIQ"


def run(*options):
    return status_of(check_data.main, [*options, "--num-workers", "0"])


@pytest.fixture
def checked(broken_world, capsys):
    """Return a function that checks a data set of the broken world: exit status, and {kind: finding} of what is found.

    The findings are the JSON's; the text must say the same.
    """

    def check(dataset):
        output = broken_world / "findings.json"
        status = run("--dataset", dataset, "--data-path", broken_world, "--output", output)
        text, report = capsys.readouterr().out, read_json(output, dict)
        (only,) = report["datasets"]
        findings = {finding["kind"]: finding for finding in only["findings"]}
        assert counts_in(text) == {kind: finding["count"] for kind, finding in findings.items() if finding["count"]}
        assert text.splitlines()[-1].startswith(f"exit status {status}: ")
        assert max(map(len, text.splitlines()[1:])) <= 120
        assert report["exit_status"] == status
        assert status == any(finding["changes_results"] for finding in findings.values() if finding["count"])
        return status, {kind: finding for kind, finding in findings.items() if finding["count"]}

    return check


def counts_in(text):
    lines = re.findall(r"^  (?:fault|warning|note) +(\S.*?)  +([\d,]+)(?: of [\d,]+)?  ", text, re.MULTILINE)
    return {kind: int(number.replace(",", "")) for kind, number in lines}


def split_of(dataset, data_path, split="val"):
    return read_cirr(data_path, split) if dataset == "CIRR" else read_fashioniq(data_path, "dress", split)


def listing_of(split):
    """Return the image split beside a captions file."""
    return split.path.parents[1] / "image_splits" / split.path.name.replace("cap.", "split.")


@pytest.mark.parametrize("dataset", DATASETS)
def test_a_sound_data_set(dataset, checked):
    assert checked(dataset) == (0, {})


@pytest.mark.parametrize("dataset", DATASETS)
def test_kinds_that_change_nothing(dataset, broken_world, checked):
    """All at once, one in the place of each picture: what is found of one says nothing of another."""
    splits = TASKS[dataset].read_all(broken_world, "val").values()
    places = [path for split in splits for path in split.pictures.values()]
    expected = {}
    for odd, path in zip(TAKEN.values(), places, strict=False):
        write(odd, path)
        for kind in odd.kinds:
            expected.setdefault(kind, []).append(str(path.relative_to(folder_of(dataset, broken_world))))
    assert len(places) >= len(TAKEN)
    status, found = checked(dataset)
    assert status == 0
    assert {kind: sorted(finding["names"]) for kind, finding in found.items()} == {
        kind: sorted(names) for kind, names in expected.items()
    }
    for kind, finding in found.items():
        assert finding["count"] == len(expected[kind])
        assert finding["level"] == ("warning" if kind == "16-bit" else "note")


def folder_of(dataset, data_path):
    return data_path / TASKS[dataset].folder


@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.parametrize("case", [case for case, odd in REFUSED.items() if odd.kinds])
def test_pictures_that_change_a_result(case, dataset, broken_world, checked):
    picture = list(split_of(dataset, broken_world).pictures.values())[3]
    write(REFUSED[case], picture)
    status, found = checked(dataset)
    (kind,) = REFUSED[case].kinds
    assert (status, list(found)) == (1, [kind])
    (name,) = found[kind]["names"]
    assert name.startswith(str(picture.relative_to(folder_of(dataset, broken_world))))
    if kind == "unreadable":
        assert REFUSED[case].fault in name
    assert found[kind]["changes_results"]


def test_ten_names_in_the_terminal_and_all_in_the_file(broken_world, checked, capsys):
    pictures = list(read_cirr(broken_world, "train").pictures.values())[:12]
    for picture in pictures:
        picture.unlink()
    _, found = checked("CIRR")
    assert found["missing"]["count"] == 12
    assert found["missing"]["of"] == 100
    assert found["missing"]["names"] == [f"train/{picture.name}" for picture in pictures]
    run("--dataset", "CIRR", "--data-path", broken_world)
    text = capsys.readouterr().out
    assert pictures[9].name in text
    assert pictures[10].name not in text
    assert "and 2 more" in text


@pytest.mark.parametrize("dataset", DATASETS)
def test_same_bytes_under_two_names_of_two_splits(dataset, broken_world, checked):
    earlier, original = list(split_of(dataset, broken_world, "train").pictures.items())[0]
    later, copy = list(split_of(dataset, broken_world).pictures.items())[0]
    copy.write_bytes(original.read_bytes())
    status, found = checked(dataset)
    assert status == 0
    assert {kind: finding["names"] for kind, finding in found.items()} == {
        "same bytes": [f"{later} = {earlier}"],
        "val in train by bytes": [f"{later} = {earlier}"],
    }


@pytest.mark.parametrize("dataset", DATASETS)
def test_same_bytes_in_one_split(dataset, broken_world, checked):
    first, second, third = list(split_of(dataset, broken_world).pictures.items())[:3]
    for _, copy in (second, third):
        copy.write_bytes(first[1].read_bytes())
    status, found = checked(dataset)
    assert (status, list(found)) == (0, ["same bytes"])
    assert found["same bytes"]["names"] == [f"{name} = {first[0]}" for name, _ in (second, third)]


@pytest.mark.parametrize("dataset", DATASETS)
def test_a_picture_that_two_splits_list(dataset, broken_world, checked):
    train, val = split_of(dataset, broken_world, "train"), split_of(dataset, broken_world)
    name, path = next(iter(train.pictures.items()))
    if dataset == "CIRR":
        relative = {key: str(file.relative_to(broken_world / "cirr_dataset")) for key, file in val.pictures.items()}
        write_json(listing_of(val), relative | {name: str(path.relative_to(broken_world / "cirr_dataset"))})
    else:
        write_json(listing_of(val), [*val.pictures, name])
    status, found = checked(dataset)
    assert (status, list(found)) == (0, ["val in train by name"])
    assert found["val in train by name"]["names"] == [name]
    assert found["val in train by name"]["of"] == 31


def test_a_validation_target_that_another_category_trains_on(broken_world, checked):
    trained = read_fashioniq(broken_world, "shirt", "train").triplets[0].targets[0]
    val = split_of("FashionIQ", broken_world)
    write_json(listing_of(val), [*val.pictures, trained])
    first, *others = read_json(val.path, list)
    write_json(val.path, [first | {"target": trained}, *others])
    status, found = checked("FashionIQ")
    assert (status, set(found)) == (0, {"val in train by name", "val targets trained"})
    assert found["val targets trained"]["names"] == [trained]

    own = read_fashioniq(broken_world, "dress", "train").triplets[0].targets[0]
    write_json(listing_of(val), [*val.pictures, own])
    write_json(val.path, [first | {"target": own}, *others])
    assert set(checked("FashionIQ")[1]) == {"val in train by name"}


def test_blank_captions(broken_world, checked):
    cirr, fashioniq = (split_of(dataset, broken_world) for dataset in DATASETS)
    for split, changes in (
        (cirr, {2: {"caption": " ?."}}),
        (fashioniq, {0: {"captions": ["", "is red"]}, 1: {"captions": ["\t", ","]}}),
    ):
        entries = read_json(split.path, list)
        write_json(split.path, [entry | changes.get(number, {}) for number, entry in enumerate(entries)])
    for dataset, where in zip(
        DATASETS, (["rc2.val.json[2]"], [f"dress.val.json[{n}]" for n in (0, 1, 1)]), strict=True
    ):
        status, found = checked(dataset)
        assert (status, list(found)) == (0, ["blank captions"])
        assert found["blank captions"]["names"] == [f"cap.{entry}" for entry in where]


def test_blank_is_what_is_left_of_nothing():
    for caption in (".?, ", "", " . "):
        assert is_blank(caption)
        assert cleaned_caption(caption) == ""
    assert not is_blank("is a.")


@pytest.mark.parametrize("dataset", DATASETS)
def test_repeated_triplets(dataset, broken_world, checked):
    val = split_of(dataset, broken_world)
    entries = read_json(val.path, list)
    write_json(val.path, [*entries, entries[0]])
    status, found = checked(dataset)
    assert (status, list(found)) == (0, ["repeated triplets"])
    assert found["repeated triplets"]["names"] == [f"{val.path.name}[{len(val.triplets)}]"]


@pytest.mark.parametrize("dataset", DATASETS)
def test_pictures_that_no_split_lists(dataset, broken_world, checked):
    folder = next(iter(split_of(dataset, broken_world).pictures.values())).parent
    (folder / "more.JPG").write_bytes(b"")
    (folder / "notes.txt").write_text("not a picture")
    status, found = checked(dataset)
    assert (status, list(found)) == (0, ["unlisted"])
    assert found["unlisted"]["names"] == [f"{folder.name}/more.JPG"]


def test_every_data_set_found_and_splits_that_are_not_there(broken_world, capsys):
    for file in (broken_world / "fashionIQ_dataset").glob("*/*.test.json"):
        file.unlink()
    assert run("--data-path", broken_world, "--output", broken_world / "findings.json") == 0
    text = capsys.readouterr().out
    assert "no annotations of dress.test, toptee.test, shirt.test" in text
    cirr, fashioniq = read_json(broken_world / "findings.json", dict)["datasets"]
    assert (cirr["dataset"], cirr["absent"]) == ("CIRR", [])
    assert (fashioniq["dataset"], list(fashioniq["sizes"])) == ("FashionIQ", ["train", "val"])
    assert cirr["sizes"]["val"] == {"pictures": 30, "triplets": 24}
    assert cirr["folder"] == str(broken_world / "cirr_dataset")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--data-path", "/nowhere"], "/nowhere: holds none of cirr_dataset/ and fashionIQ_dataset/"),
        (["--data-path", "/nowhere", "--dataset", "cirr"], "/nowhere/cirr_dataset: no such folder"),
        (["--dataset", "CIFAR"], "'CIFAR' is none of CIRR, FashionIQ"),
        (["--num-workers", "-1"], "whole number of 0 or more"),
        (["--outptu", "x.json"], "unknown option --outptu; did you mean --output?"),
    ],
)
def test_unusable_options(options, said, capsys):
    assert run(*options) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert said in line


def test_unusable_annotations_and_outputs(broken_world, capsys):
    val = read_cirr(broken_world, "val")
    for options, said in (
        (["--output", broken_world], f"{broken_world}: is a folder"),
        (["--output", val.path / "x.json"], f"{val.path}: "),
    ):
        assert run("--data-path", broken_world, *options) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert said in line
    listing_of(val).unlink()
    assert run("--data-path", broken_world) == 2
    assert f"error: {listing_of(val)}: no such file\n" == capsys.readouterr().err
    for file in (broken_world / "cirr_dataset").rglob("*.json"):
        file.unlink()
    assert run("--data-path", broken_world) == 2
    assert "has annotations of no split" in capsys.readouterr().err


def test_what_a_shell_sees(broken_world):
    next(iter(read_cirr(broken_world, "val").pictures.values())).unlink()
    ended = python("check_data.py", "--data-path", broken_world, "--num-workers", "2", check=False)
    assert ended.returncode == 1
    assert ended.stdout.splitlines()[-1].endswith("would change a result (1 missing)")
    assert "Traceback" not in ended.stderr
    answered = python("check_data.py", "--help")
    assert "Exit status 1 when something would change a result" in " ".join(answered.stdout.split())


def test_what_the_published_fashioniq_shares_between_splits(tmp_path, capsys):
    annotations = SHARED / "data" / "annotations" / "fashionIQ"
    if not annotations.is_dir():
        pytest.skip("needs the published annotations of FashionIQ")
    (tmp_path / "fashionIQ_dataset").symlink_to(annotations)
    assert run("--data-path", tmp_path, "--output", tmp_path / "findings.json") == 1  # no pictures are there
    (checked,) = json.loads((tmp_path / "findings.json").read_text())["datasets"]
    assert list(checked["sizes"]) == list(TASKS["FashionIQ"].splits)
    numbers = {finding["kind"]: (finding["count"], finding["of"]) for finding in checked["findings"]}
    assert numbers["val in train by name"] == (811, 15415)
    assert numbers["val targets trained"] == (143, 6003)
    assert numbers["blank captions"] == (17, 60268)
