"""Judging a ranking that another program made, without a model: a file is counted as the ranking of a CLIP is."""

import math
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from src.base.errors import InputError, first_ten, shown
from src.base.reading import file_digest
from src.command.combining import CombiningFunction
from src.evaluation.judged import Judged, JudgedCategory, percent
from src.evaluation.run_files import OtherProtocolError, Row, RunFile, RunPart, number_of, read_run
from src.evaluation.run_names import find_queries
from src.evaluation.run_oddities import find_oddities
from src.evaluation.run_ranking import UNRANKED, Ranking, rank
from src.retrieval.metrics import chance, of_each_query
from src.tasks.protocol import Protocol
from src.tasks.task import Task
from src.tasks.triplets import Split

RUN = "run"
"""What JSON and CSV call a ranking of another program, beside the combining functions."""
BY_CHANCE = 5
"""With at least so many references to expect in lists by chance, lists that name none were made without them."""
CUT_OFF = re.compile("_at([0-9]+)")


class Outside(NamedTuple):
    """A ranking of another program under one protocol."""

    judged: Judged
    facts: dict
    """Its file, what had to be decided to read it, and what cannot be known of it, in plain values."""

    def lines(self) -> list[str]:
        """Return lines about what was decided, and what is not known."""
        unknown = [f"{metric} is not known: {why}" for metric, why in self.facts["not_known"].items()]
        return [f"{self.facts['file']}: {remark}" for remark in (*self.facts["remarks"], *unknown)]


def judge_run(
    task: Task, splits: Mapping[str, Split], protocol: Protocol, path: Path, group_path: Path | None = None
) -> Outside:
    """Judge the ranking in a file under one protocol. A second file may rank the groups; else the first one does.

    Raises InputError for what makes either no ranking of the queries of `splits`.
    """
    if group_path is not None and not protocol.group_at:
        raise InputError(f"{group_path}: ranks groups, which protocol {protocol.name} of {task.name} does not count")
    run = read_run(path, protocol.name)
    groups = None if group_path is None else read_run(group_path, protocol.name, of_groups=True)
    queries = {name: task.queries(split.triplets, protocol.captions) for name, split in splits.items()}
    split = next(iter(splits.values())).name
    parts = find_queries(run, queries, split)
    groups_of = {} if groups is None else find_queries(groups, queries, split)
    counts, rankings = Counter(), {}
    for name, of_category in splits.items():
        what = f"{split} of {name}" if len(splits) > 1 else split
        rankings[name] = rank(protocol, queries[name], of_category, what, parts[name], groups_of.get(name), counts)
    judged = _judged(task, split, protocol, path, rankings)
    _require_same_data(run, judged)
    _require_references(run, protocol, counts)
    judged, not_known = _without_unknown(judged, rankings, run, parts)
    remarks = [*run.remarks, *(groups.remarks if groups else []), *_remarks(counts, protocol)]
    for name, ranking in rankings.items():
        of_category = f"{name}: " if len(rankings) > 1 else ""
        odd = find_oddities(ranking.queries, ranking.places.lists, ranking.gallery)
        remarks += [f"{of_category}{oddity}" for oddity in odd]
    facts = {"file": str(path), "form": run.form, "sha256": file_digest(path)}
    if groups is not None:
        facts |= {"group_file": str(group_path), "group_sha256": file_digest(group_path)}
    return Outside(judged, facts | {"remarks": list(dict.fromkeys(remarks)), "not_known": not_known})


def _judged(task: Task, split: str, protocol: Protocol, path: Path, rankings: Mapping[str, Ranking]) -> Judged:
    categories, by_chance = {}, {}
    for name, ranking in rankings.items():
        scores = of_each_query(ranking.ranks(), protocol)
        lists, groups = ranking.places.lists, ranking.groups
        longest = max(map(len, lists))
        categories[name] = JudgedCategory(
            ranking.queries,
            gallery=ranking.gallery,
            ranked=ranking.sizes,
            recalls={metric: percent(values) for metric, values in scores.items()},
            scores={RUN: scores},
            ranks=ranking.places.least(),
            group_ranks=None if groups is None else groups.least(),
            solved={RUN: ranking.places.ranks < protocol.at[0]},
            best=lists,
            # Its own scores are of any scale.
            similarities=np.tile(1 / (1 + np.arange(longest)), (len(lists), 1)),
            group_best=None if groups is None else groups.lists,
            features=None,
            beyond=ranking.places.beyond,
            group_beyond=None if groups is None else groups.beyond,
        )
        by_chance[name] = chance([query.triplet for query in ranking.queries], len(ranking.gallery), protocol)
    function = CombiningFunction(RUN, shown(path.name), None)
    return Judged(task, split, protocol, RUN, categories, task.columns(by_chance), [function])


