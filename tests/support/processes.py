"""Processes that tests start, wait for and look at. No wait is endless, and none is short."""

import contextlib
import os
import subprocess
import sys
import time

import psutil

from src.base.files import PROJECT_ROOT

PATIENCE = 240
"""Seconds to wait for a process: minutes, since a slow machine is no fault, but less than pytest gives a test."""


def python(*arguments, check=True, env=os.environ, **options):
    """Run Python in the project's root, or in `cwd`, in one thread; return what it said and its status."""
    command = [sys.executable, *map(str, arguments)]
    options = {"cwd": PROJECT_ROOT, "capture_output": True, "text": True, "timeout": PATIENCE} | options
    return subprocess.run(command, check=check, env={**env, "OMP_NUM_THREADS": "1"}, **options)


def last_line(text):
    """Return what a terminal shows last of a text."""
    return text.splitlines()[-1].split("\r")[-1].strip()


def assert_one_line(done, *words):
    """Assert that a process ended as unusable input does, in a line with these words."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    line = last_line(done.stderr)
    assert "error: " in line
    assert all(word in line for word in words), line


def children_of(pid, recursive=False):
    """Return the processes that a process has started and that are still there."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return [child.pid for child in psutil.Process(pid).children(recursive)]
    return []


def descendants_of(pid):
    """Return the processes that a process has started, and those that these have: a fork server starts workers too."""
    return children_of(pid, recursive=True)


def wait_for_workers(pid, number):
    """Return all that process `pid` has started, once these are so many."""
    workers = []

    def are_there():
        workers[:] = descendants_of(pid)
        return len(workers) >= number

    wait_until(are_there, lambda: f"{pid} has started {workers} alone")
    return workers


def works(pid):
    """Whether a process works still. A dead one may stay as a zombie until its parent asks for its status."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_for_end(pids):
    """Return once none of these processes works any more."""
    wait_until(lambda: not any(map(works, pids)), lambda: f"of {pids} some still work")


def wait_for_file(folder, pattern, pid, said):
    """Return once a file below `folder` matches; fails with `said()` when process `pid` ends without writing one."""

    def is_there():
        is_over = not works(pid)  # asked first: it may write the file and end in between
        found = any(folder.glob(pattern))
        assert found or not is_over, said()
        return found

    wait_until(is_there, said)


def wait_until(is_so, said):
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < deadline, said()
        time.sleep(0.01)
