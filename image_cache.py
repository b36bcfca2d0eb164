"""Pictures decoded, padded, resized and cropped once, for every later epoch and process (--image-cache)."""

from pathlib import Path

from src import distributed
from src.files import require_space
from src.pictures import each_in_workers
from src.row_store import RowStore, file_key


def cache_images(datasets, folder, num_workers):
    """Let datasets in mode "classic" read their pictures from `folder`, after adding those that it lacks.

    It keeps bytes [dim, dim, 3] a picture, in files mapped into memory. All datasets share one preprocessing. Prints
    what it will add beforehand; raises InputError when the disk lacks the space or a picture cannot be read.
    """
    with distributed.in_turn():  # the first process decodes, on each machine whose disk has not got it by then
        _cache_images(datasets, folder, num_workers)


def _cache_images(datasets, folder, num_workers):
    preprocess = datasets[0].preprocess
    store = RowStore(folder, preprocess.facts, mapped=True)
    missing, seen = {}, set()
    for dataset in datasets:
        dataset.decoded_keys = [file_key(dataset.path(name)) for name in dataset.image_names]
        lacking = {dataset.decoded_keys[number]: number for number in store.missing(dataset.decoded_keys)}
        missing[dataset] = new = {key: number for key, number in lacking.items() if key not in seen}
        seen |= new.keys()

    _announce(folder, len(seen), len(seen) * 3 * preprocess.facts["resolution"] ** 2)
    for dataset, numbers in missing.items():
        if numbers:
            store.add(list(numbers), _decoded(dataset, list(numbers.values()), num_workers))
    for dataset in datasets:
        dataset.decoded = store


def _announce(folder, pictures, size):
    """Print what will be added, if anything; raises InputError when the disk lacks the space."""
    if not pictures:
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    needed = f"{size / 1e9:.2f} GB for {pictures} pictures"
    require_space(folder, size, f"--image-cache {folder}: needs {needed}")
    print(f"--image-cache {folder}: decoding once, {needed}", flush=True)


def _decoded(dataset, numbers, num_workers):
    return (pixels.numpy() for pixels in each_in_workers(dataset.pixels, numbers, num_workers, "decoding"))
