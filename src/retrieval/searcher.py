"""Searching one's own pictures with a picture, a caption, or both.

README.md asks in five lines. Every score is exact: no answer is passed over.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from src.base.device import device
from src.base.errors import InputError, StorageError, with_reasons
from src.base.folders import deleted, pictures_below
from src.pictures.trying import unusable
from src.processes import distributed
from src.retrieval.collection import Collection, LeftOut, Searchable
from src.retrieval.fusion import gallery_side, predict
from src.retrieval.retriever import Retriever

WITHOUT = 0.5
"""How far a query moves away from what --without says, where its own length is 1."""


class Question(NamedTuple):
    """What is looked for: like a picture, as a caption says, or both."""

    reference: str | Path | None = None
    """A name in the collection, or the path of any picture."""
    caption: str = ""
    without: str = ""
    """A text that answers should not be like."""
    caption_weight: float = 0.5
    """From 0, the picture alone, to 1, the caption alone; 0.5 leaves what the combining function made."""
    include_reference: bool = False
    """Whether the reference and copies of its bytes may be answers."""


class Found(NamedTuple):
    """An answer."""

    name: str
    """Its path from the collection's folder."""
    score: float
    """Cosine similarity, or the product of two."""
    path: Path
    """The file, which need not be at hand when an index was searched."""


# ---- pictures ----


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

    def lines(self, total: object = "the") -> list[str]:
        """Return a line for what is left out of each kind; `total` is how many pictures there are with those."""
        kinds = {f"{total} pictures cannot be read": self.pictures, "the folders may not be looked into": self.folders}
        return [
            f"{len(lost)} of {what} and {'are' if len(lost) > 1 else 'is'} left out: {with_reasons(lost)}"
            for what, lost in kinds.items()
            if lost
        ]


def collect(retriever: Retriever, folder: Path | str) -> tuple[Collection, Lost]:
    """Return every picture below a folder as a collection, and what had to be left out.

    Features come from the feature cache, where they are kept. Raises InputError when there is no picture, and
    StorageError when a disk or share fails.
    """
    folder = Path(folder)
    require_folder(folder)
    lost = Lost({}, {})
    paths = distributed.broadcast(pictures_below(folder, lost.folders) if distributed.is_first() else None)
    if not paths:
        raise InputError("; ".join([f"{folder}: holds no pictures, at no depth", *lost.lines()]))
    # One process that meets a broken picture would leave the others waiting, so together they look beforehand.
    if distributed.processes() > 1:
        lost.pictures.update(_unreadable(retriever, paths))
    while True:
        try:
            return _collection(retriever, paths, lost, folder), lost
        except StorageError:
            raise
        except (InputError, OSError):
            # What was encoded before is kept. Where one picture is broken or deleted there may be more.
            usable = {name: path for name, path in paths.items() if name not in lost.pictures}
            found = _unreadable(retriever, usable) if usable and distributed.processes() == 1 else {}
            if not found:
                raise
            lost.pictures.update(found)


def _collection(retriever, paths, lost, folder) -> Collection:
    usable = {name: path for name, path in paths.items() if name not in lost.pictures}
    if not usable:
        why = with_reasons(lost.pictures)
        raise InputError(f"{folder}: none of its {len(paths)} pictures can be read: {why}")
    gallery = retriever.gallery(retriever.pictures(usable))
    return Collection.of_features(gallery.features, gallery.names, folder)


def _unreadable(retriever, paths) -> dict[str, str]:
    """Try every picture whose features are not kept; return {name: why} of those that cannot be read."""
    gone = distributed.broadcast(deleted(paths) if distributed.is_first() else None)
    there = {name: path for name, path in paths.items() if name not in gone}
    missing = retriever.encoder.missing(retriever.pictures(there)) if there else []
    broken = unusable([paths[name] for name in missing], retriever.preprocess, retriever.encoder.num_workers)
    return {name: gone.get(name) or broken[path] for name, path in paths.items() if name in gone or path in broken}


def depends_on(retriever: Retriever) -> dict:
    """Return what the features of pictures depend on, as plain values."""
    return {"weights": retriever.encoder.digest("image"), "transform": retriever.preprocess.settings}


# ---- questions ----


class _Query(NamedTuple):
    """A question as features."""

    predicted: Tensor
    """[factors, 1, dim]"""
    exponents: tuple[float, ...] = ()
    """Of the factors' similarities, where they weigh differently."""
    is_combined: bool = False
    """Whether the combining function made it, or it is a picture or a caption as it is."""