def _without_unknown(
    judged: Judged, rankings: Mapping[str, Ranking], run: RunFile, parts: Mapping[str, RunPart]
) -> tuple[Judged, dict[str, str]]:
    """Leave out the metrics that cannot be known of a query; return {metric: why} of these too.

    Raises InputError where that leaves not even the first recall.
    """
    unknown = {}
    for name, category in judged.categories.items():
        for metric, scores in category.scores[RUN].items():
            cut_off = CUT_OFF.search(metric)
            mask = rankings[name].unknown(metric, int(cut_off[1]) if cut_off else UNRANKED, judged.protocol.soft)
            if cut_off:  # a mean over a group, which stands at its first query, depends on all of them
                mask &= ~np.isnan(scores)
            culprits = [query.id for query, is_unknown in zip(category.queries, mask, strict=True) if is_unknown]
            called = [f"{query} of {name}" if len(rankings) > 1 else query for query in culprits]
            # All of a column, as equal scores have to stay equal: the intervals draw each distinct one.
            cells = np.array([_score(run, metric, parts[name].rows.get(query.id)) for query in category.queries])
            if culprits and not np.isnan(cells[~np.isnan(scores)]).any():
                scores[:] = cells
                category.recalls[metric] = percent(scores)
            elif culprits:
                unknown.setdefault(metric, []).extend(called)
    total = sum(len(category.queries) for category in judged.categories.values())
    first = f"recall_at{judged.protocol.at[0]}"
    not_known = {
        metric: f"{len(culprits):,} of {total:,} lists end too early ({first_ten(culprits)})"
        for metric, culprits in unknown.items()
    }
    if first in not_known:
        raise OtherProtocolError(f"{run.path}: lists too short for {first}: {not_known[first]}; give longer ones")
    categories = {
        name: category._replace(
            recalls={metric: value for metric, value in category.recalls.items() if metric not in unknown},
            scores={RUN: {metric: of for metric, of in category.scores[RUN].items() if metric not in unknown}},
        )
        for name, category in judged.categories.items()
    }
    return judged._replace(categories=categories), not_known


def _score(run: RunFile, metric: str, row: Row | None) -> float:
    """Return what a per-query table of the same data has in a metric's column; NaN where it has nothing."""
    text = row.scores.get(metric, "") if row is not None and row.data else ""
    if not text:
        return math.nan
    score = number_of(text)
    if not 0 <= score <= 1:
        raise InputError(f"{run.path}: {shown(text)!r} is not a {metric}, which is from 0 to 1")
    return score


def judge_runs(
    task: Task, splits: Mapping[str, Split], protocols: Sequence[Protocol], options: Mapping
) -> list[Outside]:
    """Judge the ranking that the `options` run and group_run name under each protocol, and say what was decided.

    Where all protocols are wanted, one that cannot count the ranking is left out with a line.
    """
    outside, faults = [], []
    for protocol in protocols:
        try:
            outside.append(judge_run(task, splits, protocol, options["run"], options["group_run"]))
        except OtherProtocolError as error:
            if "all" not in (options["protocol"] or ()):
                raise
            faults.append(error)
            print(f"protocol {protocol.name}: left out, {error}", file=sys.stderr)
    if not outside:
        raise faults[0]
    _print_remarks(outside)
    return outside


def _print_remarks(outside: Sequence[Outside]) -> None:
    """Print what was decided, with the protocol's name before a line that is not of all of them."""
    protocols = Counter(line for one in outside for line in one.lines())
    lines = [
        line if protocols[line] == len(outside) else f"protocol {one.judged.protocol.name}: {line}"
        for one in outside
        for line in one.lines()
    ]
    for line in dict.fromkeys(lines):
        print(line, file=sys.stderr)


def with_ladder(run: Judged, model: Judged) -> Judged:
    """Return a judged run with the ladder of a model that was judged under the same protocol."""
    categories = {
        name: category._replace(
            scores=model.categories[name].scores | category.scores,
            solved=model.categories[name].solved | category.solved,
        )
        for name, category in run.categories.items()
    }
    return run._replace(categories=categories, functions=[*model.functions, *run.functions])


# ---- what cannot be judged, and what is counted ----


def _require_references(run: RunFile, protocol: Protocol, counts: Counter) -> None:
    """Raise InputError for lists that were made without the references, which the protocol keeps."""
    # A table of the same data was counted by the same protocol.
    if protocol.reference == "drop" or counts["with reference"] or any(row.data for row in run.rows.values()):
        return
    if counts["whole but for the reference"] or counts["by chance"] >= BY_CHANCE:
        kept = f"which protocol {protocol.name} keeps in the ranking"
        mend = "judge it under a protocol that drops it, or with validate.py --reference drop"
        raise OtherProtocolError(f"{run.path}: no list has its query's reference, {kept}; {mend}")


def _require_same_data(run: RunFile, judged: Judged) -> None:
    """Raise InputError for a per-query table of other data: its ranks and scores would be of other queries."""
    others = {row.data for row in run.rows.values()} - {"", judged.data}
    if others:
        fault = f"is of other data: {shown(others.pop())} where {judged.data} is judged"
        raise InputError(f"{run.path}: {fault}; its texts, answers or galleries are not those of --data-path")


def _remarks(counts: Counter, protocol: Protocol) -> list[str]:
    """Return what happened to lists, in sentences."""
    total, reference = counts["queries"], counts["with reference"]
    remarks = []
    if reference and protocol.reference == "drop":
        remarks.append(
            f"lists with the query's reference, which leaves them, and so one place: {reference:,} of {total:,}"
        )
    if reference and protocol.reference == "keep":
        remarks.append(f"lists with the query's reference, which counts as a miss: {reference:,} of {total:,}")
    if not reference and protocol.reference == "keep" and counts["reference in gallery"]:
        remarks.append(
            f"no list has its query's reference, which protocol {protocol.name} keeps; if it was taken out, judge with "
            "validate.py --reference drop"
        )
    if counts["with others"]:
        remarks.append(
            f"lists with pictures outside the gallery, which leave them: {counts['with others']:,} of {total:,}"
        )
    if counts["groups with reference"]:
        remarks.append(f"groups with the query's reference, which leaves them: {counts['groups with reference']:,}")
    if counts["ranks left out"]:
        remarks.append(f"ranks left out, as pictures left the list before them: {counts['ranks left out']:,}")
    if counts["ranks taken"]:
        remarks.append(f"ranks without an answer, taken as of protocol {protocol.name}: {counts['ranks taken']:,}")
    if counts["contrary"]:
        remarks.append(f"groups in another order than the gallery's: {counts['contrary']:,} of {total:,}; of one run?")
    return remarks
