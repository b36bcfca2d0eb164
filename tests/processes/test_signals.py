"""A signal may come at any moment, and ends a command with its own line and nothing beside it."""

import gc
import os
import signal

import pytest

from src.base.bars import Bar, showing_bars
from src.base.errors import Stopped
from src.processes.signals import Stopping


class _Interrupted(BaseException):
    """What the handler of a signal raises."""


@pytest.mark.parametrize("step", ["_get_free_pos", "refresh"])
def test_a_bar_interrupted_while_it_is_made_says_nothing(step, monkeypatch, capsys):
    def interrupt(*_, **__):
        raise _Interrupted

    faults = []
    monkeypatch.setattr("sys.unraisablehook", faults.append)
    with monkeypatch.context() as patch:
        patch.setattr(Bar, step, interrupt)
        with showing_bars(), pytest.raises(_Interrupted):
            Bar(range(3))
    gc.collect()
    assert faults == []
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with showing_bars():
        assert list(Bar(range(3))) == [0, 1, 2]
    assert "3/3" in capsys.readouterr().err


def test_a_signal_lost_in_a_destructor_ends_what_is_finished_next(monkeypatch):
    class Deaf:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGTERM)
            "".join([])  # a handler runs between two steps of Python

    lost = []
    monkeypatch.setattr("sys.unraisablehook", lambda fault: lost.append(fault.exc_type))
    done = []
    with pytest.raises(Stopped) as end, Stopping(lambda: "last words") as stopping:
        Deaf()
        assert lost == [Stopped]
        with stopping.finishing():
            done.append("whole")
    assert done == ["whole"]
    assert (end.value.code, end.value.line) == (143, "stopped by SIGTERM: last words")
