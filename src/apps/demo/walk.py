"""A walk through a collection of pictures: what each step asks, the way back, and the link that asks it again."""

from collections.abc import Callable, Collection, Mapping
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
        """Return the names of the functions that answer it."""
        return [name for name in (self.function, self.beside) if name]


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
        """Return the walk at another of its steps."""
        return self._replace(at=number)


def link_of(query: Query) -> str:
    """Return the query string that asks `query` again; an uploaded picture is not in it."""
    values = query._replace(upload=None)._asdict()
    return "?" + urlencode({name: value for name, value in values.items() if value not in ("", None)})


def query_of(
    link: Mapping[str, str], otherwise: Query, functions: Collection[str], path: Callable[[str], Path | None]
) -> tuple[Query, list[str]]:
    """Return the query of a link's values, and a line for each value that cannot be used.

    `otherwise` says what a link leaves out, and `path` gives the file of a name in the gallery. Nothing in a link is a
    path.
    """
    one_of_all = f"one of {', '.join(functions)}"
    rules = {
        "reference": (str, path, "a picture of the gallery"),
        "function": (str, lambda name: name in functions, one_of_all),
        "beside": (str, lambda name: name in functions, one_of_all),
        "caption_weight": (float, lambda weight: 0 <= weight <= 1, "from 0 to 1"),
        "k": (int, lambda k: 1 <= k <= MOST_ANSWERS, f"from 1 to {MOST_ANSWERS}"),
    }
    caption = link.get("caption", "").strip()
    found, lines = {"caption": caption[:LONGEST_CAPTION]}, []
    if len(caption) > LONGEST_CAPTION:
        lines.append(f"The link's caption is cut to its first {LONGEST_CAPTION} letters.")
    for name, (kind, is_right, right) in rules.items():
        text = link.get(name, "")
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is not None and is_right(value):
            found[name] = value
        elif text:
            lines.append(f"The link's {name}, {shown(text)}, is not {right}.")
    query = otherwise._replace(**found)
    return query._replace(beside="" if query.beside == query.function else query.beside), lines
