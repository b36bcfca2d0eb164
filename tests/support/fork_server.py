"""A process that imports everything once, and then forks commands: as many processes as each order that it reads says.

An order is a line of JSON. Two lines answer it: the numbers that the system knows the processes by and, once all have
ended, how each ended. An order's "operations" lets a process send itself "signal", SIGKILL where none is named, at the
n-th file operation in its run folder, "writes" kills it in the middle of writing its n-th state. "limit" allows no file
above so many bytes, "files" no more open ones, "address" so many bytes of address space beyond what is used, and "shm"
so many of /dev/shm; "memory" raises at the n-th large piece of work. "group" makes the process lead a group of
processes; "pids" is a folder in which the process and those that it forks leave their numbers. "env" are variables,
"qdrant" is a folder in place of every Qdrant server.
"""

import ctypes
import itertools
import json
import multiprocessing
import multiprocessing.util
import os
import resource
import signal
import sys
import tempfile
import traceback
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import comet_ml  # noqa: F401  a run imports it late, which would cost each fork a second
import torch
import torch.distributed.run

import check_data
import check_submission
import cirr_test_submission
import clip_fine_tune
import combiner_train
import compare
import report
import search
import validate
from src.apps.share import __main__ as share
from src.models.openai_clip import CLIP
from src.processes.workers import end_with_parent
from src.training.state import STATE_FILE
from tests.support import formula, gradients

DOORS = (check_data, check_submission, cirr_test_submission, clip_fine_tune, combiner_train)
DOORS += (compare, report, search, validate)
COMMANDS = {door.__name__: door for door in DOORS} | {"share": share}
COMMANDS |= {"gradients": gradients, "torchrun": torch.distributed.run}


def main():
    """Serve orders until stdin ends."""
    # pytest may end without a word: at a test's timeout, or killed.
    end_with_parent(signal.SIGKILL)
    multiprocessing.set_start_method(sys.argv[1], force=True)
    torch.set_num_threads(1)
    for line in sys.stdin:
        order = SimpleNamespace(**{"processes": 1} | json.loads(line))
        order.gate = os.pipe()
        pids = [fork(order, number) for number in range(order.processes)]
        store = None
        if order.processes > 1:
            # The server keeps the job's store, as torchrun does: it outlives every process. Its threads begin behind
            # the forks and end before the next ones: a child that is forked while one of them holds a lock would never
            # get it.
            store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
            os.write(order.gate[1], b"%8d" % store.port * len(pids))
        print(json.dumps(pids), flush=True)
        print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]), flush=True)
        for end in order.gate:
            os.close(end)
        del store


def fork(order, number):
    """Start the process of this number; return what the system knows it by."""
    pid = os.fork()
    if pid:
        return pid
    status = 0
    try:
        prepare(order, number)
        COMMANDS[order.command].main(order.arguments)
    except SystemExit as end:
        status = end.code
    except BaseException:
        traceback.print_exc()
        status = 1
    multiprocessing.util._exit_function()  # as where a process ends: else semaphores are reported as leaked
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def prepare(order, number):
    """Make this process what its order says, before its command begins."""
    end_with_parent(signal.SIGKILL)
    # Workers that are not forked from here import the command, as where it was typed; a fork server does it for all.
    command, main_module = COMMANDS[order.command], sys.modules["__main__"]
    main_module.__spec__, main_module.__file__ = None, command.__file__
    multiprocessing.set_forkserver_preload([command.__name__])
    redirect(f"{order.folder}/stdout.{number}", 1)
    redirect(f"{order.folder}/stderr.{number}", 2)
    if order.processes > 1:
        join_job(order, number)
    if hasattr(order, "env"):
        os.environ |= order.env
        tempfile.tempdir = None  # so that TMPDIR is looked at again
    if hasattr(order, "group"):
        os.setpgid(0, 0)
    if hasattr(order, "pids"):
        leave_number(order.pids)
        os.register_at_fork(after_in_child=partial(leave_number, order.pids))
    if hasattr(order, "operations"):
        die_at_operation(order.operations, getattr(order, "signal", signal.SIGKILL))
    if hasattr(order, "writes"):
        die_while_writing(order.writes)
    if hasattr(order, "limit"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (order.limit, resource.RLIM_INFINITY))
    if hasattr(order, "files"):
        resource.setrlimit(resource.RLIMIT_NOFILE, (order.files, order.files))
    if hasattr(order, "address"):
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + order.address, resource.RLIM_INFINITY))
    if hasattr(order, "shm"):
        shrink_shared_memory(order.shm)
    if hasattr(order, "memory"):
        run_out_of_memory_at(order.memory)
    put_stand_ins(order)


