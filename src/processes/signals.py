"""Ctrl-C and SIGTERM stop a training at once, but never in the middle of what must be finished."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator

from src.base.errors import Stopped
from src.processes import distributed


class Stopping:
    """While it is entered, SIGINT and SIGTERM raise Stopped, with exit status 130 and 143.

    Inside `finishing()` they wait for its end. A second signal kills the process as usual. Under torchrun it does
    nothing: torchrun repeats a Ctrl-C to each process, stops all when one has failed, and kills those that take too
    long.
    """

    def __init__(self, last_words: Callable[[], str]):
        """`last_words()` gives what is printed after the signal's name."""
        self.last_words = last_words
        self._before = {}
        self._owner = os.getpid()
        self._busy = False
        self._came = None

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():  # Python handles signals nowhere else
            self._before = {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, failure, *_):
        # A failed process must be able to say why it failed before another signal ends it.
        self._restore(failure is not None)

    def _restore(self, failed):
        for number, handler in self._before.items():
            signal.signal(number, self._next_handler(handler) if failed else handler)
        self._before = {}

    @contextlib.contextmanager
    def failing(self) -> Iterator[None]:
        """Let a process that fails in here say why it failed before another signal ends it."""
        try:
            yield
        except BaseException:
            self._restore(failed=True)
            raise

    @contextlib.contextmanager
    def finishing(self) -> Iterator[None]:
        """Let this block finish before a signal ends the process."""
        self._busy = True
        try:
            yield
        finally:
            self._busy = False
        # It came in the meantime, or earlier inside a destructor, where Python drops whatever a handler raises.
        if self._came is not None:
            self._end()

    def _stop(self, number, _frame):
        if os.getpid() != self._owner:  # a worker just forked, which inherits this; its parent gets the signal too
            raise KeyboardInterrupt
        signal.signal(number, self._next_handler(signal.SIG_DFL))
        self._came = signal.Signals(number)
        if not self._busy:
            self._end()

    @staticmethod
    def _next_handler(handler):
        """Return the handler for the next signal: SIG_IGN under torchrun, which ends its processes itself."""
        return signal.SIG_IGN if distributed.processes() > 1 else handler

    def _end(self):
        raise Stopped(128 + self._came, f"stopped by {self._came.name}: {self.last_words()}")
