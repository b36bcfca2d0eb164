"""The demo's engine: a folder of pictures, and the queries that its page asks."""

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor

from src.apps.demo.cards import readable
from src.apps.demo.examples import Example, examples_of
from src.apps.demo.walk import Query
from src.retrieval.gallery import Gallery
from src.retrieval.picture_folder import collect
from src.retrieval.precision import autocast
from src.retrieval.retriever import Retriever
from src.retrieval.searcher import Found, Question, Searcher

Functions = dict[str, Callable[[Tensor, Tensor], Tensor]]
"""{name: combining function}"""


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Return {name: its end}: without its folders, except for those that names which end alike differ by."""
    ends, alike, parts = {}, list(names), 1
    while alike:
        cut = {name: "/".join(name.split("/")[-parts:]) for name in alike}
        counted = Counter(cut.values())
        ends |= cut
        alike, parts = [name for name in alike if counted[cut[name]] > 1], parts + 1
    return ends


class Engine:
    """Answers the page's queries about a folder, once its pictures are encoded."""

    def __init__(self, retriever: Retriever, functions: Functions, folder: Path, first: Query, precision: str = "auto"):
        """`first` is what the page asks at first: nothing yet, but by which function, and for how many answers."""
        retriever.backbone.require_live("a search")
        self.retriever, self.functions, self.folder = retriever, functions, folder
        self.first, self.precision = first, precision
        self.names: list[str] = []
        self.short_names: dict[str, str] = {}
        self.examples: list[Example] = []
        self.remarks: list[str] = []
        self._gallery: Gallery | None = None
        self._written: dict[str, str] = {}
        """{how the page writes a name: the name}, where that is not the same."""
        self._searchers: dict[str, Searcher] = {}
        # Stores of features are written by one thread at a time.
        self._one_by_one = threading.Lock()

    def encode(self) -> None:
        """Encode the pictures; raises InputError when none can be read."""
        with autocast(self.precision):
            gallery, lost = collect(self.retriever, self.folder)
        self.remarks = lost.lines()
        examples = examples_of(self.folder, lambda name: name in gallery)
        for name, function in self.functions.items():
            self._searchers[name] = Searcher(self.retriever.combining_by(function), gallery)
        self._gallery = gallery
        names = [self._write(name) for name in gallery.names]
        self.examples = [Example(self._write(example.reference), readable(example.caption)) for example in examples]
        self.short_names = short_names(names)
        # Last, since other threads take it for the sign that all is ready.
        self.names = names

    def path(self, name: str) -> Path | None:
        """Return the file of a picture of the gallery; None for a name that is not there."""
        name = self._written.get(name, name)
        return self.folder / name if name in self._gallery else None

    def _write(self, name: str) -> str:
        """Return how the page writes a name in the gallery, which no other name there is written like."""
        written = readable(name)
        if written != name:
            while written in self._gallery or self._written.get(written, name) != name:
                written += "'"
            self._written[written] = name
        return written

    def ask(self, query: Query) -> dict[str, list[Found]]:
        """Return the answers of each function of a query; raises InputError where there are none."""
        reference = query.upload or self._written.get(query.reference, query.reference) or None
        question = Question(reference, query.caption, caption_weight=query.caption_weight)
        with self._one_by_one, autocast(self.precision):
            found = {name: self._searchers[name].ask(question, query.k) for name in query.functions}
        return {
            name: [answer._replace(name=self._write(answer.name)) for answer in answers]
            for name, answers in found.items()
        }
