"""Arrays in .npy files, which are written some rows at a time and mapped only when they are what was expected."""

import math
import struct
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from src.base.reading import require_regular


def write_rows(path: Path, shape: tuple[int, ...], dtype: np.dtype, batches: Iterable[np.ndarray]) -> None:
    """Write an array whose rows come in batches, since all of them together may not fit into memory."""
    with path.open("wb") as file:
        file.write(_header(shape, dtype))
        for batch in batches:
            file.write(np.ascontiguousarray(batch).data)


def map_rows(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> np.memmap:
    """Map the array of a file that `write_rows` wrote, without reading it.

    Raises FileNotFoundError, other OSErrors, and ValueError for anything but an array of this shape and type.
    """
    header = _header(shape, dtype)
    require_regular(path)
    with path.open("rb") as file:
        # Compared as bytes: a header that is parsed may say anything, in many versions.
        if file.read(len(header)) != header:
            raise ValueError(f"it is not an array {list(shape)} of {dtype} as this program writes them")
        if file.seek(0, 2) != len(header) + math.prod(shape) * dtype.itemsize:
            raise ValueError("it is cut or continued")
        return np.memmap(file, dtype, "r", len(header), shape)


def _header(shape: tuple[int, ...], dtype: np.dtype) -> bytes:
    """Return the beginning of a .npy file of version 1.0. numpy pads its own differently from version to version."""
    described = repr({"descr": dtype.str, "fortran_order": False, "shape": tuple(shape)}).encode()
    length = -(-(10 + len(described) + 1) // 64) * 64 - 10
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", length) + described.ljust(length - 1) + b"\n"
