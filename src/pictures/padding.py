"""How pictures become square before CLIP's own resize and crop, as arithmetic on their sides."""

from collections.abc import Callable
from typing import NamedTuple

USUAL_TRANSFORM = "targetpad"
"""--transform as published."""
USUAL_RATIO = 1.25
"""--target-ratio as published."""
MOST_PIXELS = 2**31
"""Size of a picture once it is padded: a few seconds' work, in pieces."""
MOST_RATIO = 2**15
"""Ratio of its sides then, which the resize keeps."""


class Padding(NamedTuple):
    """What one --transform does first."""

    least_side: Callable[[int, int, float], float | None]
    """The length that both sides are padded up to, from width, height and target ratio; None leaves a picture alone."""
    takes_ratio: bool
    """Whether the target ratio changes anything."""

    def border(self, width: int, height: int, target_ratio: float | None) -> tuple[int, int]:
        """Return how many pixels are added at the left and the right each, and at the top and the bottom each."""
        least_side = self.least_side(width, height, target_ratio)
        if least_side is None:
            return 0, 0
        # Half the difference is rounded down on each side, so a result may be a pixel short of square, as published.
        return tuple(max(int((least_side - side) / 2), 0) for side in (width, height))


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


def require_affordable(width: int, height: int) -> None:
    """Raise ValueError for the sides of a padded picture that would take too long to resize."""
    if width * height > MOST_PIXELS:
        raise ValueError(f"would be padded to {width} x {height} pixels, the limit is {MOST_PIXELS}")
    if max(width, height) > MOST_RATIO * min(width, height):
        raise ValueError(f"is {width} x {height} pixels, the limit is a ratio of {MOST_RATIO}")


def refusing(width: int, height: int) -> list[str]:
    """Return the names of the transforms that refuse a picture of these sides, targetpad at its usual ratio."""
    names = []
    for name, padding in TRANSFORMS.items():
        horizontal, vertical = padding.border(width, height, USUAL_RATIO)
        try:
            require_affordable(width + 2 * horizontal, height + 2 * vertical)
        except ValueError:
            names.append(name)
    return names
