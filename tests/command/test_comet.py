"""Comet: no account is no fault, no network stops a run, and no key is written anywhere."""

import json
import socket
import zipfile

import comet_ml
import everett.ext.inifile
import everett.manager
import pytest

import clip_fine_tune
import validate
from src.command import comet
from src.command.flags import CometOptions

KEY = "ThisKeyMustNeverBeWritten"


@pytest.fixture
def silent_server():
    """Open an address that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/clientlib/"


@pytest.fixture
def closed_port():
    """Return an address that nothing listens at."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return f"http://127.0.0.1:{port}/clientlib/"


def messages_of(archive):
    """Return all messages of an offline experiment."""
    with zipfile.ZipFile(archive) as files:
        lines = files.read("messages.json").decode().splitlines()
    return [json.loads(line) for line in lines]


def assert_key_is_nowhere(folder):
    for path in folder.rglob("*"):
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as files:
                assert not any(KEY.encode() in files.read(name) for name in files.namelist())
        elif path.is_file():
            assert KEY.encode() not in path.read_bytes(), path


def fine_tune(options, *extra):
    clip_fine_tune.main(["--dataset", "CIRR", "--num-epochs", "1", "--batch-size", "24", *options, *extra])


def test_without_an_account_nothing_is_logged(options, run_folder, capsys):
    fine_tune(options)
    captured = capsys.readouterr()
    assert "comet" not in (captured.out + captured.err).lower()
    assert not list(run_folder().glob("*.zip"))


def test_an_offline_archive_holds_the_run(options, run_folder, capsys):
    fine_tune(options, "--comet-offline", "--api-key", KEY, "--experiment-name", "mine")
    (archive,) = run_folder().glob("*.zip")
    messages = messages_of(archive)
    payloads = [message["payload"] for message in messages if message["type"] == "metric_msg"]
    logged = {(payload["metric"]["metricName"], payload.get("context")) for payload in payloads}
    assert {("step_loss", None), ("epoch_loss", "train"), ("recall_at1", "validate")} <= logged
    assert {("group_recall_at3", "validate"), ("geometric_mean", "validate")} <= logged
    code = [message["payload"] for message in messages if "clip_fine_tune.py" in json.dumps(message)]
    assert code
    assert_key_is_nowhere(run_folder())
    assert "api_key" not in json.loads((run_folder() / "training_hyperparameters.json").read_text())


@pytest.mark.parametrize("server", ["closed_port", "silent_server"])
def test_a_run_goes_on_without_comet(server, options, run_folder, capsys, monkeypatch, request):
    monkeypatch.setenv("COMET_URL_OVERRIDE", request.getfixturevalue(server))
    monkeypatch.setattr("src.command.comet.COMET_PATIENCE", 0.2)  # neither will ever answer
    fine_tune(options, "--api-key", KEY, "--workspace", "lab")
    assert "Comet cannot be reached" in capsys.readouterr().err
    assert len(list(run_folder().glob("*.zip"))) == 1
    assert (run_folder() / "validation_metrics.csv").is_file()
    assert_key_is_nowhere(run_folder())


def test_comets_own_settings_count(options, tmp_path, capsys, monkeypatch, closed_port):
    monkeypatch.setenv("COMET_URL_OVERRIDE", closed_port)
    monkeypatch.setenv("COMET_API_KEY", KEY)
    monkeypatch.setenv("COMET_WORKSPACE", "lab")
    validate.main(["--dataset", "CIRR", *options])
    captured = capsys.readouterr()
    assert "Comet cannot be reached" in captured.err
    assert KEY not in captured.out + captured.err
    assert len(list((tmp_path / "comet").glob("*.zip"))) == 1


def test_comets_files_are_those_that_it_reads(monkeypatch):
    read = []
    for module, reader in ((everett.manager, "ConfigEnvFileEnv"), (everett.ext.inifile, "ConfigIniEnv")):
        monkeypatch.setattr(getattr(module, reader), "__init__", lambda self, paths: read.append(paths))
    monkeypatch.delenv("COMET_CONFIG")
    comet_ml.config.Config({})
    assert set(read) - {None} == set(comet.SETTINGS_FILES)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("COMET_API_KEY", KEY),
        ("COMET_CONFIG", "settings"),
        ("COMET_INI", "settings"),
        (".env", ""),
        (".comet.config", ""),
        ("home/.comet.config", ""),
    ],
)
def test_comet_is_asked_only_where_there_may_be_a_key(name, value, tmp_path, monkeypatch):
    """Importing it takes a second."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    nothing = CometOptions(None, "lab", "mine", False)
    assert not comet._may_have_a_key(nothing)
    assert comet._may_have_a_key(nothing._replace(api_key=KEY))
    (tmp_path / "home").mkdir()
    (tmp_path / "settings").mkdir()
    if name.isupper():
        monkeypatch.setenv(name, value)
    else:
        (tmp_path / name).touch()
    assert comet._may_have_a_key(nothing)
