"""Features in files, which another program made of listed pictures and texts, in the place of a CLIP."""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from torch import Tensor, nn

from src.base.errors import InputError, first_ten, in_a_line, repeated
from src.base.files import HELD_FEATURES
from src.base.reading import read_text, require_regular
from src.models.backbone import Backbone
from src.pictures.normalisation import OPENAI_NORMALISATION

LISTS = {"image": "pictures", "text": "texts"}
"""{encoder: the stem of the list and of the features in its place}"""
TYPES = np.float16, np.float32
AT_ONCE = 2**24
"""Numbers looked at in memory at a time."""


def text_line(text: str) -> str:
    """Return a text as a line of texts.txt, with single spaces, as CLIP's own tokenizer reads it."""
    return " ".join(text.split())


class FeatureFiles(Backbone):
    """Features in a folder. What a CLIP would encode is looked up by its line, so nothing new can be encoded.

    pictures.txt and texts.txt are lists, pictures.npy and texts.npy [lines, dimension] have a row for each line.
    """

    normalisation = OPENAI_NORMALISATION
    trims_captions = False
    resolution = 224
    """What --skip-missing tries pictures at; no feature depends on it."""

    def __init__(self, folder: Path):
        super().__init__(nn.Module())
        self.folder = folder
        self._rows = {encoder: _Rows(folder, name) for encoder, name in LISTS.items()}
        sizes = {rows.path.name: rows.features.shape[1] for rows in self._rows.values()}
        if len(set(sizes.values())) > 1:
            described = " and ".join(f"{name} {size}" for name, size in sizes.items())
            raise InputError(f"{folder}: features of different sizes, {described} numbers a row; a model gives both")
        self._start = None

    @classmethod
    def load(cls, name: str) -> "FeatureFiles":
        folder = Path(name.removeprefix(HELD_FEATURES))
        if not folder.is_dir():
            raise InputError(f"--clip-model-name {name}: no such folder; if it was moved, give its new path")
        return cls(folder)

    @property
    def dimension(self) -> int:
        return self._rows["text"].features.shape[1]

    def held(self, encoder: str, items: Sequence[Path | str]) -> Tensor:
        lines = self._picture_lines(items) if encoder == "image" else list(map(text_line, items))
        return self._rows[encoder].read(lines)

    def _picture_lines(self, paths: Sequence[Path | str]) -> list[str]:
        """Return pictures as the list has them: from the data path, which may have moved since, or by their paths."""
        known = self._rows["image"].numbers
        whole = [Path(path).absolute() for path in paths]
        if self._start is None:
            # The longest part of a path that is listed, where it is not listed as a whole. All such have to begin
            # alike, or they are not the pictures listed.
            moved = (path for path in whole if path.as_posix() not in known)
            starts = (start for path in moved for start in reversed(path.parents) if _below(path, start) in known)
            self._start = next(starts, None)
        return [str(path) if self._start is None else self._line(path, known) for path in whole]

    def _line(self, path, known):
        return path.as_posix() if path.as_posix() in known else _below(path, self._start)

    def digest(self, encoder: str | None = None) -> str:
        if encoder is not None:
            return self._rows[encoder].digest
        return hashlib.sha256("".join(rows.digest for rows in self._rows.values()).encode()).hexdigest()

    def require_live(self, what: str) -> NoReturn:
        fault = f"holds features of listed pictures and texts, and encodes no others; {what} needs a CLIP"
        raise InputError(f"--clip-model-name {HELD_FEATURES}{self.folder}: {fault}")

    def load_over(self, path: Path | str) -> NoReturn:
        fault = f"{HELD_FEATURES}{self.folder} holds features, over which no weights can be loaded"
        raise InputError(f"--clip-model-path {path}: {fault}; name only one of the two")

    def tokenize(self, captions: Sequence[str]) -> NoReturn:
        self.require_live("a new text")

    def ends(self, tokens: Tensor) -> NoReturn:
        self.require_live("a new text")

    def encode_tokens(self, tokens: Tensor) -> NoReturn:
        self.require_live("a new text")

    def encode_images(self, images: Tensor) -> NoReturn:
        self.require_live("a new picture")

    def encoder_of(self, weight: str) -> None:
        return None


def _below(path: Path, start: Path) -> str:
    """Return a path as it goes on from `start`; the whole path where it does not lie below."""
    whole, beginning = path.as_posix(), start.as_posix().rstrip("/") + "/"
    return whole.removeprefix(beginning)


