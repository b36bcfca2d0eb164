"""Each thing that is made faster, beside the plain way of doing it."""

from typing import NamedTuple

from benchmarks.measure import Measured
from src.run import Run


class Row(NamedTuple):
    """A line of the table; `plain` is None where only ours can run."""

    what: str
    plain: Measured | None
    ours: Measured


class Sizes(NamedTuple):
    """How much of everything is measured."""

    triplets: int
    large_triplets: int
    galleries: tuple
    growth: tuple
    largest_gallery: int
    queries: int
    captions: int
    images: int
    batch: int
    repeats: int
    models: dict


WHOLE = Sizes(
    triplets=2048,
    large_triplets=256,
    galleries=((2297, 640), (20_000, 128)),
    growth=(1000, 5000, 20_000, 100_000),
    largest_gallery=1_000_000,
    queries=4181,
    captions=128,
    images=8,
    batch=8,
    repeats=3,
    models={"text": "RN50x4", "gallery": "RN50x4", "steps": ("ViT-B/32", "RN50")},
)
QUICK = Sizes(
    triplets=64,
    large_triplets=8,
    galleries=((50, 16),),
    growth=(50, 100),
    largest_gallery=5000,
    queries=20,
    captions=16,
    images=2,
    batch=4,
    repeats=1,
    models={"text": "small", "gallery": "small", "steps": ("small",)},
)


class _SilentRun(Run):
    """A run that leaves nothing behind."""

    def __init__(self):
        pass

    def log_step(self, step, loss):
        pass

    log_training = log_validation = log_step

    def end(self):
        pass
