"""Queries on the page of a run: some of them drawn, the misses in numbers, the worst, and a list of all."""

import re
from bisect import bisect_right
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from src.apps.pages.kit import Album, QueryRow
from src.evaluation.judged import Judged

Pictures = dict[str, dict[str, Path]]
"""{category: {name: file}}"""
ANSWERS = 5
WALL_ROWS = 6
WORST = 6
WORDS = 1, 6, 11, 16
CHANGES = 1, 2, 3, 4, 5, 6
RANKS = 1, 2, 6, 11, 51, 101, 501
"""Where the groups of caption lengths, of numbers of changed things and of target ranks start."""
JOINT = re.compile(r"\b(?:and|but|also|with)\b|[,;]", re.IGNORECASE)
MOST = 200
"""How many rows of the list are drawn at once: thousands would make a browser slow at each key."""


class RankedQuery(NamedTuple):
    """A query and what it got; ranks count from 1."""

    id: str
    category: str
    caption: str
    reference: str
    target: str
    rank: int
    """Where `is_later`, the first one that is possible."""
    group_rank: int | None
    solved: dict[str, bool]
    """{combining function: whether the target is among the first}"""
    is_later: bool = False
    """Whether the ranking of another program ends before the target."""
    is_later_in_group: bool = False


def all_queries(judged: Judged) -> list[RankedQuery]:
    """Return every query of all categories, in the order of their files."""
    return [
        RankedQuery(
            query.id,
            name,
            " | ".join(query.texts),
            query.triplet.reference,
            query.triplet.targets[0],
            int(category.ranks[number]) + 1,
            None if category.group_ranks is None else int(category.group_ranks[number]) + 1,
            {rung.name: bool(category.solved[rung.name][number]) for rung in judged.reported()},
            *(mask is not None and bool(mask[number]) for mask in (category.beyond, category.group_beyond)),
        )
        for name, category in judged.categories.items()
        for number, query in enumerate(category.queries)
    ]


# ---- the misses in numbers ----


def changes(caption: str) -> int:
    """Estimate how many things a caption changes: the parts between commas, semicolons, and, but, also, with."""
    return max(1, sum(part.strip(" .?!") != "" for part in JOINT.split(caption)))


def grouped(values: Sequence[int], starts: Sequence[int]) -> list[str]:
    """Return the group of each value, as "1–5"; a group reaches to the next of `starts`, the last one on and on."""
    labels = [
        str(start) if end - start == 1 else f"{start}–{end - 1}" for start, end in zip(starts, starts[1:], strict=False)
    ]
    labels.append(f"{starts[-1]} or more")
    # A blank caption has no word; it goes with the shortest.
    return [labels[max(0, bisect_right(starts, value) - 1)] for value in values]


def missed_by(keys: Sequence[Hashable], missed: Sequence[bool]) -> dict[Hashable, tuple[int, float]]:
    """Return {key: (queries with it, percent of these that are missed)}, in the order in which keys come."""
    by_key = {key: [] for key in keys}
    for key, is_missed in zip(keys, missed, strict=True):
        by_key[key].append(is_missed)
    return {key: (len(those), 100 * sum(those) / len(those)) for key, those in by_key.items()}


def rank_histogram(ranks: Sequence[int], last: int) -> list[tuple[str, int]]:
    """Return (group of ranks, queries) for each group up to the rank `last`, the empty ones too."""
    labels = grouped(ranks, RANKS)
    return [(label, labels.count(label)) for label in grouped([start for start in RANKS if start <= last], RANKS)]


def place(judged: Judged) -> str:
    """Return where the target of a solved query ranks, in words."""
    first = judged.protocol.at[0]
    return "first" if first == 1 else f"among the first {first}"


def misses(judged: Judged) -> list[tuple[str, dict[str, tuple[int, float]]]]:
    """Count the misses by kind of query: (title, {kind: (queries, percent missed)})."""
    queries, first = all_queries(judged), judged.protocol.at[0]
    missed = [query.rank > first for query in queries]
    counted = {
        "words in the caption": ([len(query.caption.split()) for query in queries], WORDS),
        "changed things (estimate)": ([changes(query.caption) for query in queries], CHANGES),
    }
    tables = []
    for title, (values, starts) in counted.items():
        counts = missed_by(grouped(values, starts), missed)
        # From short to long, and not as the file has them.
        tables.append((title, {label: counts[label] for label in grouped(starts, starts) if label in counts}))
    if len(judged.categories) > 1:
        tables.append(("category", missed_by([query.category for query in queries], missed)))
    return tables


