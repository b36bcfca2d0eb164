"""Say what this machine can do with a CLIP: speeds, what fits, hours of the published recipe, and the flags to use.

    python -m benchmarks.machine --clip-model-name ViT-B/32

One of OpenAI's names gets random weights, which are as fast, so nothing is downloaded. On a card it also compares what
is computed there with the processor (benchmarks/checks.py); --check does so without a card.
"""

import os
from argparse import Namespace
from pathlib import Path

from src.base.parser import Parser, count, file_path, name_or_file


def parse_arguments(argv=None) -> Namespace:
    parser = Parser("Say what this machine can do with a CLIP, what fits, and the flags to use.")
    help_text = "a CLIP as every command takes it; OpenAI's names get random weights"
    parser.add_argument("--clip-model-name", type=name_or_file, default="RN50x4", help=help_text)
    help_text = "folder of pictures to read (default: photographs of 500 pixels drawn for it)"
    parser.add_argument("--pictures", type=file_path, metavar="FOLDER", help=help_text)
    help_text = "of the smaller of two measured steps (default: 2, on a card 32)"
    parser.add_argument("--triplets", type=count, metavar="N", help=help_text)
    help_text = "without a card too: compare what two processes compute"
    parser.add_argument("--check", action="store_true", help=help_text)
    return parser.parse_args(argv)


if __name__ == "__main__":
    parse_arguments()  # --help and a wrong flag are answered here, before torch is imported
    os.environ["TQDM_DISABLE"] = "1"  # bars would stand between the lines

import shlex
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import NamedTuple

import torch
from torch.utils.data import Subset

from benchmarks.cases import training_of
from benchmarks.checks import checks
from benchmarks.measure import Measured, alternate, available_memory, has_fast_bf16, machine, timed
from benchmarks.memory import CAPTION, LARGEST, Fit, Steps, fit_on_card, fit_on_processor
from benchmarks.worlds import SIZES, clip_named, write_photographs
from combiner import Combiner
from combiner_train import CombinerTraining
from src.base.errors import InputError, one_line_errors
from src.base.folders import pictures_below
from src.base.parser import usable_cores
from src.models.backbone import Backbone
from src.models.weights import size_of
from src.pictures.opening import opened
from src.pictures.pictures import Pictures
from src.pictures.transforms import make_transform
from src.processes.loading import Loader
from src.retrieval.encoder import to_device
from utils import device, extract_caption_features

BATCH, COMBINER_BATCH = 128, 4096
"""Triplets of a step of both stages, as published."""
DRAWN = 32
"""Pictures, where no folder is given."""
MOST = 64
"""Pictures of a given folder."""


class Amounts(NamedTuple):
    """How much the published recipe takes of a data set, as its annotation files count."""

    triplets: int
    pictures: int
    """Those that training triplets name."""
    texts: int
    """Those that training may draw."""
    gallery: int
    """Pictures of all validation galleries."""
    queries: int


AMOUNTS = {
    "CIRR": Amounts(28_225, 16_939, 28_225, 2_297, 4_181),
    "FashionIQ": Amounts(18_000, 36_000, 72_000, 15_536, 6_016),  # pictures: at most, two for each triplet
}


# ---- reading pictures ----


class Reading(NamedTuple):
    """Pictures a second from disk."""

    decoded: float
    """By one process."""
    transformed: float
    """By one process, decoded and behind the transform."""
    workers: int
    """Processes that were enough, or all that there may be."""
    loaded: float
    """By these workers."""


def reading(paths: Sequence[Path], backbone: Backbone, needed: float) -> Reading:
    """Measure Reading of picture files for a device that takes `needed` pictures a second."""
    preprocess = make_transform("targetpad", 1.25, backbone.resolution, backbone.normalisation)
    decoded = _rate(paths, lambda image: image.convert("RGB").size)
    transformed = _rate(paths, preprocess)
    pictures = Pictures({str(path): path for path in paths}, preprocess)
    workers, loaded = 1, transformed
    while workers < usable_cores() and loaded < needed:
        workers = min(2 * workers, usable_cores())
        loaded = _loaded(pictures, workers, transformed)
    return Reading(decoded, transformed, workers, loaded)


