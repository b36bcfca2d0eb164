"""Benchmark cases: each fast path next to the plain way of doing the same."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from torch.utils.data import DataLoader

from benchmarks import plain
from benchmarks.measure import Measured, alternate, has_fast_bf16
from benchmarks.steps import CombinerSteps, Steps, training_of
from benchmarks.worlds import clip_of_size
from clip_fine_tune import FineTuning
from combiner import Combiner
from combiner_train import CombinerTraining, encode_triplets
from data_utils import CIRRDataset
from src.models.backbone import ENCODERS, Backbone
from src.models.openai_clip import OpenAIClip
from src.pictures.cache import ImageCache
from src.pictures.normalisation import OPENAI_NORMALISATION, normalised
from src.pictures.pictures import Pictures
from src.pictures.transforms import make_transform
from src.retrieval.ranking import rank_targets
from src.tasks.registry import TASKS
from src.training.batches import Batch, TripletLoader, TripletRows
from src.training.losses import contrastive_loss
from utils import Encoder, autocast, device, extract_caption_features, extract_index_features
from validate import compute_cirr_val_metrics

COMBINER_BATCH = 256
CIRR = TASKS["CIRR"]


class Row(NamedTuple):
    """A row of the table."""

    what: str
    plain: Measured | None  # None where the plain way cannot run
    ours: Measured


Curve = dict[str, list[tuple[int, float, int | None]]]
"""{way: [(size, seconds, peak bytes)]}"""


class World(NamedTuple):
    """The data and the CLIP of all cases."""

    data_path: Path  # small pictures, in CIRR's layout
    large_pictures: Path  # pictures of ordinary size, in the same layout
    backbone: Backbone  # a CLIP for the small pictures
    captions: list[str]
    workers: int  # processes that load pictures
    quick: bool  # measure very little, only to see that it runs

    def size(self, whole, quick):
        """Choose how much to measure."""
        return quick if self.quick else whole

    def model(self, name: str) -> nn.Module:
        """Make a CLIP of a published size, or return the small one."""
        return self.backbone.model if self.quick else clip_of_size(name)


def combiner_epochs(world: World) -> Iterator[Row]:
    """Measure an epoch of stage 2 on small and on ordinary pictures, and its bare arithmetic on tensors in memory."""
    small = _Epochs(world, world.data_path, world.size(1024, 32))
    large = _Epochs(world, world.large_pictures, world.size(256, 4))
    for name, epochs, repeats in (("64-pixel pictures", small, 3), ("500-pixel PNGs", large, 2)):
        measured = alternate({"plain": epochs.plain, "ours": epochs.ours}, world.size(repeats, 1), warm_up=True)
        yield Row(f"stage 2, an epoch of {epochs.size} triplets, {name}", **measured)
    whole = _Epochs(world, world.data_path, world.size(9000, 32))
    measured = alternate({"plain": whole.arithmetic, "ours": whole.ours}, world.size(5, 1), warm_up=True)
    yield Row(f"the same, {whole.size} triplets, beside its bare arithmetic on tensors in memory", **measured)


class _Epochs:
    """Epochs of stage 2 over the first training triplets of a folder: as published, ours, and bare arithmetic."""

    def __init__(self, world, data_path, triplets):
        self.backbone, self.workers = world.backbone, world.workers
        preprocess = make_transform("targetpad", 1.25, self.backbone.resolution)
        self.training_set = CIRRDataset("train", "relative", preprocess, data_path)
        del self.training_set.triplets[triplets:]
        split = _training_split(data_path)
        split = split._replace(triplets=split.triplets[:triplets])
        self.size = len(self.training_set)
        self.batch_size = min(COMBINER_BATCH, self.size)
        self.combiner = Combiner(self.backbone.dimension, 256, 512).to(device)
        self.optimizer = torch.optim.Adam(self.combiner.parameters(), lr=2e-5)

        rows = TripletRows([split], preprocess)
        encoder = Encoder(self.backbone, ENCODERS, num_workers=world.workers)
        self.stage = CombinerTraining(self.combiner, *encode_triplets(rows, CIRR, encoder))
        loader = TripletLoader(rows, self.batch_size, num_workers=0, seed=0)
        fused = torch.optim.Adam(self.combiner.parameters(), lr=2e-5, fused=True)
        self.training = training_of(self.stage, fused, self.batch_size, loader=loader)
        self.batches = [self.stage.inputs(batch, [text for (text,) in batch.captions]) for batch in loader]

    def plain(self):
        """Open and encode both pictures of every triplet, as the published code does in each epoch."""
        options = {"shuffle": True, "num_workers": self.workers, "drop_last": True}
        loader = DataLoader(self.training_set, self.batch_size, **options)
        plain.combiner_epoch(loader, self.backbone.model, self.combiner, self.optimizer)

    def ours(self):
        """Train on features that were extracted once."""
        self.training.train_epoch(0)

    def arithmetic(self):
        """Train on batches that are ready in memory; no loop could be faster."""
        self.stage.train()
        for batch in self.batches:
            loss = contrastive_loss(*self.stage(batch))
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()


def second_start(world: World) -> Iterator[Row]:
    """Measure how long the features of stage 2 take, first from pictures, then from the feature cache."""
    preprocess = make_transform("targetpad", 1.25, world.backbone.resolution)
    triplets = TripletRows([_training_split(world.large_pictures)], preprocess)
    with tempfile.TemporaryDirectory() as folder:
        # A new folder for each, so nothing is cached; then the newest.
        caches = (Path(folder) / str(number // 2) for number in count())

        def encode():
            encode_triplets(triplets, CIRR, Encoder(world.backbone, ENCODERS, next(caches), world.workers))

        measured = alternate({"plain": encode, "ours": encode}, world.size(3, 1))
    yield Row(f"stage 2, features of {len(triplets.pictures)} 500-pixel PNGs ready, second start", **measured)


def bank(world: World) -> Iterator[Row]:
    """Measure a step of stage 2 with the negatives of its batch, and with those of a bank (--negatives bank)."""
    sizes = world.size(((17_000, 256), (17_000, 4096), (400_000, 256), (400_000, 4096)), ((50, 8),))
    for pictures, batch_size in sizes:
        steps = CombinerSteps(pictures, *world.size((640, 2560, 5120), (640, 16, 32)))
        ways = {"plain": partial(steps.step, "batch", batch_size), "ours": partial(steps.step, "bank", batch_size)}
        measured = alternate(ways, world.size(2, 1), warm_up=True)
        yield Row(f"stage 2, a step of {batch_size:,} triplets, bank of {pictures:,} pictures", **measured)


def ranking(world: World) -> Iterator[Row]:
    """Measure CIRR's metrics with two sizes of the gallery, and the ranks of the same queries in a very large one."""
    queries = world.size(4181, 20)
    for images, dim, repeats in world.size(((2297, 640, 3), (20_000, 128, 1)), ((50, 16, 1),)):
        question = _Queries(images, dim, queries)
        measured = alternate({"plain": question.plain, "ours": question.ours}, repeats)
        assert measured["plain"].result == measured["ours"].result
        yield Row(f"CIRR's metrics, {queries:,} queries over {images:,} pictures, {dim} dimensions", **measured)

    images, dim = world.size((1_000_000, 640), (5000, 16))
    predicted, gallery = torch.randn(queries, dim, device=device), torch.randn(images, dim, device=device)
    targets = torch.randint(images, (queries,), device=device)
    measured = alternate({"ours": lambda: rank_targets(predicted[None], gallery, targets)}, 1)
    # The plain way would need hundreds of gigabytes for an array of names.
    yield Row(f"ranks of {queries:,} queries among {images:,} pictures, {dim} dimensions", None, measured["ours"])


