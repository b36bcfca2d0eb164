"""Places to search: a folder, its index and a Qdrant server, brought up to date where there are pictures."""

import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

from src.apps.search.index import open_index, updating
from src.base.errors import with_reasons
from src.base.folders import deleted, pictures_below
from src.processes.distributed import is_first
from src.retrieval.collection import Collection, Searchable
from src.retrieval.retriever import Retriever
from src.retrieval.searcher import collect, depends_on

T = TypeVar("T")


class Places(NamedTuple):
    """Where a command looks, as its options say."""

    pictures: Path | None
    """A folder of pictures."""
    index: Path | None
    """The folder of an index, which is written where there are pictures."""
    qdrant: str | None
    """The address of a server, or a folder in its place, which is filled where there are pictures or an index."""
    collection: str
    """The name of the collection there."""
    half: bool
    """Whether an index is written in fp16."""
    remove_missing: bool
    """Whether more than half of an index's pictures may be gone."""


@contextmanager
def opened(places: Places, retriever: Retriever) -> Iterator[Searchable | None]:
    """Give what is searched while it is open; an index and Qdrant are brought up to date where there are pictures."""
    collection = read_collection(places, retriever)
    if places.qdrant is None:
        yield collection
    elif not is_first():
        yield None
    else:
        from src.apps.search.qdrant import QdrantCollection, open_client, upload  # late: few searches ask a server

        with closing(open_client(places.qdrant, new=collection is not None)) as client:
            if collection is not None:
                collection, changes = without_deleted(
                    collection,
                    lambda some: upload(client, places.collection, some, depends_on(retriever), places.remove_missing),
                )
                print(f"{places.qdrant}: {len(collection):,} pictures: {changes}", file=sys.stderr)
            yield QdrantCollection(client, depends_on(retriever), places.collection)


def read_collection(places: Places, retriever: Retriever) -> Collection | None:
    """Return the collection of a folder or an index, None for none; writes the index where there are both."""
    if places.pictures is None and places.index is None:
        return None
    if places.pictures is None:
        return open_index(places.index, depends_on(retriever))
    if places.index is None or not is_first():
        return collect_all(places.pictures, retriever)
    with updating(places.index, depends_on(retriever), places.remove_missing) as update:
        update.require_most(pictures_below(places.pictures, {}))  # before the hours that encoding may take
        collection = collect_all(places.pictures, retriever)
        collection, changes = without_deleted(collection, lambda some: update.write(some, places.half))
    print(f"{places.index}: an index of {len(collection):,} pictures: {changes}", file=sys.stderr)
    return collection


def collect_all(folder: Path, retriever: Retriever) -> Collection:
    """Return the pictures of a folder, and name those that cannot be read."""
    collection, lost = collect(retriever, folder)
    for line in lost.lines(len(collection) + len(lost.pictures)):
        print(f"{folder}: {line}", file=sys.stderr)
    return collection


def without_deleted(collection: Collection, work: Callable[[Collection], T]) -> tuple[Collection, T]:
    """Return a collection and what `work` makes of it, without the pictures whose files were deleted meanwhile."""
    while True:
        try:
            return collection, work(collection)
        except FileNotFoundError:
            gone = deleted({name: collection.folder / name for name in collection.names})
            if not gone or len(gone) == len(collection):
                raise
            said = f"{len(gone)} of {len(collection)} pictures were deleted meanwhile and are left out"
            print(f"{collection.folder}: {said}: {with_reasons(gone)}", file=sys.stderr)
            collection = collection.without(gone)
