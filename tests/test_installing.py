"""Installing the project: it has a name, brings its requirements, and puts no module beside those of others."""

import re
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser

import pytest

from src.base.files import PROJECT_ROOT


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
