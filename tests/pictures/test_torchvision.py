"""torchvision's transforms without the rest of it, and the whole where they need it."""

import pickle
import sys
from unittest.mock import patch

import pytest

from src.pictures.torchvision import import_transforms
from src.pictures.transforms import make_transform


def test_a_worker_is_sent_no_class_of_torchvision():
    """It would import all of torchvision to find one."""
    preprocess = make_transform("targetpad", 1.5, 32)
    pickled = pickle.dumps(preprocess)
    assert b"torchvision" not in pickled
    assert pickle.loads(pickled).settings == preprocess.settings


@pytest.fixture
def other_torchvision(tmp_path, monkeypatch):
    """Return a function that puts another torchvision in place of the installed one, whose transforms are `code`."""

    def put(code):
        (tmp_path / "torchvision" / "transforms").mkdir(parents=True)
        (tmp_path / "torchvision" / "__init__.py").write_text("REST = 1\nfrom . import transforms\n")
        (tmp_path / "torchvision" / "transforms" / "__init__.py").write_text(code)

    monkeypatch.syspath_prepend(tmp_path)
    with patch.dict(sys.modules):
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        yield put


@pytest.mark.parametrize(
    ("code", "needs_rest"),
    [
        ("def rest(): return 1", False),
        ("def rest():\n    import torchvision\n    return torchvision.REST", False),
        ("import torchvision\ndef rest(): return torchvision.REST", True),
        ("from torchvision import REST\ndef rest(): return REST", True),
    ],
)
def test_transforms_that_need_the_rest_get_it(code, needs_rest, other_torchvision):
    other_torchvision(code)
    transforms = import_transforms()
    assert ("torchvision" in sys.modules) == needs_rest
    assert transforms.rest() == 1
    assert import_transforms() is transforms
