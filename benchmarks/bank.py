"""Measure what a bank of negatives costs in stage 2: time and memory of a step, beside negatives of the batch alone.

    python -m benchmarks.bank

Takes the published Combiner and random features of 640 numbers, the two ways in turn. The time of an epoch of CIRR is
computed from that of a step. Writes bank.md to this folder, or to --output.
"""

from argparse import Namespace
from pathlib import Path

from src.base.parser import Parser, count


def parse_arguments(argv=None) -> Namespace:
    parser = Parser("Measure steps of stage 2 with a bank of negatives and with those of the batch alone.")
    help_text = "sizes of the bank (default: CIRR's training pictures, and many)"
    parser.add_argument("--pictures", type=count, nargs="+", default=[17_000, 400_000], metavar="N", help=help_text)
    parser.add_argument("--batches", type=count, nargs="+", default=[256, 4096], metavar="N", help="triplets of a step")
    parser.add_argument("--projection-dim", type=count, default=2560, help="size of the Combiner's projections")
    parser.add_argument("--hidden-dim", type=count, default=5120, help="size of the Combiner's hidden layers")
    parser.add_argument("--turns", type=count, default=2, help="how often each step is measured, behind one to warm up")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent, help="receives bank.md")
    return parser.parse_args(argv)


if __name__ == "__main__":
    parse_arguments()  # --help and a wrong flag are answered here, before torch is imported

import sys

import torch

from benchmarks.cases import training_of
from benchmarks.machine import AMOUNTS
from benchmarks.measure import alternate, machine
from benchmarks.results import memory_cell, time_cell
from combiner import Combiner
from combiner_train import CombinerTraining
from src.base.errors import one_line_errors
from src.training.batches import Batch
from src.training.losses import Bank
from utils import device

DIM = 640
"""Of RN50x4's features."""
TEXTS = 256
TRIPLETS = AMOUNTS["CIRR"].triplets
HEAD = ["pictures", "features", "batch size", "a step, batch alone", "bank", "ratio", "memory, batch alone", "bank"]
HEAD += ["an epoch, batch alone", "bank"]


class CombinerSteps:
    """Steps of stage 2 on random features, with the batch's negatives or a bank's."""

    def __init__(self, pictures: int, projection_dim: int, hidden_dim: int):
        torch.manual_seed(0)
        self.pictures = pictures
        self.combiner = Combiner(DIM, projection_dim, hidden_dim).to(device)
        self.optimizer = torch.optim.Adam(self.combiner.parameters(), lr=2e-5, fused=True)
        bank = Bank(torch.randn(pictures, DIM, device=device))
        texts = [str(number) for number in range(TEXTS)]
        of_texts = torch.randn(TEXTS, DIM, device=device), texts
        # Both read the features that the bank holds, so memory has them once.
        self.stages = {
            "batch": CombinerTraining(self.combiner, bank.unit, *of_texts),
            "bank": CombinerTraining(self.combiner, bank, *of_texts),
        }

    @property
    def feature_bytes(self) -> int:
        """How much memory the features of all pictures take."""
        return self.stages["batch"].picture_features.nbytes

    def step(self, negatives: str, batch_size: int) -> float:
        """Take a step of the product's training loop on random triplets; return the loss."""
        stage = self.stages[negatives]
        training = training_of(stage.train(), self.optimizer, batch_size, negatives=negatives)
        references, targets = torch.randint(self.pictures, (2, batch_size))
        texts = [str(number % TEXTS) for number in range(batch_size)]
        batch = Batch(references, targets, [(text,) for text in texts], None, targets)
        return training.train_step(stage.inputs(batch, texts), targets.to(device)).item()


def line(steps: CombinerSteps, batch_size: int, turns: int) -> str:
    """Measure both ways with a batch size; return their row of the table."""
    ways = {name: (lambda name=name: steps.step(name, batch_size)) for name in steps.stages}
    measured = alternate(ways, turns, warm_up=True)
    batch, bank = measured["batch"], measured["bank"]
    # An epoch takes whole batches alone, as TripletLoader gives them.
    epochs = [_long(TRIPLETS // batch_size * way.seconds) for way in (batch, bank)]
    cells = [
        *(f"{steps.pictures:,}", f"{steps.feature_bytes / 1e6:,.0f} MB", f"{batch_size:,}"),
        *(time_cell(batch), time_cell(bank), f"{bank.seconds / batch.seconds:.2f} ×"),
        *(memory_cell(batch), memory_cell(bank), *epochs),
    ]
    return f"| {' | '.join(cells)} |"


def _long(seconds):
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.3g} s"


@one_line_errors
def main(argv=None):
    args = parse_arguments(argv)
    lines = [f"| {' | '.join(HEAD)} |", "|---" * len(HEAD) + "|"]
    for pictures in args.pictures:
        steps = CombinerSteps(pictures, args.projection_dim, args.hidden_dim)
        for batch_size in args.batches:
            lines.append(line(steps, batch_size, args.turns))
            print(lines[-1], file=sys.stderr)
    table = "\n".join(lines)
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "bank.md").write_text(table + "\n", encoding="utf-8")
    print(f"{table}\n\n{machine()}")


if __name__ == "__main__":
    main()
