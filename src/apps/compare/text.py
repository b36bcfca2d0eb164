"""Models compared query by query, for a terminal and as JSON."""

import textwrap
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from src.apps.compare.comparison import Key, PerQuery, moved_most, repeats, shared
from src.apps.compare.paired import Difference, differences, holm
from src.base.errors import in_a_line, repeated, shown
from src.base.files import write_json
from src.command.terminal import PROSE, filled, width
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


def compare(first: PerQuery, others: list[PerQuery]) -> tuple[list[Compared], list[str]]:
    """Compare each of `others` with `first`, under each protocol; p values are corrected by Holm's method.

    Returns a sentence for each thing that is left out as well. Raises InputError for files that cannot be compared.
    """
    pairs, left_out, compared = [], [], []
    for other in others:
        mine, theirs, sentences = shared(first, other)
        pairs.append((mine, theirs))
        left_out += sentences
    for protocol in first.data:
        of_protocol = []
        for mine, theirs in pairs:
            if protocol not in mine.data:
                continue
            earlier = takewhile(lambda name, last=protocol: name != last, mine.data)
            same = next((name for name in earlier if repeats((mine, theirs), protocol, name)), None)
            if same is not None:
                again = f"protocol {shown(protocol)}, under which each query scores as under {shown(same)}"
                left_out.append(f"Left out for {shown(theirs.name)}: {again}.")
                continue
            keys = mine.keys(protocol)
            known = [name for name in mine.known(protocol) if name in theirs.known(protocol)]
            found = differences(mine.scores(keys, known), theirs.scores(keys, known), mine.task.measures)
            of_protocol.append(Compared(protocol, theirs, found, moved_most(mine, theirs, keys)))
        _correct(of_protocol)
        compared += of_protocol
    return compared, list(dict.fromkeys(left_out))


def _correct(compared: list[Compared]) -> None:
    """Replace the p values of each measure by those that Holm's method gives for all who have it."""
    for name in dict.fromkeys(name for one in compared for name in one.differences):
        have = [one for one in compared if name in one.differences]
        for one, p in zip(have, holm([one.differences[name].p for one in have]), strict=True):
            one.differences[name] = one.differences[name]._replace(p=p)


def is_corrected(all_compared: list[Compared]) -> bool:
    """Whether p values are of more than one comparison under a protocol."""
    return bool(repeated([compared.protocol for compared in all_compared]))


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


def print_all(first: PerQuery, all_compared: list[Compared], remarks: str) -> None:
    """Print a table for each file and protocol, the queries that moved most, and at the end the `remarks`."""
    for compared in all_compared:
        print(filled(title(first, compared), indent="  "), text_table(HEADER, cells(compared)), "", sep="\n")
        if compared.moved:
            print(filled(MOVED, longest=PROSE), *_moved(first, compared), "", sep="\n")
    print(filled(LIMITS + remarks, longest=PROSE))


def _moved(first: PerQuery, compared: Compared) -> Iterator[str]:
    """Yield a line for each query that moved most; captions take the room that the terminal leaves."""
    rows = [
        [shown(key[2]), key[1], *(run.rows[key]["rank"] for run in (first, compared.other))] for key in compared.moved
    ]
    captions = ["caption", *(in_a_line(first.rows[key]["caption"]) for key in compared.moved)]
    lines = text_table(["query", "category", "rank", "then"], rows).splitlines()
    room = min(70, max(20, (width() or 110) - max(map(len, lines)) - 2))
    for line, caption in zip(lines, captions, strict=True):
        yield f"{line}  {textwrap.shorten(caption, room)}"


def write(path: Path, first: PerQuery, all_compared: list[Compared], left_out: list[str]) -> None:
    """Write all differences as JSON."""
    content = {
        "first": str(first.path),
        "p_values": "Holm" if is_corrected(all_compared) else "uncorrected",
        "left_out": left_out,
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
                        "ranks": [_plain_rank(run.rows[key]["rank"]) for run in (first, compared.other)],
                    }
                    for key in compared.moved
                ],
            }
            for compared in all_compared
        ],
    }
    write_json(path, content, indent=1)


def _plain_rank(cell: str) -> int | str:
    """Return a rank as a number; one that is only known to come after the first fifty stays ">50"."""
    return int(cell) if cell.isdecimal() else cell
