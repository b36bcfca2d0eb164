"""check_submission.py --dataset CIRCO as a command: whatever it is given it answers in words."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import check_submission
from src.apps.submission import SERVERS
from src.apps.submission.circo import CIRCOFile
from src.apps.submission.rules import FAULT, Rule, check
from src.apps.submission.text import plain
from src.tasks.registry import TASKS
from tests.support.circo_submissions import IDS, KEYS, RIGHT, SPLIT, split_of
from tests.support.commands import status_of
from tests.support.submissions import HOSTILE, SUBMISSIONS, findings, made_up, write

EXAMPLES = settings(
    max_examples=150, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
SMALL = split_of(IDS[:4], IDS[:60])
SMALL_TEXT = json.dumps({str(number): list(map(int, IDS[4:54])) for number in range(4)}).encode()


def is_refused(path, content):
    (file,) = files = check(CIRCOFile, [write(path, content)], SMALL, path.parent)
    assert [*check_submission.text_of(files), check_submission.verdict(files)]
    assert json.dumps(plain(file))
    return any(finding.level == FAULT for finding in file.findings)


@EXAMPLES
@given(st.integers(0, len(SMALL_TEXT) - 1))
def test_a_torn_file_is_told(tmp_path, length):
    assert is_refused(tmp_path / "x.json", SMALL_TEXT[:length])


@EXAMPLES
@given(st.integers(0, len(SMALL_TEXT) - 1), st.binary(min_size=1, max_size=8), st.integers(0, 40))
def test_a_file_with_a_wrong_place_is_read(tmp_path, start, put, taken):
    """The place may happen to be right again, so this asks for words and no more."""
    is_refused(tmp_path / "x.json", SMALL_TEXT[:start] + put + SMALL_TEXT[start + taken :])


@EXAMPLES
@given(st.one_of(SUBMISSIONS, HOSTILE, st.dictionaries(st.sampled_from(KEYS[:4]), st.lists(HOSTILE))))
def test_whatever_the_file_holds_it_is_told(tmp_path, content):
    assert is_refused(tmp_path / "x.json", json.dumps(content))


# ---- the command ----


class Stub:
    """What the command asks of CIRCO's task."""

    def tables(self, data_path):
        return []

    def read_all(self, data_path, split):
        assert (data_path.name, split) == ("data", "test")
        return {"all": SPLIT}


@pytest.fixture
def run(tmp_path, capsys, monkeypatch):
    """Return a function that runs the command and gives its exit status and what it printed."""
    monkeypatch.setitem(TASKS, "CIRCO", Stub())

    def status_and_lines(*arguments):
        status = status_of(check_submission.main, [*arguments, "--data-path", tmp_path / "data"])
        return status, capsys.readouterr()

    return status_and_lines


def test_the_command_takes_one_file(run, tmp_path):
    right, wrong = write(tmp_path / "x.json", RIGHT), write(tmp_path / "y.json", RIGHT | {"3": []})
    found = tmp_path / "found.json"
    status, printed = run(right, "--dataset", "circo")
    assert (status, printed.out.splitlines()[-1]) == (0, "ready to upload")
    status, printed = run(wrong, "--dataset", "CIRCO", "--json", found)
    assert (status, printed.out.splitlines()[-1]) == (1, "not ready to upload: 1 fault")
    told = json.loads(found.read_text())
    assert (told["ready"], told["files"][0]["metric"], told["files"][0]["pairs"]) == (False, "mAP", 800)
    assert told["files"][0]["findings"][0]["names"] == ["3"]
    status, printed = run(right, wrong, "--dataset", "CIRCO")
    assert status == 2
    assert f"{wrong}: a second file; a submission to CIRCO has one" in printed.err


def test_another_server_is_a_class_and_its_line(run, tmp_path, monkeypatch):
    class OtherFile(CIRCOFile):
        dataset, most, too_many = "Other", 2, "a third file"
        rules = *CIRCOFile.rules, Rule("no file of Other", lambda file: "3" in file.values, "Ask {file.dataset}.")

    monkeypatch.setitem(SERVERS, "Other", OtherFile)
    monkeypatch.setitem(TASKS, "Other", Stub())
    right = write(tmp_path / "x.json", RIGHT)
    status, printed = run(right, right, "--dataset", "other")
    assert (status, printed.out.splitlines()[-1]) == (1, "not ready to upload: 2 faults")
    assert findings(printed.out.splitlines()) == {"fault    no file of Other": "Ask Other."}
    status, printed = run(right, right, right, "--dataset", "Other")
    assert (status, printed.err) == (2, f"error: {right}: a third file\n")


@pytest.mark.parametrize("dataset", ["FashionIQ", "CIRCOS", ""])
def test_another_data_set_is_refused(run, tmp_path, dataset):
    status, printed = run(write(tmp_path / "x.json", RIGHT), "--dataset", dataset)
    assert status == 2
    assert f"{dataset!r} is none of CIRR, CIRCO" in printed.err


def test_a_file_that_is_checked_as_cirrs_is_told_whose_it_is(tmp_path, capsys):
    pair = made_up(tmp_path / "data")
    path = write(tmp_path / "x.json", RIGHT)
    assert status_of(check_submission.main, [path, "--data-path", pair.data_path]) == 1
    told = findings(capsys.readouterr().out.splitlines())["fault    wrong version"]
    assert told.endswith("Is it a submission to CIRCO? Then add --dataset CIRCO.")


def test_the_command_reads_the_annotations(tmp_path, capsys):
    pytest.importorskip("src.tasks.circo")
    entries = [
        {"reference_img_id": int(triplet.reference), "relative_caption": "c", "shared_concept": "s", "id": number}
        for number, triplet in enumerate(SPLIT.triplets)
    ]
    images = [{"id": int(name), "file_name": f"{name:>012}.jpg"} for name in IDS]
    write(tmp_path / "CIRCO/annotations/test.json", entries)
    write(tmp_path / "CIRCO/COCO2017_unlabeled/annotations/image_info_unlabeled2017.json", {"images": images})
    path = write(tmp_path / "x.json", RIGHT)
    assert status_of(check_submission.main, [path, "--dataset", "CIRCO", "--data-path", tmp_path]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "ready to upload"
