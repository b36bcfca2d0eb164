"""Places to search: a folder, its index and a Qdrant server, brought up to date where there are pictures."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch

from src.apps.search.questions import require_references
from src.base.device import device
from src.base.errors import InputError, with_reasons
from src.base.folders import deleted, pictures_below
from src.models.facts import NETWORK
from src.processes.distributed import is_first, processes
from src.processes.signals import Stopping
from src.retrieval.fusion import gallery_side_digest
from src.retrieval.gallery import Gallery
from src.retrieval.retriever import Retriever
from src.retrieval.searcher import Question

WHAT_IS_KEPT = "the same command goes on where it was"
T = TypeVar("T")


class Places(NamedTuple):
    """Where a command looks, as its options say."""

    pictures: Path | None
    """A folder of pictures."""
    index: Path | str | None
    """The folder of an index or the URL of a Qdrant server, which is brought up to date where there are pictures."""
    collection: str
    """The name of the collection on a server."""
    half: bool
    """Whether an index is written in fp16."""
    remove_missing: bool
    """Whether more than half of an index's pictures may be gone."""

    @property
    def is_server(self) -> bool:
        return isinstance(self.index, str)


def depends_on(retriever: Retriever) -> dict:
    """Return what the features of pictures depend on, as plain values."""
    about = {"weights": retriever.encoder.digest("image"), "transform": retriever.preprocess.settings}
    network = gallery_side_digest(retriever.combining_function)
    return about if network is None else about | {NETWORK: network}


def require_places(places: Places, questions: Mapping[str, Question]) -> None:
    """Raise InputError for what is wrong with the places before anything is loaded or encoded."""
    if questions and places.is_server and processes() > 1:
        way_out = "ask its questions in a command of one process"
        raise InputError(f"--index {places.index} under torchrun encodes and uploads; {way_out}")
    if places.pictures is not None:
        from src.retrieval.picture_folder import require_folder

        require_folder(places.pictures)
        require_references(questions, places.pictures)


@contextmanager
def opened(places: Places, retriever: Retriever, function: str) -> Iterator[Gallery | None]:
    """Give what is searched while it is open; an index and a server are brought up to date where there are pictures.

    `function` is the name of the retriever's combining function. Only the first process is given a server's gallery.
    A signal ends the block with one line.
    """
    retriever.backbone.require_live("a search")
    with Stopping(lambda: WHAT_IS_KEPT), _opened(places, retriever, function) as gallery:
        yield gallery


@contextmanager
def _opened(places: Places, retriever: Retriever, function: str) -> Iterator[Gallery | None]:
    if not places.is_server:
        yield read_gallery(places, retriever)
        return

    from src.apps.search.qdrant import QdrantGallery, open_client, require_askable, upload  # late: few ask a server

    any_features = torch.ones(1, retriever.backbone.dimension, device=device)
    require_askable(retriever.combining_function, function, any_features)
    # Before the hours that encoding may take: whether a server answers.
    with closing(open_client(places.index)) if is_first() else nullcontext() as client:
        gallery = None if places.pictures is None else collect_all(places.pictures, retriever)
        if not is_first():
            yield None
            return
        if gallery is not None:
            gallery.project(retriever.combining_function)
            gallery, changes = without_deleted(
                gallery,
                lambda part: upload(client, places.collection, part, depends_on(retriever), places.remove_missing),
            )
            print(f"{places.index}: {len(gallery):,} pictures: {changes}", file=sys.stderr)
        yield QdrantGallery(client, depends_on(retriever), places.collection)


def read_gallery(places: Places, retriever: Retriever) -> Gallery:
    """Return the gallery of a folder or an index; writes the index where there are both."""
    if places.pictures is None:
        from src.apps.search.index import open_index

        return open_index(places.index, depends_on(retriever))
    if places.index is None or not is_first():
        return collect_all(places.pictures, retriever)

    from src.apps.search.index_writing import updating

    with updating(places.index, depends_on(retriever), places.remove_missing) as update:
        update.require_most(pictures_below(places.pictures, {}))  # before the hours that encoding may take
        gallery = collect_all(places.pictures, retriever)
        gallery.project(retriever.combining_function)
        gallery, changes = without_deleted(gallery, lambda part: update.write(part, places.half))
    print(f"{places.index}: an index of {len(gallery):,} pictures: {changes}", file=sys.stderr)
    return gallery


def collect_all(folder: Path, retriever: Retriever) -> Gallery:
    """Return the pictures of a folder, and name those that cannot be read."""
    from src.retrieval.picture_folder import collect

    gallery, lost = collect(retriever, folder)
    for line in lost.lines(len(gallery) + len(lost.pictures)):
        print(f"{folder}: {line}", file=sys.stderr)
    return gallery


def without_deleted(gallery: Gallery, work: Callable[[Gallery], T]) -> tuple[Gallery, T]:
    """Return a gallery and what `work` makes of it, without the pictures whose files were deleted meanwhile."""
    while True:
        try:
            return gallery, work(gallery)
        except FileNotFoundError:
            gone = deleted({name: gallery.folder / name for name in gallery.names})
            if not gone or len(gone) == len(gallery):
                raise
            counted = f"{len(gone)} of {len(gallery)} pictures"
            why = f"were deleted meanwhile and are left out: {with_reasons(gone)}"
            print(f"{gallery.folder}: {counted} {why}", file=sys.stderr)
            gallery = gallery.part(set(gallery.names).difference(gone))
