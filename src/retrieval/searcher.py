"""Questions about one's own pictures, answered with a picture, a caption, or both. Every score is exact."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import PIL.Image
import torch
import torch.nn.functional as F
from torch import Tensor

from src.base.device import device
from src.base.errors import InputError
from src.pictures.opening import prepared
from src.retrieval.fusion import gallery_side, predict
from src.retrieval.gallery import Gallery, Reference
from src.retrieval.retriever import Retriever

WITHOUT = 0.5
"""How far a query moves away from what --without says, where its own length is 1."""


class Question(NamedTuple):
    """What is looked for: like a picture, as a caption says, or both."""

    reference: str | Path | PIL.Image.Image | None = None
    """A name in the gallery, the path of any picture, or a picture of PIL, which the retriever's transform prepares.

    One of PIL has no file, so no picture is left out for it: the one that it was made from may be the first.
    """
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
    """Its path from the gallery's folder."""
    score: float
    """Cosine similarity, or the product of two."""
    path: Path
    """The file, which need not be at hand when an index was searched."""


class _Query(NamedTuple):
    """A question as features."""

    predicted: Tensor
    """[factors, 1, dim]"""
    exponents: tuple[float, ...] = ()
    """Of the factors' similarities, where they weigh differently."""
    is_combined: bool = False
    """Whether the combining function made it, or it is a picture or a caption as it is."""


