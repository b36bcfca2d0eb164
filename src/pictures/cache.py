"""Pictures decoded, padded, resized and cropped once, for every later epoch and process (--image-cache)."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from src.base.files import require_space
from src.base.row_store import RowStore, file_key
from src.pictures.opening import opened
from src.processes import distributed
from src.processes.each import each_in_workers


class ImageCache:
    """Bytes [side, side, 3] of pictures as a transform leaves them before it normalises, in memory-mapped files."""

    def __init__(self, folder: Path, preprocess: Callable):
        self.folder, self.preprocess = folder, preprocess
        self._keys = {}
        self._store = None

    def fill(self, paths: Sequence[Path], num_workers: int) -> None:
        """Add those of the picture files `paths` that are not kept yet, and print how much that will be beforehand.

        Raises InputError when the disk lacks the space or a picture cannot be read.
        """
        # The first process decodes; on another machine the first does, where its disk has not got them by then.
        with distributed.in_turn():
            kind = (self.preprocess.dim, self.preprocess.dim, 3), "uint8"
            self._store = RowStore(self.folder, self.preprocess.pixel_settings, True, kind)
            # Taken once: workers must not ask the disk for every picture of every batch.
            self._keys = {path: file_key(path) for path in paths}
            self._add_missing(num_workers)

    def pixels(self, paths: Sequence[Path]) -> np.ndarray:
        """Return bytes [pictures, side, side, 3] of pictures that `fill` was given; decodes torn ones again."""
        keys = [self._keys[path] for path in paths]
        return self._store.read(keys, lambda position: opened(paths[position], self.preprocess.pixels))

    def _add_missing(self, num_workers: int) -> None:
        paths, keys = list(self._keys), list(self._keys.values())
        missing = self._store.missing(keys)
        if not missing:
            return
        self._announce(len(missing))
        # The half before the normalisation: bytes are a quarter of floats.
        decode = partial(opened, preprocess=self.preprocess.pixels)
        batches = each_in_workers(decode, [paths[position] for position in missing], num_workers, "decoding")
        self._store.add([keys[position] for position in missing], (batch.numpy() for batch in batches))

    def _announce(self, pictures: int) -> None:
        size = pictures * 3 * self.preprocess.dim**2
        self.folder.mkdir(parents=True, exist_ok=True)
        needed = f"{size / 1e9:.2f} GB for {pictures} pictures"
        require_space(self.folder, size, f"--image-cache {self.folder}: needs {needed}")
        print(f"--image-cache {self.folder}: decoding once, {needed}", flush=True)
