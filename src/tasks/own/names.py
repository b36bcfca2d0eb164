"""Names of pictures in tables of own triplets, as the disk spells them."""

import functools
import os
import sys
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from src.base.alike import one_form
from src.base.crops import file_of
from src.base.errors import first_ten
from src.tasks.annotations import stays_inside


class Disk:
    """Finds the files that names mean, below a folder whose subfolders are looked into once."""

    def __init__(self, root: Path):
        self.root = root
        self._entries = {}
        self.other_forms: dict[str, None] = {}
        """Names that were found in the other form that Unicode has for their letters."""

    def spelled(self, name: str) -> str:
        """Return a name as the disk spells it, where exactly one file or folder has each part in either form.

        A Mac decomposes é where other systems have one letter: the names look alike, and are not.
        """
        if name.isascii() or not stays_inside(name):
            return name
        found = ""
        for part in plain(name).split("/"):
            entries = self._of_folder(found)
            same = entries.get(one_form(part), [])
            if part not in same and len(same) != 1:
                return name
            found = f"{found}/{part if part in same else same[0]}".removeprefix("/")
        if found != plain(name):
            self.other_forms[name] = None
        return found

    def _of_folder(self, below: str) -> dict[str, list[str]]:
        """Return {name in one form: names on the disk} of a folder."""
        if below not in self._entries:
            entries = {}
            try:
                names = os.listdir(self.root / below)  # noqa: PTH208, in less time
            except OSError:  # nothing is found where nothing may be looked at, as later when it is opened
                names = []
            for name in names:
                entries.setdefault(one_form(name), []).append(name)
            self._entries[below] = entries
        return self._entries[below]


@functools.cache
def mention_other_forms(path: Path, names: tuple[str, ...]) -> None:
    """Say once that names in a table or a listing are spelled in another form than their files."""
    many = f"{len(names)} names are in another Unicode form than their files, which are taken"
    what = many if len(names) > 1 else "1 name is in another Unicode form than its file, which is taken"
    print(f"{path}: {what}: {first_ten(names)}", file=sys.stderr)


def plain(path: str) -> str:
    """Return a relative path as the pictures below a folder are called, whatever system wrote it."""
    return str(PurePosixPath(path.replace("\\", "/")))


def all_there(roots: Iterable[Path], names: Iterable[str]) -> bool:
    """Whether there is a file of each name in one of the folders."""
    return all(any(file_of(root / plain(name)).is_file() for root in roots) for name in names)
