"""How pictures become square before CLIP's own resize and crop, as arithmetic on their sides."""

from collections.abc import Callable
from typing import NamedTuple


class Padding(NamedTuple):
    """What one --transform does first."""

    least_side: Callable[[int, int, float], float | None]
    """The length that both sides are padded up to, from width, height and target ratio; None leaves a picture alone."""
    takes_ratio: bool
    """Whether the target ratio changes anything."""


def _alone(width: int, height: int, target_ratio: float) -> None:
    return None


def _longer_side(width: int, height: int, target_ratio: float) -> float:
    return max(width, height)


def _side_at_ratio(width: int, height: int, target_ratio: float) -> float | None:
    # Below the ratio the crop loses so little that padding would waste more, as published.
    shorter, longer = sorted((width, height))
    return None if longer / shorter < target_ratio else longer / target_ratio


TRANSFORMS = {
    "clip": Padding(_alone, takes_ratio=False),
    "squarepad": Padding(_longer_side, takes_ratio=False),
    "targetpad": Padding(_side_at_ratio, takes_ratio=True),
}
"""{name of --transform: Padding}"""
