"""The same work on each of many items, in worker processes."""

from collections.abc import Callable, Iterator, Sequence

from torch.utils.data import Dataset

from src.base.bars import Bar
from src.processes.loading import Loader


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
