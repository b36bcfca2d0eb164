"""A folder of pictures as a gallery, without those that cannot be read."""

from pathlib import Path
from typing import NamedTuple

from src.base.errors import InputError, StorageError, with_reasons
from src.base.folders import PassedOver, deleted, pictures_below
from src.pictures.trying import unusable
from src.processes import distributed
from src.retrieval.gallery import Gallery
from src.retrieval.retriever import Retriever


def require_folder(folder: Path) -> None:
    """Raise InputError unless there is such a folder."""
    if not folder.is_dir():
        raise InputError(f"{folder}: {'is a file, not a folder' if folder.is_file() else 'no such folder'}")


class Lost(NamedTuple):
    """What of a folder is left out, and why."""

    pictures: dict[str, str]
    """{name: why it cannot be read}."""
    folders: dict[str, str]
    """{path from the folder: why it may not be looked into}."""
    passed: PassedOver
    """What is no picture."""

    def lines(self, total: object = "the") -> list[str]:
        """Return a line for what is left out of each kind; `total` is how many pictures there are with those."""
        kinds = {f"{total} pictures cannot be read": self.pictures, "the folders may not be looked into": self.folders}
        lines = [
            f"{len(lost)} of {what} and {'are' if len(lost) > 1 else 'is'} left out: {with_reasons(lost)}"
            for what, lost in kinds.items()
            if lost
        ]
        return lines + self.passed.lines()


def collect(retriever: Retriever, folder: Path | str) -> tuple[Gallery, Lost]:
    """Return every picture below a folder as a gallery, and what had to be left out.

    Features that the retriever's feature cache keeps are not computed again. Raises InputError when there is no
    picture, and StorageError when a disk or share fails.
    """
    folder = Path(folder)
    require_folder(folder)
    lost = Lost({}, {}, PassedOver.nothing())
    found = pictures_below(folder, lost.folders, lost.passed) if distributed.is_first() else None
    paths = distributed.broadcast(found)
    if not paths:
        raise InputError("; ".join([f"{folder}: holds no pictures, at no depth", *lost.lines()]))
    # One process that meets a broken picture would leave the others waiting, so together they look beforehand.
    if distributed.processes() > 1:
        lost.pictures.update(_unreadable(retriever, paths))
    while True:
        try:
            return _gallery(retriever, paths, lost, folder), lost
        except StorageError:
            raise
        except (InputError, OSError):
            # What was encoded before is kept. Where one picture is broken or deleted there may be more.
            usable = {name: path for name, path in paths.items() if name not in lost.pictures}
            found = _unreadable(retriever, usable) if usable and distributed.processes() == 1 else {}
            if not found:
                raise
            lost.pictures.update(found)


def _gallery(retriever, paths, lost, folder) -> Gallery:
    usable = {name: path for name, path in paths.items() if name not in lost.pictures}
    if not usable:
        why = with_reasons(lost.pictures)
        raise InputError(f"{folder}: none of its {len(paths)} pictures can be read: {why}")
    gallery = retriever.gallery(retriever.pictures(usable))
    gallery.folder = folder
    gallery.normalise()
    return gallery


def _unreadable(retriever, paths) -> dict[str, str]:
    """Try every picture whose features are not kept; return {name: why} of those that cannot be read."""
    gone = distributed.broadcast(deleted(paths) if distributed.is_first() else None)
    there = {name: path for name, path in paths.items() if name not in gone}
    missing = retriever.encoder.missing(retriever.pictures(there)) if there else []
    broken = unusable([paths[name] for name in missing], retriever.preprocess, retriever.encoder.num_workers)
    return {name: gone.get(name) or broken[path] for name, path in paths.items() if name in gone or path in broken}
