"""Work that does not fit into memory at once, done in pieces that do."""

import sys
from collections.abc import Callable

import torch
from torch import Tensor

from src.base.errors import InputError, in_a_line, is_out_of_memory

_MENTIONED = set()
"""Lines that were printed already: once is enough."""


def halving(work: Callable[[Tensor], Tensor], rows: Tensor, what: str) -> Tensor:
    """Return `work(rows)` [rows, ...]; where memory does not suffice, of halves, and halves of these.

    `what` names the rows. Says once that they are halved. Raises InputError when a single one does not fit.
    """
    try:
        return work(rows)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        fault = in_a_line(error)
    # After the handler, since the exception holds on to all that was allocated so far.
    if len(rows) == 1:
        raise InputError(f"the memory is full with one of the {what}, {list(rows.shape[1:])} ({fault})")
    mention(what, f"the memory is full with {len(rows)} {what} at once: they are taken in halves")
    free_cached()
    half = len(rows) // 2
    return torch.cat([halving(work, rows[:half], what), halving(work, rows[half:], what)])


def mention(what: str, line: str) -> None:
    """Print a line about `what` to stderr, unless there was one already."""
    if what not in _MENTIONED:
        _MENTIONED.add(what)
        print(line, file=sys.stderr, flush=True)


def free_cached() -> None:
    """Give back what torch keeps of a card's memory for later, which a smaller piece may need in other sizes."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
