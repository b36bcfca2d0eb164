"""Commands as processes of their own, alone or as torchrun would start them, without the seconds that imports take."""

import functools
import json
import multiprocessing
import os
import select
import subprocess
import sys

from src.base.files import PROJECT_ROOT
from src.training.run import UNFINISHED
from tests.support.processes import PATIENCE, wait_for_file


class Forks:
    """The server that forks commands, tests/support/fork_server.py; `folder` receives what they say."""

    def __init__(self, folder):
        self.folder = folder
        self._serve()

    def _serve(self):
        method = multiprocessing.get_start_method()
        command, pipe = [sys.executable, "-m", "tests.support.fork_server", method], subprocess.PIPE
        # A fork of a process that has looked for cards cannot use one.
        env = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
        self.server = subprocess.Popen(command, cwd=PROJECT_ROOT, env=env, stdin=pipe, stdout=pipe)
        self._unread, self._is_busy = b"", False

    def start(self, command, arguments, processes=1, **order):
        """Start a command; return the number that the system knows each of its processes by."""
        if self._is_busy:  # with a command of a test that failed before it waited
            self.end()
        if self.server.poll() is not None:
            self._serve()
        order |= {"command": command, "arguments": [str(argument) for argument in arguments]}
        order |= {"processes": processes, "folder": str(self.folder)}
        self.server.stdin.write(json.dumps(order).encode() + b"\n")
        self.server.stdin.flush()
        self._is_busy = True
        return self._answer()

    def wait(self):
        """Return the status that each process ended with, minus the signal's number where one killed it."""
        statuses = self._answer()
        self._is_busy = False
        return statuses

    def run(self, command, arguments, **order):
        """Return the status that a command ends with; a list of them for several processes that do not end alike."""
        self.start(command, arguments, **order)
        statuses = self.wait()
        return statuses[0] if len(set(statuses)) == 1 else statuses

    def done(self, command, arguments, **order):
        """Run a command in one process; return what subprocess.run() would."""
        status = self.run(command, arguments, **order)
        return subprocess.CompletedProcess(command, status, self.said(stream="stdout"), self.said())

    def said(self, number=0, stream="stderr"):
        """Return what a process said."""
        path = self.folder / f"{stream}.{number}"
        return path.read_text() if path.is_file() else ""

    def wait_for_file(self, folder, pattern, pid):
        """Return once the process that was started, `pid`, has written a file below `folder` that matches."""
        wait_for_file(folder, pattern, pid, self.said)

    def end(self):
        """End the server, and with it what it may still have running."""
        self.server.kill()
        self.server.wait(PATIENCE)

    def _answer(self):
        """Return what the server's next line holds; a server that is silent for too long ends with its processes."""
        while b"\n" not in self._unread:
            is_there, _, _ = select.select([self.server.stdout], [], [], PATIENCE)
            # Not readline(), which may keep more than a line to itself: select() would not see that.
            some = os.read(self.server.stdout.fileno(), 65536) if is_there else b""
            if not some:
                self.end()
                fault = f"silent for {PATIENCE} s" if not is_there else "gone"
                raise AssertionError(f"the server of forks is {fault}, its first process said: {self.said()}")
            self._unread += some
        line, _, self._unread = self._unread.partition(b"\n")
        return json.loads(line)


def only_run(folder):
    """Return the one run folder below an output path."""
    (run,) = runs_of(folder)
    return run


def runs_of(folder):
    """Return the run folders below an output path, without those that a kill left unfinished."""
    return [run for run in folder.glob("models/*") if not run.name.startswith(UNFINISHED)]


def finished_runs(forks, flags_of, world, make_folder):
    """Return a function from (command, dataset, flags) to the folder of such a run, which nobody disturbed.

    Each run takes one process, and is made once.
    """

    @functools.cache
    def folder_of(command, dataset, *extra):
        output = make_folder("finished")
        assert forks.run(command, flags_of(command, dataset, world, output, *extra)) == 0, forks.said()
        return only_run(output)

    return folder_of
