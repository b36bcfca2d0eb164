"""A gallery on a Qdrant server: for more than memory holds.

Each picture is a point with its normalised features under Qdrant's cosine distance as a vector, and a payload {name,
sha256, length} with {size, modified_ns} where its file was at hand. A second vector is what a network compares it as,
where that is something else. One extra point without a vector, never returned by a search, stores what the features
depend on.
"""

import copy
import json
import os
import sys
import uuid
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import torch
from torch import Tensor

from src.apps.search.changes import Changes, require_most_remain
from src.apps.search.index import require_same
from src.apps.search.index_writing import item_of
from src.base.bars import Bar
from src.base.errors import InputError, escaped, first_ten, in_a_line, shown
from src.base.reading import file_digest
from src.models.facts import NETWORK
from src.retrieval.fusion import Fusion, gallery_side_digest, predict
from src.retrieval.gallery import Gallery, Reference
from src.retrieval.ranking import normalised_factors, pieces
from src.tasks.annotations import HALF_PAIRS

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

FORMAT = 1
VECTOR = "picture"
"""Name of the vector. A point may lack one that has a name."""
PROJECTED = "projected"
"""Name of the vector of a network that compares pictures as it learned to."""
POINTS_AT_ONCE = 256
"""Pictures that a request carries: some 3 MB of JSON, where a server takes 32."""
QUESTIONS_AT_ONCE = 32
SECONDS = 60
"""How long a server may take to answer: an exact search reads every vector."""
_SPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://arxiv.org/abs/2308.11485")
NOT_INSTALLED = "needs qdrant-client: pip install -r requirements/qdrant.txt"

NOT_ASKED = "cannot be asked of Qdrant, which ranks by one similarity: use an index"


# ---- the server ----


def open_client(url: str) -> "QdrantClient":
    """Return a client of the server at `url`, to be closed at the end; its key is read from QDRANT_API_KEY.

    Raises InputError when qdrant-client is not installed, and when no server answers.
    """
    try:
        from qdrant_client import QdrantClient
    except ImportError:
        raise InputError(NOT_INSTALLED) from None
    if not _is_address(url):
        raise InputError(f"{shown(url)}: is not the address of a Qdrant server, such as http://localhost:6333")
    # When a server does not answer, an error says so.
    warnings.filterwarnings("ignore", message="Failed to obtain server version")
    with _one_line(shown(url)):
        client = QdrantClient(url=url, api_key=os.environ.get("QDRANT_API_KEY"), timeout=SECONDS)
        try:
            client.get_collections()  # whether one answers
        except ValueError as error:  # what answers is not JSON, or other JSON
            raise InputError(f"{shown(url)}: what answers is not a Qdrant server ({in_a_line(error)})") from None
    return client


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


@contextmanager
def _one_line(what: str) -> Iterator[None]:
    """Turn what a server refuses, and that it does not answer, into an InputError that begins with `what`."""
    from qdrant_client.http.exceptions import ApiException, UnexpectedResponse

    try:
        yield
    except UnexpectedResponse as error:
        hint = "; QDRANT_API_KEY is its key" if error.status_code in (401, 403) else ""
        reason = in_a_line(error.content.decode("utf-8", "replace")) or error.reason_phrase
        raise InputError(f"{what}: the Qdrant server refuses ({error.status_code}: {reason}){hint}") from None
    except ApiException as error:
        fault = in_a_line(getattr(error, "source", error))
        raise InputError(f"{what}: no Qdrant server answers ({fault})") from None


def _id(name: str) -> str:
    """Return the id of a picture's point, the same in every upload; without a name that of the metadata."""
    return str(uuid.uuid5(_SPACE, name))


def _described(client: "QdrantClient", collection: str) -> dict:
    """Return the collection's metadata plus the dimensions of its vectors; only these for a new collection."""
    vectors = client.get_collection(collection).config.params.vectors
    dim = _dim(vectors)
    points = client.retrieve(collection, [_id("")])
    meta = points[0].payload if points else {}
    is_empty = not points and client.count(collection, exact=True).count == 0
    about = {} if is_empty else _read_about(meta)
    if dim is None or about is None:
        raise InputError(f"Qdrant collection {collection}: was not uploaded by this version; name another one")
    return about | {"dim": dim, "projected_dim": _dim(vectors, PROJECTED)}


