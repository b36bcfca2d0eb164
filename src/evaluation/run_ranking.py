"""What a file says of the queries of one category: where the answers rank, and how far that is known."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from src.base.errors import InputError, shown
from src.evaluation.run_files import PLACE, OtherProtocolError, Row, RunFile, RunPart, refuse
from src.evaluation.run_names import find_names
from src.retrieval.metrics import GradedRanks, Ranks, counting, require_ranked
from src.tasks.protocol import Protocol
from src.tasks.triplets import Query, Split, Triplet

UNRANKED = np.iinfo(np.int64).max
"""The rank of what no list names: beyond every cut-off."""


class Places(NamedTuple):
    """Rankings of several queries as far as they are known; ranks count from 0."""

    lists: list[list[str]]
    """The first names of each query, best first."""
    sizes: list[int]
    """How many pictures each query ranks."""
    ranks: np.ndarray
    """Rank [queries] of the picture that counts most; UNRANKED where it is only known to come after `reach` places."""
    reach: np.ndarray
    """After how many places [queries] `ranks` is known to be, where that is UNRANKED; UNRANKED where all are known."""

    def of(self, pictures: Sequence[tuple[int, str]]) -> np.ndarray:
        """Return the rank [pictures] of each (query, name); UNRANKED for one that no list names."""
        places = [{name: place for place, name in enumerate(names)} for names in self.lists]
        # Where a single name is lacking, it is the last one.
        last = [
            len(names) if len(names) == size - 1 else UNRANKED
            for names, size in zip(self.lists, self.sizes, strict=True)
        ]
        return np.array([places[query].get(name, last[query]) for query, name in pictures], dtype=np.int64)

    @property
    def known(self) -> np.ndarray:
        """How many places [queries] are known; UNRANKED where all are."""
        return np.array(
            [
                UNRANKED if len(names) >= size - 1 else len(names)
                for names, size in zip(self.lists, self.sizes, strict=True)
            ],
            dtype=np.int64,
        )

    @property
    def beyond(self) -> np.ndarray:
        """Where [queries] a rank is only known to come after some places."""
        return self.ranks == UNRANKED

    def least(self) -> np.ndarray:
        """Return the ranks [queries], and for unknown ones the first place that is possible."""
        return np.where(self.beyond, self.reach, self.ranks)


class Ranking(NamedTuple):
    """What a file says of one category's queries."""

    queries: list[Query]
    gallery: list[str]
    """Names of the pictures that were ranked."""
    sizes: list[int]
    """How many of them each query ranks."""
    places: Places
    groups: Places | None
    """The same of the other members of each query's group."""
    graded: GradedRanks | None

    def ranks(self) -> Ranks:
        """Return what metrics are made of. What is not known counts as far behind: `unknown` says of which metrics."""
        group_ranks = None if self.groups is None else self.groups.ranks
        return Ranks([query.triplet for query in self.queries], self.places.ranks, group_ranks, self.graded)

    def unknown(self, metric: str, k: int, soft: bool) -> np.ndarray:
        """A mask [queries] of those of which a metric with the cut-off `k` cannot be known."""
        places = self.groups if metric.startswith("group_") else self.places
        if not soft and "map" not in metric:
            return places.beyond & (places.reach < k)
        graded = self.graded
        ranks = graded.group_ranks if metric.startswith("group_") else graded.ranks
        found, lacking = np.zeros((2, len(self.queries)))
        np.maximum.at(lacking, graded.queries, graded.grades * (ranks == UNRANKED))
        if "map" not in metric:
            # The best grade counts: what comes later changes nothing unless it is graded higher.
            np.maximum.at(found, graded.queries, graded.grades * (ranks < k))
        return (lacking > found) & (places.known < k)