def put_stand_ins(order):
    """Take a network without dropout, and a folder for a Qdrant server, where the order says so."""
    if hasattr(order, "without_luck"):
        combiner_train.new_network = lambda name, *sizes: formula.combiner_without_luck(*sizes)
    if hasattr(order, "qdrant"):
        put_in_place_of_a_server(order.qdrant)


def put_in_place_of_a_server(folder):
    """Let qdrant-client keep its collections in a folder, whatever server is asked."""
    from qdrant_client import QdrantClient

    from src.apps.search import qdrant

    qdrant.open_client = lambda url: QdrantClient(path=folder)


def leave_number(folder):
    """Make a folder with this process's number, which takes no open file and no room in one."""
    Path(folder, str(os.getpid())).mkdir(exist_ok=True)


def redirect(path, descriptor):
    """Let what is written to `descriptor` go to a new file."""
    os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)


def join_job(order, number):
    """Set what torchrun sets, once the server says where the job's store listens."""
    port = int(os.read(order.gate[0], 8))
    numbers = {"RANK": number, "LOCAL_RANK": number, "MASTER_PORT": port}
    numbers |= {"WORLD_SIZE": order.processes, "LOCAL_WORLD_SIZE": order.processes}
    os.environ |= {name: str(value) for name, value in numbers.items()}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "TORCHELASTIC_RUN_ID": "test", "TORCHELASTIC_USE_AGENT_STORE": "True"}


def die():
    """End this process at once, so that nothing is tidied up."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_at_operation(n, number):
    """Send this process a signal at the n-th time that a file of a run folder is opened or renamed."""
    operations = itertools.count(1)

    def hook(event, arguments):
        if event in ("open", "os.rename") and "/models/" in str(arguments[0]) and next(operations) == n:
            os.kill(os.getpid(), number)

    sys.addaudithook(hook)


def shrink_shared_memory(size):
    """Give this process a /dev/shm of its own, of `size` bytes; where that is not allowed, do nothing."""
    libc, new_mounts, recursive, private = ctypes.CDLL(None), 0x20000, 0x4000, 0x40000
    if libc.unshare(new_mounts) == 0:
        libc.mount(None, b"/", None, recursive | private, None)
        libc.mount(b"tmpfs", b"/dev/shm", b"tmpfs", 0, f"size={size}".encode())


def run_out_of_memory_at(n):
    """Raise what torch raises, once, at the n-th time that CLIP encodes or a loss goes backward."""
    calls = itertools.count(1)

    def failing(function):
        def call(*arguments, **options):
            if next(calls) == n:
                raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9")
            return function(*arguments, **options)

        return call

    torch.Tensor.backward = failing(torch.Tensor.backward)
    for name in ("encode_image", "encode_text"):
        setattr(CLIP, name, failing(getattr(CLIP, name)))


def die_while_writing(n):
    """Die when half of the n-th state is written."""
    save, writes = torch.save, itertools.count(1)

    def torn(content, path, *more, **options):
        save(content, path, *more, **options)
        if STATE_FILE in str(path) and next(writes) == n:
            os.truncate(path, Path(path).stat().st_size // 2)
            die()

    torch.save = torn


if __name__ == "__main__":
    main()
