"""check_submission.py as a command: whatever it is given it answers in words, and what writes submissions asks it."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import check_submission
import cirr_test_submission
from src.apps.submission.cirr import CIRRFile
from src.apps.submission.rules import check
from src.apps.submission.writing import read_test_split, say_whether_ready
from src.base.files import PROJECT_ROOT
from src.tasks.registry import TASKS
from tests.support.commands import status_of
from tests.support.processes import python
from tests.support.submissions import HOSTILE, SUBMISSIONS, made_up, write

HEAVY = {"torch", "torchvision", "numpy", "pandas", "scipy", "PIL"}


@pytest.fixture(scope="module")
def small_data(tmp_path_factory):
    return made_up(tmp_path_factory.mktemp("made_up")).data_path


def test_what_cannot_be_checked_is_one_line_and_status_2(small_data, tmp_path, capsys):
    file = write(tmp_path / "r.json", {})
    for arguments, fault in [
        ([tmp_path / "none.json"], "none.json: no such file"),
        ([file, "--data-path", tmp_path], "no such folder; --data-path names the folder that holds cirr_dataset/"),
        ([file, file, file, "--data-path", small_data], "a third file; a submission has two"),
    ]:
        assert status_of(check_submission.main, arguments) == 2
        printed = capsys.readouterr()
        assert fault in printed.err
        assert (printed.err.count("\n"), printed.out) == (1, "")


def test_val_need_not_be_there(tmp_path, capsys):
    pair = made_up(tmp_path)
    for folder, name in (("captions", "cap.rc2.val.json"), ("image_splits", "split.rc2.val.json")):
        (tmp_path / "cirr_dataset" / "cirr" / folder / name).unlink()
    recall = write(tmp_path / "r.json", pair.recall | {"500": ["dev-1-0-img0"] * 50, "501": pair.pictures[:50]})
    assert status_of(check_submission.main, [recall, "--data-path", tmp_path]) == 1
    printed = capsys.readouterr().out
    assert "pairs of val: 1 of 122" in printed
    assert "pairs that test1 does not have: 1 of 122" in printed


def test_it_imports_nothing_heavy():
    code = f"import sys, check_submission; print({HEAVY} & set(sys.modules))"
    assert python("-c", code, cwd=PROJECT_ROOT).stdout.strip() == "set()"


EXAMPLES = settings(
    max_examples=200, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@EXAMPLES
@given(st.one_of(SUBMISSIONS, HOSTILE), SUBMISSIONS)
def test_whatever_the_files_hold_it_is_told(small_data, tmp_path, first, second):
    paths = [write(tmp_path / "r.json", json.dumps(first)), write(tmp_path / "s.json", json.dumps(second))]
    options = ["--data-path", small_data, "--json", tmp_path / "found.json"]
    assert status_of(check_submission.main, [*paths, *options]) == 1
    assert json.loads((tmp_path / "found.json").read_text())["ready"] is False


@EXAMPLES
@given(st.binary(max_size=60))
def test_whatever_bytes_a_file_has_it_is_told(small_data, tmp_path, data):
    assert status_of(check_submission.main, [write(tmp_path / "r.json", data), "--data-path", small_data]) == 1


# ---- what writes submissions ----


def test_a_toy_submission_says_what_a_server_would_refuse(options, capsys):
    cirr_test_submission.main(["--submission-name", "mine", *options])
    said = capsys.readouterr()
    paths = said.out.splitlines()
    refused, command = [line for line in said.err.splitlines() if "submission" in line or "server" in line]
    assert refused == "not for CIRR's server as they are: lists too short: 33 of 33. To see all:"
    assert command.split()[:4] == ["python", "check_submission.py", *paths]
    assert status_of(check_submission.main, command.split()[2:]) == 1
    assert "of 30 pictures no list can name 50" in capsys.readouterr().out


def test_a_submission_without_some_pairs_is_told_too(options, broken_world, capsys):
    next((broken_world / "cirr_dataset" / "test1").glob("*.png")).unlink()
    cirr_test_submission.main(
        ["--skip-missing", "--submission-name", "mine", *options, "--data-path", f"{broken_world}"]
    )
    assert "pairs missing: " in capsys.readouterr().err


def test_a_right_submission_is_told_as_ready(tmp_path, capsys):
    pair = made_up(tmp_path)
    paths = [write(tmp_path / name, content) for name, content in (("r", pair.recall), ("s", pair.subset))]
    split = read_test_split(TASKS["CIRR"], tmp_path, skip_missing=True)
    say_whether_ready(TASKS["CIRR"], check(CIRRFile, paths, split, tmp_path), tmp_path)
    assert capsys.readouterr().err == "ready to upload to CIRR's server\n"
