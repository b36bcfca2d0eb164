"""The recalls of a retriever on a validation split."""

from collections.abc import Callable, Hashable, Sequence

import numpy as np
import torch
from torch import Tensor

from src.retrieval.answers import answer, predict_queries, with_graded
from src.retrieval.fusion import Fusion
from src.retrieval.gallery import Gallery
from src.retrieval.metrics import of_each_query
from src.retrieval.retriever import Retriever
from src.tasks.protocol import Protocol
from src.tasks.task import Task
from src.tasks.triplets import Query, Split


def recalls(
    queries: Sequence[Query], gallery: Gallery, caption_features: Tensor, function: Fusion, protocol: Protocol
) -> dict[str, float]:
    """Return {metric: percent}; `caption_features` [texts, dim] are those of the queries' texts, in their order."""
    predicted = predict_queries(gallery, queries, caption_features, function)
    answers = answer([query.triplet for query in queries], gallery.compared_by(function), predicted, protocol)
    return in_percent(of_each_query(with_graded(answers, predicted, protocol).counted(), protocol))


def in_percent(scores: dict[str, np.ndarray]) -> dict[str, float]:
    """Return the mean in percent of those of each metric's scores [queries] that are no NaN, in their own precision."""
    # Recalls are fp32, as in the published code: a division in fp64 would differ in the last digits. By torch, whose
    # sums of fractions end in other bits than numpy's.
    tensors = {name: torch.from_numpy(values) for name, values in scores.items()}
    return {name: values[~values.isnan()].mean().item() * 100 for name, values in tensors.items()}


class Validation:
    """The validation split of a data set, ready to judge a retriever on."""

    def __init__(self, task: Task, splits: dict[str, Split], retriever: Retriever):
        """Take the validation split {category: Split} as it was read."""
        self.task, self.retriever = task, retriever
        self.protocol = task.protocol()
        self.splits = {category: retriever.usable(split) for category, split in splits.items()}
        self.pictures = {category: retriever.pictures(split.pictures) for category, split in self.splits.items()}
        self._known = {}

    def recalls(self, combining_function: Fusion | None = None) -> dict[str, dict[str, float]]:
        """Return {category: {metric: percent}}; `combining_function` None is the retriever's."""
        function = combining_function or self.retriever.combining_function
        return {category: self._recalls(category, function) for category in self.splits}

    def metrics(self, combining_function: Fusion | None = None) -> dict[str, float]:
        """Return the columns of validation_metrics.csv: {metric: percent}."""
        return self.task.columns(self.recalls(combining_function))

    def described(self) -> str:
        """Return a line about the protocol of `recalls` and the number of pictures."""
        categories = {
            category: (
                [query.triplet for query in self.queries(category, self.protocol)],
                len(split.pictures) - (len(split.unlisted) if self.protocol.gallery == "full" else 0),
            )
            for category, split in self.splits.items()
        }
        name = next(iter(self.splits.values())).name
        return f"{self.task.name} {name}, {self.protocol.described(categories)}"

    def _recalls(self, category, function) -> dict[str, float]:
        queries, gallery = self.queries(category, self.protocol), self.gallery(category)
        return recalls(queries, gallery, self._caption_features(category, self.protocol), function, self.protocol)

    def predicted(self, category: str, protocol: Protocol, function: Fusion) -> Tensor:
        """Predict features [factors, queries, dim] with a combining function."""
        queries, gallery = self.queries(category, protocol), self.gallery(category)
        return predict_queries(gallery, queries, self._caption_features(category, protocol), function)

    def queries(self, category: str, protocol: Protocol) -> list[Query]:
        """The queries that the protocol makes of a category, made once."""
        captions = protocol.captions
        return self.once(
            ("queries", category, captions), lambda: self.task.queries(self.splits[category].triplets, captions)
        )

    def gallery(self, category: str) -> Gallery:
        """Return the features of a category's pictures, encoded once where the picture encoder is frozen."""
        pictures, unlisted = self.pictures[category], self.splits[category].unlisted
        return self._once_if_frozen("image", category, lambda: self.retriever.gallery(pictures, unlisted))

    def _caption_features(self, category, protocol):
        # Protocols may ask in the same words, which are encoded once.
        def encode():
            texts = [text for query in self.queries(category, protocol) for text in query.texts]
            return self.retriever.encoder.captions(texts)

        return self._once_if_frozen("text", (category, protocol.captions), encode)

    def _once_if_frozen(self, encoder, what, encode):
        """Return `encode()`, kept where that encoder is frozen."""
        # In stage 1 the features of a learning encoder are others in every validation.
        frozen = encoder in self.retriever.encoder.frozen
        return self.once((encoder, what), encode) if frozen else encode()

    def once(self, what: Hashable, make: Callable):
        """Return `make()`, kept under the key `what`."""
        if what not in self._known:
            self._known[what] = make()
        return self._known[what]
