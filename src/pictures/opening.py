"""Picture files: which are there, which can be opened, and what a transform makes of them."""

import struct
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import PIL.Image
import torch
from torch.utils.data import DataLoader, Dataset

from src.base import distributed
from src.base.bars import Bar
from src.base.errors import InputError, first_ten, in_a_line
from src.base.workers import start_worker


def opened(path: Path, preprocess: Callable):
    """Return what `preprocess` makes of a picture; raises InputError with its name when it cannot be read."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")  # its doubts change no pixel
            with PIL.Image.open(path) as image:
                # Some formats announce no columns, which a resize would divide by.
                if 0 in image.size:
                    raise ValueError("it is {} x {} pixels".format(*image.size))
                return preprocess(image)
    # What Pillow raises for a broken picture depends on its format.
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, PIL.Image.DecompressionBombError) as error:
        raise InputError(f"{path}: cannot be read as a picture ({in_a_line(error, path)})") from None


def require_affordable(width: int, height: int) -> None:
    """Raise ValueError for a size that would fill the memory: the one above which Pillow opens no picture either."""
    limit = 2 * PIL.Image.MAX_IMAGE_PIXELS
    if width * height > limit:
        raise ValueError(f"would be padded or resized to {width} x {height} pixels, the limit is {limit}")


def require_present(paths: Iterable[Path]) -> None:
    """Raise InputError, with the number of missing files and the first ten, unless all `paths` are files."""
    paths = dict.fromkeys(paths)
    missing = [path for path in paths if not path.is_file()]
    if missing:
        names = first_ten([path.name for path in missing])
        raise InputError(
            f"{missing[0]}: no such picture; {len(missing)} of {len(paths)} are missing: {names} (see --skip-missing)"
        )


def unusable(paths: Sequence[Path], preprocess: Callable, num_workers: int) -> list[Path]:
    """Try each of `paths`; return those that are missing or that `preprocess` cannot take."""
    attempt = partial(_can_be_opened, preprocess=preprocess)

    def try_each(numbers):
        some = [paths[number] for number in numbers]
        return torch.cat(list(each_in_workers(attempt, some, num_workers, "trying every picture"))).to(torch.uint8)

    # Shared out, as trying every picture means decoding every picture.
    succeeded = distributed.shared_out(range(len(paths)), try_each).tolist()
    return [path for path, success in zip(paths, succeeded, strict=True) if not success]


def _can_be_opened(path: Path, preprocess: Callable) -> bool:
    try:
        opened(path, preprocess)
    except InputError:
        return False
    return True


def each_in_workers(function: Callable, items: Sequence, num_workers: int, description: str) -> Iterator:
    """Yield what `function` gives for each of `items`, collated to batches of 32, in their order and with a bar.

    Worker processes call it, this one where there are none; what it raises, it raises here.
    """
    loader = DataLoader(
        _Each(function, items),
        batch_size=32,
        num_workers=num_workers,
        worker_init_fn=start_worker,
        generator=torch.Generator(),  # its own, so that workers draw no seed from the training's
    )
    yield from Bar(loader, desc=description, leave=False)


class _Each(Dataset):
    """A dataset whose items are what `function` gives for each of `items`."""

    def __init__(self, function, items):
        self.function, self.items = function, items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.function(self.items[index])
