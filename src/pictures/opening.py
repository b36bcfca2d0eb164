"""Picture files: which are there, which can be opened, and what a transform makes of them."""

import struct
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import PIL.Image
import torch
from torch.utils.data import Dataset

from src.base.bars import Bar
from src.base.errors import InputError, first_ten, in_a_line
from src.processes import distributed
from src.processes.loading import Loader

MISSING = "no such picture"
NO_PICTURES = {
    b"version https://": "a pointer of Git LFS, which `git lfs pull` replaces by the file",
    b"<!doctype": "a web page",
    b"<html": "a web page",
    b"<?xml": "an XML file",
    b"<svg": "an SVG file",
    b"pk\x03\x04": "a ZIP archive",
}
"""{what a file begins with, in lower case: what it then is}"""


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
    """Look at each of `paths` and at its first bytes, with a bar; opens none.

    Raises InputError when some are missing, empty or of something else: how many, and the first ten.
    """
    paths = list(dict.fromkeys(paths))
    faults = {}
    for path in Bar(paths, desc="looking at picture files", leave=False, delay=1):
        fault = _fault_at_first_sight(path)
        if fault:
            faults.setdefault(fault, []).append(path)
    if faults:
        raise InputError(_description(faults, len(paths)))


def _fault_at_first_sight(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return MISSING
    except OSError as error:
        return f"cannot be opened ({error.strerror})"
    if not head:
        return "an empty file"
    # By what no picture begins with. What every picture begins with cannot be told: some formats have no mark.
    if not any(head):
        return "a file of zeros, as a broken download leaves one"
    known = (what for mark, what in NO_PICTURES.items() if head.lower().startswith(mark))
    return next(known, None)


def _description(faults: dict[str, list[Path]], total: int) -> str:
    """Return a line about {fault: paths} among `total` pictures: the first path, their numbers, and ten names."""
    fault, (first, *_) = next(iter(faults.items()))
    paths = [path for some in faults.values() for path in some]
    missing = faults.get(MISSING, [])
    if len(missing) == len(paths):
        counted = f"{len(missing)} of {total} are missing"
    else:
        kinds = ", ".join(f"{len(some)}: {kind}" for kind, some in faults.items())
        counted = f"{len(paths)} of {total} pictures cannot be used ({kinds})"
    names = first_ten([path.name for path in paths])
    hint = _elsewhere(missing[0]) if len(missing) > total / 2 else ""
    return f"{first}: {fault}; {counted}: {names}{hint} (check_data.py lists all, --skip-missing leaves them out)"


def _elsewhere(path: Path) -> str:
    """Return where a missing file seems to be instead: under another suffix, or a folder away."""
    suffixes = [path.with_suffix(suffix) for suffix in (".jpg", ".png", ".jpeg", ".webp", ".JPG", ".PNG", ".JPEG")]
    above = path.parent.parent
    folders = [above, *_folders(path.parent), *_folders(above), *_folders(above.parent)]
    moved = [folder / name for folder in folders for name in (path.name, Path(path.parent.name) / path.name)]
    found = next((place for place in (*suffixes, *moved) if place.is_file()), None)
    return f"; there is {found} instead" if found else ""


def _folders(folder: Path) -> list[Path]:
    return [inside for inside in sorted(folder.iterdir()) if inside.is_dir()] if folder.is_dir() else []


def unusable(paths: Sequence[Path], preprocess: Callable, num_workers: int) -> list[Path]:
    """Try each of `paths`; return those that are missing or that `preprocess` cannot take."""
    if not paths:
        return []
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
    yield from Bar(Loader(Each(function, items), num_workers, batch_size=32), desc=description, leave=False)


class Each(Dataset):
    """A dataset whose items are what `function` gives for each of `items`."""

    def __init__(self, function, items):
        self.function, self.items = function, items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.function(self.items[index])
