"""Names that are nearly the same: what there is instead of one that is not there."""

import difflib
import heapq
import os
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import PurePosixPath
from typing import NamedTuple

from src.base.errors import shown

NEAR = 0.8
"""How alike two names are, from 0 to 1, of which one may mean the other."""
COMPARED = 500
"""How many names are compared letter by letter: those that begin and end most alike."""


def one_form(name: str) -> str:
    """Return a name in one of the forms that Unicode has for the same letters: a Mac writes é as e and an accent."""
    return unicodedata.normalize("NFC", name)


class Instead(NamedTuple):
    """What may be meant by a name that is not there."""

    names: tuple[str, ...]
    how: str
    """How they differ from it."""

    def __str__(self) -> str:
        others = f" and {len(self.names) - 1} more" if len(self.names) > 1 else ""
        return f"there is {shown(self.names[0])}{others}, {self.how}"


class Alike:
    """Names, paths from one folder, among which one that is not there is looked for."""

    def __init__(self, names: Iterable[str]):
        self._names = list(dict.fromkeys(names))
        # Made once: thousands of names may be looked for.
        self._keyed = {how: _keyed(self._names, keys) for how, keys in LIKENESSES.items()}
        self._folders = {}
        for name in self._names:
            self._folders.setdefault(_folded(_folder(name)), []).append(name)

    def instead(self, name: str, nearly: bool = True) -> Instead | None:
        """Return what may be meant by `name`, the most alike first; `nearly` also looks for misspelled names."""
        for how, keys in LIKENESSES.items():
            found = dict.fromkeys(other for key in keys(name) for other in self._keyed[how].get(key, ()))
            found.pop(name, None)
            if found:
                return Instead(tuple(found), _about_suffixes(how, name, next(iter(found))))
        meant = self._nearest(name) if nearly else None
        return Instead((meant,), "nearly the same name") if meant else None

    def _nearest(self, name: str) -> str | None:
        # In its folder the name is misspelled; where there is no such folder, perhaps the folder.
        in_folder = self._folders.get(_folded(_folder(name)))
        part = _stem if in_folder else _without_suffix
        looked_for = part(_folded(name))
        others = {part(_folded(other)): other for other in in_folder or self._names if other != name}
        # IMG_0124 is another picture than IMG_0123, not that one misspelled.
        others = {part: other for part, other in others.items() if _digits(part) == _digits(looked_for)}
        compared = heapq.nlargest(COMPARED, others, key=lambda other: _shared(looked_for, other))
        found = difflib.get_close_matches(looked_for, compared, 1, NEAR)
        return others[found[0]] if found else None


def _folded(name: str) -> str:
    return one_form(name).casefold()


def _lookalike(name: str) -> str:
    """Return a name with one kind of blank, and without letters that are not seen."""
    plain = unicodedata.normalize("NFKC", name).casefold()
    return " ".join("".join(letter for letter in plain if unicodedata.category(letter) != "Cf").split())


def _folder(name: str) -> str:
    return name.rpartition("/")[0]


def _without_suffix(name: str) -> str:
    return name.removesuffix(PurePosixPath(name).suffix)


def _digits(name: str) -> str:
    return "".join(filter(str.isdigit, name))


def _stem(name: str) -> str:
    return _without_suffix(name.rpartition("/")[2])


def _with_any_suffix(name: str) -> tuple[str, str]:
    # Where suffixes are hidden, files come to be called a.jpg.jpg.
    folded = _folded(name)
    return folded, _without_suffix(folded)


LIKENESSES: dict[str, Callable[[str], Iterable[str]]] = {
    "the same name in another Unicode form": lambda name: [one_form(name)],
    "in other case": lambda name: [_folded(name)],
    "with letters or blanks that look alike": lambda name: [_lookalike(name)],
    "with another suffix": _with_any_suffix,
    "in another folder": lambda name: [_folded(name).rpartition("/")[2]],
    "in another folder, with another suffix": lambda name: _with_any_suffix(name.rpartition("/")[2]),
}
"""{how two names differ: the keys that they then share}, the most alike first"""


def _keyed(names: Iterable[str], keys: Callable[[str], Iterable[str]]) -> dict[str, list[str]]:
    keyed = {}
    for name in names:
        for key in keys(name):
            keyed.setdefault(key, []).append(name)
    return keyed


def _about_suffixes(how: str, name: str, found: str) -> str:
    if not PurePosixPath(found).suffix:
        return how.replace("with another suffix", "without a suffix")
    return how if PurePosixPath(name).suffix else how.replace("another suffix", "a suffix")


def _shared(name: str, other: str) -> int:
    """How many letters two names share where they begin and where they end."""
    begin = len(os.path.commonprefix((name, other)))
    return begin + len(os.path.commonprefix((name[begin:][::-1], other[begin:][::-1])))
