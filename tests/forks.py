"""Commands as processes of their own, alone or as torchrun would start them, without the seconds of importing torch."""

import functools
import json
import subprocess
import sys
import time
from pathlib import Path

from src.base.files import PROJECT_ROOT

# A process that imports everything once and then forks: as many children as each order that it reads says. It tells
# how each ended. A child kills itself with SIGKILL at the n-th file operation in its run folder ("operations"), or in
# the middle of writing its n-th state ("writes"); it has no file above so many bytes ("limit"); it leads a group of
# processes ("group").
SERVER = """
import glob, itertools, json, os, resource, signal, sys, threading, time
import cirr_test_submission, clip_fine_tune, combiner_train, comet_ml, torch, validate
from tests import formula, gradients
torch.set_num_threads(1)
MODULES = {
    "clip_fine_tune": clip_fine_tune, "combiner_train": combiner_train, "validate": validate,
    "cirr_test_submission": cirr_test_submission, "gradients": gradients,
}

def die(): os.kill(os.getpid(), signal.SIGKILL)

def die_at_operation(n):
    operations = itertools.count(1)
    def hook(event, arguments):
        if event in ("open", "os.rename") and "/models/" in str(arguments[0]) and next(operations) == n:
            die()
    sys.addaudithook(hook)

def die_while_writing(n, output):
    seen = set()
    def watch():
        while True:
            for path in glob.glob(output + "/models/*/.training_state.pt.*"):
                try:
                    status = os.stat(path)
                except OSError:
                    continue
                seen.add(status.st_ino)
                if len(seen) >= n and status.st_size > 100_000:
                    die()
            time.sleep(0.0005)
    threading.Thread(target=watch, daemon=True).start()

def redirect(path, descriptor):
    os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)

def child(order, number):
    redirect(order["folder"] + f"/stdout.{number}", 1)
    redirect(order["folder"] + f"/stderr.{number}", 2)
    if order["processes"] > 1:
        port = int(os.read(order["gate"][0], 8))
        numbers = {"RANK": number, "LOCAL_RANK": number, "MASTER_PORT": port}
        numbers |= {"WORLD_SIZE": order["processes"], "LOCAL_WORLD_SIZE": order["processes"]}
        os.environ |= {"TORCHELASTIC_RUN_ID": "test", "TORCHELASTIC_USE_AGENT_STORE": "True"}
        os.environ |= {"MASTER_ADDR": "127.0.0.1"}
        os.environ |= {name: str(value) for name, value in numbers.items()}
    if "group" in order: os.setpgid(0, 0)
    if "operations" in order: die_at_operation(order["operations"])
    if "writes" in order: die_while_writing(order["writes"], order["output"])
    if "limit" in order: resource.setrlimit(resource.RLIMIT_FSIZE, (order["limit"], resource.RLIM_INFINITY))
    if "without_luck" in order: combiner_train.Combiner = formula.combiner_without_luck
    MODULES[order["command"]].main(order["arguments"])

def fork(order, number):
    pid = os.fork()
    if pid:
        return pid
    status = 0
    try:
        child(order, number)
    except SystemExit as end:
        status = end.code
    except BaseException:
        import traceback
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)

for line in sys.stdin:
    order = json.loads(line)
    order["gate"] = os.pipe()
    pids = [fork(order, number) for number in range(order["processes"])]
    store = None
    if order["processes"] > 1:
        # The server keeps the job's store, as torchrun does: it outlives every process. Its threads begin behind the
        # forks and end before the next ones: a child that is forked while one of them holds a lock would never get it.
        store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        os.write(order["gate"][1], b"%8d" % store.port * len(pids))
    print(json.dumps(pids), flush=True)
    print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]), flush=True)
    for end in order["gate"]: os.close(end)
    del store
"""


class Forks:
    """A server that forks commands; `folder` receives what they say."""

    def __init__(self, folder):
        self.folder = folder
        self.server = subprocess.Popen(
            [sys.executable, "-c", SERVER], cwd=PROJECT_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def start(self, command, arguments, processes=1, **order):
        """Start a command; gives the number that the system knows each of its processes by."""
        order |= {"command": command, "arguments": [str(argument) for argument in arguments]}
        order |= {"processes": processes, "folder": str(self.folder)}
        self.server.stdin.write(json.dumps(order) + "\n")
        self.server.stdin.flush()
        return json.loads(self.server.stdout.readline())

    def wait(self):
        """The status that each process ended with, minus the signal's number where one killed it."""
        return json.loads(self.server.stdout.readline())

    def run(self, command, arguments, **order):
        """The status that a command ends with; a list of them for several processes that do not end alike."""
        self.start(command, arguments, **order)
        statuses = self.wait()
        return statuses[0] if len(set(statuses)) == 1 else statuses

    def said(self, number=0, stream="stderr"):
        """What a process said."""
        return (self.folder / f"{stream}.{number}").read_text()

    def end(self):
        self.server.stdin.close()
        self.server.wait()


def children_of(pid):
    """The processes that a process has started."""
    found = subprocess.run(["pgrep", "-P", str(pid)], check=True, capture_output=True, text=True)
    return [int(child) for child in found.stdout.split()]


def wait_for_end(pids):
    """Return once none of these processes works any more; an orphan may stay as a zombie."""
    for _ in range(1000):
        if not any(map(_works, pids)):
            return
        time.sleep(0.05)
    raise AssertionError(f"of {pids} some still work")


def _works(pid):
    status = Path(f"/proc/{pid}/stat")
    return status.is_file() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def only_run(folder):
    """The one run folder below an output path."""
    (run,) = (folder / "models").iterdir()
    return run


def finished_runs(forks, flags_of, world, make_folder):
    """(command, dataset, flags) → the folder of a run of one process that nobody disturbed, each run but once."""

    @functools.cache
    def folder_of(command, dataset, *extra):
        output = make_folder("finished")
        assert forks.run(command, flags_of(command, dataset, world, output, *extra)) == 0, forks.said()
        return only_run(output)

    return folder_of
