"""Pictures that a transform cannot take, found by trying all of them."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

from src.pictures.opening import UnusablePicture, opened
from src.processes import distributed
from src.processes.each import each_in_workers

REASON = 240
"""Bytes of a reason: as tensors of one size, processes can exchange them."""


def unusable(paths: Sequence[Path], preprocess: Callable, num_workers: int) -> dict[Path, str]:
    """Try each of `paths`; return {path: why} of those that are missing or that `preprocess` cannot take.

    Raises StorageError when a disk or share fails.
    """
    if not paths:
        return {}
    attempt = partial(_fault, preprocess=preprocess)

    def try_each(numbers):
        share = [paths[number] for number in numbers]
        return torch.cat(list(each_in_workers(attempt, share, num_workers, "trying every picture")))

    # Shared out, as trying every picture means decoding every picture.
    faults = distributed.shared_out(range(len(paths)), try_each)
    return {path: _text(fault) for path, fault in zip(paths, faults, strict=True) if fault.any()}


def _fault(path: Path, preprocess: Callable) -> torch.Tensor:
    """Return why `preprocess` cannot take a picture, as bytes [REASON] filled up with zeros; all zeros where it can."""
    try:
        opened(path, preprocess)
        reason = b""
    except UnusablePicture as error:
        reason = error.reason.encode(errors="backslashreplace")[:REASON] or b"?"
    return torch.tensor(list(reason.ljust(REASON, b"\0")), dtype=torch.uint8)


def _text(reason: torch.Tensor) -> str:
    return bytes(reason.tolist()).rstrip(b"\0").decode(errors="ignore")