def _read_about(payload: dict | None) -> dict | None:
    """Return what `_describe` wrote as a payload; None for what others write."""
    about = payload or {}
    kinds = {"format": int, "folder": str, "depends_on": str, "is_whole": bool}
    if about.get("format") != FORMAT or not all(isinstance(about.get(key), kind) for key, kind in kinds.items()):
        return None
    try:
        depends_on = json.loads(about["depends_on"])
    except (ValueError, RecursionError):
        return None
    return about | {"depends_on": depends_on} if isinstance(depends_on, dict) else None


def _is_picture(payload: dict | None) -> bool:
    """Whether a point's payload is that of a picture, as `_send` writes them."""
    kinds = {"name": (str,), "sha256": (str,), "length": (int, float)}  # not isinstance, for which True is a number
    return isinstance(payload, dict) and all(type(payload.get(key)) in allowed for key, allowed in kinds.items())


def _dim(vectors: object, name: str = VECTOR) -> int | None:
    """Return the dimension of the vectors called `name`; None in a collection of other vectors."""
    return vectors[name].size if isinstance(vectors, dict) and name in vectors else None


def _exists(client: "QdrantClient", collection: str) -> bool:
    if not collection or set(collection) & set('/\\<>:"|?*\0') or len(collection) > 255:
        raise InputError(f"{shown(collection)!r}: is not a name of a Qdrant collection")
    return client.collection_exists(collection)


@torch.inference_mode()
def require_askable(combining_function: Fusion, name: str, features: Tensor) -> None:
    """Raise InputError for a combining function, called `name`, that Qdrant cannot rank by.

    `features` [1, dim] are any that it can combine.
    """
    if len(predict(combining_function, features, features)) > 1:
        raise InputError(f"--combining-function {name} {NOT_ASKED}")


# ---- uploading ----


def upload(
    client: "QdrantClient", name: str, gallery: Gallery, depends_on: dict, remove_missing: bool = False
) -> Changes:
    """Bring the Qdrant collection `name` up to date with a gallery; the collection is made where there is none.

    `depends_on` are plain values that distinguish its features from others. Only pictures that are new or changed are
    sent, so that another upload continues one that was interrupted. Pictures that are not in `gallery` are removed.
    Raises InputError when the features there are another CLIP's and, unless `remove_missing`, when more than half of
    the pictures there would be removed.
    """
    from qdrant_client import models

    what = f"Qdrant collection {name}"
    gallery = _of_utf8_names(gallery, what)
    dim = gallery.features.shape[1]
    with _one_line(what):
        if not _exists(client, name):
            vectors = {
                vector: models.VectorParams(size=features.shape[1], distance=models.Distance.COSINE)
                for vector, features in _vectors(gallery).items()
            }
            client.create_collection(name, vectors_config=vectors)
        meta = _described(client, name)
        _require_features(meta, depends_on, dim, what)
        there = _points_of(client, name)
        others = there - set(map(_id, gallery.names))
        if not remove_missing:
            require_most_remain(what, len(others), len(there))
        # Copies of a reference are looked for by it.
        client.create_payload_index(name, "sha256", models.PayloadSchemaType.KEYWORD)
        about = {"format": FORMAT, "folder": str(gallery.folder.absolute()), "depends_on": json.dumps(depends_on)}
        _describe(client, name, about | {"is_whole": meta.get("is_whole", False)})
        batches = Bar(pieces(len(gallery), POINTS_AT_ONCE), desc=f"uploading to {name}", leave=False, delay=1)
        sent = [point for rows in batches for point in _send(client, name, gallery, rows)]
        _remove(client, name, list(others))
        # From now on it can be searched, also while it is brought up to date.
        _describe(client, name, about | {"is_whole": True})
    changed = len(there.intersection(sent))
    return Changes(len(sent) - changed, changed, len(gallery) - len(sent), len(others))


