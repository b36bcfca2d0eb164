"""What this machine can do with a CLIP: speeds, what fits, hours of the published recipe, and the flags to use.

    python -m benchmarks.machine --clip-model-name ViT-B/32

OpenAI's names get random weights, which are as fast, so nothing is downloaded. On a card it also compares the card's
results with the processor's (benchmarks/checks.py); --check runs these checks without a card.
"""

import os
from argparse import Namespace
from pathlib import Path

from src.command.parser import Parser, count, file_path, name_or_file


def parse_arguments(argv=None) -> Namespace:
    parser = Parser("Measure what this machine can do with a CLIP and what fits; print the flags to use.", __doc__)
    parser.prog = "python -m benchmarks.machine"
    help_text = "a CLIP as every command takes it; OpenAI's names get random weights"
    parser.add_argument("--clip-model-name", type=name_or_file, default="RN50x4", help=help_text)
    help_text = "folder of pictures to read (default: generated photographs of 500 pixels)"
    parser.add_argument("--pictures", type=file_path, metavar="FOLDER", help=help_text)
    help_text = "triplets in the smaller of two measured steps (default: 2, on a card 32)"
    parser.add_argument("--triplets", type=count, metavar="N", help=help_text)
    parser.add_argument("--check", action="store_true", help="run the checks without a card too")
    return parser.parse_args(argv)


if __name__ == "__main__":
    parse_arguments()  # --help and a wrong flag are answered here, before torch is imported
    os.environ["TQDM_DISABLE"] = "1"  # bars would break up the lines

import shlex
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import NamedTuple

import torch
from torch.utils.data import Subset

from benchmarks.checks import checks
from benchmarks.fit import LARGEST, Fit, fitting
from benchmarks.measure import Measured, alternate, has_fast_bf16, machine, timed
from benchmarks.steps import CAPTION, CombinerSteps, Steps
from benchmarks.worlds import SIZES, clip_named, write_photographs
from src.base.errors import InputError
from src.base.folders import pictures_below
from src.command.frame import one_line_errors
from src.command.parser import usable_cores
from src.models.backbone import Backbone
from src.models.checkpoints import size_of
from src.pictures.opening import opened
from src.pictures.pictures import Pictures
from src.pictures.transforms import make_transform
from src.processes.loading import Loader
from src.retrieval.encoder import to_device
from utils import device, extract_caption_features

BATCH, COMBINER_BATCH = 128, 4096  # triplets in a step of the stages, as published
DRAWN, MOST = 32, 64  # pictures to read: generated ones, and at most of a given folder


class Amounts(NamedTuple):
    """How much of a data set the published recipe uses, counted in its annotation files."""

    triplets: int
    pictures: int  # in training triplets
    texts: int  # that training may draw
    gallery: int  # pictures in all validation galleries
    queries: int


AMOUNTS = {
    "CIRR": Amounts(28_225, 16_939, 28_225, 2_297, 4_181),
    "FashionIQ": Amounts(18_000, 36_000, 72_000, 15_536, 6_016),  # pictures: at most, two for each triplet
}


def reading(paths: Sequence[Path], backbone: Backbone, needed: float) -> tuple[float, float, int, float]:
    """Measure reading from disk, for a device that needs `needed` pictures a second.

    Returns pictures a second decoded by one process, and decoded and transformed; how many workers are needed, or as
    many as there are cores; and pictures a second loaded by these workers.
    """
    preprocess = make_transform("targetpad", 1.25, backbone.resolution, backbone.normalisation)
    decoded = _rate(paths, lambda image: image.convert("RGB").size)
    transformed = _rate(paths, preprocess)
    pictures = Pictures({str(path): path for path in paths}, preprocess)
    workers, loaded = 1, transformed
    while workers < usable_cores() and loaded < needed:
        workers = min(2 * workers, usable_cores())
        loaded = _loaded(pictures, workers, transformed)
    return decoded, transformed, workers, loaded


