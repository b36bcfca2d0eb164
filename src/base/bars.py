"""Progress bars."""

from collections.abc import Callable
from functools import partialmethod

from tqdm import tqdm


class Bar(tqdm):
    """A bar of tqdm as wide as the terminal. A signal may interrupt it at any moment."""

    watcher: Callable[["Bar"], None] | None = None
    """Called with every bar whose count is told by `update`, for those who show it elsewhere than in a terminal."""

    __init__ = partialmethod(tqdm.__init__, dynamic_ncols=True)

    def update(self, n=1):
        drawn = super().update(n)
        if Bar.watcher is not None:
            Bar.watcher(self)
        return drawn

    def __del__(self):
        # A signal may raise inside __init__. Then there is nothing to close, and tqdm would print a traceback about it.
        if hasattr(self, "start_t"):
            super().__del__()
