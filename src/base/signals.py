"""Ctrl-C and SIGTERM: stop at once, but never in the middle of what must be finished."""

import contextlib
import os
import signal
import threading

from src.base import distributed
from src.base.errors import Stopped


class Stopping:
    """Turns SIGINT and SIGTERM into Stopped with status 130 and 143 while it is entered.

    Inside of `finishing()` they wait for its end. A second signal of the same kind kills as usual, but for torchrun's
    processes: it repeats a Ctrl-C to each, tells all when one has failed, and kills those that take too long.
    """

    def __init__(self, last_words):
        """`last_words()` gives what is told behind the signal's name."""
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
        for number, handler in self._before.items():
            # A failed process may not be cut off before it has said why.
            signal.signal(number, handler if failure is None else self._again(handler))

    @contextlib.contextmanager
    def finishing(self):
        """What is done in here is done whole."""
        self._busy = True
        try:
            yield
        finally:
            self._busy = False
        if self._came is not None:  # in the meantime, or before, in a destructor, from which nothing can be raised
            self._end()

    def _stop(self, number, _frame):
        if os.getpid() != self._owner:  # a worker just forked, which inherits this: its parent is told too, and ends it
            raise KeyboardInterrupt
        signal.signal(number, self._again(signal.SIG_DFL))
        self._came = signal.Signals(number)
        if not self._busy:
            self._end()

    @staticmethod
    def _again(handler):
        """What a signal meets that comes after this: `handler`, or nothing where torchrun looks to the end itself."""
        return signal.SIG_IGN if distributed.processes() > 1 else handler

    def _end(self):
        raise Stopped(128 + self._came, f"stopped by {self._came.name}: {self.last_words()}")
