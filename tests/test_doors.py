"""Doors, the scripts of the root: what each imports."""

import ast

import pytest

from src.base.files import PROJECT_ROOT

DESKS = {"combiner", "data_utils", "utils"}
ROOMS = {
    "check_data": {"src.apps.checking"},
    "check_submission": {"src.apps.submission"},
    "circo_test_submission": {"src.apps.submission"},
    "cirr_test_submission": {"src.apps.submission"},
    "clip_fine_tune": {"src.training"},
    "combiner_train": {"src.training"},
    "compare": {"src.apps.compare"},
    "demo": {"src.apps.demo"},
    "quickstart": set(),
    "report": {"src.apps.report"},
    "search": {"src.apps.search"},
    "validate": {"src.evaluation"},
}
"""{door: the rooms of src/ that it enters, beside src/command}"""
MOST_LINES = 170


def imported(path):
    """Yield what a file imports of the project, also inside functions."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{name.name}" for name in node.names)


def test_every_script_of_the_root_is_a_door_or_a_desk():
    assert {path.stem for path in PROJECT_ROOT.glob("*.py")} == DESKS | ROOMS.keys()


@pytest.mark.parametrize("door", ROOMS)
def test_a_door_imports_desks_options_and_its_own_room(door):
    path = PROJECT_ROOT / f"{door}.py"
    allowed = tuple(f"{room}." for room in {"src.command"} | ROOMS[door])
    own = [name for name in imported(path) if name.split(".")[0] == "src" or f"{name.split('.')[0]}" in ROOMS]
    assert [name for name in own if not name.startswith(allowed)] == []
    assert len(path.read_text().splitlines()) <= MOST_LINES
