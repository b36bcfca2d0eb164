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

from src.base.errors import InputError, one_line_errors
from src.base.files import replacing, require_writable, write_json
from src.command.page import page, picture, table, wall_row
from src.command.text import text_table
from src.evaluation.comparison import Key, PerQuery, moved_most, read_per_query, require_comparable
from src.evaluation.paired import Difference, differences, holm
from src.tasks.registry import TASKS
from src.tasks.triplets import Task

HEADER = ["%", "first", "other", "gain", "from", "to (95 %)", "p", "test", "better", "worse"]
LIMITS = (
    "gain, from, to: points of percent. better, worse: queries that the other model scores higher or lower, once each. "
    "Not covered: what another seed of the training would change (repeat it with three), and wrong labels."
)
SHOWN = 5


class Compared(NamedTuple):
    """One file beside the first, under one protocol."""

    protocol: str
    other: PerQuery
    differences: dict[str, Difference]
    moved: list[Key]


def task_of(run: PerQuery) -> tuple[Task, str]:
    """Return the data set and the split that a file is of; raises InputError for one that is not known."""
    name, _, rest = next(iter(run.data.values())).partition(".")
    if name not in TASKS:
        raise InputError(f"{run.path}: is of {name}, which is none of {', '.join(TASKS)}")
    return TASKS[name], rest.partition(".")[0]


def compare(first: PerQuery, others: list[PerQuery]) -> list[Compared]:
    """Compare each of `others` with `first`; raises InputError where they are not comparable."""
    task, _ = task_of(first)
    compared = []
    for protocol in first.data:
        keys = [key for key in first.rows if key[0] == protocol]
        of_protocol = []
        for other in others:
            found = differences(first.scores(keys), other.scores(keys), task.measures)
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
            *(f"{of.p:.4f}", of.test, f"{of.wins:,}", f"{of.losses:,}"),
        ]
        for name, of in compared.differences.items()
    ]


def title(first: PerQuery, compared: Compared) -> str:
    """Return what is compared, in a line."""
    queries = sum(key[0] == compared.protocol for key in first.rows)
    return f"{compared.other.path} beside {first.path}, protocol {compared.protocol}, {queries:,} queries"


def print_all(first: PerQuery, all_compared: list[Compared], corrected: str) -> None:
    """Print a table for each file and protocol, and the queries that moved most."""
    for compared in all_compared:
        print(title(first, compared), text_table(HEADER, cells(compared)), "", sep="\n")
        rows = [[key[2], key[1], first.rows[key]["rank"], compared.other.rows[key]["rank"]] for key in compared.moved]
        captions = [first.rows[key]["caption"][:70] for key in compared.moved]
        if rows:
            print("The queries whose rank changed by the largest factor:")
            lines = text_table(["query", "category", "rank", "then"], rows).splitlines()
            print("\n".join(f"{line}  {caption}" for line, caption in zip(lines, ["caption", *captions], strict=True)))
            print()
    print(textwrap.fill(LIMITS + corrected, 110))


def plain(first: PerQuery, all_compared: list[Compared]) -> dict:
    """Return all differences as plain values, for JSON."""
    return {
        "first": str(first.path),
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


def wall(first: PerQuery, compared: Compared, pictures: dict[str, Path]) -> str:
    """Return the queries that moved most as HTML: the first model's answers, and below them the other's."""
    rows = []
    for key in compared.moved:
        for run in (first, compared.other):
            row = run.rows[key]
            names = row["answers"].split("|")[:SHOWN]
            answers = [
                picture(_known(pictures, name, run), is_target=name in row["target"].split("|")) for name in names
            ]
            remark = f"{run.path.stem}: target ranked {row['rank']}"
            rows.append(wall_row(picture(_known(pictures, row["reference"], run)), row["caption"], remark, answers))
    return "".join(rows)


def _known(pictures: dict[str, Path], name: str, run: PerQuery) -> Path:
    if name not in pictures:
        raise InputError(f"{run.path}: {name} is no picture of the data set in --data-path")
    return pictures[name]


def write_page(path: Path, first: PerQuery, all_compared: list[Compared], data_path: Path, corrected: str) -> None:
    """Write the page; raises InputError for a picture that is not there."""
    task, split = task_of(first)
    pictures = {name: file for of in task.read_all(data_path, split).values() for name, file in of.pictures.items()}
    sections = []
    for compared in all_compared:
        sections.append((title(first, compared), LIMITS + corrected, table(HEADER, cells(compared))))
        explanation = "The queries whose rank changed by the largest factor, with the first five answers of each model."
        sections.append((f"What moved most, {compared.other.path.stem}", explanation, wall(first, compared, pictures)))
    with replacing(path) as unfinished:
        introduction = f"{task.name} {split}, {len(first.rows):,} queries."
        unfinished.write_text(page("Comparison", introduction, sections), encoding="utf-8")


@one_line_errors
def main(argv=None):
    args = make_parser().parse_args(argv)
    if len(args.files) < 2:
        raise InputError(f"{args.files[0]}: there is nothing to compare it with, two files are needed")
    for path in filter(None, (args.json, args.page)):
        require_writable(path.parent)
    first, *others = map(read_per_query, args.files)
    for other in others:
        require_comparable(first, other)
    compared = compare(first, others)
    corrected = f" p: corrected by Holm's method for {len(others)} comparisons." if len(others) > 1 else ""
    print_all(first, compared, corrected)
    if args.json:
        write_json(args.json, plain(first, compared), indent=1)
    if args.page:
        write_page(args.page, first, compared, args.data_path, corrected)
        print(args.page)


if __name__ == "__main__":
    main()
