"""The frame of a command: how it ends where an input cannot be used, or a signal comes."""

import functools
import sys
from collections.abc import Callable

from src.base.errors import InputError, Stopped, escaped, fault_of_machine, one_line
from src.base.output import unbreakable_output


def one_line_errors(main: Callable) -> Callable:
    """Let `main(argv)` end with one line on stderr and exit status 2 where an input cannot be used.

    An end by a signal prints a line too, with its own status. Any other exception is a bug and keeps its traceback.
    """

    @functools.wraps(main)
    def command(argv=None):
        from src.base.bars import showing_bars  # late: --help and a wrong flag are answered before it is needed

        with unbreakable_output(), showing_bars():
            try:
                result = main(argv)
                sys.stdout.flush()
                return result
            except Stopped as stopped:
                print(stopped.line, file=sys.stderr, flush=True)
                raise
            except KeyboardInterrupt:  # before a training began, which prints its own line
                print("stopped by SIGINT", file=sys.stderr, flush=True)
                raise SystemExit(130) from None
            except InputError as error:
                fault = one_line(error)
            except OSError as error:
                if error.filename is None:
                    raise
                fault = f"{str(error.filename)}: {error.strerror}"
            except (MemoryError, RuntimeError) as error:
                fault = fault_of_machine(error)
                if fault is None:
                    raise
            print(f"error: {escaped(fault)}", file=sys.stderr)
            raise SystemExit(2)

    return command
