"""Measure the memory of a step of stage 1 over the batch size: the whole batch at once, and in pieces (--clip-bs).

    python -m benchmarks.memory

Writes memory.json and memory.png to this folder, or to --output. A CLIP of random weights, fp32; memory beyond the
model and the optimizer's state, gradients included.
"""

from argparse import Namespace
from pathlib import Path

from src.base.parser import Parser, count


def parse_arguments(argv=None) -> Namespace:
    parser = Parser("Measure the memory and the time of a step of stage 1, the whole batch at once and in pieces.")
    parser.add_argument("--model", default="ViT-B/32", help="whose size the random CLIP has")
    parser.add_argument("--clip-bs", type=count, default=8, help="pictures or captions at once, of the batch in pieces")
    parser.add_argument("--whole", type=count, nargs="+", default=[8, 32, 128], help="batch sizes of both ways")
    parser.add_argument("--pieces", type=count, nargs="*", default=[512], help="batch sizes in pieces alone")
    parser.add_argument("--repeats", type=count, default=3, help="of every step, the ways in turn")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent, help="receives the results")
    return parser.parse_args(argv)


if __name__ == "__main__":
    parse_arguments()  # --help and a wrong flag are answered here, before torch is imported

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from statistics import median
from typing import NamedTuple

import torch

from benchmarks.cases import training_of
from benchmarks.measure import held_memory, machine, peak_memory, timed
from benchmarks.worlds import SIZES, clip_of_size
from clip_fine_tune import FineTuning
from data_utils import Batch
from src.base.errors import one_line_errors, require_one_of
from src.base.files import write_json
from src.command.page import plain_figure
from src.models.backbone import ENCODERS, Backbone
from src.models.openai_clip import OpenAIClip
from src.models.weights import size_of
from src.training.losses import contrastive_loss
from utils import autocast

LARGEST = 4096
"""Triplets above which a card is not tried."""
USABLE = 0.8
"""The part of the free memory that is planned for: two small steps do not tell a large one exactly."""
CAPTION = "is the same kind of dress but shorter, in a darker colour and without the sleeves"


class Step(NamedTuple):
    """What a step cost."""

    batch_size: int
    seconds: float
    """The median of its repeats."""
    extra_bytes: int
    """The peak beyond model and optimizer."""
    process_bytes: int
    """The peak of the whole process."""


class Steps:
    """Steps of stage 1 with a CLIP, on random pictures and captions of ordinary length."""

    def __init__(self, backbone: Backbone):
        self.backbone = backbone
        weights = FineTuning(backbone, ENCODERS).parameters()
        self.learning = [weight for weight in weights if weight.requires_grad]
        self.optimizer = torch.optim.AdamW(self.learning, lr=2e-6, eps=1e-7, fused=True)
        for weight in self.learning:
            weight.grad = torch.zeros_like(weight)
        self.optimizer.step()  # a step of nothing, so that the optimizer's state is there and does not count
        self.optimizer.zero_grad()

    def prepare(self, batch_size: int, clip_bs: int | None = None, precision: str = "auto") -> Callable[[], int | None]:
        """Make the pictures of a step; return the function that takes it, and gives the --clip-bs that it fitted with.

        That is None where the batch fitted at once.
        """
        stage = FineTuning(self.backbone, ENCODERS, None, clip_bs)
        inputs = self._inputs(stage, batch_size)
        training = training_of(stage, self.optimizer, batch_size, precision=precision)

        def step():
            training.train_step(inputs)
            return stage.clip_bs

        return step

    def forward(self, batch_size: int, precision: str) -> Callable[[], None]:
        """Make the pictures of a step; return the function that holds all that the backward pass would need of them."""
        stage = FineTuning(self.backbone, ENCODERS)
        inputs = self._inputs(stage, batch_size)

        def forward():
            self.optimizer.zero_grad()
            with autocast(precision, training=True):
                contrastive_loss(*stage(inputs))

        return forward

    def _inputs(self, stage, batch_size):
        pixels = torch.randint(256, (2 * batch_size, *[self.backbone.resolution] * 2, 3), dtype=torch.uint8)
        rows, texts = torch.arange(2 * batch_size).view(2, batch_size), [CAPTION] * batch_size
        return stage.inputs(Batch(*rows, texts, pixels), texts)


class Fit(NamedTuple):
    """The largest batches that fit, in triplets."""

    at_once: int
    pieces: int
    """A --clip-bs that fits whatever the batch, a power of two."""
    in_pieces: int
    """With this --clip-bs."""


