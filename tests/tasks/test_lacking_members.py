"""A data set whose Task lacks what commands count on: each command says which, on one line, before any work."""

import pytest

import check_data
import cirr_test_submission
import clip_fine_tune
import combiner_train
import report
import validate
from src.apps.own import __main__ as conversion
from src.tasks.cirr import CIRR
from src.tasks.own import OwnTriplets
from src.tasks.registry import TASKS
from src.tasks.task import Task, require_whole
from tests.support.commands import status_of


class Mine(Task):
    """A data set as somebody begins it."""

    name, short_name, folder, annotations = "Mine", "mine", "mine", ""
    splits, categories = ("train", "val"), ("mine",)
    protocols, captions, best = CIRR.protocols, CIRR.captions, {"": "recall_at1"}
    read = training_texts = None


class Unread(CIRR):
    """A data set that nothing reads."""

    read, training_texts = Task.read, Task.training_texts


class Split(CIRR):
    """A data set whose splits are a text, since a comma is missing."""

    splits = "train"


@pytest.mark.parametrize(
    "command",
    [check_data, clip_fine_tune, combiner_train, validate, cirr_test_submission, report, conversion],
    ids=lambda command: command.__name__,
)
@pytest.mark.parametrize(
    ("task", "said"),
    [
        (Mine, "test_lacking_members.Mine: lacks means, headline; src/tasks/task.py says what every data set has"),
        (Unread, "test_lacking_members.Unread: lacks read(), training_texts(); src/tasks/task.py says"),
        (Split, "test_lacking_members.Split: splits is a str, expected a tuple; src/tasks/task.py says"),
    ],
)
def test_a_member_that_a_data_set_lacks_is_named(command, task, said, options, monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(TASKS, "Mine", task())
    arguments = ["--dataset", "Mine", "--to", tmp_path / "own"] if command is conversion else options
    arguments = [] if command is check_data else arguments
    assert status_of(command.main, arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert said in line


def test_a_known_data_set_lacks_nothing():
    for task in (*TASKS.values(), OwnTriplets("mine")):
        require_whole(task)
