"""Ctrl-C and SIGTERM: stop at once, but never in the middle of what must be finished."""

import contextlib
import os
import signal
import threading

from src import distributed
from src.errors import Stopped


class Stopping:
    """Turns SIGINT and SIGTERM into Stopped with status 130 and 143 while it is entered.

    Inside of `finishing()` they wait for its end. A second signal of the same kind kills as usual.
    """

    def __init__(self, last_words):
        """`last_words()` gives what is told behind the signal's name."""
        self.last_words = last_words
        self._before = {}
        self._owner = os.getpid()
        self._busy = False
        self._waiting = None

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():  # Python handles signals nowhere else
            self._before = {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, failure, *_):
        for number, handler in self._before.items():
            # torchrun sends SIGTERM to all when one process fails: none may be cut off before it has said why.
            awaited = failure is not None and number == signal.SIGTERM and distributed.processes() > 1
            signal.signal(number, signal.SIG_IGN if awaited else handler)

    @contextlib.contextmanager
    def finishing(self):
        """What is done in here is done whole."""
        self._busy = True
        try:
            yield
        finally:
            self._busy = False
        if self._waiting is not None:
            self._end(self._waiting)

    def _stop(self, number, _frame):
        if os.getpid() != self._owner:  # a worker, which inherits this: its parent is told too, and ends it
            raise KeyboardInterrupt
        signal.signal(number, signal.SIG_DFL)
        if self._busy:
            self._waiting = number
        else:
            self._end(number)

    def _end(self, number):
        raise Stopped(128 + number, f"stopped by {signal.Signals(number).name}: {self.last_words()}")
