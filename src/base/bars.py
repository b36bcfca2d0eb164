"""Progress bars: in a terminal as they are, in a file or a pipe as lines, and in Python only where they are wanted."""

import contextlib
import sys
from collections.abc import Iterator
from time import monotonic

from tqdm import tqdm

SECONDS_BETWEEN = 10
"""How long a file gets no other line of any bar."""
LINE = "{l_bar} {n_fmt} of {total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"

_shown = False
_next_line = 0.0
"""When a file may get a line, by the monotonic clock."""


@contextlib.contextmanager
def showing_bars() -> Iterator[None]:
    """Show bars meanwhile, as every command does. Without it they are silent, so that imported functions are."""
    global _shown, _next_line  # noqa: PLW0603
    before, _shown = _shown, True
    _next_line = monotonic() + SECONDS_BETWEEN  # what takes no longer needs no line
    try:
        yield
    finally:
        _shown = before


class Bar(tqdm):
    """A bar of tqdm as wide as the terminal. A signal may interrupt it at any moment."""

    def __init__(self, *args, **settings):
        if not _shown:
            settings["disable"] = True
        elif not sys.stderr.isatty():
            settings |= {"file": _Lines(sys.stderr), "bar_format": LINE}
        super().__init__(*args, dynamic_ncols=True, **settings)

    def __del__(self):
        # A signal may raise inside __init__. Then there is nothing to close, and tqdm would print a traceback about it.
        if hasattr(self, "start_t"):
            super().__del__()


class _Lines:
    """A stream for bars that keeps the last state of a bar as a line, every SECONDS_BETWEEN at most."""

    def __init__(self, stream):
        self._stream = stream

    def __getattr__(self, name):
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        global _next_line  # noqa: PLW0603
        # A bar writes carriage returns, movements of the cursor and blanks as well.
        line, now = text.replace("\x1b[A", "").strip(), monotonic()
        if line and now >= _next_line:
            _next_line = now + SECONDS_BETWEEN
            self._stream.write(f"{line}\n")
            self._stream.flush()
        return len(text)


def open_bars() -> list[Bar]:
    """Return the bars that have begun and not ended, to be shown elsewhere than in the terminal."""
    # tqdm's own list, which other threads may change.
    with Bar.get_lock():
        return list(getattr(Bar, "_instances", ()))
