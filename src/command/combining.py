"""A line of the table of combining functions, and the table's names without importing it, which takes seconds."""

import ast
from collections.abc import Callable
from typing import NamedTuple

from src.base.files import PROJECT_ROOT

PUBLISHED_NETWORK = "combiner"
"""The network of a checkpoint that names none, and the default of stage 2."""


class CombiningFunction(NamedTuple):
    """A way to make a query of a picture and a caption, as the table lists it."""

    name: str
    """What options, JSON and CSV call it."""
    label: str
    """What tables call it."""
    function: Callable | type
    """(image features, text features), both [queries, dim] → predicted features [queries, dim], or [factors, queries,
    dim] whose similarities are multiplied. Or the class of a network that learns such a function."""
    is_shortcut: bool = False
    """Whether it ignores a part of the query, which a benchmark should not reward."""
    is_listed: bool = True
    """Whether reports and per-query files have it too, and not only the ladder that is printed."""
    is_usual: bool = True
    """Whether every data set's ladder has it, and not only those of data sets that name it."""
    in_words: str = ""
    """What a report calls it, where that is not the label."""

    @property
    def is_network(self) -> bool:
        """Whether it learns, so that a checkpoint has its weights."""
        return isinstance(self.function, type)

    @property
    def words(self) -> str:
        """What a report calls it."""
        return self.in_words or self.label


def names_in(file: str) -> dict[str, bool]:
    """Return {name: whether it is a network} of the lines of the table in `file`, a Python file of the project's root.

    The file is read and not run: importing it would import torch. A network's class stands in the same file.
    """
    tree = ast.parse((PROJECT_ROOT / file).read_bytes())
    classes = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    names = {}
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and getattr(call.func, "id", None) == CombiningFunction.__name__:
            line = dict(zip(CombiningFunction._fields, call.args, strict=False))
            line |= {keyword.arg: keyword.value for keyword in call.keywords}
            names[line["name"].value] = getattr(line["function"], "id", None) in classes
    return names
