"""A storm of random faults over runs of both stages: every one ends in a line or well, and resumes to the bit.

    python -m tests.support.storm --runs 200

A fault is a signal at a random moment, a worker killed, memory that runs out (raised as torch raises it, and by a real
limit of the address space), /dev/shm or the disk filled, open files cut, or an unreadable picture swapped in.
"""

import argparse
import contextlib
import os
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path

import pandas as pd

from src.toy import write_world
from tests.support.commands import toy_options
from tests.support.forks import Forks, only_run, runs_of
from tests.support.processes import descendants_of, wait_for_end
from tests.support.splits import read_cirr
from tests.training.test_resume import STAGES, assert_same

COMMANDS = tuple(STAGES)
STATUSES = 0, 2, 130, 143, -signal.SIGTERM, -signal.SIGKILL
"""How a run may end: well, with a line about what cannot be used, or by a signal, which may come before it listens."""


class Storm:
    """Undisturbed runs to compare with, and the faults."""

    def __init__(self, folder, seed):
        self.folder, self.draws = folder, random.Random(seed)
        self.world, self.pids = folder / "world", folder / "pids"
        self.pids.mkdir()
        write_world(self.world, pictures=(40, 30, 30), queries=(48, 24, 33))
        self.forks = Forks(folder)
        self.expected = {command: self.run(command, folder / "calm" / command) for command in COMMANDS}
        self.faults = {
            "signal": self.a_signal,
            "worker": self.a_dead_worker,
            "memory": lambda: self.a_limit(memory=self.draws.randint(1, 40)),
            "address space": lambda: self.a_limit(address=self.draws.randint(1, 400) * 10**6),
            "/dev/shm": lambda: self.a_limit(shm=self.draws.randint(1, 64) * 4096),
            "disk": lambda: self.a_limit(limit=self.draws.choice((2000, 100_000, 5_000_000, 14_000_000))),
            "open files": lambda: self.a_limit(files=self.draws.randint(12, 60)),
            "picture": self.a_torn_picture,
        }

    def flags(self, command, output):
        workers = ["--num-workers", str(self.draws.randint(0, 2))] if command == "clip_fine_tune" else []
        return ["--dataset", "CIRR", *toy_options(self.world, output), *STAGES[command], "--num-epochs", "3", *workers]

    def run(self, command, output):
        assert self.forks.run(command, self.flags(command, output)) == 0, self.forks.said()
        return only_run(output)

    def blow(self, number):
        """Disturb one run, then let it go on undisturbed; return its fault and how it ended."""
        command, fault = self.draws.choice(COMMANDS), self.draws.choice(list(self.faults))
        output = self.folder / str(number)
        order, disturb, repair = self.faults[fault]()
        (process,) = self.forks.start(command, self.flags(command, output), pids=str(self.pids), **order)
        helpers = disturb(process)
        (status,) = self.forks.wait()
        repair()
        said = self.forks.said()
        assert status in STATUSES, (fault, order, status, said)
        assert "Traceback" not in said, (fault, order, said)
        assert status != 2 or said.splitlines()[-1].split("\r")[-1].strip().startswith("error: "), (fault, order, said)
        wait_for_end(helpers)

        if status != 0:
            begun = runs_of(output)
            again = ["--resume", begun[0]] if begun else self.flags(command, output / "anew")
            assert self.forks.run(command, again) == 0, (fault, order, said, self.forks.said())
            output = output if begun else output / "anew"
        if status == 0 and "the memory is full" in said:  # it went on in smaller pieces, which round differently
            tables = [pd.read_csv(run / "train_metrics.csv") for run in (only_run(output), self.expected[command])]
            pd.testing.assert_frame_equal(*tables, rtol=1e-4, atol=0)
        else:
            assert_same(only_run(output), self.expected[command])
        shutil.rmtree(output)
        return fault, status

    # ---- faults: the order, what disturbs the process and returns its helpers, and what repairs the world ----

    def a_limit(self, **order):
        return order, lambda process: [], lambda: None

    def a_signal(self):
        def disturb(process):
            time.sleep(self.draws.random() * 1.5)
            helpers = descendants_of(process)
            _kill(process, self.draws.choice((signal.SIGINT, signal.SIGTERM, signal.SIGKILL)))
            return helpers

        return {}, disturb, lambda: None

    def a_dead_worker(self):
        def disturb(process):
            time.sleep(self.draws.random())
            helpers = descendants_of(process)
            if helpers:
                _kill(self.draws.choice(helpers), signal.SIGKILL)
            return helpers

        return {}, disturb, lambda: None

    def a_torn_picture(self):
        split = self.draws.choice(("train", "val"))
        picture = self.draws.choice(list(read_cirr(self.world, split).pictures.values()))
        whole = picture.read_bytes()
        picture.write_bytes(whole[: self.draws.choice((0, 40, len(whole) // 2))])
        return {}, lambda process: [], lambda: picture.write_bytes(whole)


def _kill(process, number):
    with contextlib.suppress(ProcessLookupError):  # it may have ended by itself
        os.kill(process, number)


def main(runs, seed=0):
    """Blow; return {(fault, exit status): runs}."""
    left_before = set(Path("/dev/shm").iterdir())
    with tempfile.TemporaryDirectory() as folder:
        storm = Storm(Path(folder), seed)
        ends = Counter(storm.blow(number) for number in range(runs))
        storm.forks.end()
        pids = {path.name for path in storm.pids.iterdir()}
    left = [path for path in set(Path("/dev/shm").glob("torch_*")) - left_before if path.name.split("_")[1] in pids]
    assert not left, left
    return ends


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Disturb runs of both stages at random, and resume them.")
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    for (fault, status), number in sorted(main(args.runs, args.seed).items()):
        print(f"{fault:<14} ended with {status:>3}: {number}")
