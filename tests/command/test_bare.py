"""The commands as typed in the project's root, in processes of their own, with CLIP by its published name."""

import hashlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.commands import COMBINER, copy_project, toy_options
from tests.support.processes import python

# Without a network: RN50x4 is the small CLIP, which clip's own download takes from a file and checks by its name.
WITH_LOCAL_DOWNLOADS = """
import runpy, sys
sys.path.insert(0, ".")
from src.models.openai_clip import clip
clip.clip._MODELS["RN50x4"] = sys.argv[1]
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
# As where setuptools 82 or none is installed. validate.py reads a CLIP and its tokens there.
WITHOUT_SETUPTOOLS = """
import sys

class Missing:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in ("pkg_resources", "setuptools"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Missing())
sys.path.insert(0, ".")
import validate
validate.main(sys.argv[1:])
try:
    import pkg_resources
except ModuleNotFoundError:
    print("no pkg_resources left behind")
"""
BARE = {
    "submission": ["cirr_test_submission.py"],
    "combiner": ["combiner_train.py", "--num-epochs", "1", "--batch-size", "16", *COMBINER],
}


@pytest.fixture(scope="module")
def project(world, tmp_path_factory):
    """Run all BARE commands at once, each in a home of its own, to a good end; return the copy of the project."""
    home = tmp_path_factory.mktemp("bare")
    folder = copy_project(home / "project", world)
    weights = (world / "small_clip.pt").read_bytes()
    published = home / hashlib.sha256(weights).hexdigest() / "RN50x4.pt"
    published.parent.mkdir()
    published.write_bytes(weights)

    def run(name):
        environment = {"HOME": str(home / name), "PATH": "/usr/bin:/bin", "COMET_CONFIG": "/dev/null"}
        code = "-c", WITH_LOCAL_DOWNLOADS, published.as_uri(), *BARE[name]
        return python(*code, check=False, cwd=folder, env=environment)

    with ThreadPoolExecutor() as both:
        for done in both.map(run, BARE):
            assert done.returncode == 0, done.stderr
    return folder


def test_bare_submission(project):
    assert len(list((project / "submission" / "CIRR").glob("recall_s*.json"))) == 2


def test_combiner_training_needs_no_dataset(project):
    (folder,) = (project / "models").iterdir()
    assert folder.name.startswith("combiner_trained_on_cirr_RN50x4_")


def test_clip_without_setuptools(world, tmp_path):
    command = "-W", "error", "-c", WITHOUT_SETUPTOOLS, "--dataset", "CIRR", *toy_options(world, tmp_path)
    said = python(*command, check=False)
    assert said.returncode == 0, said.stderr
    assert "recall_at50 = " in said.stdout
    assert said.stdout.endswith("no pkg_resources left behind\n")
