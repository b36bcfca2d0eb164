"""Processes that work for another one: loader workers, and the processes that torchrun starts."""

import ctypes
import os
import signal
import sys


def start_worker(_number: int = 0) -> None:
    """Make this worker end with the process that it works for, and never by a signal sent to the whole group.

    Ctrl-C, and the SIGTERM of torchrun or `timeout`, reach every process of a group. A worker that died of one would be
    reported as lost before the training itself could say why it stops.
    """
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)
    end_with_parent(signal.SIGKILL)


def end_with_parent(number: int) -> None:
    """Ask Linux to send this process the signal `number` when its parent ends. Other systems have no such thing."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, ctypes.c_ulong(number))
