"""Say what bounds each stage on a card, by counting operations and bytes of a step; no card is needed.

    python -m benchmarks.bounds --tflops 100 --workers 16

Writes bounds.md to this folder, or to --output. A CLIP of random weights; the defaults are the published sizes.
"""

from argparse import Namespace
from pathlib import Path

from src.base.parser import Parser, count, positive


def parse_arguments(argv=None) -> Namespace:
    parser = Parser("Say what bounds a step of each stage on a card, by counting operations and bytes.")
    parser.add_argument("--model", default="RN50x4", help="whose size the random CLIP has")
    parser.add_argument("--batch-size", type=count, default=128, help="triplets of a step of stage 1")
    parser.add_argument("--combiner-batch-size", type=count, default=4096, help="triplets of a step of stage 2")
    help_text = "operations that the card reaches in practice, in 10^12 a second"
    parser.add_argument("--tflops", type=positive, default=100, help=help_text)
    parser.add_argument("--memory", type=positive, default=2000, help="of the card, in GB a second")
    parser.add_argument("--link", type=positive, default=20, help="between host and card, in GB a second")
    parser.add_argument("--disk", type=positive, default=1, help="writing, in GB a second")
    parser.add_argument("--workers", type=count, default=16, help="processes that open pictures")
    parser.add_argument("--pictures", type=positive, default=80, help="opened a second by each of them")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent, help="receives bounds.md")
    return parser.parse_args(argv)


if __name__ == "__main__":
    parse_arguments()  # --help and a wrong flag are answered here, before torch is imported

from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measure import data_size, duration
from benchmarks.memory import CAPTION
from benchmarks.worlds import SIZES, clip_of_size
from combiner import Combiner
from src.base.errors import one_line_errors, require_one_of
from src.models.backbone import Backbone
from src.models.openai_clip import OpenAIClip
from src.models.weights import size_of
from src.training.losses import contrastive_loss
from utils import caption_tokens, device

HEAD = "| | of a step | at | takes |\n" + "|---" * 4 + "|"
ADAM = 7
"""How often a step of Adam reads or writes each weight: weight, gradient and two moments, three of them written."""


def operations(work: Callable) -> int:
    """Count the additions and multiplications of `work()`, of its backward pass too where it has one."""
    with FlopCounterMode(display=False) as counter:
        result = work()
        if result.requires_grad:
            result.sum().backward()
    return counter.get_total_flops()


def first_stage(backbone: Backbone, args: Namespace) -> Iterator[str]:
    """Yield the rows of stage 1, both encoders learning."""
    pictures, dim = 2 * args.batch_size, backbone.resolution
    images = torch.randn(1, 3, dim, dim, device=device)
    tokens = caption_tokens([CAPTION], backbone)
    of_picture = operations(lambda: backbone.encode_images(images))
    of_caption = operations(lambda: backbone.encode_tokens(tokens))
    opened = args.workers * args.pictures
    yield _row("stage 1: pictures opened", f"{pictures}", f"{opened:g} a second", pictures / opened)
    sent = pictures * 3 * dim**2
    yield _row("sent to the card, as bytes", data_size(sent), f"{args.link:g} GB/s", sent / args.link / 1e9)
    computed = pictures * of_picture + args.batch_size * of_caption
    yield _row("computed", _operations(computed), f"{args.tflops:g} TFLOP/s", computed / args.tflops / 1e12)
    yield from _rows_of_weights(size_of(backbone.model.state_dict()), args)


def second_stage(combiner: nn.Module, dimension: int, args: Namespace) -> Iterator[str]:
    """Yield the rows of stage 2, on features that are on the card."""
    batch = args.combiner_batch_size
    features = torch.randn(3, batch, dimension, device=device)
    computed = operations(
        lambda: contrastive_loss(
            combiner.combine_features(features[0], features[1]), nn.functional.normalize(features[2])
        )
    )
    rows = size_of(features)
    yield _row("stage 2: features gathered", data_size(rows), f"{args.memory:g} GB/s", 2 * rows / args.memory / 1e9)
    yield _row("computed", _operations(computed), f"{args.tflops:g} TFLOP/s", computed / args.tflops / 1e12)
    yield from _rows_of_weights(size_of(combiner.state_dict()), args)


def _rows_of_weights(learning, args):
    moved, state = ADAM * learning, 3 * learning
    yield _row("weights updated", data_size(moved), f"{args.memory:g} GB/s", moved / args.memory / 1e9)
    seconds = state / args.link / 1e9 + state / args.disk / 1e9
    yield _row("a state, in the background", data_size(state), f"{args.link:g} and {args.disk:g} GB/s", seconds)


def _row(what, amount, rate, seconds):
    return f"| {what} | {amount} | {rate} | {duration(seconds)} |"


def _operations(number):
    return f"{number / 1e12:.3g} × 10¹²"


@one_line_errors
def main(argv=None):
    args = parse_arguments(argv)
    require_one_of(args.model, SIZES, "size")
    backbone = OpenAIClip(clip_of_size(args.model))
    combiner = Combiner(backbone.dimension, 4 * backbone.dimension, 8 * backbone.dimension).to(device)
    table = "\n".join([HEAD, *first_stage(backbone, args), *second_stage(combiner, backbone.dimension, args)])
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "bounds.md").write_text(table + "\n", encoding="utf-8")
    print(table)


if __name__ == "__main__":
    main()
