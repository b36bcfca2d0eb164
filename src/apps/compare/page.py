"""The page of a comparison, with the pictures of what moved most."""

from pathlib import Path

from src.apps.compare.comparison import Key, PerQuery, rank_of
from src.apps.compare.text import HEADER, LIMITS, MOVED, Compared, cells, title
from src.apps.pages.kit import Album, QueryRow, write_page
from src.base.errors import InputError, shown

SHOWN = 5
"""Answers of each model on the page."""


def draw_page(path: Path, first: PerQuery, all_compared: list[Compared], splits: dict, corrected: str) -> None:
    """Write the page with pictures of `splits` {category: Split}; raises InputError for one that is not there."""
    runs, album = (first, *(one.other for one in all_compared)), Album()
    comparisons = [
        {
            "title": title(first, compared),
            "limits": LIMITS + corrected,
            "cells": cells(compared),
            "other": shown(compared.other.name),
            "change": f"rank in {shown(first.name)} → rank in {shown(compared.other.name)}",
            "moved": [
                (heading, [_drawn(key, pair, splits[key[1]].pictures, album) for key in keys])
                for pair in [(first, compared.other)]
                for heading, keys in _apart(compared.moved, pair)
            ],
        }
        for compared in all_compared
    ]
    introduction = ", ".join(dict.fromkeys(str(run.path) for run in runs))
    about = {"title": "Comparison", "introduction": introduction, "header": HEADER, "moved": MOVED[:-1], "most": SHOWN}
    write_page(path, "compare/compare.html", album, comparisons=comparisons, **about)


def _apart(moved: list[Key], runs: tuple[PerQuery, PerQuery]) -> list[tuple[str, list[Key]]]:
    """Divide the queries that moved into those that the other model ranks better, and those that it ranks worse."""
    gains = [key for key in moved if rank_of(runs[1].rows[key]["rank"]) < rank_of(runs[0].rows[key]["rank"])]
    return [("Gains", gains), ("Losses", [key for key in moved if key not in gains])]


def _drawn(key: Key, runs: tuple[PerQuery, PerQuery], pictures: dict[str, Path], album: Album) -> QueryRow:
    """Draw a query: its reference, its caption, the first model's answers, and below them the other's."""

    def draw(run, name, is_target=False):
        if name not in pictures:
            raise InputError(f"{run.path}: {shown(name)} is not a picture of the data set in --data-path")
        return album.picture(pictures[name], is_target)

    answers = []
    for run in runs:
        targets, names = (run.rows[key][column].split("|") for column in ("target", "answers"))
        answers.append((shown(run.name), [draw(run, name, name in targets) for name in names[:SHOWN]]))
    row = runs[0].rows[key]
    target = row["target"].split("|")[0]
    missed = all(target not in run.rows[key]["answers"].split("|")[:SHOWN] for run in runs)
    apart = draw(runs[0], target, is_target=True) if missed else None
    cells = [run.rows[key]["rank"] for run in runs]
    ranks = " → ".join(f"{int(cell):,}" if cell.isdecimal() else cell for cell in cells)
    category = f" of {key[1]}" if len(runs[0].task.categories) > 1 else ""
    return QueryRow(
        draw(runs[0], row["reference"]), row["caption"], f"rank {ranks}, query {key[2]}{category}", answers, apart
    )
