"""Sharing a run: a folder or a repository that loads by its place, and says what it is."""

import json

import pandas as pd
import pytest

import clip_fine_tune
import combiner_train
from combiner import load_network
from src.apps.share import __main__ as share
from src.apps.share.content import without_places
from src.base.hub import SHARED
from src.models.facts import read_facts
from src.models.weights import weights_digest
from tests.support.commands import COMBINER, status_of, toy_options, toy_paths
from tests.support.forks import only_run
from tests.support.hub_server import TOKEN, hub
from utils import load_clip

SHORT = ["--batch-size", "16", "--num-epochs", "1", "--save-training", "--save-best", "--validation-frequency", "1"]


class Trained:
    """A run of stage 1, one of stage 2 that stands on it, and the weights of both."""

    def __init__(self, world, folder):
        clip_fine_tune.main(["--dataset", "CIRR", *SHORT, *toy_options(world, folder / "1"), "--learning-rate", "1e-3"])
        self.first = only_run(folder / "1")
        self.clip = self.first / "saved_models" / "tuned_clip_arithmetic.pt"
        stage_2 = [*SHORT, *COMBINER, *toy_paths(world, folder / "2"), "--combiner-lr", "1e-3"]
        combiner_train.main([*stage_2, "--clip-model-path", str(self.clip)])
        self.second = only_run(folder / "2")
        self.combiner = self.second / "saved_models" / "combiner_arithmetic.pt"


@pytest.fixture(scope="module")
def trained(world, tmp_path_factory):
    return Trained(world, tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="module")
def shared(trained, tmp_path_factory):
    """Share both runs in folders; return these."""
    folder = tmp_path_factory.mktemp("shared")
    share.main([str(trained.first), "--to", str(folder / "clip"), "--license", "mit"])
    share.main([str(trained.second), "--to", str(folder / "combiner"), "--license", "my own terms"])
    return folder


@pytest.fixture
def judge(forks, world, tmp_path):
    """Return a function that runs validate.py in a process of its own: what it prints, or its last line of errors."""

    def run(*arguments, **env):
        options = ["--dataset", "CIRR", *toy_paths(world, tmp_path), *arguments]
        done = forks.done("validate", options, env={name: str(value) for name, value in env.items()})
        return done.stdout if done.returncode == 0 else done.stderr.splitlines()[-1]

    return run


def test_a_folder_loads_by_its_path(trained, shared, judge):
    pair = judge("--clip-model-path", trained.clip, "--combiner-path", trained.combiner)
    assert "recall_at50" in pair
    assert judge("--combiner-path", shared / "combiner") == pair
    tuned = judge("--clip-model-path", trained.clip)
    assert tuned != pair
    for option in ("--clip-model-path", "--clip-model-name"):
        assert judge(option, shared / "clip") == tuned
    assert judge("--clip-model-path", shared / "combiner") == tuned
    assert judge("--clip-model-path", shared / "clip" / SHARED) == tuned


def test_digests_are_those_of_the_checkpoints(trained, shared, world):
    backbones = [load_clip(world / "small_clip.pt", place) for place in (trained.clip, shared / "clip")]
    backbones += [load_clip(shared / "clip"), load_clip(shared / "combiner")]
    assert len({backbone.digest() for backbone in backbones}) == 1
    networks = [load_network(place, backbones[0]) for place in (trained.combiner, shared / "combiner")]
    assert len({weights_digest(network.state_dict()) for network in networks}) == 1


def test_what_is_told_beside_the_weights(trained, shared, world):
    facts, told = read_facts(trained.combiner), read_facts(shared / "combiner")
    assert told.pop("holds_clip") is True
    assert told.pop("clip_model_name") == str(shared / "combiner")
    del facts["clip_model_name"]
    assert told == facts
    config, result = (json.loads((shared / "combiner" / f"{name}.json").read_text()) for name in ("config", "metrics"))
    assert config["license"] == "my own terms"
    assert config["options"]["clip_model_path"] == trained.clip.name
    row = pd.read_csv(trained.second / "validation_metrics.csv").iloc[-1]
    assert result["metrics"] == {name: row[name] for name in result["metrics"]}
    assert result["protocol"]["name"] == "clip4cir"
    for file in (shared / "clip", shared / "combiner"):
        for path in file.iterdir():
            for place in (world, trained.first.parents[2]):
                assert str(place).encode() not in path.read_bytes()


