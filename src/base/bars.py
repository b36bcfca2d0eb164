"""Progress bars."""

from functools import partialmethod

from tqdm import tqdm


class Bar(tqdm):
    """A bar of tqdm as wide as the terminal. A signal may interrupt it at any moment."""

    __init__ = partialmethod(tqdm.__init__, dynamic_ncols=True)

    def __del__(self):
        # A signal may raise inside __init__. Then there is nothing to close, and tqdm would print a traceback about it.
        if hasattr(self, "start_t"):
            super().__del__()


def open_bars() -> list[Bar]:
    """Return the bars that have begun and not ended, to be shown elsewhere than in the terminal."""
    # tqdm's own list, which other threads may change.
    with Bar.get_lock():
        return list(getattr(Bar, "_instances", ()))