def chosen_pictures(folder: Path) -> list[Path]:
    """Choose pictures evenly from all below a folder; raises InputError if there are none."""
    paths = list(pictures_below(folder).values())
    if not paths:
        raise InputError(f"--pictures {folder}: holds no pictures, at no depth")
    return paths[:: -(-len(paths) // MOST)]


def _rate(paths, preprocess):
    for path in paths if hasattr(os, "posix_fadvise") else ():
        with path.open("rb") as file:  # drop it from the system's cache, so that it is read from disk
            os.fsync(file.fileno())  # unwritten pages cannot be dropped
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    seconds, _ = timed(lambda: [opened(path, preprocess) for path in paths])
    return len(paths) / seconds


def _loaded(pictures, workers, by_one):
    """Measure the pictures a second of `workers`, over about a second, after the first batch of each."""
    batch = 8
    batches = workers + max(workers, round(by_one * workers / batch))
    numbers = [number % len(pictures) for number in range(batch * batches)]
    loading = iter(Loader(Subset(pictures, numbers), workers, batch_size=batch))
    for _ in islice(loading, workers):
        pass
    seconds, _ = timed(lambda: sum(1 for _ in loading))
    return (batches - workers) * batch / seconds


class Computing(NamedTuple):
    """Speed of CLIP on the device."""

    pictures: float  # encoded a second, in fp32 like galleries
    captions: float  # tokenised and encoded a second
    precisions: dict[str, Measured]  # {name of --precision: a step of the smaller size}
    precision: str  # the fastest, if a tenth faster than that of "auto"


def computing(backbone: Backbone, steps: Steps, triplets: int) -> Computing:
    """Measure Computing on 4 * `triplets` random pictures, 16 * `triplets` captions, and steps of `triplets`."""
    images = to_device(torch.randn(4 * triplets, 3, *[backbone.resolution] * 2))
    captions = [CAPTION] * (16 * triplets)
    with torch.inference_mode():
        encode_captions = partial(extract_caption_features, captions, backbone)
        encoded = alternate({"pictures": partial(backbone.encode_images, images), "captions": encode_captions}, 3)
    rates = len(images) / encoded["pictures"].seconds, len(captions) / encoded["captions"].seconds
    names = ("fp16", "bf16", "fp32") if device.type == "cuda" else ("fp32", "bf16")
    names = [name for name in names if name != "bf16" or has_fast_bf16()]
    ways = {name: steps.prepare(triplets, precision=name) for name in names}
    precisions = alternate(ways, 3)  # the median ignores the slow first turn
    usual, best = names[0], min(names, key=lambda name: precisions[name].seconds)
    pays = precisions[best].seconds < 0.9 * precisions[usual].seconds
    return Computing(*rates, precisions, best if pays else usual)


def held(steps: Steps, precision: str, triplets: int) -> tuple[int, int] | None:
    """Measure the bytes held by forward passes of `triplets` and twice as many; None if the system cannot say."""
    ways = {size: steps.forward(size, precision) for size in (triplets, 2 * triplets)}
    small, large = (measured.peak_bytes for measured in alternate(ways, 1, warm_up=True).values())
    return None if small is None else (small, large)


def combiner_step(dimension: int, triplets: int) -> Callable[[int], float]:
    """Measure two steps of stage 2; return a function that predicts the seconds of a step of any size."""
    steps, sizes = CombinerSteps(100, dimension), (16 * triplets, 64 * triplets)
    ways = {size: partial(steps.step, "batch", size) for size in sizes}
    small, large = (measured.seconds for measured in alternate(ways, 3).values())
    each = max(large - small, large / 2) / (sizes[1] - sizes[0])
    return lambda size: max(0, large - each * sizes[1]) + each * size


def hours(amounts: Amounts, step: float, computed: Computing, loaded: float, combiner: Callable) -> tuple[float, float]:
    """Compute the hours of both stages of the published recipe, with a validation in every epoch.

    `step` is the seconds of a triplet in stage 1; `loaded` is how many pictures a second the workers load.
    """
    encoded = min(computed.pictures, loaded)
    triplet = max(step, 2 / loaded)  # an upper bound: a picture of several triplets is loaded once
    gallery, queries = amounts.gallery / encoded, amounts.queries / computed.captions
    first = 100 * (amounts.triplets // BATCH * BATCH * triplet + gallery + queries)
    once = amounts.pictures / encoded + amounts.texts / computed.captions + gallery + queries
    # A query has no backward pass, so it takes a third of the time.
    epoch = amounts.triplets // COMBINER_BATCH * combiner(COMBINER_BATCH) + combiner(amounts.queries) / 3
    return first / 3600, (once + 300 * epoch) / 3600


def flags(name: str, computed: Computing, workers: int, fit: Fit | None, waits: bool) -> str:
    """Return the command line of stage 1 on CIRR for this machine; `waits` if pictures are loaded too slowly."""
    batch_size = BATCH if fit is None else max(2, min(BATCH, fit.in_pieces))
    options = ["--dataset", "CIRR", "--num-epochs", "100", "--batch-size", str(batch_size), "--learning-rate", "2e-6"]
    options += ["--clip-model-name", name, "--num-workers", str(workers)]
    if fit is not None and fit.at_once < batch_size:
        options += ["--clip-bs", str(fit.pieces)]
    if computed.precision != next(iter(computed.precisions)):
        options += ["--precision", computed.precision]
    if waits:
        options += ["--image-cache", "pixels"]
    return shlex.join(["python", "clip_fine_tune.py", *options, "--save-training", "--save-best"])


def report(name: str, backbone: Backbone, paths: Sequence[Path], triplets: int) -> Iterator[str]:
    """Yield each line as soon as it is measured; the last line is a command."""
    steps = Steps(backbone)
    random = " with random weights" if name in SIZES else ""
    weights = size_of(backbone.model.state_dict()) / 1e9
    yield f"CLIP: {name}{random}, {backbone.resolution} pixels, {backbone.dimension} dimensions, {weights:.2f} GB"

    computed = computing(backbone, steps, triplets)
    each = ", ".join(f"{name} {figure(step.seconds)} s" for name, step in computed.precisions.items())
    yield f"precision: {computed.precision} pays; a step of stage 1 with {triplets} triplets takes {each}"
    rates = f"{figure(computed.pictures)} pictures and {figure(computed.captions)} captions a second"
    yield f"through CLIP: {rates}, in fp32"

    triplet = computed.precisions[computed.precision].seconds / triplets
    decoded, transformed, workers, loaded = reading(paths, backbone, max(computed.pictures, 2 / triplet))
    rates = f"{figure(decoded)} pictures a second decoded, {figure(transformed)} decoded and transformed"
    yield f"from disk: {rates}, by one process"
    takes = f"training takes {figure(2 / triplet)}, encoding {figure(computed.pictures)}"
    yield f"workers: {workers}, which load {figure(loaded)} pictures a second; {takes}"

    peaks, fit = held(steps, computed.precision, triplets), None
    if peaks is not None:
        gradients = sum(map(size_of, steps.learning))
        fit = fitting(steps, computed.precision, triplets, peaks)
        taken = f"a step of {2 * triplets} takes {(peaks[1] + gradients) / 1e9:.2f} GB beyond weights and optimizer"
        more = " or more" if fit.at_once == LARGEST else ""
        yield f"fits: {fit.at_once:,} triplets at once{more}, {fit.in_pieces:,} with --clip-bs {fit.pieces}; {taken}"

    combiner = combiner_step(backbone.dimension, triplets)
    for dataset, amounts in AMOUNTS.items():
        first, second = map(figure, hours(amounts, triplet, computed, loaded, combiner))
        yield f"hours on {dataset}: {first} for stage 1 (100 epochs), {second} for stage 2 (300 epochs)"
    yield flags(name, computed, workers, fit, waits=loaded < 2 / triplet)


def figure(number: float) -> str:
    """Format a number with three significant digits."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


@one_line_errors
def main(argv=None):
    args = parse_arguments(argv)
    print(f"machine: {machine()}", flush=True)
    backbone = clip_named(args.clip_model_name)
    with tempfile.TemporaryDirectory() as folder:
        drawn = [Path(folder) / f"{number}.png" for number in range(DRAWN)]
        paths = write_photographs(drawn) if args.pictures is None else chosen_pictures(args.pictures)
        results = []
        for result in checks(backbone, Path(folder)) if args.check or device.type == "cuda" else ():
            print(result, flush=True)
            results.append(result)
        triplets = args.triplets or (32 if device.type == "cuda" else 2)
        for line in report(args.clip_model_name, backbone, paths, triplets):
            print(line, flush=True)
    if not all(result.holds for result in results):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
