"""Measure a search next to its lower bounds: reading the features for one question, multiplying them for many.

    python -m benchmarks.search

Writes search.md to this folder, or to --output.
"""

from argparse import Namespace
from pathlib import Path

from src.command.parser import Parser, count


def parse_arguments(argv=None) -> Namespace:
    parser = Parser("Measure a search next to reading the features and multiplying them.", __doc__)
    sizes = [10_000, 100_000, 1_000_000]
    parser.add_argument("--pictures", type=count, nargs="+", default=sizes, metavar="N", help="sizes of the gallery")
    parser.add_argument("--turns", type=count, default=9, help="how often one question is asked")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent, help="receives search.md")
    return parser.parse_args(argv)


if __name__ == "__main__":
    parse_arguments()  # --help and a wrong flag are answered here, before torch is imported

import torch

from benchmarks.measure import alternate, duration, machine
from src.command.frame import one_line_errors
from src.retrieval.gallery import Gallery
from utils import device

HEAD = """| pictures | reading | one question | ratio | 1,000 queries multiplied | 1,000 questions | ratio |
|---|---|---|---|---|---|---|"""


def line(pictures: int, turns: int) -> str:
    """Measure a gallery of random features; return its row of the table."""
    draws = torch.Generator().manual_seed(0)
    features = torch.nn.functional.normalize(torch.randn(pictures, 640, generator=draws)).to(device)
    questions = torch.randn(1000, 640, generator=draws).to(device)
    gallery = Gallery(features, [str(row) for row in range(pictures)], torch.ones(pictures, device=device))
    ways = {"floor": features.max, "search": lambda: gallery.nearest(questions[None, :1], 10)}
    one = alternate(ways, turns, warm_up=True)

    def multiply():
        for piece in features.split(2**14):  # in pieces, so that not all scores are in memory
            torch.mm(questions, piece.T)

    ways = {"floor": multiply, "search": lambda: gallery.nearest(questions[None], 10)}
    many = alternate(ways, max(1, turns // 4), warm_up=True)
    cells = [f"{pictures:,}"]
    for floor, search in ((measured["floor"].seconds, measured["search"].seconds) for measured in (one, many)):
        cells += [duration(floor), duration(search), f"{search / floor:.2f} ×"]
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
