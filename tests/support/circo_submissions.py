"""A made-up submission to CIRCO, the split that it answers, and what the command prints of such a file."""

import random
from pathlib import Path

import check_submission
from src.apps.submission.circo import CIRCOFile
from src.apps.submission.rules import check
from src.tasks.triplets import Split, Triplet

IDS = [str(number) for number in range(1007, 401007, 400)]
KEYS = [str(number) for number in range(800)]


def split_of(references, pictures):
    triplets = [Triplet(name, ("caption",), id=str(number)) for number, name in enumerate(references)]
    return Split("test", Path("test.json"), triplets, {name: Path(f"{name:>012}.jpg") for name in pictures})


SPLIT = split_of(IDS[:800], IDS)
RNG = random.Random(0)
RIGHT = {
    triplet.id: [int(name) for name in RNG.sample([name for name in IDS if name != triplet.reference], 50)]
    for triplet in SPLIT.triplets
}
"""{key: ids} of a right submission."""


def report(path, split=SPLIT, checkpoints=()):
    """Check a file; return what the command would print of it."""
    files = check(CIRCOFile, [path], split, path.parent, checkpoints)
    return "\n".join([*check_submission.text_of(files), check_submission.verdict(files)]).splitlines()
