"""What picture files are: missing, broken, or of a kind that surprises whoever reads their pixels."""

import contextlib
import hashlib
import io
import warnings
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import NamedTuple

import PIL.Image

from src.base.bars import Bar
from src.base.errors import InputError, in_a_line
from src.base.workers import start_worker

FAULTS = ("missing", "zero-sized", "unreadable")
ORIENTATION = 0x0112
CHUNK = 16


class Look(NamedTuple):
    """What one picture file turned out to be."""

    kinds: tuple
    """One of FAULTS, or else any number of ODDITIES."""
    digest: str = ""
    """SHA-256 of the file's bytes, empty where none could be read."""
    fault: str = ""
    """Why it is unreadable, in a line."""


def look_at(path):
    """Decode the picture at `path`, as RGB and its first frame alone, and say what it is; raises nothing."""
    try:
        if not path.is_file():
            return Look(("missing",))
        content = path.read_bytes()
    except OSError as error:
        return Look(("unreadable",), fault=error.strerror)
    if not content:
        return Look(("zero-sized",))
    digest, file = hashlib.sha256(content).hexdigest(), io.BytesIO(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of much that Pillow finds odd, and decodes
        try:
            _decode(file)
        # What Pillow raises depends on format and damage; whatever it is, it is this file's fault.
        except Exception as error:
            return Look(("unreadable",), digest, in_a_line(error, repr(file)))
        return Look(_oddities(io.BytesIO(content)), digest)


def look_at_all(paths, num_workers):
    """{path: Look}, with a progress bar on stderr; 0 workers is this process alone."""
    looks = {}
    with contextlib.ExitStack() as stack:
        if num_workers:
            pool = stack.enter_context(ProcessPoolExecutor(num_workers, initializer=start_worker))
            done = pool.map(look_at, paths, chunksize=CHUNK)
        else:
            done = map(look_at, paths)
        try:
            for look in Bar(done, "decoding", total=len(paths), unit=" pictures", leave=False):
                looks[paths[len(looks)]] = look
        except BrokenProcessPool:
            fault = "it or a picture soon after it ended the process that decoded it, perhaps for want of memory"
            raise InputError(f"{paths[len(looks)]}: {fault}") from None
    return looks


def _decode(file):
    with PIL.Image.open(file) as image:
        image.load()
        if image.mode != "RGB":
            image.convert("RGB")


def _is_deep(image):
    """Whether the file has 16 bits or more a channel, even where Pillow drops the lower eight of them."""
    arguments = [tile[3] for tile in image.tile]
    words = [word for some in arguments for word in (some if isinstance(some, tuple) else (some,))]
    deep = [word for word in words if isinstance(word, str) and ";16" in word and not word.startswith("BGR")]
    return bool(deep) or image.mode in ("I", "F") or image.mode.startswith("I;16")


ODDITIES = {
    "animated": lambda image: getattr(image, "is_animated", False),
    "16-bit": _is_deep,
    "palette": lambda image: image.mode in ("P", "PA"),
    "CMYK": lambda image: image.mode == "CMYK",
    "EXIF-rotated": lambda image: image.getexif().get(ORIENTATION, 1) in range(2, 9),
}


def _oddities(file):
    found = []
    with PIL.Image.open(file) as image:
        for kind, is_so in ODDITIES.items():
            # Later frames and EXIF may be damaged in a picture whose pixels are whole.
            with contextlib.suppress(Exception):
                found += [kind] * bool(is_so(image))
    return tuple(found)
