"""Installing the project: it has a name, brings its requirements, and puts no module beside those of others."""

import ast
import re
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from src.base.files import PROJECT_ROOT
from tests.support.processes import python


def test_a_wheel_holds_requirements_and_no_modules(tmp_path):
    pytest.importorskip("setuptools", minversion="77")
    for name in ("pyproject.toml", "README.md", "LICENSE", "requirements.txt", "utils.py"):
        shutil.copy(PROJECT_ROOT / name, tmp_path)
    (tmp_path / "src").mkdir()
    shutil.copy(PROJECT_ROOT / "src" / "__init__.py", tmp_path / "src")
    build = "from setuptools.build_meta import build_wheel; build_wheel('wheels')"
    subprocess.run([sys.executable, "-c", build], cwd=tmp_path, check=True, capture_output=True)
    (wheel,) = (tmp_path / "wheels").iterdir()
    with zipfile.ZipFile(wheel) as archive:
        (folder,) = {name.split("/")[0] for name in archive.namelist()}
        metadata = Parser().parsestr(archive.read(f"{folder}/METADATA").decode())
    assert metadata["Name"] == "clip4cir"
    assert folder == f"clip4cir-{metadata['Version']}.dist-info"
    lines = (PROJECT_ROOT / "requirements.txt").read_text().splitlines()
    required = {re.match(r"[\w-]+", line)[0] for line in lines if not line.startswith("#")}
    assert {re.match(r"[\w-]+", line)[0] for line in metadata.get_all("Requires-Dist")} == required


COMMANDS = [file.stem for file in PROJECT_ROOT.glob("*.py") if "__main__" in file.read_text()]
COMMANDS += ["benchmarks", "benchmarks.machine", "benchmarks.search", "docs.findings", "docs.options"]
COMMANDS += ["src.apps.features", "src.apps.mix", "src.apps.own", "src.apps.share", "src.toy"]
AN_OLDER_PYTHON = "import sys; sys.version_info = (3, 9, 18, 'final', 0); "
REFUSED = "error: this is Python 3.9, but Python 3.10 or newer is needed\n"


def test_an_older_python_is_refused_by_each_command():
    """Each must be readable to it as well."""
    assert len(COMMANDS) == 12 + 10
    program = "import runpy\nfor command in sys.argv[1:]:\n    try: runpy.run_module(command, run_name='__main__')\n"
    program += "    except SystemExit as end: assert end.code == 2"
    done = python("-c", AN_OLDER_PYTHON + program, *COMMANDS, check=False)
    assert (done.returncode, done.stderr) == (0, REFUSED * len(COMMANDS))
    for command in COMMANDS:
        file = PROJECT_ROOT / command.replace(".", "/")
        path = file / "__main__.py" if file.is_dir() else file.with_suffix(".py")
        ast.parse(path.read_text(), feature_version=(3, 7))


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_an_older_python_is_refused_before_anything_is_installed(tmp_path):
    for name in ("Makefile", "requirements.txt", "src/__init__.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(PROJECT_ROOT / name, tmp_path / name)
    older = tmp_path / "older"
    older.write_text(f'#!/bin/sh\n[ "$1" = -c ] || touch installing\nexec {sys.executable} -c "{AN_OLDER_PYTHON}$2"\n')
    older.chmod(0o755)
    command = ["make", "PYTHON=./older", "quickstart"]
    done = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith(REFUSED)
    assert not (tmp_path / "installing").exists()


def test_the_tested_versions_are_those_asked_for():
    lines = [line for line in (PROJECT_ROOT / "requirements" / "tested.txt").read_text().splitlines() if line[0] != "#"]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)  # no place of a package
    versions = {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}
    files = [PROJECT_ROOT / "requirements.txt", *(PROJECT_ROOT / "requirements").glob("*.txt")]
    asked = [line for file in files for line in file.read_text().splitlines() if line[0] not in "#-"]
    for requirement in map(Requirement, asked):
        assert versions[canonicalize_name(requirement.name)] in requirement.specifier, requirement
