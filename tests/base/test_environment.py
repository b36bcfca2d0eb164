"""Variables that somebody set for another program end no command and change no answer."""

import os
import sys
import warnings
from types import SimpleNamespace

import matplotlib
import pytest

import clip_fine_tune
import validate
from src.apps.pages.curves import curves
from src.base.environment import forget_odd_variables
from tests.support.commands import toy_options
from tests.support.forks import only_run
from tests.support.processes import python

FOREIGN = {
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    "TQDM_MININTERVAL": "often",
    "TQDM_NCOLS": "wide",
    "TQDM_DESC": "mine",
    "TQDM_TOTAL": "3",
    "PYTHONWARNINGS": "error",
    "TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1",
    "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1",
    "COLUMNS": "x",
    "LINES": "-4",
    "PYTHONIOENCODING": "ascii:strict",
    "PYTHONOPTIMIZE": "2",
    "SLURM_PROCID": "z",
    "SLURM_STEP_NUM_TASKS": "y",
    "RANK": "q",
    "LOCAL_RANK": "",
    "CUDA_VISIBLE_DEVICES": "garbage",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1",
    "NO_COLOR": "1",
    "FORCE_COLOR": "1",
    "TZ": "No/Where:::",
    "SOURCE_DATE_EPOCH": "x",
    "PILLOW_BLOCK_SIZE": "x",
    "PYTHONHASHSEED": "5",
    "COMET_MODE": "garbage",
    "COMET_DISABLE_AUTO_LOGGING": "perhaps",
    "COMET_EXPERIMENT_KEY": "abc",
    "COMET_START_MODE": "get",
    "TORCH_LOGS": "nonsense",
    "PYTORCH_CUDA_ALLOC_CONF": "nonsense",
}


@pytest.fixture(scope="module")
def run(world, tmp_path_factory):
    """Finish a run of stage 1; return its folder."""
    output = tmp_path_factory.mktemp("run")
    flags = ["--num-epochs", "1", "--batch-size", "16", "--save-training", "--save-best"]
    clip_fine_tune.main(["--dataset", "CIRR", *toy_options(world, output), *flags])
    return only_run(output)


def test_answers_are_the_same_among_foreign_variables(world, tmp_path, capsys):
    flags = ["--dataset", "CIRR", *toy_options(world, tmp_path)]
    validate.main(flags)
    expected = capsys.readouterr().out
    (tmp_path / "matplotlibrc").write_text("backend: nonsense\nlines.linewidth: wide\n")
    done = python("validate.py", *flags, check=False, env=os.environ | FOREIGN)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == expected


def test_a_report_is_made_among_foreign_variables(run, tmp_path):
    (tmp_path / "rc").write_text("backend: nonsense\nlines.linewidth: wide\ntext.usetex: True\n")
    env = os.environ | FOREIGN | {"MATPLOTLIBRC": str(tmp_path / "rc"), "MPLCONFIGDIR": "/proc/none"}
    flags = ["--run-folder", run, "--output", tmp_path / "report.html", "--num-workers", "0"]
    done = python("report.py", *flags, check=False, env=env)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "<svg" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "nonsense", "TkAgg"])
def test_curves_need_no_backend(backend):
    drawn = "print(curves([('a', 'b', {'c': ([0], [1])})] * 2)[:4])"
    code = f"import src.base; from src.apps.pages.curves import curves; {drawn}"
    done = python("-c", code, env=os.environ | {"MPLBACKEND": backend})
    assert done.stdout == "<svg\n"


def test_a_notebook_keeps_its_backend_and_style(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: None, version_info=(9, 0)))
    forget_odd_variables()
    with matplotlib.rc_context({"lines.linewidth": 40, "svg.hashsalt": "x"}):
        thick = curves([("a", "b", {"c": ([0, 1], [1, 2])})] * 2)
        assert matplotlib.rcParams["lines.linewidth"] == 40
    assert os.environ["MPLBACKEND"] == "agg"
    assert "stroke-width: 40" not in thick


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("TQDM_DISABLE", "1", True),
        ("TQDM_MININTERVAL", "30", True),
        ("TQDM_MININTERVAL", "nan", False),
        ("TQDM_MAXINTERVAL", "-1", False),
        ("TQDM_POSITION", "3", False),
        ("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "1", False),
        ("TORCH_LOGS", "nonsense", False),
        ("PYTORCH_CUDA_ALLOC_CONF", "nonsense", False),
        ("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True,max_split_size_mb:64", True),
        ("MPLBACKEND", "TkAgg", False),
        ("SOURCE_DATE_EPOCH", "x", False),
        ("SOURCE_DATE_EPOCH", "1700000000", True),
        ("PYTHONWARNINGS", "ignore", True),
        ("PYTHONWARNINGS", "error::UserWarning", False),
    ],
)
def test_what_is_forgotten(name, value, kept, monkeypatch):
    monkeypatch.setenv(name, value)
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    with warnings.catch_warnings():
        forget_odd_variables()
        assert (name in os.environ) == kept
        assert kept or "error" not in {rule[0] for rule in warnings.filters}
