"""What commands import: nothing that takes seconds and that they do not enter."""

import pytest

import search
import validate
from tests.support.commands import status_of, toy_options
from tests.support.processes import python

NOT_ENTERED = {"torchvision", "torch._dynamo", "comet_ml", "pandas", "scipy", "matplotlib", "jinja2"}
CODE = """
import importlib, sys
importlib.import_module(sys.argv[1]).main(sys.argv[2:])
print(*sorted(sys.modules))
"""


@pytest.mark.parametrize("command", [validate, search])
def test_on_kept_features_a_command_imports_what_it_enters(command, world, tmp_path):
    options = toy_options(world, tmp_path)
    if command is validate:
        options = ["--dataset", "CIRR", *options]
    else:
        options = ["--pictures", world / "my_pictures", "--caption", "in red", *options[2:]]
    assert status_of(command.main, options) == 0
    printed = python("-c", CODE, command.__name__, *options).stdout
    assert not NOT_ENTERED & set(printed.splitlines()[-1].split())