def rank(
    protocol: Protocol,
    queries: list[Query],
    split: Split,
    what: str,
    run: RunPart,
    groups: RunPart | None,
    counts: Counter,
) -> Ranking:
    """Rank one category's queries as `run` does; `groups` may rank their groups instead.

    Messages call the pictures of `split` those of `what`. Adds to `counts` what had to leave lists, and what was taken
    of a table's ranks. Raises InputError for lists that rank something else, and for a target that no list can have.
    """
    triplets, pictures = [query.triplet for query in queries], list(split.pictures)
    inside = protocol.inside(triplets, pictures, split.unlisted)
    gallery = [name for name in pictures if inside is None or name in inside]
    require_ranked(triplets, set(gallery), protocol)
    sizes = protocol.ranked(triplets, len(gallery))
    found = find_names(run, pictures, what)
    if protocol.group_at and protocol.gallery != "group":
        _require_gallery(run, queries, found, gallery)
    lists = [
        _ranked(protocol, query.triplet, found[query.id], inside, size, counts)
        for query, size in zip(queries, sizes, strict=True)
    ]
    places = _places(lists, sizes, [triplet.targets[0] for triplet in triplets])
    # What leaves the ranking comes after all of it, as in answers.
    places = places._replace(ranks=np.where([*map(protocol.loses, triplets)], sizes, places.ranks))
    of_groups, rows_of_groups = None, []
    if protocol.group_at:
        ranked = lists
        if groups is not None:
            ranked, rows_of_groups = _group_lists(groups, queries, pictures, what, counts)
        of_groups = _group_places(triplets, ranked)
        # Where no file has the groups, they are parts of the lists.
        counts["contrary"] += sum(map(_contradict, of_groups.lists, lists))
    ranking = _with_graded(Ranking(queries, gallery, sizes, places, of_groups, None), protocol)
    if rows_of_groups:
        ranking = _with_rows(ranking, groups.file, rows_of_groups, ["group_rank"], counts)
    rows = _rows(run, queries, [names != found[query.id] for query, names in zip(queries, lists, strict=True)])
    return _with_rows(ranking, run.file, rows, ["rank", *(["group_rank"] if protocol.group_at else [])], counts)


def _require_gallery(run: RunPart, queries: list[Query], found: Mapping[str, list[str]], gallery: list[str]) -> None:
    """Raise InputError for lists that rank only each query's group, which would score as if they ranked the gallery."""
    is_ours = any(row.data for row in run.file.rows.values())
    is_larger = all(len(query.triplet.group) < len(gallery) for query in queries)
    are_within = all(set(found[query.id]) <= set(query.triplet.group) for query in queries)
    if are_within and is_larger and not is_ours and any(found.values()):
        fault = "ranks groups: all its lists name only members of their query's group"
        raise InputError(
            f"{run.file.path}: {fault}; give it as --group-run of validate.py, beside a --run of the gallery"
        )


def _places(lists: list[list[str]], sizes: list[int], targets: Sequence[str]) -> Places:
    places = Places(lists, sizes, np.array([]), np.array([]))
    return places._replace(ranks=places.of(list(enumerate(targets))), reach=places.known)


def _group_places(triplets: Sequence[Triplet], lists: list[list[str]]) -> Places:
    """Return where lists rank targets among the other members of each group."""
    others = [{*triplet.group} - {triplet.reference} for triplet in triplets]
    members = [[name for name in names if name in others[query]] for query, names in enumerate(lists)]
    return _places(members, list(map(len, others)), [triplet.targets[0] for triplet in triplets])


def _ranked(
    protocol: Protocol, triplet: Triplet, names: list[str], inside: set[str] | None, size: int, counts: Counter
) -> list[str]:
    """Return what a protocol ranks of a list."""
    if protocol.gallery == "group":
        inside = set(triplet.group)
    reference = triplet.reference
    has_reference = reference in names
    counts["queries"] += 1
    counts["reference in gallery"] += inside is None or reference in inside
    counts["with reference"] += has_reference
    if protocol.reference == "drop" and has_reference:
        names = [name for name in names if name != reference]
    if inside is not None:
        counts["with others"] += not inside.issuperset(names)
        names = [name for name in names if name in inside]
    if inside is None or reference in inside:
        # All but the reference, which is so far from the first place in no other ranking of the whole gallery.
        counts["whole but for the reference"] += len(names) == size - 1 and not has_reference
        counts["by chance"] += len(names) / size
    return names


def _group_lists(
    groups: RunPart, queries: list[Query], pictures: Sequence[str], what: str, counts: Counter
) -> tuple[list[list[str]], list[Row | None]]:
    """Return a file's lists of groups, and what a table has besides."""
    path = groups.file.path
    found = find_names(groups, pictures, what)
    outside = [query.id for query in queries if not set(found[query.id]) <= set(query.triplet.group)]
    refuse(path, outside, len(queries), "lists with names outside the group", "rank only the query's group")
    of_gallery = [query for query, row in groups.rows.items() if row.rank and not row.group_rank]
    mend = "call the column group_rank: a rank is one in the gallery"
    refuse(path, of_gallery, len(groups.rows), "groups with a rank and no group_rank", mend)
    with_reference = [query.triplet.reference in found[query.id] for query in queries]
    counts["groups with reference"] += sum(with_reference)
    return list(found.values()), _rows(groups, queries, with_reference)


