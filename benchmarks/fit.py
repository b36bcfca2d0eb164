"""How large a batch of stage 1 fits into memory."""

from collections.abc import Callable
from typing import NamedTuple

from benchmarks.measure import available_memory
from benchmarks.steps import Steps
from src.models.checkpoints import size_of
from utils import device

LARGEST = 4096  # triplets; larger steps are not tried on a card
USABLE = 0.8  # part of the free memory to plan for: two small steps do not predict a large one exactly


class Fit(NamedTuple):
    """The largest batches that fit, in triplets."""

    at_once: int
    pieces: int  # a --clip-bs that fits with any batch, a power of two
    in_pieces: int  # with this --clip-bs


def fitting(steps: Steps, precision: str, triplets: int, peaks: tuple[int, int]) -> Fit:
    """Find Fit for this device; `peaks` are the bytes held by forward passes of `triplets` and of twice as many."""
    # Two pictures of 3 channels for each triplet, in four batches: the step's, the next, and two loaded by workers.
    waiting = 4 * 2 * 3 * steps.backbone.resolution**2
    room = available_memory()
    if device.type != "cuda":
        return fit_on_processor(room, sum(map(size_of, steps.learning)), triplets, peaks, waiting)
    at_once = largest_that_fits(lambda size: steps.prepare(size, precision=precision)() is None, triplets)
    return Fit(at_once, _power_of_two(at_once), int(USABLE * room / waiting))


def fit_on_processor(room: int, gradients: int, triplets: int, peaks: tuple[int, int], waiting: int) -> Fit:
    """Compute Fit for `room` bytes of memory. Trying it out would let the system kill this process.

    The backward pass adds `gradients` bytes; the pictures of each triplet hold `waiting` bytes while they wait.
    """
    each = max(0, peaks[1] - peaks[0]) / triplets
    fixed = gradients + max(0, peaks[0] - triplets * each)
    at_once = max(0, int((USABLE * room - fixed) / (each + waiting)))
    pieces = _power_of_two(at_once)
    # A piece counts pictures, two for each triplet. Its gradients are held in addition to those of the batch.
    held = fixed + gradients + pieces * each / 2
    return Fit(at_once, pieces, max(0, int((USABLE * room - held) / waiting)))


def _power_of_two(at_once):
    """Choose a --clip-bs that takes no more memory than `at_once` triplets; above 128 it gains nothing."""
    return 2 ** (max(1, min(at_once, 128)).bit_length() - 1)


def largest_that_fits(fits: Callable[[int], bool], batch_size: int) -> int:
    """Double `batch_size`, which fits, up to LARGEST; return the last size that fits."""
    while batch_size < LARGEST and fits(2 * batch_size):
        batch_size *= 2
    return batch_size