class _Queries:
    """Random queries close to their targets, like those of CIRR's validation split."""

    def __init__(self, images, dim, queries):
        self.size = images
        draws = torch.Generator().manual_seed(0)
        self.names = [f"dev-{number}-{number % 4}-img0" for number in range(images)]
        features = torch.randn(images, dim, generator=draws)
        groups = torch.stack([torch.randperm(images, generator=draws)[:6] for _ in range(queries)])
        predicted = features[groups[:, 1]] + 3 * torch.randn(queries, dim, generator=draws)
        self.features, self.predicted = features.to(device), predicted.to(device)
        self.groups = [[self.names[row] for row in group] for group in groups.tolist()]

    def plain(self):
        references, targets = ([group[place] for group in self.groups] for place in (0, 1))
        return plain.cirr_recalls(self.predicted, self.features, self.names, references, targets, self.groups)

    def ours(self):
        queries = [(group[0], group[1], "", group) for group in self.groups]
        return compute_cirr_val_metrics(queries, None, self.features, self.names, lambda _, text: text, self.predicted)


def text_encoding(world: World) -> Iterator[Row]:
    """Measure the encoding of real captions: padded to CLIP's context, and only to the longest of the batch."""
    clip_model, captions = world.model("ViT-B/32"), world.captions[:: len(world.captions) // world.size(160, 8)]
    ways = {"plain": plain.encode_captions, "ours": extract_caption_features}
    ways = {name: partial(encode, captions, clip_model) for name, encode in ways.items()}
    measured = alternate(ways, world.size(2, 1))
    torch.testing.assert_close(measured["ours"].result, measured["plain"].result, rtol=0, atol=1e-5)
    yield Row(f"text encoding, ViT-B/32, {len(captions)} captions", **measured)


def gallery_encoding(world: World) -> Iterator[Row]:
    """Measure the encoding of a gallery in fp32 and bf16."""
    clip_model = world.model("RN50x4")
    images = torch.randn(2, 3, *[clip_model.visual.input_resolution] * 2)

    def ours(precision):
        clip_model.to(memory_format=torch.channels_last)
        with autocast(precision):
            extract_index_features(list(zip("ab", images, strict=True)), clip_model)

    def published():
        clip_model.to(memory_format=torch.contiguous_format)
        plain.encode_images(images.to(device), clip_model)

    yield from _in_precisions("gallery encoding, RN50x4, 2 pictures", published, ours, ("fp32", "bf16"), world)


def fine_tuning_steps(world: World) -> Iterator[Row]:
    """Measure a step of stage 1, in bf16 too where the processor has instructions for it."""
    precisions = ("fp32", "bf16") if has_fast_bf16() or world.quick else ("fp32",)
    captions = world.captions[: world.size(8, 4)]
    for name in ("ViT-B/32", "RN50"):
        what = f"stage 1, a step of {len(captions)} triplets, {name}"
        yield from _in_precisions(what, *_steps(world.model(name), captions), precisions, world)


def _steps(clip_model, captions):
    triplets = len(captions)
    pixels = torch.randint(256, (2 * triplets, *[clip_model.visual.input_resolution] * 2, 3), dtype=torch.uint8)
    images = normalised(pixels, OPENAI_NORMALISATION).contiguous().split(triplets)
    batch = Batch(*torch.arange(2 * triplets).view(2, triplets), captions, pixels)
    stage = FineTuning(OpenAIClip(clip_model), ENCODERS)
    learning = [parameter for parameter in stage.parameters() if parameter.requires_grad]
    usual, fused = (torch.optim.AdamW(learning, lr=2e-6, eps=1e-7, fused=fused) for fused in (False, True))

    def published():
        clip_model.to(memory_format=torch.contiguous_format)
        references, targets = (pictures.to(device) for pictures in images)
        plain.fine_tuning_step(references, targets, captions, clip_model, usual)

    def ours(precision):
        clip_model.to(memory_format=torch.channels_last)
        training_of(stage, fused, triplets, precision=precision).train_step(stage.inputs(batch, captions))

    return published, ours


def _in_precisions(what, published, ours, precisions, world):
    ways = {"plain": published} | {precision: partial(ours, precision) for precision in precisions}
    measured = alternate(ways, world.size(2, 1))
    return [Row(f"{what}, {precision}", measured["plain"], measured[precision]) for precision in precisions]


def pieces(world: World) -> Iterator[Row]:
    """Measure a step of stage 1 with the whole batch at once, and in pieces (--clip-bs)."""
    clip_bs = 8
    steps = Steps(OpenAIClip(world.model("ViT-B/32")))
    for batch_size in world.size((8, 32, 128, 512), (16,)):
        whole = {"plain": steps.prepare(batch_size)} if batch_size <= 128 else {}  # more takes too much memory
        measured = alternate(whole | {"ours": steps.prepare(batch_size, clip_bs)}, world.size(3, 1))
        what = f"stage 1, a step of {batch_size} triplets, ViT-B/32, --clip-bs {clip_bs}"
        yield Row(what, measured.get("plain"), measured["ours"])


def image_cache(world: World) -> Iterator[Row]:
    """Measure how long stage 1 waits for pictures of ordinary size, from their files and from the image cache."""
    dim = world.size(288, 64)
    preprocess = make_transform("targetpad", 1.25, dim)
    from_files = TripletRows([_training_split(world.large_pictures)], preprocess).pictures
    numbers = list(range(min(128, len(from_files))))
    with tempfile.TemporaryDirectory() as folder:
        cache = ImageCache(Path(folder), preprocess)
        cache.fill(list(from_files.paths.values()), world.workers)
        cached = Pictures(from_files.paths, preprocess, cache)
        ways = {"plain": lambda: from_files.images(numbers), "ours": lambda: cached.images(numbers)}
        measured = alternate(ways, world.size(3, 1))
        assert torch.equal(measured["plain"].result, measured["ours"].result)
    yield Row(f"{len(numbers)} 500-pixel PNGs as {dim}-pixel tensors, image cache", **measured)


def growth(world: World) -> dict[str, Curve]:
    """Measure CIRR's metrics in ever larger galleries, and epochs of ever more triplets; return {what grows: Curve}."""
    pictures = world.size((1000, 3000, 10_000, 30_000, 100_000), (50, 100))
    triplets = world.size((256, 512, 1024, 2048, 4096, 8192), (16, 32))
    # With more pictures the plain way would take gigabytes, with more triplets minutes. Queries are a tenth of CIRR's.
    in_galleries = _curve(pictures, 30_000, lambda size: _Queries(size, 128, world.size(418, 20)))
    epochs = _curve(triplets, 1024, lambda size: _Epochs(world, world.data_path, size))
    return {"pictures in the gallery": in_galleries, "triplets": epochs}


def _curve(sizes: Sequence[int], largest_plain: int, make: Callable[[int], _Queries | _Epochs]) -> Curve:
    curve = {"plain": [], "ours": []}
    for size in sizes:
        made = make(size)
        ways = {"ours": made.ours} | ({"plain": made.plain} if size <= largest_plain else {})
        for name, measured in alternate(ways, 1, warm_up=size == sizes[0]).items():
            curve[name].append((made.size, measured.seconds, measured.peak_bytes))
    return curve


def _training_split(data_path):
    (split,) = CIRR.read_all(data_path, "train").values()
    return split


CASES = (combiner_epochs, second_start, ranking, text_encoding, gallery_encoding, fine_tuning_steps, image_cache)
LONG_CASES = (bank, pieces)  # they take longer than all others together, and run only when named