def _of_utf8_names(gallery: Gallery, what: str) -> Gallery:
    """Return the pictures whose names a request can carry; those of the others are printed to stderr."""
    if HALF_PAIRS.search(str(gallery.folder.absolute())):
        raise InputError(f"{escaped(str(gallery.folder))}: its path is not UTF-8, which Qdrant needs; rename it")
    others = [name for name in gallery.names if HALF_PAIRS.search(name)]
    if not others:
        return gallery
    print(
        f"{what}: {len(others)} pictures are left out, whose names are not UTF-8: {first_ten(others)}", file=sys.stderr
    )
    return gallery.part(set(gallery.names).difference(others))


def _require_features(meta: dict, depends_on: dict, dim: int, what: str) -> None:
    require_same(
        meta.get("depends_on", depends_on),
        depends_on,
        f"{what}: pictures",
        "upload them to a collection of another name",
    )
    if meta["dim"] != dim:
        raise InputError(f"{what}: its features have {meta['dim']} dimensions, these {dim}")


def _describe(client: "QdrantClient", name: str, about: dict) -> None:
    from qdrant_client import models

    client.upsert(name, [models.PointStruct(id=_id(""), vector={}, payload=about)], wait=True)


def _vectors(gallery: Gallery) -> dict[str, Tensor]:
    """Return the vectors {name: features [pictures, dim]} of a gallery's pictures."""
    projected = {} if gallery.projection is None else {PROJECTED: gallery.projection.features}
    return {VECTOR: gallery.features} | projected


def _send(client: "QdrantClient", name: str, gallery: Gallery, rows: slice) -> list[str]:
    """Send those of some pictures that are new or changed; return their points."""
    from qdrant_client import models

    names = gallery.names[rows]
    there = client.retrieve(name, list(map(_id, names)), with_payload=True, with_vectors=False)
    known = {point.payload["name"]: point.payload for point in there if _is_picture(point.payload)}
    lengths, points = gallery.lengths[rows].tolist(), []
    for row, picture, length in zip(range(rows.start, rows.stop), names, lengths, strict=True):
        if gallery.digests is None:
            item = item_of(picture, str(gallery.folder / picture), length, known)
        else:
            item = {"name": picture, "sha256": gallery.digests[row], "length": length}
        before = known.get(picture, {})
        # Lengths may differ in rounding.
        if any(before.get(key) != value for key, value in item.items() if key != "length"):
            vectors = {vector: features[row].float().tolist() for vector, features in _vectors(gallery).items()}
            points.append(models.PointStruct(id=_id(picture), vector=vectors, payload=item))
    if points:
        client.upsert(name, points, wait=True)
    return [point.id for point in points]


def _points_of(client: "QdrantClient", name: str) -> set[str | int]:
    """Return the points of all pictures of a collection."""
    page, found = None, set()
    while True:
        points, page = client.scroll(name, limit=10_000, offset=page, with_payload=False)
        found.update(point.id for point in points)
        if page is None:
            return found - {_id("")}


def _remove(client: "QdrantClient", name: str, points: list[str | int]) -> None:
    from qdrant_client import models

    for part in pieces(len(points), POINTS_AT_ONCE):
        client.delete(name, models.PointIdsList(points=points[part]), wait=True)


# ---- searching ----