def fit_on_processor(room: int, gradients: int, triplets: int, peaks: tuple[int, int], waiting: int) -> Fit:
    """Compute Fit from `room` bytes of memory, which must not be tried: the system would end this process.

    `gradients` bytes come with the backward pass. `peaks` are what forward passes of `triplets` and of twice as many
    hold, and `waiting` what lies in memory of each triplet's pictures.
    """
    small, large = peaks
    each = max(0, large - small) / triplets
    fixed = gradients + max(0, small - triplets * each)
    at_once = max(0, int((USABLE * room - fixed) / (each + waiting)))
    pieces = _power_of_two(at_once)
    # A piece is of pictures, of which a triplet has two; its gradients grow beside those of the batch.
    held = fixed + gradients + pieces * each / 2
    return Fit(at_once, pieces, max(0, int((USABLE * room - held) / waiting)))


def fit_on_card(steps: Steps, triplets: int, precision: str, host: int, waiting: int) -> Fit:
    """Find Fit by taking ever larger steps until a card is full; `host` bytes of memory hold the pictures that wait."""
    at_once = largest_that_fits(lambda size: steps.prepare(size, precision=precision)() is None, triplets)
    return Fit(at_once, _power_of_two(at_once), int(USABLE * host / waiting))


def _power_of_two(at_once):
    """Return a --clip-bs that takes no more than a batch of `at_once` triplets, and no more than it is worth."""
    return 2 ** (max(1, min(at_once, 128)).bit_length() - 1)


def largest_that_fits(fits: Callable[[int], bool], batch_size: int) -> int:
    """Return the largest of `batch_size`, twice as much and so on up to LARGEST that fits; the first one does."""
    while batch_size < LARGEST and fits(2 * batch_size):
        batch_size *= 2
    return batch_size


def measured(model: str, batch_size: int, clip_bs: int | None) -> Step:
    """Take a step in this process, which must do nothing else."""
    clip_model = clip_of_size(model)
    before = held_memory()
    steps = Steps(OpenAIClip(clip_model))
    seconds, _ = timed(steps.prepare(batch_size, clip_bs))
    peak = peak_memory()
    return Step(batch_size, seconds, peak - before - 2 * sum(map(size_of, steps.learning)), peak)


def in_a_process_of_its_own(*arguments) -> Step:
    """Call `measured` where no memory that another measurement left can serve again, and so not count."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(measured, *arguments).result()


def in_turn(ways: dict[str, int | None], model: str, batch_size: int, repeats: int) -> dict[str, Step]:
    """Take steps of `ways` {way: --clip-bs} in turn; return {way: Step} with the most memory of any repeat."""
    steps = {way: [] for way in ways}
    for _ in range(repeats):
        for way, clip_bs in ways.items():
            steps[way].append(in_a_process_of_its_own(model, batch_size, clip_bs))
    columns = {way: list(zip(*some, strict=True)) for way, some in steps.items()}
    return {
        way: Step(batch_size, median(seconds), max(extra), max(whole))
        for way, (_, seconds, extra, whole) in columns.items()
    }


def draw(points: dict[str, list[Step]], args: Namespace, path: Path) -> None:
    """Draw both ways' peak memory over the batch size, both axes logarithmic."""
    with plain_figure(figsize=(6, 4), layout="constrained") as figure:
        _draw(figure.subplots(), points, args)
        figure.savefig(path, dpi=120)


def _draw(panel, points, args):
    for way, label in (("whole", "whole batch at once"), ("pieces", f"--clip-bs {args.clip_bs}")):
        sizes, _, peaks, _ = zip(*points[way], strict=True)
        panel.loglog(sizes, [peak / 1e9 for peak in peaks], marker="o", label=label, base=2)
    panel.set(xlabel="triplets in a batch", ylabel="GB beyond model and optimizer")
    panel.set_title(f"A step of stage 1, {args.model}, fp32")
    panel.xaxis.set_major_formatter("{x:g}")
    panel.yaxis.set_major_formatter("{x:g}")
    panel.grid(True, which="major", alpha=0.3)
    panel.legend(frameon=False)


@one_line_errors
def main(argv=None):
    args = parse_arguments(argv)
    require_one_of(args.model, SIZES, "size")
    points = {"whole": [], "pieces": []}
    for batch_size in (*args.whole, *args.pieces):
        ways = {"whole": None, "pieces": args.clip_bs} if batch_size in args.whole else {"pieces": args.clip_bs}
        for way, step in in_turn(ways, args.model, batch_size, args.repeats).items():
            points[way].append(step)
            extra, whole = (size / 1e9 for size in (step.extra_bytes, step.process_bytes))
            print(f"batch {batch_size}, {way}: {step.seconds:.1f} s, {extra:.2f} GB beyond model and optimizer", end="")
            print(f", {whole:.2f} GB in all", flush=True)

    args.output.mkdir(parents=True, exist_ok=True)
    write_json(args.output / "memory.json", {"machine": machine(), "model": args.model, "points": points}, indent=1)
    draw(points, args, args.output / "memory.png")


if __name__ == "__main__":
    main()
