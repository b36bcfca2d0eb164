"""Progress bars."""

from functools import partialmethod

from tqdm import tqdm


class Bar(tqdm):
    """tqdm's, as wide as the terminal is, which a signal may interrupt at any moment."""

    __init__ = partialmethod(tqdm.__init__, dynamic_ncols=True)

    def __del__(self):
        # Interrupted while it was being made, it has nothing to close, and tqdm would say so in a traceback.
        if hasattr(self, "start_t"):
            super().__del__()