class QdrantGallery:
    """A gallery in a Qdrant collection, searched on the server, with the methods of Gallery that a Searcher needs."""

    def __init__(self, client: "QdrantClient", depends_on: dict, name: str):
        """Open the collection `name`.

        Raises InputError when its features do not depend on `depends_on`, and when there is none or it is not whole.
        """
        self.client, self.name = client, name
        self._what = f"Qdrant collection {name}"
        with _one_line(self._what):
            meta = _described(client, name) if _exists(client, name) else {}
        if "depends_on" not in meta:
            raise InputError(f"{self._what}: there is none; upload pictures first")
        _require_features(meta, depends_on, meta["dim"], self._what)
        if not meta["is_whole"]:
            raise InputError(f"{self._what}: its upload was interrupted; upload the pictures again, which goes on")
        self.folder, self.dim = Path(meta["folder"]), meta["dim"]
        self._vector, self._meta = VECTOR, meta

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name}, {self.dim} dimensions)"

    def __len__(self) -> int:
        with _one_line(self._what):
            return self.client.count(self.name, exact=True).count - 1

    def __contains__(self, name: str) -> bool:
        return self._point(name) is not None

    def feature(self, name: str) -> Tensor | None:
        """Return a picture's features [1, dim] in fp32, as the encoder gave them; None where there is no such name."""
        point = self._point(name, with_vectors=True)
        if point is None:
            return None
        if not isinstance(point.vector, dict) or VECTOR not in point.vector:
            raise InputError(f"{self._what}: {shown(name)} has no features; upload the pictures again")
        return torch.tensor([point.vector[VECTOR]]) * point.payload["length"]

    def compared_by(self, combining_function: Fusion) -> "QdrantGallery":
        """Return the gallery with the vectors that predicted features are compared with.

        Raises InputError for a network that compares pictures as something else than the collection has.
        """
        network = gallery_side_digest(combining_function)
        if network is None:
            return self
        _require_features(self._meta, self._meta["depends_on"] | {NETWORK: network}, self.dim, self._what)
        other = copy.copy(self)
        other._vector, other.dim = PROJECTED, self._meta["projected_dim"]
        return other

    @torch.inference_mode()
    def answers(
        self, predicted: Tensor, k: int, left_out: Sequence[Reference | None], exponents: Sequence[float] = ()
    ) -> list[list[tuple[str, float]]]:
        """Return at most `k` names with their scores, best first, for predicted features [factors, queries, dim].

        Pictures of equal scores are in the server's order. Raises InputError for a product of two similarities: a
        server ranks by one of them, and a picture far down in both lists may have the highest product.
        """
        from qdrant_client import models

        if len(predicted) > 1:
            raise InputError(f"a product {NOT_ASKED}")
        (queries,) = normalised_factors(predicted)
        if queries.shape[1] != self.dim:
            raise InputError(f"{self._what}: its features have {self.dim} dimensions, the query's {queries.shape[1]}")
        # Otherwise a server follows its graph of near neighbours (HNSW), which may pass over answers.
        parameters = models.SearchParams(exact=True)
        same = {"using": self._vector, "limit": k, "params": parameters, "with_payload": ["name"]}
        requests = [
            models.QueryRequest(query=query, filter=self._filter(one), **same)
            for query, one in zip(queries.tolist(), left_out, strict=True)
        ]
        found = []
        with _one_line(self._what):
            for part in pieces(len(requests), QUESTIONS_AT_ONCE):
                found += self.client.query_batch_points(self.name, requests[part])
        return [[(self._name_of(point), point.score) for point in answers.points] for answers in found]

    def _name_of(self, point) -> str:
        name = (point.payload or {}).get("name")
        if not isinstance(name, str):
            raise InputError(f"{self._what}: its point {point.id} has no name; upload the pictures again")
        return name

    def _filter(self, picture: Reference | None):
        """Return the filter that leaves out a picture and copies of its bytes; None where there is nothing to."""
        from qdrant_client import models

        if picture is None:
            return None
        point = None if picture.name is None else self._point(picture.name)
        conditions = [] if point is None else [models.HasIdCondition(has_id=[point.id])]
        digest = None if point is None else point.payload["sha256"]
        if digest is None and picture.path is not None and picture.path.is_file():
            digest = file_digest(picture.path)
        if digest is not None:
            conditions.append(models.FieldCondition(key="sha256", match=models.MatchValue(value=digest)))
        return models.Filter(must_not=conditions) if conditions else None

    def _point(self, name: str, with_vectors: bool = False):
        if not name:
            return None
        with _one_line(self._what):
            points = self.client.retrieve(self.name, [_id(name)], with_payload=True, with_vectors=with_vectors)
        if points and not _is_picture(points[0].payload):
            raise InputError(f"{self._what}: {shown(name)} is not as it was uploaded; upload the pictures again")
        return points[0] if points else None
