"""The page of a comparison, with the pictures of what moved most."""

from pathlib import Path

from src.apps.compare.comparison import Key, PerQuery
from src.apps.compare.text import HEADER, LIMITS, MOVED, Compared, cells, title
from src.apps.pages.kit import QueryRow, picture, write_page
from src.base.errors import InputError, shown

SHOWN = 5
"""Answers of each model on the page."""


def draw_page(path: Path, first: PerQuery, all_compared: list[Compared], splits: dict, corrected: str) -> None:
    """Write the page with pictures of `splits` {category: Split}; raises InputError for one that is not there."""
    runs = first, *(one.other for one in all_compared)
    comparisons = [
        {
            "title": title(first, compared),
            "limits": LIMITS + corrected,
            "cells": cells(compared),
            "other": compared.other.name,
            "rows": [_drawn(key, (first, compared.other), splits[key[1]].pictures) for key in compared.moved],
        }
        for compared in all_compared
    ]
    introduction = ", ".join(dict.fromkeys(str(run.path) for run in runs))
    about = {"title": "Comparison", "introduction": introduction, "header": HEADER, "moved": MOVED[:-1], "most": SHOWN}
    write_page(path, "compare/compare.html", comparisons=comparisons, **about)


def _drawn(key: Key, runs: tuple[PerQuery, PerQuery], pictures: dict[str, Path]):
    """Draw a query: its reference, its caption, the first model's answers, and below them the other's."""

    def draw(run, name, is_target=False):
        if name not in pictures:
            raise InputError(f"{run.path}: {shown(name)} is no picture of the data set in --data-path")
        return picture(pictures[name], is_target)

    answers = []
    for run in runs:
        targets, names = (run.rows[key][column].split("|") for column in ("target", "answers"))
        answers.append(
            (f"{run.name}: rank {run.rows[key]['rank']}", [draw(run, name, name in targets) for name in names[:SHOWN]])
        )
    row = runs[0].rows[key]
    target = row["target"].split("|")[0]
    missed = all(target not in run.rows[key]["answers"].split("|")[:SHOWN] for run in runs)
    apart = draw(runs[0], target, is_target=True) if missed else None
    return QueryRow(draw(runs[0], row["reference"]), row["caption"], f"query {key[2]} of {key[1]}", answers, apart)
