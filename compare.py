"""Compare models query by query: what validate.py --per-query wrote of each.

    python compare.py sum.csv combiner.csv --page difference.html

Every further file is compared with the first.
"""

from pathlib import Path

from src.base.files import PROJECT_ROOT
from src.base.parser import Parser, file_path

DESCRIPTION = (
    "Compare models query by query, from files of validate.py --per-query, each with the first: the difference of each "
    "metric with its 95 % interval, a test, and the queries that moved most. Refuses results of other data or of other "
    "protocols."
)


def make_parser() -> Parser:
    parser = Parser(DESCRIPTION)
    parser.add_argument(
        "files", nargs="+", type=Path, metavar="FILE.csv", help="two files or more; the first is compared with each"
    )
    parser.add_argument("--json", type=file_path, metavar="FILE.json", help="file for all differences")
    parser.add_argument("--page", type=file_path, metavar="FILE.html", help="page with the pictures of what moved most")
    parser.add_argument("--data-path", type=Path, default=PROJECT_ROOT, help="folder of the data set, for the page")
    return parser


if __name__ == "__main__":
    make_parser().parse_args()  # --help and a wrong flag are answered here, before numpy and scipy are imported

import textwrap
from typing import NamedTuple

from src.apps.compare.comparison import Key, PerQuery, moved_most, read_all, require_comparable
from src.apps.compare.paired import Difference, differences, holm
from src.base.errors import InputError, in_a_line, one_line_errors, shown
from src.base.files import write_json
from src.command.outputs import data_files, output_files, require_outputs
from src.command.text import text_table

HEADER = ["%", "first", "other", "gain", "from", "to (95 %)", "p", "test", "better", "worse", "same"]
LIMITS = (
    "gain, from, to: points of percent. better, worse, same: queries that the other model scores higher, lower or "
    "equally. Not covered: what another seed of the training would change (repeat it with three), and wrong labels."
)
MOVED = "The queries whose rank changed by the largest factor (from 40 to 1 is more than from 500 to 461):"
SHOWN = 5
"""Answers of each model on the page."""


class Compared(NamedTuple):
    """One file beside the first, under one protocol."""

    protocol: str
    other: PerQuery
    differences: dict[str, Difference]
    moved: list[Key]


def compare(first: PerQuery, others: list[PerQuery]) -> list[Compared]:
    """Compare each of `others` with `first`, under each protocol; p values are corrected by Holm's method."""
    compared = []
    for protocol in first.data:
        keys = first.keys(protocol)
        of_protocol = []
        for other in others:
            found = differences(first.scores(keys), other.scores(keys), first.task.measures)
            of_protocol.append(Compared(protocol, other, found, moved_most(first, other, keys)))
        for name in of_protocol[0].differences:
            corrected = holm([one.differences[name].p for one in of_protocol])
            for one, p in zip(of_protocol, corrected, strict=True):
                one.differences[name] = one.differences[name]._replace(p=p)
        compared += of_protocol
    return compared


def cells(compared: Compared) -> list[list[str]]:
    """Return the differences as rows of strings."""
    return [
        [
            *(name, f"{of.first:.2f}", f"{of.second:.2f}", f"{of.gain:+.2f}", f"{of.low:+.2f}", f"{of.high:+.2f}"),
            *("<0.0001" if of.p < 0.0001 else f"{of.p:.4f}", of.test, f"{of.wins:,}", f"{of.losses:,}", f"{of.ties:,}"),
        ]
        for name, of in compared.differences.items()
    ]


def title(first: PerQuery, compared: Compared) -> str:
    """Return what is compared, in a line."""
    models, data = f"{shown(compared.other.name)} beside {shown(first.name)}", f"{first.task.name} {first.split}"
    queries = len(first.keys(compared.protocol))
    return f"{models}: {data}, protocol {shown(compared.protocol)}, {queries:,} queries"


def print_all(first: PerQuery, all_compared: list[Compared], corrected: str) -> None:
    """Print a table for each file and protocol, and the queries that moved most."""
    for compared in all_compared:
        print(title(first, compared), text_table(HEADER, cells(compared)), "", sep="\n")
        rows = [
            [shown(key[2]), key[1], *(run.rows[key]["rank"] for run in (first, compared.other))]
            for key in compared.moved
        ]
        captions = [textwrap.shorten(in_a_line(first.rows[key]["caption"]), 70) for key in compared.moved]
        if rows:
            print(MOVED)
            lines = text_table(["query", "category", "rank", "then"], rows).splitlines()
            print("\n".join(f"{line}  {caption}" for line, caption in zip(lines, ["caption", *captions], strict=True)))
            print()
    print(textwrap.fill(LIMITS + corrected, 110))


def plain(first: PerQuery, all_compared: list[Compared]) -> dict:
    """Return all differences as plain values, for JSON."""
    return {
        "first": str(first.path),
        "p_values": "Holm" if len(all_compared) > len(first.data) else "uncorrected",
        "comparisons": [
            {
                "other": str(compared.other.path),
                "protocol": compared.protocol,
                "data": first.data[compared.protocol],
                "differences": {name: of._asdict() for name, of in compared.differences.items()},
                "moved_most": [
                    {
                        **{
                            name: first.rows[key][name]
                            for name in ("query", "category", "reference", "caption", "target")
                        },
                        "ranks": [int(run.rows[key]["rank"]) for run in (first, compared.other)],
                    }
                    for key in compared.moved
                ],
            }
            for compared in all_compared
        ],
    }


def draw_page(path: Path, first: PerQuery, all_compared: list[Compared], splits: dict, corrected: str) -> None:
    """Write the page with pictures of `splits` {category: Split}; raises InputError for one that is not there."""
    from src.apps.pages.kit import write_page  # late: opening pictures imports torch, which takes a second

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
    from src.apps.pages.kit import QueryRow, picture

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


@one_line_errors
def main(argv=None):
    args = make_parser().parse_args(argv)
    if len(args.files) < 2:
        raise InputError(f"{args.files[0]}: there is nothing to compare it with, two files are needed")
    first, *others = read_all(args.files)
    outputs, is_there = output_files(vars(args), "json", "page"), (args.data_path / first.task.folder).is_dir()
    require_outputs(vars(args), outputs, data_files(first.task, args.data_path) if is_there else {})
    for other in others:
        require_comparable(first, other)
    # Before anything is printed: without its pictures the page cannot be made.
    splits = first.task.read_all(args.data_path, first.split) if args.page else {}
    compared = compare(first, others)
    corrected = f" p: corrected by Holm's method for {len(others)} comparisons." if len(others) > 1 else ""
    print_all(first, compared, corrected)
    if args.json:
        write_json(args.json, plain(first, compared), indent=1)
    if args.page:
        draw_page(args.page, first, compared, splits, corrected)
        print(args.page)


if __name__ == "__main__":
    main()