class Searcher:
    """Answers questions about a collection with a retriever of the same CLIP."""

    def __init__(self, retriever: Retriever, collection: Searchable):
        self.retriever, self.collection = retriever, collection
        self._combining_function = retriever.combining_function
        self._compared = collection.compared_by(self._combining_function)

    def ask(self, question: Question, k: int = 10, min_score: float | None = None) -> list[Found]:
        """Return at most `k` answers, best first, none below `min_score`."""
        (answers,) = self.ask_all([question], k, min_score)
        return answers

    @torch.inference_mode()
    def ask_all(self, questions: Sequence[Question], k: int = 10, min_score: float | None = None) -> list[list[Found]]:
        """Return the answers of each question; raises InputError for one that asks for nothing or cannot be read."""
        for question in questions:
            _require_sense(question)
        images = self._image_features([question.reference for question in questions])
        texts = self._text_features([question.caption for question in questions])
        withouts = self._text_features([question.without for question in questions])
        excluded = [
            None if question.include_reference else self._left_out(question.reference) for question in questions
        ]
        parts = zip(questions, images, texts, withouts, strict=True)
        queries = [self._query(*part) for part in parts]
        answers = [[]] * len(questions)
        # Questions of one kind are scored together, which reads the features once for all.
        for numbers in _alike([(query.is_combined, len(query.predicted), query.exponents) for query in queries]):
            first = queries[numbers[0]]
            gallery = self._compared if first.is_combined else self.collection
            together = torch.cat([queries[number].predicted for number in numbers], dim=1).float()
            found = gallery.answers(together, k, [excluded[number] for number in numbers], first.exponents)
            for number, scored in zip(numbers, found, strict=True):
                answers[number] = self._found(scored, min_score)
        return answers

    def path_of(self, reference: str | Path) -> Path:
        """Return the file of a reference, which is a name in the collection or a path."""
        name = self._name(reference)
        return self._file(reference) if name is None else self.collection.folder / name

    def _found(self, scored, min_score) -> list[Found]:
        return [
            Found(name, score, self.collection.folder / name)
            for name, score in scored
            if min_score is None or score >= min_score
        ]

    def _query(self, question, image, text, without) -> "_Query":
        """Return what is compared for a question with features [1, dim] of its parts; None is a part it lacks."""
        if image is None or text is None:
            query = _Query(F.normalize(text if image is None else image, dim=-1)[None])
        else:
            query = self._combined(question, image, text)
        if without is None:
            return query
        away = WITHOUT * F.normalize(without, dim=-1)
        return query._replace(predicted=F.normalize(query.predicted, dim=-1) - away)

    def _combined(self, question, image, text) -> "_Query":
        weight = question.caption_weight
        predicted = predict(self._combining_function, image, text)
        if gallery_side(self._combining_function) is not None and (weight != 0.5 or question.without):
            raise InputError("--caption-weight, --without: not for a network that compares pictures as it learned to")
        if len(predicted) == 1:
            return _Query(_weighted(predicted.float(), image, text, weight), is_combined=True)
        if len(predicted) == 2:  # what the picture finds, what the caption finds
            return _Query(predicted, (2 * (1 - weight), 2 * weight), is_combined=True)
        if weight != 0.5:
            raise InputError(f"--caption-weight {weight}: not for a product of {len(predicted)} similarities")
        return _Query(predicted, is_combined=True)

    def _image_features(self, references) -> list[Tensor | None]:
        names = {reference: self._name(reference) for reference in references if reference is not None}
        outside = [reference for reference, name in names.items() if name is None]
        encoded = {}
        if outside:
            pictures = self.retriever.pictures({str(reference): self._file(reference) for reference in outside})
            encoded = dict(zip(outside, self.retriever.encoder.pictures(pictures).split(1), strict=True))
        return [
            None
            if reference is None
            else encoded[reference]
            if reference in encoded
            else self.collection.feature(names[reference]).to(device)
            for reference in references
        ]

    def _text_features(self, texts) -> list[Tensor | None]:
        asked = list(dict.fromkeys(text for text in texts if text))
        features = dict(zip(asked, self.retriever.encoder.captions(asked).split(1), strict=True)) if asked else {}
        return [features.get(text) for text in texts]

    def _name(self, reference: str | Path) -> str | None:
        """Return the collection's name of a reference, given by its name or by its path; None for another picture."""
        if isinstance(reference, str) and reference in self.collection:
            return reference
        path, folder = self._file(reference).absolute(), self.collection.folder.absolute()
        name = path.relative_to(folder).as_posix() if path.is_relative_to(folder) else None
        return name if name is not None and name in self.collection else None

    def _file(self, reference: str | Path) -> Path:
        """Return the file of a reference, which may lie in the collection's folder and be none of its pictures."""
        for path in (Path(reference), self.collection.folder / reference):
            if path.is_file():
                return path
        raise InputError(f"{reference}: neither a file nor a picture of {self.collection.folder}")

    def _left_out(self, reference: str | Path | None) -> LeftOut | None:
        return None if reference is None else LeftOut(self._name(reference), self.path_of(reference))


def _weighted(predicted: Tensor, image: Tensor, text: Tensor, weight: float) -> Tensor:
    """Return predicted features moved towards the picture's own or the caption's own as `weight` leaves 0.5."""
    share, alone = abs(2 * weight - 1), text if weight > 0.5 else image
    # At 0.5 to the bit what the combining function gave.
    if share == 0:
        return predicted
    return (1 - share) * F.normalize(predicted, dim=-1) + share * F.normalize(alone, dim=-1)


def _alike(kinds: Sequence) -> list[list[int]]:
    """Return the numbers of equal `kinds`, together."""
    groups = {}
    for number, kind in enumerate(kinds):
        groups.setdefault(kind, []).append(number)
    return list(groups.values())


def _require_sense(question: Question) -> None:
    if question.reference is None and not question.caption.strip():
        raise InputError("a question needs a picture, a caption, or both")
    if not 0 <= question.caption_weight <= 1:
        raise InputError(f"caption weight {question.caption_weight}: is not from 0 to 1")
