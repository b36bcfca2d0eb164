"""Run jobs one at a time, in order, on a background thread."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


class Background:
    """A thread for pieces of work. What a piece raises, the next call of a method raises."""

    def __init__(self):
        self._pool = ThreadPoolExecutor(1)
        self._given = deque()

    def give(self, piece: Callable[[], None]) -> None:
        """Let `piece()` be done next; return at once, unless another one waits already."""
        # One in work and one that waits: each holds on to what it writes.
        while self._given and (len(self._given) > 1 or self._given[0].done()):
            self._given.popleft().result()
        self._given.append(self._pool.submit(piece))

    def finish(self) -> None:
        """Wait until all is done."""
        while self._given:
            self._given.popleft().result()
