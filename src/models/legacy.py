"""The form in which torch kept tensors before its zip archives: pickles, then the values of all storages."""

import io

import torch
from torch import Tensor

from src.models.archive import LIMIT, Unreadable, WeightsFile
from src.models.pickles import Reader, require_plain

MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001


def read_legacy(file: WeightsFile, tensors: bool) -> object:
    """Return what such a file holds, without `tensors` None for each; raises Unreadable and others.

    It has no checksums. That it has as many values as its tensors need is all that can be checked.
    """
    storages = _Storages(file.seek(0, io.SEEK_END))
    file.seek(0)
    pickles = io.BytesIO(file.read(LIMIT))
    if (_next(pickles), _next(pickles)) != (MAGIC, VERSION):
        raise Unreadable("it is torn, or no file of weights")
    if not _next(pickles)["little_endian"]:
        raise Unreadable("it was saved on a machine with another order of bytes")
    content = Reader(pickles, storages.get if tensors else None).load()
    require_plain(content)
    if tensors:
        keys = _next(pickles)
        file.seek(pickles.tell())
        storages.read(keys, file)
    return content


def _next(pickles):
    return Reader(pickles, None).load()


class _Storages:
    """The storages of a file, at its end."""

    def __init__(self, left: int):
        """`left` is how many bytes they may have together."""
        self._left, self._bytes, self._counts = left, {}, {}

    def get(self, key: str, dtype: torch.dtype, count: int) -> Tensor:
        """Return the `count` values of a storage, which `read` fills."""
        size = count * dtype.itemsize
        if key not in self._bytes:
            self._left -= size
            if self._left < 0:
                raise Unreadable("it is torn: it has fewer values than its tensors need")
            self._bytes[key], self._counts[key] = torch.empty(size, dtype=torch.uint8), count
        if len(self._bytes[key]) != size:
            raise Unreadable(f"its storage {key} has two sizes")
        return self._bytes[key].view(dtype)

    def read(self, keys: list[str], file: io.BufferedReader) -> None:
        """Read all storages, which lie in the order of `keys`."""
        if sorted(keys) != sorted(self._bytes):
            raise Unreadable("it is torn: its values are of other tensors")
        for key in keys:
            count = int.from_bytes(file.read(8), "little")
            buffer = self._bytes[key].numpy()
            if count != self._counts[key] or file.readinto(buffer) != len(buffer):
                raise Unreadable("it is torn: it has fewer values than its tensors need")
        if file.read(1):
            raise Unreadable("it has more values than its tensors need")
