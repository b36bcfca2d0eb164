"""Scripts that were written for the published code run on our modules as they are, and measure what ours measure."""

import json
import math
from importlib.util import find_spec
from pathlib import Path

import pytest

import cirr_test_submission
import validate
from src.base.files import PROJECT_ROOT
from tests.support.commands import CIRR_RECALLS, copy_project, toy_options
from tests.support.processes import python

TRANSFORMS = {"CIRR": "targetpad", "FashionIQ": "squarepad"}


@pytest.fixture(scope="module")
def project(world, tmp_path_factory):
    """Copy the project, with both data sets and somebody's script in its root."""
    folder = copy_project(tmp_path_factory.mktemp("drop_in") / "project", world)
    script = (PROJECT_ROOT / "tests" / "support" / "drop_in.py").read_text()
    if find_spec("pkg_resources") is None:
        script = f"import utils\n{script}"  # what docs/differences.md says to add where its `import clip` fails
    (folder / "drop_in.py").write_text(script)
    return folder


@pytest.fixture(scope="module")
def theirs(project, world):
    """Return what somebody's script measured: {data set: numbers}."""
    done = python("drop_in.py", world / "small_clip.pt", cwd=project, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def flags(theirs, world, tmp_path):
    """Return a function that gives our commands' flags for what somebody's script kept at some step."""

    def of(dataset, step):
        weights = Path(theirs[dataset]["folder"]) / "saved_models"
        clip = ["--clip-model-path", str(weights / ("raw.pt" if step == "raw" else "tuned.pt"))]
        combiner = ["--combiner-path", str(weights / "combiner.pt")] if step == "combiner" else []
        return [*toy_options(world, tmp_path), "--transform", TRANSFORMS[dataset], *clip, *combiner]

    return of


def test_the_projects_folder_is_theirs(theirs, project):
    for numbers in theirs.values():
        assert Path(numbers["folder"]).parent == project / "models"
        assert all(map(math.isfinite, numbers["losses"]))


def named(dataset, recalls):
    """Return {name that validate.py prints: percent} of {category: recalls}."""
    if dataset == "CIRR":
        return dict(zip(CIRR_RECALLS, recalls["rc2"], strict=True))
    return {f"{kind}_recallat{k}": value for kind, of in recalls.items() for k, value in zip((10, 50), of, strict=True)}


@pytest.mark.parametrize("step", ["raw", "tuned", "combiner"])
@pytest.mark.parametrize("dataset", TRANSFORMS)
def test_their_validation_is_ours(dataset, step, theirs, flags, capsys):
    validate.main(["--dataset", dataset, *flags(dataset, step)])
    printed = dict(line.split(" = ") for line in capsys.readouterr().out.splitlines())
    measured = named(dataset, theirs[dataset]["recalls"][step])
    assert {name: float(printed[name]) for name in measured} == pytest.approx(measured, abs=1e-4)


def test_their_submission_is_ours(project, flags, tmp_path):
    cirr_test_submission.main(["--submission-name", "somebody", *flags("CIRR", "combiner")])
    written = sorted((tmp_path / "submission" / "CIRR").iterdir())
    assert len(written) == 2
    for path in written:
        assert (project / path.relative_to(tmp_path)).read_bytes() == path.read_bytes()
