"""Measure a search next to its lower bounds: reading the features for one question, multiplying them for many.

    python -m benchmarks.search

Writes search.md to this folder, or to --output. faiss-cpu and sentence-transformers are measured too where installed.
"""

from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from src.command.parser import Parser, count


def parse_arguments(argv=None) -> Namespace:
    parser = Parser("Measure a search next to reading the features and multiplying them.", __doc__)
    parser.prog = "python -m benchmarks.search"
    parser.add_argument("--pictures", type=count, nargs="+", default=[10**4, 10**6], metavar="N", help="of a gallery")
    parser.add_argument("--turns", type=count, default=9, help="how often each is measured")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent, help="folder that receives search.md")
    return parser.parse_args(argv)


if __name__ == "__main__":
    parse_arguments()  # --help and a wrong flag are answered here, before torch is imported

import torch

from benchmarks.measure import alternate, duration, machine
from src.command.frame import one_line_errors
from src.retrieval.gallery import Gallery
from utils import device


def searches(features: torch.Tensor) -> dict[str, Callable[[torch.Tensor], object]]:
    """Return ways to search, with those of other libraries that are installed, and what is the least to do."""
    gallery = Gallery(features, [str(row) for row in range(len(features))], torch.ones(len(features), device=device))
    pieces = features.split(2**14)  # so that not all scores are in memory
    found = {
        "multiplying": lambda questions: [torch.mm(questions, piece.T).shape for piece in pieces],
        "here": lambda questions: gallery.nearest(questions[None], 10),
    }
    with suppress(ImportError):
        import faiss

        index = faiss.IndexFlatIP(features.shape[1])
        index.add(features.cpu().numpy())
        found["faiss, IndexFlatIP"] = lambda questions: index.search(questions.cpu().numpy(), 10)
    with suppress(ImportError):
        from sentence_transformers.util import dot_score, semantic_search

        by_product = partial(semantic_search, corpus_embeddings=features, score_function=dot_score)
        found["sentence-transformers, semantic_search"] = by_product
    return found


def lines(pictures: int, turns: int) -> Iterator[str]:
    """Measure a gallery of random features; yield rows of the table."""
    draws = torch.Generator().manual_seed(0)
    features, questions = (
        torch.nn.functional.normalize(torch.randn(rows, 640, generator=draws)).to(device) for rows in (pictures, 200)
    )
    found = searches(features)
    for number in (1, len(questions)):
        ways = {"reading": features.max} if number == 1 else {}
        ways |= {name: partial(search, questions[:number]) for name, search in found.items()}
        times = {name: way.seconds for name, way in alternate(ways, turns, warm_up=True).items()}
        least = next(iter(times.values()))
        for name, seconds in times.items():
            yield f"| {pictures:,} | {number} | {name} | {duration(seconds)} | {seconds / least:.2f} × |"


@one_line_errors
def main(argv=None):
    args = parse_arguments(argv)
    args.output.mkdir(parents=True, exist_ok=True)
    rows = [row for pictures in args.pictures for row in lines(pictures, args.turns)]
    table = "\n".join(["| pictures | questions | | | ratio |", "|---|---|---|---|---|", *rows])
    print(f"{table}\n\n{machine()}")
    (args.output / "search.md").write_text(table + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