def target_ranks(judged: Judged) -> list[tuple[str, int]]:
    """Count the queries for each group of target ranks, as `rank_histogram` does."""
    queries = all_queries(judged)
    known = [query.rank for query in queries if not query.is_later]
    later = len(queries) - len(known)
    last = max(max(category.ranked) for category in judged.categories.values()) if not later else max(known, default=1)
    return [*rank_histogram(known, last), *([("after the list", later)] if later else [])]


# ---- drawn queries ----


def wall(judged: Judged, pictures: Pictures, album: Album) -> list[QueryRow]:
    """Draw, of each category, the first queries whose target comes first, and the first whose target does not."""
    rows = WALL_ROWS // len(judged.categories)
    return [
        drawn(judged, pictures, album, name, number)
        for name, category in judged.categories.items()
        for number in _of_the_wall(category.ranks.tolist(), rows)
    ]


def _of_the_wall(ranks, rows_of_a_kind) -> Iterator[int]:
    # The first in the order of the file, not the best: a choice would be suspect.
    yield from [number for number, rank in enumerate(ranks) if rank == 0][:rows_of_a_kind]
    yield from [number for number, rank in enumerate(ranks) if rank > 0][:rows_of_a_kind]


def worst_misses(judged: Judged, pictures: Pictures, album: Album) -> list[QueryRow]:
    """Draw the WORST queries whose target ranks last."""
    ranked = [
        (rank, name, number)
        for name, category in judged.categories.items()
        for number, rank in enumerate(category.ranks.tolist())
        if rank > 0
    ]
    # Sorting keeps the order of the file among equal ranks.
    worst = sorted(ranked, key=lambda query: -query[0])[:WORST]
    return [drawn(judged, pictures, album, name, number) for _, name, number in worst]


def drawn(judged: Judged, pictures: Pictures, album: Album, name: str, number: int) -> QueryRow:
    """Draw a query of category `name` with its first answers."""
    category, files = judged.categories[name], pictures[name]
    query, place = category.queries[number], category.ranks[number]
    is_later = category.beyond is not None and category.beyond[number]
    ranked = f"after the first {place:,}" if is_later else f"{place + 1:,}"
    target, answered = query.triplet.targets[0], category.best[number][:ANSWERS]
    return QueryRow(
        album.picture(files[query.triplet.reference]),
        " | ".join(query.texts),
        f"target ranked {ranked} of {category.ranked[number]:,}",
        [("", [album.picture(files[answer], is_target=answer in query.triplet.targets) for answer in answered])],
        None if target in answered else album.picture(files[target], is_target=True),
    )


# ---- the list of all queries ----


def query_list(judged: Judged, pictures: Pictures, album: Album) -> dict:
    """List every query, as JSON takes it: `header`, `rows`, and which of their columns are what.

    `drawn` has, for each row, the numbers of its pictures in the album: reference, targets and answers.
    """
    queries = all_queries(judged)
    functions = judged.reported()
    header = ["id", "category", "caption", "reference", "target", "rank", "rank in group"]
    shortcuts = [number for number, function in enumerate(functions, start=len(header)) if function.is_shortcut]
    header += [function.label for function in functions]
    # What all queries share, or none has, gets no column.
    empty = {1} if len(judged.categories) == 1 else set()
    empty |= {6} if queries[0].group_rank is None else set()
    shown = [number for number in range(len(header)) if number not in empty]
    rows = [[*query[:7], *map(int, query.solved.values())] for query in queries]
    drawn = [
        [album.numbers(pictures[name], names) for names in ([triplet.reference], triplet.targets, best[:ANSWERS])]
        for name, category in judged.categories.items()
        for triplet, best in zip((query.triplet for query in category.queries), category.best, strict=True)
    ]
    # Ranks that are not known are shown as the first one that is possible, with a mark.
    later = [[query.is_later, query.is_later_in_group] for query in queries]
    lists = {"rows": rows, "drawn": drawn, "later": later if any(map(any, later)) else []}
    return {"header": header, "shown": shown, "shortcuts": shortcuts, "most": MOST, **lists}


def about_queries(judged: Judged, pictures: Pictures, album: Album) -> dict:
    """Collect what the page shows of single queries."""
    return {
        "categories": list(judged.categories),
        "place": place(judged),
        "first": judged.protocol.at[0],
        "misses": misses(judged),
        "ranks": target_ranks(judged),
        "most_worst": WORST,
        "worst": worst_misses(judged, pictures, album),
        "of_a_kind": WALL_ROWS // len(judged.categories),
        "wall": wall(judged, pictures, album),
        "list": query_list(judged, pictures, album),
        "shortcuts": [shortcut.label for shortcut in judged.shortcuts()],
    }
