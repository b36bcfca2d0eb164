"""Compute what a step of stage 1 exchanges between many cards, and which part of its time that takes.

    python -m benchmarks.scaling

Bytes follow from formulas. Times follow from what one process was measured to need for a triplet, operations and
seconds, from what a card is said to sustain (--tflops), and from stated link speeds. Writes scaling.json and scaling.md
to this folder, or to --output.
"""

from argparse import Namespace
from pathlib import Path
from typing import NamedTuple

from src.base.parser import Parser, count, positive


def parse_arguments(argv=None) -> Namespace:
    parser = Parser("Compute what a step of stage 1 exchanges between cards, and where that stops paying.")
    help_text = "trillions of operations a second that a card sustains (an A100 in fp16 peaks at 312)"
    parser.add_argument("--tflops", type=positive, default=100, help=help_text)
    help_text = "GB/s that a card sends to the next of its node (an A100's NVLink: 300 each way)"
    parser.add_argument("--node-link", type=positive, default=200, help=help_text)
    help_text = "GB/s that a node sends to the next, whatever its number of links (200 Gbit/s: 25)"
    parser.add_argument("--network", type=positive, default=20, help=help_text)
    parser.add_argument("--cards-per-node", type=count, default=8, help="cards that --node-link joins")
    parser.add_argument("--models", nargs="+", default=["RN50x4", "ViT-L/14"], help="whose sizes")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent, help="receives the results")
    return parser.parse_args(argv)


if __name__ == "__main__":
    parse_arguments()  # --help and a wrong flag are answered here, before torch is imported

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measure import alternate, data_size, duration, machine
from benchmarks.memory import CAPTION
from benchmarks.worlds import SIZES, clip_of_size
from src.base.errors import one_line_errors, require_one_of
from src.base.files import write_json
from src.models.openai_clip import OpenAIClip, random_clip
from utils import caption_tokens, device

BATCHES, CARDS = (512, 4096, 32_768), (1, 8, 64)
BYTES = 4
"""Of a number: features and gradients are exchanged in fp32, whatever the precision of CLIP."""


class Cost(NamedTuple):
    """What a model was found to take in one process."""

    weights: int
    """How many learn."""
    dim: int
    """Numbers of a feature."""
    resolution: int
    """Pixels of a side of its pictures."""
    operations: float
    """For a triplet."""
    seconds: float
    """For a triplet, on this device."""


class Exchange(NamedTuple):
    """Bytes that a process receives in a step. It sends as many, and so does a node in a ring."""

    features: float
    gradients: float


def exchanged(batch_size: int, cards: int, dim: int, weights: int) -> Exchange:
    """Compute the Exchange of a step: targets are gathered, their gradients and those of the weights summed.

    A ring moves (n - 1) / n of what is gathered, and twice that of what is summed.
    """
    moved = (cards - 1) / cards * BYTES
    # Of the features the gathering moves one share, the sum of their gradients two.
    return Exchange(3 * moved * batch_size * dim, 2 * moved * weights)


def cost_of(model: str) -> Cost:
    """Find the Cost of a model of this size: count operations without computing, measure seconds on this device."""
    clip_model = clip_of_size(model)
    visual = clip_model.visual
    images = torch.randn(2, 3, visual.input_resolution, visual.input_resolution, device=device)
    tokens = caption_tokens([CAPTION], OpenAIClip(clip_model))

    def backward(clip_model, images, tokens):
        (clip_model.encode_image(images).sum() + clip_model.encode_text(tokens).sum()).backward()
        clip_model.zero_grad()

    seconds = alternate({"triplet": lambda: backward(clip_model, images, tokens)}, 2, warm_up=True)["triplet"].seconds
    with torch.device("meta"), FlopCounterMode(display=False) as counted:
        backward(random_clip(*SIZES[model]).eval(), images.to("meta"), tokens.to("meta"))
    learning = sum(weights.numel() for name, weights in clip_model.named_parameters() if name != "logit_scale")
    return Cost(learning, visual.output_dim, visual.input_resolution, counted.get_total_flops(), seconds)


def line(model: str, cost: Cost, batch_size: int, cards: int, args: Namespace) -> dict:
    """Return a row of the table, in plain values."""
    moved = exchanged(batch_size, cards, cost.dim, cost.weights)
    link = args.node_link if cards <= args.cards_per_node else args.network
    computing = batch_size / cards * cost.operations / (args.tflops * 1e12)
    exchanging = sum(moved) / (link * 1e9)
    return {
        "model": model,
        "batch": batch_size,
        "cards": cards,
        "triplets per card": batch_size // cards,
        "features": moved.features,
        "gradients": moved.gradients,
        "computing": computing,
        "here": batch_size / cards * cost.seconds,
        "exchanging": exchanging,
        "efficiency": computing / (computing + exchanging),
        "pictures": 2 * batch_size / cards * 3 * cost.resolution**2 * BYTES,
    }


def table(rows: list[dict]) -> str:
    """Return the rows in Markdown."""
    names = "model, batch, cards, triplets per card, features, gradients, computing, exchanging, efficiency"
    head = [*names.split(", "), "pictures in host memory", "computing on this machine"]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in rows:
        sizes = [data_size(row["features"]), data_size(row["gradients"])]
        times = [duration(row["computing"]), duration(row["exchanging"]), f"{100 * row['efficiency']:.0f} %"]
        cells = [row["model"], *(f"{row[name]:,}" for name in ("batch", "cards", "triplets per card")), *sizes, *times]
        lines.append(f"| {' | '.join([*cells, data_size(row['pictures']), duration(row['here'])])} |")
    return "\n".join(lines)


@one_line_errors
def main(argv=None):
    args = parse_arguments(argv)
    for model in args.models:
        require_one_of(model, SIZES, "size")
    costs = {model: cost_of(model) for model in args.models}
    rows = [
        line(model, cost, size, cards, args) for model, cost in costs.items() for size in BATCHES for cards in CARDS
    ]

    args.output.mkdir(parents=True, exist_ok=True)
    measured = {model: cost._asdict() for model, cost in costs.items()}
    write_json(args.output / "scaling.json", {"machine": machine(), "costs": measured, "rows": rows}, indent=1)
    (args.output / "scaling.md").write_text(table(rows) + "\n", encoding="utf-8")
    for model, cost in costs.items():
        rate = cost.operations / cost.seconds / 1e9
        of_triplet = (
            f"{cost.operations / 1e12:.2f} T operations and {cost.seconds:.2f} s a triplet on this {device.type}"
        )
        print(f"{model}: {cost.weights / 1e6:.0f} M weights, {of_triplet} ({rate:.0f} G a second)")
    print(f"\n{table(rows)}\n\n{machine()}")


if __name__ == "__main__":
    main()
