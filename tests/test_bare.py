"""The commands as typed in the project's root, in processes of their own, with CLIP by its published name."""

import hashlib
import shutil
import subprocess
import sys

import pytest

from src.base.files import PROJECT_ROOT

# Without a network: RN50x4 is the small CLIP, which clip's own download takes from a file and checks by its name.
WITH_LOCAL_DOWNLOADS = """
import runpy, sys, warnings
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import clip.clip
clip.clip._MODELS["RN50x4"] = sys.argv[1]
sys.argv = sys.argv[2:]
sys.path.insert(0, ".")
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture
def project(world, tmp_path):
    """A copy of the project with both datasets in its root."""
    folder = tmp_path / "project"
    shutil.copytree(PROJECT_ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    for file in PROJECT_ROOT.glob("*.py"):
        shutil.copy(file, folder)
    for dataset in ("cirr_dataset", "fashionIQ_dataset"):
        (folder / dataset).symlink_to(world / dataset)
    return folder


@pytest.fixture
def run(project, world, tmp_path):
    weights = (world / "small_clip.pt").read_bytes()
    published = tmp_path / hashlib.sha256(weights).hexdigest() / "RN50x4.pt"
    published.parent.mkdir()
    published.write_bytes(weights)

    def command(*arguments):
        environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "COMET_CONFIG": "/dev/null"}
        code = [sys.executable, "-c", WITH_LOCAL_DOWNLOADS, published.as_uri(), *arguments]
        done = subprocess.run(code, check=False, cwd=project, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done

    return command


def test_bare_submission(run, project):
    run("cirr_test_submission.py")
    assert len(list((project / "submission" / "CIRR").glob("recall_s*.json"))) == 2


def test_combiner_training_needs_no_dataset(run, project):
    run("combiner_train.py", "--num-epochs", "1", "--batch-size", "16", "--projection-dim", "8", "--hidden-dim", "8")
    (folder,) = (project / "models").iterdir()
    assert folder.name.startswith("combiner_trained_on_cirr_RN50x4_")