class _Rows:
    """A list and the features of its lines, which stay on disk until they are read."""

    def __init__(self, folder: Path, name: str):
        """Raises InputError unless there is a row of finite numbers, not all zero, for each line and no more."""
        self.name, self.list, self.path = name, folder / f"{name}.txt", folder / f"{name}.npy"
        lines = read_list(self.list)
        again = repeated(lines)
        if again:
            raise InputError(f"{self.list}: {len(again)} of {len(lines)} lines are repeated: {first_ten(again)}")
        self.numbers = {line: number for number, line in enumerate(lines)}
        self.features = _mapped(self.path, f"features of the {len(lines)} lines of {self.list.name}")
        self._require_rows(len(lines))

    def read(self, lines: Sequence[str]) -> Tensor:
        """Return the features [lines, dimension] in fp32; raises InputError, which names them, for unlisted lines."""
        distinct = dict.fromkeys(lines)
        lacking = [line for line in distinct if line not in self.numbers]
        if lacking:
            counted = f"lacks {len(lacking)} of {len(distinct)} {self.name} that are needed"
            remedy = "list them in another folder (python -m src.apps.features), and encode that"
            raise InputError(f"{self.list}: {counted}: {first_ten(lacking)}; {remedy}")
        return torch.from_numpy(np.array(self.features[[self.numbers[line] for line in lines]], np.float32))

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of the lines and their features."""
        digest = hashlib.sha256(f"{self.name} {self.features.dtype} {list(self.features.shape)}\n".encode())
        digest.update("".join(f"{line}\n" for line in self.numbers).encode())
        for _, rows in self._parts():
            digest.update(rows)
        return digest.hexdigest()

    def _parts(self):
        """Yield (number of the first row, rows), as many as fit into memory at a time."""
        step = max(1, AT_ONCE // self.features.shape[1])
        for first in range(0, len(self.features), step):
            yield first, np.ascontiguousarray(self.features[first : first + step])

    def _require_rows(self, lines: int) -> None:
        rows = len(self.features)
        if rows > lines:
            raise InputError(f"{self.path}: {rows} rows for the {lines} lines of {self.list.name}")
        self._refuse(range(rows, lines), f"lacking, of the {lines} that {self.list.name} lists")
        odd, zero = [], []
        for first, part in self._parts():
            odd += (first + np.flatnonzero(~np.isfinite(part).all(axis=1))).tolist()
            zero += (first + np.flatnonzero(~part.any(axis=1))).tolist()
        self._refuse(odd, "not finite (NaN or infinite)")
        # What a program has not come to yet, in a file that it made beforehand. No model gives such a feature.
        self._refuse(zero, "all zeros, so nothing was encoded there")

    def _refuse(self, numbers: Sequence[int], fault: str) -> None:
        if numbers:
            which = "row" if len(numbers) == 1 else "rows"
            what = f"{which} {first_ten(numbers)}, counted from 0, {'is' if len(numbers) == 1 else 'are'} {fault}"
            raise InputError(f"{self.path}: {what}")


def read_list(path: Path) -> list[str]:
    """Read the lines of a list, of which one may be empty; raises InputError where there is none."""
    content = read_text(path, "python -m src.apps.features writes it")
    return content.removesuffix("\n").split("\n") if content else []


def _mapped(path: Path, what: str) -> np.ndarray:
    """Map an array [rows, dimension] of a .npy file; raises InputError, in which it is `what`, for anything else."""
    expected = f"expected {what} as numpy.save writes them"
    try:
        require_regular(path)
        # By numpy's own reader: other programs write other headers than RowStore does.
        features = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; {expected}") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or in_a_line(error, path)}; {expected}") from None
    # What bytes of another kind lead to.
    except (ValueError, EOFError, SyntaxError, TypeError, MemoryError, OverflowError) as error:
        raise InputError(f"{path}: not a .npy file ({in_a_line(error, path)}); {expected}") from None
    if not isinstance(features, np.ndarray):
        raise InputError(f"{path}: holds several arrays; {expected}")
    if features.dtype not in TYPES:
        raise InputError(f"{path}: holds {features.dtype}, expected float16 or float32")
    if features.ndim != 2 or features.shape[1] == 0:
        raise InputError(f"{path}: an array {list(features.shape)}, expected [lines, numbers of a feature]")
    return features