def _contradict(members: list[str], names: list[str]) -> bool:
    """Whether a list of the gallery has the members of a group in another order."""
    both = set(members) & set(names)
    return [name for name in members if name in both] != [name for name in names if name in both]


def _with_graded(ranking: Ranking, protocol: Protocol) -> Ranking:
    """Add the ranks of all pictures that count, if `protocol` counts more than first targets, as answers do."""
    if not protocol.counts_all:
        return ranking
    counted = counting([query.triplet for query in ranking.queries], set(ranking.gallery), protocol)
    pictures = [(query, name) for query, name, _ in counted]
    queries = np.array([query for query, _ in pictures])
    ranks, group_ranks = ranking.places.of(pictures), np.full(len(pictures), UNRANKED)
    if ranking.groups is not None:
        group_ranks = _among_members(ranking, pictures)
    grades = np.array([grade for _, _, grade in counted], dtype=np.float32)
    ranking = ranking._replace(graded=GradedRanks(queries, grades, ranks, group_ranks))
    return _with_any_target(ranking) if protocol.any_target else ranking


def _among_members(ranking: Ranking, pictures: list[tuple[int, str]]) -> np.ndarray:
    groups = [set(query.triplet.group) for query in ranking.queries]
    ranks = ranking.groups.of(pictures)
    # A picture of no group is known to come after every cut-off.
    return np.where([name in groups[query] for query, name in pictures], ranks, UNRANKED - 1)


def _with_any_target(ranking: Ranking) -> Ranking:
    """Let the rank of a query be that of its best-ranked target."""
    best = ranking.places.ranks.copy()
    np.minimum.at(best, ranking.graded.queries, ranking.graded.ranks)
    ranking = ranking._replace(places=ranking.places._replace(ranks=best))
    if ranking.groups is None:
        return ranking
    best = ranking.groups.ranks.copy()
    np.minimum.at(best, ranking.graded.queries, ranking.graded.group_ranks)
    return ranking._replace(groups=ranking.groups._replace(ranks=best))


# ---- ranks that a per-query table has beside its first answers ----


def _rows(part: RunPart, queries: list[Query], are_changed: Sequence[bool]) -> list[Row | None]:
    """Return the rows of a table whose ranks may count; nothing of another file.

    Where something left a list (`are_changed`), a rank of another program may count it still.
    """
    rows = [part.rows[query.id] for query in queries] if part.rows else []
    return [row if row.data or not is_changed else None for row, is_changed in zip(rows, are_changed, strict=False)]


def _with_rows(ranking: Ranking, file: RunFile, rows: list, columns: Sequence[str], counts: Counter) -> Ranking:
    if not rows:
        return ranking
    counts["ranks left out"] += rows.count(None)
    for column in columns:
        field = "groups" if column == "group_rank" else "places"
        places = _agreeing(ranking.queries, file, getattr(ranking, field), rows, column, counts)
        ranking = ranking._replace(**{field: places})
    return ranking


def _agreeing(
    queries: list[Query], file: RunFile, places: Places, rows: list[Row | None], column: str, counts: Counter
) -> Places:
    """Return places with the ranks that a column has; raises InputError where its answers say something else."""
    ranks, reach = places.ranks.copy(), places.reach.copy()
    for number, row in enumerate(rows):
        cell = getattr(row, column) if row else ""
        if not cell:
            continue
        is_after, place = PLACE.fullmatch(cell).groups()
        place, stands, size = int(place), ranks[number], places.sizes[number]
        has = f"{file.path}: query {shown(queries[number].id)} has the {column} {cell}"
        if place + bool(is_after) > size and place - 1 != stands:
            raise OtherProtocolError(f"{has}, where {size:,} pictures are ranked")
        is_new = stands == UNRANKED
        is_possible = stands == place - 1 or (is_new and place > reach[number])
        if not (place <= stands if is_after else is_possible):
            there = "no answer" if is_new else f"answer {stands + 1}"
            raise InputError(f"{has}, but its target is {there}")
        counts["ranks taken"] += bool(is_new and not row.data)
        if not is_after:
            ranks[number] = place - 1
        elif is_new:
            reach[number] = max(reach[number], place)
    return places._replace(ranks=ranks, reach=reach)
