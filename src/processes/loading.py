"""Loading in worker processes: each batch is handed over, or one line says why it cannot be."""

import contextlib
import copy
import multiprocessing
import multiprocessing.queues
import os
import sys
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from torch._utils import ExceptionWrapper
from torch.utils.data import DataLoader, Dataset

from src.base.errors import InputError, in_a_line, lost_worker
from src.processes.workers import holding_signals, start_worker


class Loader(DataLoader):
    """A DataLoader whose workers end with this process, whatever starts them, and never leave it waiting.

    Raises InputError when they cannot start, cannot hand over what they loaded, or die. What a dataset raises in a
    worker is raised here as it is.
    """

    def __init__(self, dataset: Dataset, num_workers: int, **options):
        with _choosing_workers():
            super().__init__(
                dataset,
                num_workers=num_workers,
                worker_init_fn=partial(start_worker, employer=os.getpid()),
                multiprocessing_context=_context() if num_workers else None,
                generator=torch.Generator(),  # its own, so that workers draw no seed from the training's
                **options,
            )

    def __iter__(self) -> Iterator:
        # A generator: what the loop over the batches raises does not pass through here.
        if self.num_workers == 0:
            yield from super().__iter__()
            return
        fault, hook = None, sys.unraisablehook
        try:
            # A loader that could not start all its workers prints a traceback when it is thrown away, which is below.
            sys.unraisablehook = lambda _: None
            try:
                _require_files(4 * self.num_workers + 8)  # a pipe to each worker, one with it, and what starting takes
                with _choosing_workers(), holding_signals():
                    batches = super().__iter__()
            except FAULTS as error:
                fault = _named(error)
        finally:
            sys.unraisablehook = hook
        if fault is not None:
            raise fault
        workers = [worker.pid for worker in batches._workers]
        try:
            yield from batches
        except FAULTS as error:
            raise _named(error) from None
        finally:
            batches = None  # which ends the workers
            _remove_left_behind(workers)


def _require_files(number: int) -> None:
    """Raise OSError where this process may not open `number` more files.

    A fork server whose employer runs out of them in the middle of a start prints a traceback and ends.
    """
    opened = []
    try:
        for _ in range(number):
            opened.append(os.open(os.devnull, os.O_RDONLY))
    finally:
        for file in opened:
            os.close(file)


def _remove_left_behind(workers: list[int]) -> None:
    """Delete what workers left in shared memory when they were killed between naming a piece and sending it."""
    for worker in workers:
        for piece in Path("/dev/shm").glob(f"torch_{worker}_*"):
            piece.unlink(missing_ok=True)


FAULTS = OSError, RuntimeError, MemoryError
"""Exceptions of torch and Python for workers in trouble, and for much else."""


def _named(error: Exception) -> Exception:
    """Return an InputError for a fault of workers; raises `error` again when it is about something else."""
    fault = _fault(error)
    if fault is None:
        raise error
    return InputError(f"the processes that load pictures failed: {fault}")


@contextlib.contextmanager
def _choosing_workers() -> Iterator[None]:
    """Keep torch from warning of more workers than cores, which are the user's to choose."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create")
        yield


class HandOverError(RuntimeError):
    """An error of a worker that sent a batch."""


class _TellingQueue(multiprocessing.queues.Queue):
    """A queue that sends the error in place of a thing that it cannot send.

    Python's own prints a traceback and drops the thing, for which the receiver would wait forever.
    """

    def _on_queue_feeder_error(self, error, thing):
        number = thing[0]
        cause = HandOverError(in_a_line(error))
        self.put((number, ExceptionWrapper((HandOverError, cause, None), "in a worker")))


def _context() -> multiprocessing.context.BaseContext:
    context = copy.copy(multiprocessing.get_context())
    context.Queue = partial(_TellingQueue, ctx=context)
    return context


def _fault(error: Exception) -> str | None:
    """Return what is wrong with the workers and the flag that helps; None where `error` is about something else."""
    message = str(error)
    for words, fault in _KNOWN.items():
        if words in message:
            return fault
    if isinstance(error, MemoryError):
        return _KNOWN["allocate memory"]
    last = in_a_line(message.strip().splitlines()[-1] if message.strip() else error)
    if lost_worker(error):
        return lost_worker(error)
    if HandOverError.__name__ in message or (isinstance(error, OSError) and error.filename is None):
        return f"{last.removeprefix(f'{__name__}.{HandOverError.__name__}: ')}; --num-workers 0 does without them"
    return None


_KNOWN = {
    "shared memory": "the shared memory, /dev/shm, is full; --num-workers 0 does without it",
    "Too many open files": "too many open files; fewer --num-workers, or a higher limit (ulimit -n), help",
    "AF_UNIX path too long": "the temporary folder's path is too long for a socket; a shorter TMPDIR helps",
    "allocate memory": "the memory is full; fewer --num-workers, or 0, take less",
}
"""{words in an error: what it means}"""
