"""Pictures by name, opened through a transform or read from an image cache."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils.data import Dataset

from src.pictures.normalisation import normalised
from src.pictures.opening import opened

if TYPE_CHECKING:
    from src.pictures.cache import ImageCache


class Pictures(Dataset):
    """Pictures by name, opened through a transform, or read from an image cache where there is one."""

    def __init__(self, paths: Mapping[str, Path | str], preprocess: Callable, cache: "ImageCache | None" = None):
        """Take picture files {name: file}."""
        self.paths, self.names = paths, list(paths)
        self.preprocess, self.cache = preprocess, cache

    def __len__(self):
        return len(self.names)

    def __getitem__(self, number):
        return self.names[number], self.images([number])[0]

    def images(self, numbers: Sequence[int]) -> torch.Tensor:
        """Return pictures [numbers, 3, side, side] by their numbers in `names`."""
        if self.cache is not None:
            return normalised(self.pixels(numbers), self.preprocess.normalisation)
        return torch.stack([opened(self._path(number), self.preprocess) for number in numbers])

    def pixels(self, numbers: Sequence[int]) -> torch.Tensor:
        """Return the bytes [numbers, side, side, 3] of pictures before they are normalised."""
        if self.cache is not None:
            return torch.from_numpy(self.cache.pixels(list(map(self._path, numbers))))
        pixels = [opened(self._path(number), self.preprocess.pixels) for number in numbers]
        return torch.from_numpy(np.stack(pixels))

    def _path(self, number):
        return self.paths[self.names[number]]
