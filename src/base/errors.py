"""What a user gave and cannot be used, said in one line."""

import functools
import sys

NAMED = 10
"""How many culprits of a kind are named; the others are counted."""


class InputError(ValueError):
    """An unusable input. The message is one line: the culprit's name, the fault, and what would be right."""


class Stopped(SystemExit):
    """A signal ends the process: its code, and the line that stderr is told."""

    def __init__(self, code, line):
        super().__init__(code)
        self.line = line


def shown(name):
    """`name` as a part of a line, to be found again by it: cut when long, escaped when a terminal could not show it."""
    name = _cut(name, 100)
    return name if name.isprintable() else ascii(name)


def in_a_line(said, file=""):
    """What an exception or a text says as a part of a line: cut when long, a blank for what no terminal could show.

    An exception's type stands for one that says nothing, and before what is no sentence: a number, a missing key.
    `file`, as `said` calls it, becomes "the file": the line names it already.
    """
    text = str(said).replace(str(file), "the file") if file else str(said)
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    if isinstance(said, KeyError) or (isinstance(said, Exception) and not any(map(str.isalpha, text))):
        text = f"{type(said).__name__}: {text}" if text else type(said).__name__
    return _cut(text, 120)


def _cut(text, length):
    return text if len(text) <= length else f"{text[: length - 3]}..."


def first_ten(names):
    """The first ten of `names`, and how many more there are."""
    others = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(shown(str(name)) for name in names[:NAMED]) + others


def repeated(values, key=lambda value: value):
    """Those of `values` before which another stands with an equal `key`."""
    seen = set()
    return [value for value in values if key(value) in seen or seen.add(key(value))]


def require_one_of(value, allowed, what):
    if value not in allowed:
        raise InputError(f"{value!r} is no {what}: it must be one of {', '.join(allowed)}")


def lost_worker(error):
    """What a DataLoader raises for a worker that died, as a line; None for any other exception."""
    if not str(error).startswith("DataLoader worker"):
        return None
    said = " ".join(str(error).split())
    return said if "Terminated" in said else f"{said} Fewer --num-workers, or 0, take less memory."


def one_line_errors(main):
    """Let `main(argv)` end an unusable input with one line on stderr and exit status 2, without a traceback.

    A signal's end is told too, with its own status.
    Any other exception is a fault of ours and keeps its traceback.
    """

    @functools.wraps(main)
    def command(argv=None):
        try:
            return main(argv)
        except Stopped as stopped:
            print(stopped.line, file=sys.stderr, flush=True)
            raise
        except InputError as error:
            # A DataLoader worker sends its whole traceback as the message: the last line is what it raised.
            fault = str(error).strip().splitlines()[-1].removeprefix(f"{__name__}.{InputError.__name__}: ")
        except RuntimeError as error:
            fault = lost_worker(error)
            if fault is None:
                raise
        except OSError as error:
            if error.filename is None:
                raise
            fault = f"{error.filename}: {error.strerror}"
        print(f"error: {fault}", file=sys.stderr)
        raise SystemExit(2)

    return command
