"""Pictures decoded, padded, resized and cropped once, for every later epoch and process (--image-cache)."""

import shutil
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from src.errors import InputError
from src.row_store import RowStore, file_key


class _Pixels(Dataset):
    """Some of a dataset's pictures as bytes."""

    def __init__(self, dataset, numbers):
        self.dataset, self.numbers = dataset, numbers

    def __len__(self):
        return len(self.numbers)

    def __getitem__(self, index):
        return self.dataset.pixels(self.numbers[index])


def cache_images(datasets, folder, num_workers):
    """Let datasets in mode "classic" read their pictures from `folder`, after adding those that it lacks.

    It keeps bytes [dim, dim, 3] a picture, in files mapped into memory. All datasets share one preprocessing. Prints
    what it will add beforehand; raises InputError when the disk lacks the space or a picture cannot be read.
    """
    preprocess = datasets[0].preprocess
    store = RowStore(folder, preprocess.facts, mapped=True)
    missing, seen = {}, set()
    for dataset in datasets:
        dataset.decoded_keys = [file_key(dataset.path(name)) for name in dataset.image_names]
        new = {key: number for number, key in enumerate(dataset.decoded_keys) if key not in store and key not in seen}
        missing[dataset] = new
        seen |= new.keys()

    _require_space(folder, len(seen), len(seen) * 3 * preprocess.facts["resolution"] ** 2)
    for dataset, numbers in missing.items():
        if numbers:
            store.add(list(numbers), _decoded(dataset, list(numbers.values()), num_workers))
    for dataset in datasets:
        dataset.decoded = store


def _require_space(folder, pictures, size):
    if not pictures:
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    needed = f"{size / 1e9:.2f} GB for {pictures} pictures"
    if size > free:
        raise InputError(f"--image-cache {folder}: needs {needed}, its disk has {free / 1e9:.2f} GB free")
    print(f"--image-cache {folder}: decoding once, {needed}", flush=True)


def _decoded(dataset, numbers, num_workers):
    loader = DataLoader(
        _Pixels(dataset, numbers),
        batch_size=32,
        num_workers=num_workers,
        generator=torch.Generator(),  # its own, so that workers draw no seed from the training's
    )
    for pixels in tqdm(loader, desc="decoding", leave=False, dynamic_ncols=True):
        yield pixels.numpy()
