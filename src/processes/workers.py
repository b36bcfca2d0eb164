"""Processes that work for another one: loader workers, and the processes that torchrun starts."""

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial


def start_worker(_number: int = 0, employer: int | None = None) -> None:
    """Make this worker end with the process `employer` that it works for, and never by a signal to the whole group.

    Ctrl-C, and the SIGTERM of torchrun or `timeout`, reach every process of a group. A worker that died of one would be
    reported as lost before the training itself could say why it stops.
    """
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # inherited from `holding_signals`
    end_with_parent(signal.SIGKILL)
    sys.excepthook = partial(_unless_left, sys.excepthook)
    # A fork server is the parent of all workers and lives as long as any of them: then the employer must be watched.
    if employer not in (None, os.getppid()):
        threading.Thread(target=_end_with, args=(employer,), daemon=True).start()


def _unless_left(hook: Callable, kind: type[BaseException], error: BaseException, traceback) -> None:
    """Call `hook` on an exception of a worker's thread, unless it says that the other end of a pipe is closed."""
    # The employer stops in the middle of a batch where a signal ends it, and says so itself.
    if not issubclass(kind, ConnectionError | EOFError):
        hook(kind, error, traceback)


SIGNALS = signal.SIGINT, signal.SIGTERM


@contextlib.contextmanager
def holding_signals() -> Iterator[None]:
    """Let SIGINT and SIGTERM wait while workers are forked: Python drops what a handler raises in a fork's hooks."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with_parent(number: int) -> None:
    """Ask Linux to send this process the signal `number` when its parent ends. Other systems have no such thing."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, ctypes.c_ulong(number))


def _end_with(employer: int) -> None:
    """Kill this process when the process `employer` has ended. Its number may be given to another one only later."""
    while True:
        time.sleep(1)
        try:
            os.kill(employer, 0)
        except ProcessLookupError:
            os.kill(os.getpid(), signal.SIGKILL)