class Searcher:
    """Answers questions about a gallery with a retriever of the same CLIP."""

    def __init__(self, retriever: Retriever, gallery: Gallery):
        """Take a gallery in memory or of an index, or one on a server, which has the same methods."""
        if gallery.folder is None:
            raise InputError("a gallery without a folder: answers are files; collect(retriever, folder) makes one")
        self.retriever, self.gallery = retriever, gallery
        self._compared = gallery.compared_by(retriever.combining_function)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.retriever!r}, {self.gallery!r})"

    def ask(self, question: Question, k: int = 10, min_score: float | None = None) -> list[Found]:
        """Return at most `k` answers, best first, none below `min_score`."""
        (answers,) = self.ask_all([question], k, min_score)
        return answers

    @torch.inference_mode()
    def ask_all(self, questions: Sequence[Question], k: int = 10, min_score: float | None = None) -> list[list[Found]]:
        """Return the answers of each question; raises InputError for one that asks for nothing or cannot be read."""
        for question in questions:
            _require_sense(question)
        references = [
            self.find(question.reference) if isinstance(question.reference, (str, Path)) else question.reference
            for question in questions
        ]
        images = self._image_features(references)
        texts = self._text_features([question.caption for question in questions])
        withouts = self._text_features([question.without for question in questions])
        queries = [self._query(*parts) for parts in zip(questions, images, texts, withouts, strict=True)]
        left_out = [
            reference if isinstance(reference, Reference) and not question.include_reference else None
            for question, reference in zip(questions, references, strict=True)
        ]
        answers = [[]] * len(questions)
        # Questions of one kind are scored together, which reads the features once for all.
        for numbers in _alike([(query.is_combined, len(query.predicted), query.exponents) for query in queries]):
            first = queries[numbers[0]]
            gallery = self._compared if first.is_combined else self.gallery
            together = torch.cat([queries[number].predicted for number in numbers], dim=1).float()
            found = gallery.answers(together, k, [left_out[number] for number in numbers], first.exponents)
            for number, scored in zip(numbers, found, strict=True):
                answers[number] = [
                    Found(name, score, self.gallery.folder / name)
                    for name, score in scored
                    if min_score is None or score >= min_score
                ]
        return answers

    def find(self, reference: str | Path) -> Reference:
        """Find a reference, which is a name in the gallery or the path of any picture.

        Raises InputError where it is neither.
        """
        folder = self.gallery.folder
        if isinstance(reference, str) and reference in self.gallery:
            return Reference(reference, folder / reference)
        path = next((path for path in (Path(reference), folder / reference) if path.is_file()), None)
        if path is None:
            raise InputError(f"{reference}: neither a file nor a picture of {folder}")
        if path.absolute().is_relative_to(folder.absolute()):
            name = path.absolute().relative_to(folder.absolute()).as_posix()
            if name in self.gallery:
                return Reference(name, folder / name)
        return Reference(None, path)

    def _query(self, question, image, text, without) -> _Query:
        """Return what is compared for a question with features [1, dim] of its parts; None is a part it lacks."""
        if image is None or text is None:
            query = _Query(F.normalize(text if image is None else image, dim=-1)[None])
        else:
            query = self._combined(question, image, text)
        if without is None:
            return query
        away = WITHOUT * F.normalize(without, dim=-1)
        return query._replace(predicted=F.normalize(query.predicted, dim=-1) - away)

    def _combined(self, question, image, text) -> _Query:
        function, weight = self.retriever.combining_function, question.caption_weight
        predicted = predict(function, image, text)
        if gallery_side(function) is not None and (weight != 0.5 or question.without):
            raise InputError("--caption-weight, --without: not for a network that compares pictures as it learned to")
        if len(predicted) == 1:
            return _Query(_weighted(predicted.float(), image, text, weight), is_combined=True)
        if len(predicted) == 2:  # what the picture finds, what the caption finds
            return _Query(predicted, (2 * (1 - weight), 2 * weight), is_combined=True)
        if weight != 0.5:
            raise InputError(f"--caption-weight {weight}: not for a product of {len(predicted)} similarities")
        return _Query(predicted, is_combined=True)

    def _image_features(self, references: Sequence[Reference | PIL.Image.Image | None]) -> list[Tensor | None]:
        features: dict[Reference, Tensor] = {}
        outside = []
        for reference in dict.fromkeys(one for one in references if isinstance(one, Reference)):
            if reference.name is None:
                outside.append(reference)
            else:
                features[reference] = self.gallery.feature(reference.name).to(device)
        if outside:
            pictures = self.retriever.pictures({str(reference.path): reference.path for reference in outside})
            features |= zip(outside, self.retriever.encoder.pictures(pictures).split(1), strict=True)
        return [features[one] if isinstance(one, Reference) else self._image_feature(one) for one in references]

    def _image_feature(self, image: PIL.Image.Image | None) -> Tensor | None:
        if image is None:
            return None
        return self.retriever.encoder.images(prepared(image, self.retriever.preprocess)[None])

    def _text_features(self, texts: Sequence[str]) -> list[Tensor | None]:
        distinct = list(dict.fromkeys(filter(None, texts)))
        features = {}
        if distinct:
            features = dict(zip(distinct, self.retriever.encoder.captions(distinct).split(1), strict=True))
        return [features.get(text) for text in texts]


def _weighted(predicted: Tensor, image: Tensor, text: Tensor, weight: float) -> Tensor:
    """Return predicted features moved towards the picture's own or the caption's own as `weight` leaves 0.5."""
    # At 0.5 to the bit what the combining function gave.
    if weight == 0.5:
        return predicted
    share, own = abs(2 * weight - 1), text if weight > 0.5 else image
    return (1 - share) * F.normalize(predicted, dim=-1) + share * F.normalize(own, dim=-1)


def _alike(kinds: Sequence) -> list[list[int]]:
    """Return the numbers of equal `kinds`, together."""
    groups = {}
    for number, kind in enumerate(kinds):
        groups.setdefault(kind, []).append(number)
    return list(groups.values())


def _require_sense(question: Question) -> None:
    if question.reference is None and not question.caption.strip():
        raise InputError("a question needs a picture, a caption, or both")
    if not isinstance(question.reference, (str, Path, PIL.Image.Image, type(None))):
        kind = type(question.reference).__name__
        raise InputError(f"reference: a {kind}, expected a name, a path or a picture of PIL")
    if not 0 <= question.caption_weight <= 1:
        raise InputError(f"caption weight {question.caption_weight}: is not from 0 to 1")
