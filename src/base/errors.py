"""Errors for people: one line that names what was given, what is wrong with it, and what would be right."""

import errno
from collections.abc import Callable, Collection, Sequence
from itertools import islice

NAMED = 10
"""How many culprits of a kind are named; the others are counted."""


class InputError(ValueError):
    """An input that cannot be used. The message is one line: the culprit's name, the fault, and what would be right."""


class StorageError(InputError):
    """A file that could not be read because its disk or share failed: nothing is known of what it holds."""


FAULTS_OF_FILES = {
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL),
    *(errno.EACCES, errno.EPERM),
}
"""Errors about a single file. All else (EIO, ESTALE, ENOTCONN, too many open files) is not its fault."""


def require_storage(error: OSError, path: object) -> None:
    """Raise StorageError, with the system's own words, unless `error` is about nothing but the file at `path`."""
    # Decoders raise OSErrors without a number, about what a file holds.
    if error.errno is not None and error.errno not in FAULTS_OF_FILES:
        raise StorageError(f"{escaped(str(path))}: {error.strerror}") from None


class Stopped(SystemExit):
    """The end that a signal asks for: the exit status, and the line for stderr."""

    def __init__(self, code: int, line: str):
        super().__init__(code)
        self.line = line


def shown(name: str) -> str:
    """Return `name` as a part of a line: cut when it is long, escaped when a terminal cannot show it."""
    return escaped(_cut(name, 100))


def escaped(name: str) -> str:
    """Return `name` as UTF-8 and a terminal's line can hold it: with what they cannot as \\n, \\x1b or \\udce9."""
    if name.isprintable():
        return name
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in name)


def in_a_line(fault: object, file: object = "", longest: int = 120) -> str:
    """Return an exception's message, or a text, as a part of a line, cut to `longest`, as a terminal can show it.

    An exception without a message, or a KeyError, is shown with its type name. `file`, where `fault` names it, becomes
    "the file", since the line names it already.
    """
    text = str(fault)
    for name in (repr(str(file)), str(file)) if file else ():
        text = text.replace(name, "the file")
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    if isinstance(fault, KeyError) or (isinstance(fault, Exception) and not any(map(str.isalpha, text))):
        text = f"{type(fault).__name__}: {text}" if text else type(fault).__name__
    return _cut(text, longest)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 3]}..."


def first_ten(names: Sequence) -> str:
    """Return the first ten of `names` as a part of a line, and how many more there are."""
    others = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(shown(str(name)) for name in names[:NAMED]) + others


def with_reasons(lost: dict[str, str]) -> str:
    """Return the first ten of {name: why} as a part of a line, and how many more there are."""
    others = f" and {len(lost) - NAMED} more" if len(lost) > NAMED else ""
    return ", ".join(f"{shown(name)} ({reason})" for name, reason in islice(lost.items(), NAMED)) + others


def repeated(values: Sequence, key: Callable = lambda value: value) -> list:
    """Return the values that an earlier one equals, by `key`."""
    seen, again = set(), []
    for value in values:
        if key(value) in seen:
            again.append(value)
        seen.add(key(value))
    return again


def require_one_of(value: object, allowed: Collection[str], what: str) -> None:
    """Raise InputError unless `value` is one of the names `allowed` for a `what`."""
    if value not in allowed:
        raise InputError(f"{value!r} is not a {what}: it must be one of {', '.join(allowed)}")


def lost_worker(error: BaseException) -> str | None:
    """Torch's message about a loader's worker that died, as a line; None for any other exception.

    It may be raised anywhere, by the handler of SIGCHLD.
    """
    if not isinstance(error, RuntimeError) or not str(error).startswith("DataLoader worker"):
        return None
    message = " ".join(str(error).split())
    # A worker that was terminated did not run out of memory.
    return message if "Terminated" in message else f"{message} Fewer --num-workers, or 0, take less memory"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a card's or the machine's memory was full; torch says so in several ways."""
    # The last two are oneDNN's, which runs convolutions on a CPU.
    words = "allocate memory", "not enough memory", "out of memory", "bad_alloc", "create a prim", "execute a prim"
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words)
    )


def fault_of_machine(error: BaseException) -> str | None:
    """Return a line about a worker that died or memory that was full; None for any other exception."""
    return lost_worker(error) or (f"the memory is full ({in_a_line(error)})" if is_out_of_memory(error) else None)


def one_line(error: InputError) -> str:
    """Return the line of an InputError. A worker sends its whole traceback, whose last line is what it raised."""
    line = str(error).strip().splitlines()[-1]
    for kind in (InputError, *InputError.__subclasses__()):
        line = line.removeprefix(f"{kind.__module__}.{kind.__qualname__}: ")
    return line
