"""What a command writes never takes the place of what it reads, under whatever name, nor of a device."""

import json
import os
import shutil

import pytest

import check_data
import check_submission
import cirr_test_submission
import compare
import report
import search
import validate
from src import toy
from src.apps.own import __main__ as conversion
from src.base.errors import InputError
from src.base.files import replacing
from src.command.outputs import require_outputs
from tests.support.commands import status_of, toy_options
from tests.support.processes import python


@pytest.fixture(scope="module")
def per_query(world, tmp_path_factory):
    """Judge the toy CLIP on one's own pictures; return what --per-query wrote."""
    folder = tmp_path_factory.mktemp("judged")
    table = folder / "p.csv"
    validate.main(["--dataset", str(world / "my_pictures"), *toy_options(world, folder), "--per-query", str(table)])
    return table.read_text()


@pytest.fixture
def place(world, per_query, tmp_path, monkeypatch):
    """Make a folder with one's own pictures, CIRR, a CLIP, questions and a per-query file; work in it."""
    shutil.copytree(world / "my_pictures", tmp_path / "own")
    shutil.copytree(world / "cirr_dataset", tmp_path / "cirr_dataset")
    shutil.copy(world / "small_clip.pt", tmp_path / "clip.weights")
    picture = next((tmp_path / "own").rglob("*.png"))
    shutil.copy(picture, tmp_path / "own" / "unnamed")
    shutil.copy(picture, tmp_path / "picture.png")
    (tmp_path / "q.csv").write_text("reference,caption\nunnamed,in red\n")
    (tmp_path / "link.csv").symlink_to("q.csv")
    os.link(tmp_path / "q.csv", tmp_path / "hard.csv")
    (tmp_path / "folder").symlink_to(".")
    for name in "ab":
        (tmp_path / f"{name}.csv").write_text(per_query)
        (tmp_path / f"{name}.json").write_text('{"version": "rc2"}')
    (tmp_path / "old.pt").write_bytes(b"weights")
    run = tmp_path / "run"
    (run / "saved_models").mkdir(parents=True)
    options = {"dataset": "CIRR", "transform": "targetpad", "target_ratio": 1.25, "combiner_lr": 1}
    options |= {"clip_model_name": "clip.weights", "data_path": str(tmp_path), "output_path": str(tmp_path)}
    (run / "training_hyperparameters.json").write_text(json.dumps(options))
    (run / "saved_models" / "combiner_0.pt").write_bytes(b"weights")
    (run / "train_metrics.csv").write_text("epoch,train_epoch_loss\n0,1\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


CLIP = "--clip-model-name", "clip.weights"
SEARCH = search, "--pictures", "own", "--queries", "q.csv", *CLIP
VALIDATE = validate, "--dataset", "own", *CLIP
OF_CIRR = validate, "--dataset", "cirr", *CLIP
CAPTIONS = "cirr_dataset/cirr/captions/cap.rc2.val.json"
CASES = [
    ((*SEARCH, "--csv"), "q.csv", "--queries"),
    ((*SEARCH, "--json"), "./q.csv", "--queries"),
    ((*SEARCH, "--page"), "own/../q.csv", "--queries"),
    ((*SEARCH, "--csv"), "link.csv", "--queries"),
    ((*SEARCH, "--csv"), "hard.csv", "--queries"),
    ((*SEARCH, "--csv"), "folder/q.csv", "--queries"),
    ((search, "--pictures", "own", "--queries", "link.csv", *CLIP, "--csv"), "q.csv", "--queries"),
    ((*SEARCH, "--csv"), "clip.weights", "--clip-model-name"),
    ((*SEARCH, "--csv"), "own/unnamed", "a reference"),
    ((search, "--pictures", "own", "--reference", "own/unnamed", *CLIP, "--csv"), "own/unnamed", "--reference"),
    ((*SEARCH, "--json"), "own/triplets.val.csv", "a table of a data set"),
    ((*SEARCH, "--json"), "picture.png", "is a picture"),
    ((*SEARCH, "--json"), "old.pt", "weights"),
    ((*SEARCH, "--index", "index", "--json"), "index/any", "--index"),
    ((search, "--index", "index", "--caption", "red", *CLIP, "--json"), "index/any", "--index"),
    ((*VALIDATE, "--per-query"), "own/triplets.val.csv", "a table of a data set"),
    ((*VALIDATE, "--json"), "own/gallery.val.txt", "a table of a data set"),
    ((*VALIDATE, "--trec-run"), "clip.weights", "--clip-model-name"),
    ((*VALIDATE, "--clip-model-path", "shared", "--json"), "shared/config.json", "--clip-model-path"),
    ((*OF_CIRR, "--json"), CAPTIONS, "a table of a data set"),
    ((*OF_CIRR, "--per-query"), "renamed", "--dataset"),
    ((compare, "a.csv", "b.csv", "--json"), "a.csv", "FILE"),
    ((compare, "a.csv", "b.csv", "--page"), "folder/b.csv", "FILE"),
    ((check_data, "--dataset", "own", "--output"), "own/triplets.train.csv", "a table of a data set"),
    ((check_data, "--dataset", "cirr", "--output"), "renamed", "--dataset"),
    ((check_submission, "a.json", "b.json", "--json"), "b.json", "FILE"),
    ((check_submission, "a.json", "--checkpoint", "clip.weights", "--json"), "clip.weights", "--checkpoint"),
    ((report, "--run-folder", "run", "--output"), "run/train_metrics.csv", "--run-folder"),
    ((report, "--run-folder", "run", "--output"), "run/training_hyperparameters.json", "--run-folder"),
    ((report, "--run-folder", "run", "--output"), "run/saved_models/combiner_0.pt", "weights"),
]


@pytest.mark.parametrize(("command", "output", "words"), CASES)
def test_no_output_takes_the_place_of_an_input(command, output, words, place, capsys):
    (place / "index").mkdir()
    (place / "index" / "any").write_text("kept")
    (place / "shared").mkdir()
    (place / "shared" / "config.json").write_text("kept")
    (place / "shared" / "weights.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    if output == "renamed":
        (place / output).symlink_to(CAPTIONS)
    before = contents(place)
    module, *arguments = command
    common = ["--data-path", "."] if module in (check_data, check_submission, compare, validate) else []
    assert status_of(module.main, [*arguments, output, *common]) == 2
    said = capsys.readouterr()
    (line,) = said.err.splitlines()
    assert line.startswith("error: --")
    assert words in line
    assert "name another file" in line
    assert said.out == ""
    assert contents(place) == before


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_was_written_before_is_replaced(place, world):
    """Also beside pictures, and in a data set's folder."""
    for output in ("own/answers.json", "answers.json"):
        for _ in range(2):
            search.main([*SEARCH[1:], "--output-path", "out", "--num-workers", "0", "--json", output])
            assert json.loads((place / output).read_text())[0]["query"] == "row 2"


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/null", "pipe", "/dev/fd/1", "/proc/self/fd/1"])
def test_no_device_is_replaced(name, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    path = tmp_path / name
    for act in (lambda: require_outputs({}, {"--json": [path]}, {}), lambda: replacing(path).__enter__()):
        with pytest.raises(InputError, match="is not a regular file, which a file of results has to be"):
            act()


def test_a_redirected_output_is_no_file_of_its_own(place):
    """What the shell writes to is a regular file then, which /dev/stdout leads to."""
    with (place / "said").open("w") as said:
        done = python(
            *("-m", "compare", place / "a.csv", place / "b.csv", "--json", "/dev/stdout"),
            **{"capture_output": False, "stdout": said, "stderr": said, "check": False},
        )
    assert done.returncode == 2
    assert "/dev/stdout: is not a regular file" in (place / "said").read_text()


def test_two_names_of_one_output(tmp_path):
    (tmp_path / "folder").symlink_to(".")
    with pytest.raises(InputError, match="is asked for twice"):
        require_outputs({}, {"--json": [tmp_path / "a"], "--csv": [tmp_path / "folder" / "a"]}, {})


def test_a_run_and_its_judgements_need_two_files(place, capsys):
    assert status_of(validate.main, [*VALIDATE[1:], "--trec-run", "x.qrels"]) == 2
    assert "x.qrels: is asked for twice" in capsys.readouterr().err


def test_a_submission_is_looked_at_before_any_work(place, capsys):
    (place / "submission" / "CIRR" / "recall_submission_x.json").mkdir(parents=True)
    arguments = ["--submission-name", "x", "--data-path", ".", "--output-path", ".", *CLIP]
    assert status_of(cirr_test_submission.main, arguments) == 2
    assert "recall_submission_x.json: is a folder" in capsys.readouterr().err


def test_a_conversion_keeps_what_is_there(place, capsys):
    (place / "to").mkdir()
    (place / "to" / "gallery.val.txt").write_text("mine.png\n")
    assert status_of(conversion.main, ["--dataset", "cirr", "--data-path", ".", "--to", "to"]) == 2
    assert "gallery.val.txt: is there already" in capsys.readouterr().err
    (place / "to" / "gallery.val.txt").unlink()
    (place / "to" / "unnamed").write_bytes(b"another picture")
    (place / "own" / "picture.png").write_bytes(b"a picture")
    (place / "pairs.csv").write_text("reference,target,caption\nunnamed,picture.png,red\n")
    table = ["--table", "pairs.csv", "--pictures", "own", "--to", "to"]
    assert status_of(conversion.main, table) == 2
    assert "to/unnamed: is there already, and another picture than" in capsys.readouterr().err


def test_a_toy_world_replaces_no_data(place, capsys):
    before = contents(place)
    assert status_of(toy.main, [place]) == 2
    assert "is not empty" in capsys.readouterr().err
    assert contents(place) == before
