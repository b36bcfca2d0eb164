"""Kinds of picture files: missing, broken, or with pixels that surprise their readers."""

import contextlib
import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import NamedTuple

import PIL.Image

from src.base.bars import Bar
from src.base.crops import box_of, file_of
from src.base.errors import InputError, require_storage
from src.base.reading import file_digest
from src.pictures.opening import UnusablePicture, opened
from src.pictures.padding import refusing
from src.processes.workers import start_worker

FAULTS = ("missing", "zero-sized", "unreadable", "too long")
ORIENTATION = 0x0112
EMPTY = hashlib.sha256().hexdigest()
CHUNK = 16


class Look(NamedTuple):
    """What one picture file turned out to be."""

    kinds: tuple
    """One of FAULTS, or else any number of ODDITIES."""
    digest: str = ""
    """SHA-256 of the file's bytes, and which part of it; empty where none could be read."""
    fault: str = ""
    """Why it cannot be used, on one line."""


def look_at(path: Path) -> Look:
    """Decode the picture at `path`, its first frame as RGB, and return what it is.

    Raises StorageError when its disk or share fails, and nothing else.
    """
    try:
        digest = file_digest(file_of(path))
    # A folder in a picture's place is missing too.
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return Look(("missing",))
    except OSError as error:
        require_storage(error, path)
        return Look(("unreadable",), fault=error.strerror)
    if digest == EMPTY:
        return Look(("zero-sized",))
    box = box_of(path)
    digest += f" {box}" if box else ""  # two parts of a file are not copies
    try:
        transforms = opened(path, _decode)
        if transforms:
            return Look(("too long",), digest, f"refused by --transform {', '.join(transforms)}")
        return Look(opened(path, _oddities), digest)
    except UnusablePicture as error:
        return Look(("unreadable",), digest, error.reason)


def look_at_all(paths: Sequence[Path], num_workers: int) -> dict[Path, Look]:
    """Look at each of `paths`, with a progress bar on stderr; without workers, in this process."""
    looks = {}
    with contextlib.ExitStack() as stack:
        if num_workers:
            # Processes, since a hostile picture may take the one that decodes it down.
            begin = partial(start_worker, employer=os.getpid())
            pool = stack.enter_context(ProcessPoolExecutor(num_workers, initializer=begin))
            done = pool.map(look_at, paths, chunksize=CHUNK)
        else:
            done = map(look_at, paths)
        try:
            for look in Bar(done, "decoding", total=len(paths), unit=" pictures", leave=False):
                looks[paths[len(looks)]] = look
        except BrokenProcessPool:
            fault = "this picture, or one soon after it, ended the process that decoded it, perhaps for want of memory"
            raise InputError(f"{paths[len(looks)]}: {fault}") from None
    return looks


def _decode(image) -> list[str]:
    """Decode a picture; return the transforms that it is too long for."""
    image.load()
    if image.mode != "RGB":
        image.convert("RGB")
    image.crop((0, 0, 2, 2)).resize((1, 1), PIL.Image.Resampling.BICUBIC)  # which some modes refuse
    return refusing(*image.size)


def _is_deep(image) -> bool:
    """Whether the file has 16 bits or more a channel, even where Pillow drops the lower eight of them."""
    # Pillow's mode hides it; the decoder's arguments name the raw mode.
    arguments = [tile[3] for tile in image.tile]
    words = [word for value in arguments for word in (value if isinstance(value, tuple) else (value,))]
    deep = [word for word in words if isinstance(word, str) and ";16" in word and not word.startswith("BGR")]
    return bool(deep) or image.mode in ("I", "F") or image.mode.startswith("I;16")


ODDITIES = {
    "animated": lambda image: getattr(image, "is_animated", False),
    "16-bit": _is_deep,
    "palette": lambda image: image.mode in ("P", "PA"),
    "CMYK": lambda image: image.mode == "CMYK",
    "EXIF-rotated": lambda image: image.getexif().get(ORIENTATION, 1) in range(2, 9),
}


def _oddities(image):
    found = []
    for kind, is_so in ODDITIES.items():
        # Later frames and EXIF may be damaged in a picture whose pixels are whole.
        with contextlib.suppress(Exception):
            if is_so(image):
                found.append(kind)
    return tuple(found)
