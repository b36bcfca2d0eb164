"""Ctrl-C and SIGTERM: stop at once, but never in the middle of what must be finished."""

import contextlib
import os
import signal
import sys
import threading


class Stopping:
    """Turns SIGINT and SIGTERM into SystemExit with status 130 and 143 while it is entered; says so on stderr.

    Inside of `finishing()` they wait for its end. A second signal of the same kind kills as usual.
    """

    def __init__(self, last_words):
        """`last_words()` gives what stderr is told behind the signal's name."""
        self.last_words = last_words
        self._before = {}
        self._owner = os.getpid()
        self._busy = False
        self._waiting = self._came = None

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():  # Python handles signals nowhere else
            self._before = {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._came is not None:
            print(f"stopped by {signal.Signals(self._came).name}: {self.last_words()}", file=sys.stderr, flush=True)

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
        self._came = number
        raise SystemExit(128 + number)
