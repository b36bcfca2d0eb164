"""Pieces: how much of a batch CLIP takes at once (--clip-bs)."""


class Pieces:
    """How many pictures or captions of a batch CLIP has in memory at once, halved until a first step fits."""

    def __init__(self, given: int | None = None, advice: str | None = None):
        """`given` is --clip-bs, None for the whole batch; `advice` is that of a stage which cannot halve."""
        self.given, self.size = given, given
        self._advice = advice

    def halve(self, batch_size: int) -> int | None:
        """Take half as many, and return how many; None where that is impossible or saves too little."""
        if self._advice is not None or self.size == 1:
            return None
        most = 2 * batch_size  # a triplet has two pictures
        self.size = min(self.size or most, most) // 2
        return self.size

    @property
    def advice(self) -> str:
        """What to try when a batch does not fit, as the end of a message."""
        if self._advice is not None:
            return self._advice
        return "not even one picture at a time fits" if self.size == 1 else "a smaller --clip-bs takes less"
