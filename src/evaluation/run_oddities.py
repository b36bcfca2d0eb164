"""Oddities of all lists of a ranking together, which no list shows by itself."""

from collections import defaultdict
from collections.abc import Collection, Sequence

from src.tasks.triplets import Query, named_by

# Bounds of what is odd. CIRR's own example of a submission is far from each.
LEAST_DIFFERENT = 0.1
"""With fewer different lists than this share of the queries, the query hardly plays a part. The example: 0.999."""
MOST_DEAF = 0.9
"""Share of the references whose queries all have one list, from which on captions play no part. The example: 0."""
LEAST_NAMED = 0.5
"""Share of the gallery that all lists together should name. The example: 2,314 of 2,315 pictures."""
LEAST_PLACES = 10
"""Places in lists for each picture; with fewer of them, a picture may be without one by chance. The example: 90."""
LEAST_UNASKED = 20
"""With this many pictures that are not a reference, it is no chance that no list names one. The example names 136 of
137."""


def find_oddities(queries: Sequence[Query], lists: Sequence[Sequence[str]], gallery: Collection[str]) -> list[str]:
    """Return a sentence for each oddity of the `lists` of queries, which should rank all of the gallery."""
    ranked = [(query, names) for query, names in zip(queries, lists, strict=True) if names]
    different = len({tuple(names) for _, names in ranked})
    if different < LEAST_DIFFERENT * len(ranked):  # which has another reason than the others
        return [f"identical lists: {different:,} different for {len(ranked):,} queries"]
    return [*_deaf(ranked), *_unnamed(ranked, gallery)]


def _deaf(ranked: list[tuple[Query, Sequence[str]]]) -> list[str]:
    lists, texts = defaultdict(set), defaultdict(set)
    for query, names in ranked:
        lists[query.triplet.reference].add(tuple(names))
        texts[query.triplet.reference].add(query.texts)
    several = [reference for reference, asked in texts.items() if len(asked) > 1]
    deaf = [reference for reference in several if len(lists[reference]) == 1]
    if len(several) < 2 or len(deaf) < MOST_DEAF * len(several):
        return []
    return [
        "captions that change nothing: all queries of one reference have the same list, for "
        f"{len(deaf):,} of {len(several):,} references"
    ]


def _unnamed(ranked: list[tuple[Query, Sequence[str]]], gallery: Collection[str]) -> list[str]:
    pictures = set(gallery)
    if sum(len(names) for _, names in ranked) < LEAST_PLACES * len(pictures):
        return []
    named = {name for _, names in ranked for name in names}
    # Somebody who ranks the references only may put each query's target among them.
    besides = {name for query, names in ranked for name in names if name not in query.triplet.targets}
    triplets = [query.triplet for query, _ in ranked]
    unasked = pictures - {triplet.reference for triplet in triplets}
    unused = pictures - named_by(triplets)
    for others, names, what in (
        (unasked, besides, "are not a reference, but for the query's own targets"),
        (unused, named, "no query names"),
    ):
        if len(others) >= LEAST_UNASKED and names.isdisjoint(others):
            return [f"pictures that no list ranks: all {len(others):,} of {len(pictures):,} that {what}"]
    lacking = pictures - named
    few = len(lacking) > (1 - LEAST_NAMED) * len(pictures)
    return [f"pictures that no list ranks: {len(lacking):,} of {len(pictures):,}"] if few else []
