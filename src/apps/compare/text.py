"""Models compared query by query, for a terminal and as plain values."""

import textwrap
from typing import NamedTuple

from src.apps.compare.comparison import Key, PerQuery, moved_most
from src.apps.compare.paired import Difference, differences, holm
from src.base.errors import in_a_line, shown
from src.command.text import text_table

HEADER = ["%", "first", "other", "gain", "from", "to (95 %)", "p", "test", "better", "worse", "same"]
LIMITS = (
    "gain, from, to: points of percent. better, worse, same: queries that the other model scores higher, lower or "
    "equally. Not covered: what another seed of the training would change (repeat it with three), and wrong labels."
)
MOVED = "The queries whose rank changed by the largest factor (from 40 to 1 is more than from 500 to 461):"


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
