"""Standard output and error that a closed pipe or a narrow encoding cannot break."""

import contextlib
import os
import sys
from collections.abc import Iterator


class _Unbreakable:
    """A text stream that survives a closed pipe and escapes what its encoding lacks."""

    def __init__(self, stream):
        self._stream = stream

    def __getattr__(self, name):
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except UnicodeEncodeError:
            encoding = self._stream.encoding
            return self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        except OSError as error:
            self._give_up(error)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        """Write to nowhere from now on; raises OSError with a name when that loses output."""
        # The descriptor itself, since Python flushes the stream once more when the process ends.
        with open(os.devnull, "w") as nowhere:  # noqa: PTH123
            os.dup2(nowhere.fileno(), self._stream.fileno())
        if not isinstance(error, BrokenPipeError):  # a full disk at `> file`
            raise OSError(error.errno, error.strerror, self._stream.name)


@contextlib.contextmanager
def unbreakable_output() -> Iterator[None]:
    """Keep `| head`, and a terminal that only knows ASCII, from ending a command."""
    with contextlib.ExitStack() as stack:
        # A stream is None where its descriptor was closed before the process began (`>&-`).
        nowhere = stack.enter_context(open(os.devnull, "w"))  # noqa: PTH123
        stack.enter_context(contextlib.redirect_stdout(_Unbreakable(sys.stdout or nowhere)))
        stack.enter_context(contextlib.redirect_stderr(_Unbreakable(sys.stderr or nowhere)))
        yield
