"""Processes that work for another one: those that load its pictures, and those that torchrun starts."""

import ctypes
import os
import signal
import sys


def start_worker(_number=0):
    """What a worker does first: it ends with the process that it works for, and by no signal that a group is sent.

    Ctrl-C, SIGTERM of torchrun or of `timeout`: those are that process's, which would find its worker dead.
    """
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)
    end_with_parent(signal.SIGKILL)


def end_with_parent(number):
    """Ask Linux for the signal `number` when the process that started this one has ended. Other systems cannot."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, ctypes.c_ulong(number))
