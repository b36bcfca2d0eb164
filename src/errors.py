"""What a user gave and cannot be used, said in one line."""

import functools
import sys


class InputError(ValueError):
    """An unusable input. The message is one line: the culprit's name, the fault, and what would be right."""


def shown(text):
    """`text` as part of a one-line message: cut when long, escaped when a terminal could not show it."""
    text = text if len(text) <= 100 else f"{text[:97]}..."
    return text if text.isprintable() else ascii(text)


def first_ten(names):
    """The first ten of `names`, and how many more there are."""
    others = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return ", ".join(shown(str(name)) for name in names[:10]) + others


def require_one_of(value, allowed, what):
    if value not in allowed:
        raise InputError(f"{value!r} is no {what}: it must be one of {', '.join(allowed)}")


def one_line_errors(main):
    """Let `main(argv)` end an unusable input with one line on stderr and exit status 2, without a traceback.

    Any other exception is a fault of ours and keeps its traceback.
    """

    @functools.wraps(main)
    def command(argv=None):
        try:
            return main(argv)
        except InputError as error:
            # A DataLoader worker sends its whole traceback as the message: the last line is what it raised.
            fault = str(error).strip().splitlines()[-1].removeprefix(f"{__name__}.{InputError.__name__}: ")
        except RuntimeError as error:
            if not str(error).startswith("DataLoader worker"):
                raise
            fault = f"{' '.join(str(error).split())} Fewer --num-workers, or 0, take less memory."
        except OSError as error:
            if error.filename is None:
                raise
            fault = f"{error.filename}: {error.strerror}"
        print(f"error: {fault}", file=sys.stderr)
        raise SystemExit(2)

    return command
