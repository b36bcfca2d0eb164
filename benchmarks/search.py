"""Measure what a search costs beside what it cannot be faster than: reading the features, and multiplying them.

    python -m benchmarks.search

Writes search.md to this folder, or to --output.
"""

from argparse import Namespace
from pathlib import Path

from src.base.parser import Parser, count

DIM = 640
QUESTIONS = 1000
"""Asked together, as --queries asks them."""


def parse_arguments(argv=None) -> Namespace:
    parser = Parser("Measure what a search costs beside reading the features and multiplying them.")
    sizes = {"type": count, "nargs": "+", "default": [10_000, 100_000, 1_000_000]}
    parser.add_argument("--pictures", **sizes, metavar="N", help="sizes of the gallery")
    parser.add_argument("--turns", type=count, default=9, help="how often one question is asked")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent, help="receives search.md")
    return parser.parse_args(argv)


if __name__ == "__main__":
    parse_arguments()  # --help and a wrong flag are answered here, before torch is imported

import torch

from benchmarks.measure import alternate, duration, machine
from src.apps.search.collection import Collection
from src.base.errors import one_line_errors
from utils import device

HEAD = (
    "| pictures | reading | one question | ratio | 1,000 queries multiplied | 1,000 questions | ratio |\n"
    + "|---" * 7
    + "|"
)


def line(pictures: int, turns: int) -> str:
    """Measure a gallery of so many random features; return its row of the table."""
    draws = torch.Generator().manual_seed(0)
    unit = torch.nn.functional.normalize(torch.randn(pictures, DIM, generator=draws)).to(device)
    questions = torch.randn(QUESTIONS, DIM, generator=draws).to(device)
    collection = Collection(unit, torch.ones(pictures, device=device), [str(row) for row in range(pictures)])
    piece = 2**14  # so that the scores of all questions need not be held
    one = alternate(
        {"reading": unit.max, "search": lambda: collection.nearest(questions[None, :1], 10)}, turns, warm_up=True
    )

    def multiply():
        for some in unit.split(piece):
            torch.mm(questions, some.T)

    ways = {"multiplying": multiply, "search": lambda: collection.nearest(questions[None], 10)}
    many = alternate(ways, max(1, turns // 4), warm_up=True)
    cells = [f"{pictures:,}"]
    for floor, found in ((one["reading"], one["search"]), (many["multiplying"], many["search"])):
        cells += [duration(floor.seconds), duration(found.seconds), f"{found.seconds / floor.seconds:.2f} ×"]
    return f"| {' | '.join(cells)} |"


@one_line_errors
def main(argv=None):
    args = parse_arguments(argv)
    table = "\n".join([HEAD, *(line(pictures, args.turns) for pictures in args.pictures)])
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "search.md").write_text(table + "\n", encoding="utf-8")
    print(f"{table}\n\n{machine()}")


if __name__ == "__main__":
    main()