def test_the_card(shared):
    card = (shared / "combiner" / "README.md").read_text()
    head = card.split("---\n")[1]
    assert 'license: other\nlicense_name: "my own terms"\n' in head
    assert "--combiner-path FOLDER" in card
    assert "Each query ranks the split's whole gallery, with its reference left out (protocol clip4cir)." in card
    metrics = json.loads((shared / "combiner" / "metrics.json").read_text())["metrics"]
    assert f"| recall_at50 | {metrics['recall_at50']:.2f} |" in card
    assert "license: mit\n" in (shared / "clip" / "README.md").read_text()


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("/home/me/small_clip.pt", "small_clip.pt"),
        ("open_clip:ViT-B-32:/home/my files/w.pt", "open_clip:ViT-B-32:w.pt"),
        ("ViT-B/32", "ViT-B/32"),
        ("hf:lab/clip:sub/w.pt", "hf:lab/clip:sub/w.pt"),
        (["/a/b.csv"], ["b.csv"]),
        (3, 3),
    ],
)
def test_folders_of_this_machine_stay_here(value, kept):
    assert without_places(value) == kept


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["{run}", "--to", "{tmp}/new"], "the following arguments are required: --license"),
        (["{run}", "--to", "{run}", "--license", "mit"], "{run}: is not empty; name a new folder"),
        (["{tmp}", "--to", "{tmp}/new", "--license", "mit"], "{tmp}: not a run folder"),
        (["{run}", "--to", "hf:me", "--license", "mit"], "hf:me: hf:OWNER/NAME[:FILE] is expected"),
        (["{run}", "--to", "hf:me/a:b.pt", "--license", "mit"], "hf:me/a:b.pt: a repository is expected"),
        (["{run}", "--to", "{tmp}/new", "--license", "mit", "--weights", "combiner_9"], "combiner_9.pt: no such file"),
    ],
)
def test_what_cannot_be_shared(arguments, fault, trained, tmp_path, capsys):
    places = {"run": trained.second, "tmp": tmp_path}
    assert status_of(share.main, [argument.format(**places) for argument in arguments]) == 2
    assert fault.format(**places) in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "new").exists()


def test_a_clip_that_changed_since_is_refused(trained, tmp_path, world, capsys):
    options = json.loads((trained.second / "training_hyperparameters.json").read_text())
    run = tmp_path / "run"
    (run / "saved_models").mkdir(parents=True)
    (run / "saved_models" / trained.combiner.name).write_bytes(trained.combiner.read_bytes())
    options["clip_model_path"] = None
    (run / "training_hyperparameters.json").write_text(json.dumps(options))
    assert status_of(share.main, [run, "--to", tmp_path / "new", "--license", "mit"]) == 2
    assert "was trained on another CLIP than" in capsys.readouterr().err


def test_a_repository_is_made_and_loads_by_its_name(trained, shared, judge, forks, world, tmp_path):
    cache = {"HF_HOME": str(tmp_path / "hub"), "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": TOKEN}
    with hub() as server:
        env = cache | {"HF_ENDPOINT": server.address}
        arguments = [trained.second, "--to", "hf:lab/combiner", "--license", "mit"]
        done = forks.done("share", arguments, env=env)
        assert (done.returncode, done.stdout) == (0, "hf:lab/combiner\n"), done.stderr
        again = forks.done("share", arguments, env=env)
        fault = "hf:lab/combiner: the repository has weights already (weights.safetensors); name a new one"
        assert (again.returncode, again.stdout) == (2, "")
        assert fault in again.stderr.splitlines()[-1]
        files = server.repositories["lab/combiner"]
        assert set(files) == {SHARED, "README.md", "config.json", "metrics.json"}
        assert files[SHARED] == (shared / "combiner" / SHARED).read_bytes()
        assert b"--combiner-path hf:lab/combiner" in files["README.md"]
        server.repositories["lab/old"] = {"models/clip.pt": trained.clip.read_bytes()}
        pair = judge("--combiner-path", "hf:lab/combiner", **env)
        assert pair == judge("--combiner-path", shared / "combiner")
        assert judge("--clip-model-path", "hf:lab/old:models/clip.pt", **env) == judge(
            "--clip-model-path", trained.clip
        )
        assert judge("--clip-model-name", "hf:lab/combiner", **env) == judge("--clip-model-path", trained.clip)
        fault = "hf:lab/old: the repository has no weights.safetensors; its weights are models/clip.pt"
        assert fault in judge("--clip-model-path", "hf:lab/old", **env)
        theirs = {"open_clip_model.bin": (world / "small_clip.pt").read_bytes(), "open_clip_config.json": b"{}"}
        server.repositories["laion/clip"] = theirs
        fault = "read wrongly; --clip-model-name open_clip:hf-hub:laion/clip takes them"
        assert fault in judge("--clip-model-name", "hf:laion/clip:open_clip_model.bin", **env)
        server.gated.add("laion/clip")
        fault = "hf:laion/clip:x.bin: gated: request access on its page, then set HF_TOKEN or run `hf auth login`"
        assert fault in judge("--clip-model-path", "hf:laion/clip:x.bin", **env | {"HF_TOKEN": "another"})
        server.private.add("lab/old")
        asks = env | {"HF_TOKEN": "another"}
        fault = "hf:lab/old:x.pt: no such repository, or a private one: HF_TOKEN or `hf auth login` says who you are"
        assert fault in judge("--clip-model-path", "hf:lab/old:x.pt", **asks)
    # What was downloaded once needs the hub no more.
    gone = env | {"HF_ENDPOINT": "http://127.0.0.1:9"}
    for way in (gone, gone | {"HF_HUB_OFFLINE": "1"}):
        assert judge("--combiner-path", "hf:lab/combiner", **way) == pair
    fault = "hf:lab/new: not in the cache, and the hub cannot be reached; a file on this machine will do too"
    assert fault in judge("--combiner-path", "hf:lab/new", **gone)
    fault = "hf:lab/new: not in the cache, and HF_HUB_OFFLINE forbids downloading it"
    assert fault in judge("--combiner-path", "hf:lab/new", **gone, HF_HUB_OFFLINE="1")