def chosen_pictures(folder: Path) -> list[Path]:
    """Return some pictures below a folder, from all parts of it; raises InputError when there are none."""
    paths = list(pictures_below(folder).values())
    if not paths:
        raise InputError(f"--pictures {folder}: holds no pictures, at no depth")
    return paths[:: -(-len(paths) // MOST)]


def _rate(paths, preprocess):
    for path in paths:
        _forget(path)
    seconds, _ = timed(lambda: [opened(path, preprocess) for path in paths])
    return len(paths) / seconds


def _forget(path):
    """Let the system read a file from its disk again, where it can be asked to."""
    if hasattr(os, "posix_fadvise"):
        with path.open("rb") as file:
            os.fsync(file.fileno())  # what is not yet written cannot be forgotten
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _loaded(pictures, workers, alone):
    """Return the pictures a second of so many workers, from their first batch on: a second's work of theirs."""
    batch = 8
    ahead = workers  # batches, which all begin at once
    batches = ahead + max(workers, round(alone * workers / batch))
    numbers = [number % len(pictures) for number in range(batch * batches)]
    loading = iter(Loader(Subset(pictures, numbers), workers, batch_size=batch))
    for _ in islice(loading, ahead):
        pass
    seconds, _ = timed(lambda: sum(1 for _ in loading))
    return (batches - ahead) * batch / seconds


# ---- computing ----


class Computing(NamedTuple):
    """What the device computes with CLIP."""

    pictures: float
    """Encoded a second, in fp32 as galleries are."""
    captions: float
    """Tokenised and encoded a second."""
    precisions: dict[str, Measured]
    """{name of --precision: a step of the smaller size}"""
    precision: str
    """The one that pays: the fastest, if by a tenth over what "auto" takes."""


def computing(backbone: Backbone, steps: Steps, triplets: int) -> Computing:
    """Measure Computing on random pictures, four times as many as `triplets`."""
    rates = encoding(backbone, 4 * triplets)
    names = ("fp16", "bf16", "fp32") if device.type == "cuda" else ("fp32", "bf16")
    names = [name for name in names if name != "bf16" or has_fast_bf16()]
    ways = {name: steps.prepare(triplets, precision=name) for name in names}
    precisions = alternate(ways, 3)  # of which the first, slow one is no median
    usual, best = names[0], min(names, key=lambda name: precisions[name].seconds)
    pays = precisions[best].seconds < 0.9 * precisions[usual].seconds
    return Computing(*rates, precisions, best if pays else usual)


def encoding(backbone: Backbone, batch_size: int) -> tuple[float, float]:
    """Measure the random pictures encoded a second, and the captions, of which there are four times as many."""
    images = to_device(torch.randn(batch_size, 3, *[backbone.resolution] * 2))
    captions = [CAPTION] * (4 * batch_size)
    with torch.inference_mode():
        encode = {
            "pictures": lambda: backbone.encode_images(images),
            "captions": lambda: extract_caption_features(captions, backbone),
        }
        found = alternate(encode, 3)
    return len(images) / found["pictures"].seconds, len(captions) / found["captions"].seconds


# ---- what fits ----


def held(steps: Steps, precision: str, triplets: int) -> tuple[int, int] | None:
    """Measure the bytes that forward passes of `triplets` and of twice as many hold; None where no system tells."""
    ways = {size: steps.forward(size, precision) for size in (triplets, 2 * triplets)}
    small, large = (measured.peak_bytes for measured in alternate(ways, 1, warm_up=True).values())
    return None if small is None else (small, large)


def fitting(steps: Steps, precision: str, triplets: int, peaks: tuple[int, int]) -> Fit:
    """Find what fits on this device."""
    # Of pictures in bytes, two for each triplet: a batch in the step, the next, and two that workers have ready.
    waiting = 4 * 2 * 3 * steps.backbone.resolution**2
    room = available_memory(torch.device("cpu"))
    if device.type == "cuda":
        return fit_on_card(steps, triplets, precision, room, waiting)
    return fit_on_processor(room, sum(map(size_of, steps.learning)), triplets, peaks, waiting)


# ---- hours ----


def combiner_step(dimension: int, triplets: int) -> Callable[[int], float]:
    """Measure two steps of stage 2; return the function from a number of triplets to the seconds of a step."""
    stage = CombinerTraining(Combiner(dimension, 2560, 5120).to(device), None, None, [])
    optimizer = torch.optim.Adam(stage.parameters(), lr=2e-5, fused=True)
    sizes = 16 * triplets, 64 * triplets
    ways = {
        size: partial(training_of(stage, optimizer, size).train_step, torch.randn(3, size, dimension, device=device))
        for size in sizes
    }
    small, large = (measured.seconds for measured in alternate(ways, 3).values())
    each = max(large - small, large / 2) / (sizes[1] - sizes[0])
    return lambda size: max(0, large - each * sizes[1]) + each * size


def hours(amounts: Amounts, step: float, computed: Computing, loaded: float, combiner: Callable) -> tuple[float, float]:
    """Return the hours of both stages of the published recipe, with a validation in every epoch.

    `step` is the seconds of a triplet in stage 1; a device may wait for pictures, of which `loaded` come a second.
    """
    encoded = min(computed.pictures, loaded)
    triplet = max(step, 2 / loaded)  # at most: pictures of several triplets are loaded once
    gallery, queries = amounts.gallery / encoded, amounts.queries / computed.captions
    first = 100 * (amounts.triplets // BATCH * BATCH * triplet + gallery + queries)
    once = amounts.pictures / encoded + amounts.texts / computed.captions + gallery + queries
    # Without a backward pass a query takes a third.
    epoch = amounts.triplets // COMBINER_BATCH * combiner(COMBINER_BATCH) + combiner(amounts.queries) / 3
    return first / 3600, (once + 300 * epoch) / 3600


# ---- what is said ----


def flags(name: str, computed: Computing, read: Reading, fit: Fit | None, waits: bool) -> str:
    """Return stage 1 on CIRR as a command line that suits this machine; `waits` says that pictures come too slowly."""
    batch_size = BATCH if fit is None else max(2, min(BATCH, fit.in_pieces))
    options = ["--dataset", "CIRR", "--num-epochs", "100", "--batch-size", str(batch_size), "--learning-rate", "2e-6"]
    options += ["--clip-model-name", name, "--num-workers", str(read.workers)]
    if fit is not None and fit.at_once < batch_size:
        options += ["--clip-bs", str(fit.pieces)]
    if computed.precision != next(iter(computed.precisions)):
        options += ["--precision", computed.precision]
    if waits:
        options += ["--image-cache", "pixels"]
    return shlex.join(["python", "clip_fine_tune.py", *options, "--save-training", "--save-best"])


def said(name: str, backbone: Backbone, paths: Sequence[Path], triplets: int) -> Iterator[str]:
    """Yield what this machine can do, a line as soon as it is measured; the last is a command line."""
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
    read = reading(paths, backbone, max(computed.pictures, 2 / triplet))
    rates = f"{figure(read.decoded)} pictures a second decoded, {figure(read.transformed)} behind the transform"
    yield f"from disk: {rates}, by one process"
    takes = f"training takes {figure(2 / triplet)}, encoding {figure(computed.pictures)}"
    yield f"workers: {read.workers}, which load {figure(read.loaded)} pictures a second; {takes}"

    peaks, fit = held(steps, computed.precision, triplets), None
    if peaks is not None:
        gradients = sum(map(size_of, steps.learning))
        fit = fitting(steps, computed.precision, triplets, peaks)
        taken = f"a step of {2 * triplets} takes {(peaks[1] + gradients) / 1e9:.2f} GB beyond weights and optimizer"
        more = " or more" if fit.at_once == LARGEST else ""
        yield f"fits: {fit.at_once:,} triplets at once{more}, {fit.in_pieces:,} with --clip-bs {fit.pieces}; {taken}"

    combiner = combiner_step(backbone.dimension, triplets)
    for dataset, amounts in AMOUNTS.items():
        first, second = map(figure, hours(amounts, triplet, computed, read.loaded, combiner))
        yield f"hours on {dataset}: {first} for stage 1 (100 epochs), {second} for stage 2 (300 epochs)"
    yield flags(name, computed, read, fit, waits=read.loaded < 2 / triplet)


def figure(number: float) -> str:
    """Return a measured number with as many digits as it deserves."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


@one_line_errors
def main(argv=None):
    args = parse_arguments(argv)
    print(f"machine: {machine()}", flush=True)
    backbone = clip_named(args.clip_model_name)
    with tempfile.TemporaryDirectory() as folder:
        paths = write_photographs(Path(folder), DRAWN) if args.pictures is None else chosen_pictures(args.pictures)
        results = []
        for result in checks(backbone, Path(folder)) if args.check or device.type == "cuda" else ():
            print(result, flush=True)
            results.append(result)
        triplets = args.triplets or (32 if device.type == "cuda" else 2)
        for line in said(args.clip_model_name, backbone, paths, triplets):
            print(line, flush=True)
    if not all(result.holds for result in results):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
