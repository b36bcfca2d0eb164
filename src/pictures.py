"""Picture files: which are there, which can be opened, and what each is when it is."""

import struct
import warnings

import PIL.Image
import torch
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from src.errors import InputError, first_ten


def opened(path, preprocess):
    """What `preprocess` makes of a picture; raises InputError with its name when it cannot be read."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")  # whose doubts change no pixel
            with PIL.Image.open(path) as image:
                if 0 in image.size:
                    raise ValueError("it is {} x {} pixels".format(*image.size))
                return preprocess(image)
    # What Pillow raises for a broken picture depends on its format.
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, PIL.Image.DecompressionBombError) as error:
        fault = " ".join(str(error).replace(str(path), "the file").split())
        raise InputError(f"{path}: cannot be read as a picture ({fault})") from None


def require_affordable(width, height):
    """Raises ValueError for a size that would fill the memory: the one above which Pillow opens no picture either."""
    limit = 2 * PIL.Image.MAX_IMAGE_PIXELS
    if width * height > limit:
        raise ValueError(f"would be padded or resized to {width} x {height} pixels, the limit is {limit}")


def require_present(paths):
    """Raises InputError, with the number of those that are no files and ten of them, unless all `paths` are."""
    paths = dict.fromkeys(paths)
    missing = [path for path in paths if not path.is_file()]
    if missing:
        names = first_ten([path.name for path in missing])
        raise InputError(
            f"{missing[0]}: no such picture; {len(missing)} of {len(paths)} are missing: {names} (see --skip-missing)"
        )


def unusable(paths, preprocess, num_workers):
    """Those of `paths` that are missing or that `preprocess` cannot take, after trying each."""
    attempts = DataLoader(
        _Attempts(paths, preprocess),
        batch_size=32,
        num_workers=num_workers,
        generator=torch.Generator(),  # its own, so that workers draw no seed from the training's
    )
    bar = tqdm(attempts, desc="trying every picture", leave=False, dynamic_ncols=True)
    succeeded = [success for batch in bar for success in batch.tolist()]
    return [path for path, success in zip(paths, succeeded, strict=True) if not success]


class _Attempts(Dataset):
    """Whether each of some pictures can be opened."""

    def __init__(self, paths, preprocess):
        self.paths, self.preprocess = paths, preprocess

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        try:
            opened(self.paths[index], self.preprocess)
        except InputError:
            return False
        return True
