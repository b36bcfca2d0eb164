"""A walk through a collection of pictures: what each step asks, the way back, and the link that asks it again."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode

from src.base.errors import shown

MOST_ANSWERS = 100
LONGEST_CAPTION = 500
"""Letters of a caption; CLIP reads no more than its first 77 tokens."""


class Query(NamedTuple):
    """What a step asks, and how it is answered."""

    reference: str = ""
    """A name in the gallery; empty for none."""
    upload: Path | None = None
    """A picture from elsewhere, in place of `reference`."""
    caption: str = ""
    function: str = "sum"
    beside: str = ""
    """A second function, whose answers stand beside the first one's; empty for none."""
    caption_weight: float = 0.5
    k: int = 10

    @property
    def is_empty(self) -> bool:
        """Whether it asks for nothing."""
        return not self.reference and self.upload is None and not self.caption.strip()

    @property
    def functions(self) -> list[str]:
        """Return the names of the functions that answer it, each once."""
        return list(dict.fromkeys(name for name in (self.function, self.beside) if name))


class Answer(NamedTuple):
    """A picture that a query found."""

    row: int
    """Its number in the gallery."""
    name: str
    score: float


class Example(NamedTuple):
    """A query of the data set."""

    reference: str
    caption: str


class Walk(NamedTuple):
    """The steps of a walk and where it stands, as a browser keeps the pages it was at."""

    steps: tuple[Query, ...] = (Query(),)
    at: int = 0

    @property
    def query(self) -> Query:
        """Return what the step asks at which the walk stands."""
        return self.steps[self.at]

    def asking(self, query: Query) -> "Walk":
        """Return the walk with another question at this step."""
        return self._replace(steps=(*self.steps[: self.at], query, *self.steps[self.at + 1 :]))

    def going_on(self, query: Query) -> "Walk":
        """Return the walk one step further; steps ahead of this one, from an earlier way, are dropped."""
        return Walk((*self.steps[: self.at + 1], query), self.at + 1)

    def back_at(self, number: int) -> "Walk":
        """Return the walk at a step; a number without a step leaves it where it is."""
        return self._replace(at=number) if 0 <= number < len(self.steps) else self


def link_of(query: Query) -> str:
    """Return the query string that asks `query` again; an uploaded picture is not in it."""
    values = {
        "reference": query.reference,
        "caption": query.caption,
        "function": query.function,
        "beside": query.beside,
        "weight": f"{query.caption_weight:g}",
        "k": query.k,
    }
    return "?" + urlencode({name: value for name, value in values.items() if value != ""})


def query_of(
    parameters: Mapping[str, str], otherwise: Query, functions: Sequence[str], has: Callable[[str], bool]
) -> tuple[Query, list[str]]:
    """Return the query of a link, and a line for each of its values that cannot be used.

    `otherwise` says what a link leaves out, and `has` whether the gallery has a name. Nothing in a link is a path.
    """
    lines, found = [], {}
    reference = parameters.get("reference", "")
    if reference and has(reference):
        found["reference"] = reference
    elif reference:
        lines.append(f"The gallery has no picture {shown(reference)}.")
    found["caption"] = parameters.get("caption", "")[:LONGEST_CAPTION]
    for field in ("function", "beside"):
        name = parameters.get(field, "")
        if name in functions:
            found[field] = name
        elif name:
            lines.append(f"There is no {shown(name)} here: choose {', '.join(functions)}.")
    numbers = (("weight", "caption_weight", float, 0, 1), ("k", "k", int, 1, MOST_ANSWERS))
    for name, field, kind, least, most in numbers:
        text = parameters.get(name, "")
        number = _number(text, kind, least, most)
        if number is not None:
            found[field] = number
        elif text:
            lines.append(f"{name} {shown(text)} is not from {least} to {most}.")
    return otherwise._replace(**found), lines


def _number(text: str, kind: type, least: float, most: float) -> float | None:
    """Return a number in words as `kind`; None for one that is not from `least` to `most`."""
    try:
        number = kind(text)
    except ValueError:
        return None
    return number if least <= number <= most else None
