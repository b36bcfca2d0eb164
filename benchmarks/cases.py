"""Each thing that is made faster, beside the plain way of doing it."""

import tempfile
from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from benchmarks import plain
from benchmarks.measure import Measured, alternate, has_fast_bf16
from benchmarks.worlds import clip_of_size
from clip_fine_tune import FineTuning
from combiner import Combiner
from combiner_train import CombinerTraining, encode_triplets
from data_utils import CIRRDataset
from src.base.parser import usable_cores
from src.command.training_flags import TrainingPlan
from src.models.backbone import ENCODERS, Backbone
from src.models.openai_clip import OpenAIClip
from src.pictures.cache import ImageCache
from src.pictures.normalisation import OPENAI_NORMALISATION, normalised
from src.pictures.pictures import Pictures
from src.pictures.transforms import make_transform
from src.retrieval.ranking import rank_targets
from src.tasks.registry import TASKS
from src.training.batches import Batch, TripletLoader, TripletRows
from src.training.loop import Training
from src.training.losses import contrastive_loss
from utils import Encoder, autocast, device, extract_caption_features, extract_index_features
from validate import compute_cirr_val_metrics

COMBINER_BATCH = 256
CIRR = TASKS["CIRR"]


class Row(NamedTuple):
    """A line of the table; `plain` is None where no plain way could run."""

    what: str
    plain: Measured | None
    ours: Measured


Curve = dict[str, list[tuple[int, float, int | None]]]
"""{way: [(size, seconds, peak bytes)]}"""


class World(NamedTuple):
    """What all cases draw from."""

    data_path: Path
    """Holds small pictures, in CIRR's layout."""
    large_pictures: Path
    """Holds pictures of ordinary size, likewise."""
    backbone: Backbone
    """A CLIP for the small pictures."""
    captions: list[str]
    quick: bool
    """Whether to measure next to nothing, only to see that it runs."""

    def size(self, whole, quick):
        """Return how much to measure."""
        return quick if self.quick else whole

    @property
    def workers(self) -> int:
        """Processes that load pictures. To start them takes longer than to load next to nothing."""
        return self.size(usable_cores(), 0)

    def model(self, name: str) -> nn.Module:
        """Return a CLIP of a published size, or the small one."""
        return self.backbone.model if self.quick else clip_of_size(name)


def training_of(
    stage: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch_size: int,
    loader: TripletLoader | None = None,
    precision: str = "auto",
    negatives: str = "batch",
) -> Training:
    """Return the training loop of a stage, of which epochs or steps are measured."""
    plan = TrainingPlan(1, batch_size, 1, precision, seed=0, save_training=False, save_best=False, negatives=negatives)
    return Training(stage, optimizer, loader, CIRR, plan)


# ---- stage 2 ----


def combiner_epochs(world: World) -> Iterator[Row]:
    """Measure an epoch of stage 2 on small and on ordinary pictures, and its bare arithmetic on tensors in memory."""
    small = _EpochsOf(world, world.data_path, world.size(1024, 32))
    large = _EpochsOf(world, world.large_pictures, world.size(256, 4))
    for name, epochs, repeats in (("64-pixel pictures", small, 3), ("500-pixel PNGs", large, 2)):
        measured = alternate({"plain": epochs.plain, "ours": epochs.ours}, world.size(repeats, 1), warm_up=True)
        yield Row(f"stage 2, an epoch of {epochs.triplets} triplets, {name}", **measured)
    whole = _EpochsOf(world, world.data_path, world.size(9000, 32))
    measured = alternate({"plain": whole.arithmetic, "ours": whole.ours}, world.size(5, 1), warm_up=True)
    yield Row(f"the same, {whole.triplets} triplets, beside its bare arithmetic on tensors in memory", **measured)


class _EpochsOf:
    """Epochs of stage 2 over the first training triplets of a folder: as published, ours, and bare arithmetic."""

    def __init__(self, world, data_path, triplets):
        self.backbone = world.backbone
        self.workers = world.workers
        preprocess = _preprocess(self.backbone)
        self.training_set = CIRRDataset("train", "relative", preprocess, data_path)
        del self.training_set.triplets[triplets:]
        split = _training_split(data_path)
        split = split._replace(triplets=split.triplets[:triplets])
        self.triplets = len(self.training_set)
        self.batch_size = min(COMBINER_BATCH, self.triplets)
        self.combiner = Combiner(self.backbone.dimension, 256, 512).to(device)
        self.optimizer = torch.optim.Adam(self.combiner.parameters(), lr=2e-5)

        rows = TripletRows([split], preprocess)
        encoder = Encoder(self.backbone, ENCODERS, num_workers=world.workers)
        self.stage = CombinerTraining(self.combiner, *encode_triplets(rows, CIRR, encoder))
        loader = TripletLoader(rows, self.batch_size, num_workers=0, seed=0)
        fused = torch.optim.Adam(self.combiner.parameters(), lr=2e-5, fused=True)
        self.training = training_of(self.stage, fused, self.batch_size, loader)
        self.batches = [self.stage.inputs(batch, [text for (text,) in batch.captions]) for batch in loader]

    def plain(self):
        """Open and encode the pictures of every triplet, as the published code does each epoch."""
        loader = plain.triplet_loader(self.training_set, self.batch_size, self.workers)
        plain.combiner_epoch(loader, self.backbone.model, self.combiner, self.optimizer)

    def ours(self):
        """Train on features that were extracted once."""
        self.training.train_epoch(0)

    def arithmetic(self):
        """Train on batches that are ready in memory: no loop could be faster."""
        self.stage.train()
        for batch in self.batches:
            loss = contrastive_loss(*self.stage(batch))
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()


def second_start(world: World) -> Iterator[Row]:
    """Measure how long the features of stage 2 take, from pictures at first and then from the feature cache."""
    triplets = TripletRows([_training_split(world.large_pictures)], _preprocess(world.backbone))
    with tempfile.TemporaryDirectory() as folder:
        turns = count()
        used = []

        def start(turn):
            encoder = Encoder(world.backbone, ENCODERS, Path(folder) / str(turn), world.workers)
            encode_triplets(triplets, CIRR, encoder)

        def start_anew():
            used.append(next(turns))  # a folder that is empty still
            start(used[-1])

        measured = alternate({"plain": start_anew, "ours": lambda: start(used[-1])}, world.size(3, 1))
    yield Row(f"stage 2, features of {len(triplets.pictures)} 500-pixel PNGs ready, second start", **measured)


# ---- ranking ----


def ranking(world: World) -> Iterator[Row]:
    """Measure CIRR's metrics at two sizes of the gallery, and the ranks of as many queries in a very large one."""
    queries = world.size(4181, 20)
    for images, dim, repeats in world.size(((2297, 640, 3), (20_000, 128, 1)), ((50, 16, 1),)):
        question = _Question(images, dim, queries)
        measured = alternate({"plain": question.plain, "ours": question.ours}, repeats)
        assert measured["plain"].result == measured["ours"].result
        yield Row(f"CIRR's metrics, {queries:,} queries over {images:,} pictures, {dim} dimensions", **measured)

    images, dim = world.size((1_000_000, 640), (5000, 16))
    predicted, gallery = torch.randn(queries, dim, device=device), torch.randn(images, dim, device=device)
    targets = torch.randint(images, (queries,), device=device)
    measured = alternate({"ours": lambda: rank_targets(predicted[None], gallery, targets)}, 1)
    # The plain way would need an array of names of hundreds of gigabytes.
    yield Row(f"ranks of {queries:,} queries among {images:,} pictures, {dim} dimensions", None, measured["ours"])


def growth_with_gallery(world: World) -> Curve:
    """Measure CIRR's metrics for a tenth of CIRR's queries in ever larger galleries."""
    curves = {"plain": [], "ours": []}
    for images in world.size((1000, 3000, 10_000, 30_000, 100_000), (50, 100)):
        question = _Question(images, 128, world.size(418, 20))
        # Beyond that the plain way would take gigabytes.
        ways = {"ours": question.ours} | ({"plain": question.plain} if images <= 30_000 else {})
        for name, measured in alternate(ways, 1, warm_up=images <= 1000).items():
            curves[name].append((images, measured.seconds, measured.peak_bytes))
    return curves


def growth_with_triplets(world: World) -> Curve:
    """Measure an epoch of stage 2 with ever more triplets."""
    curves = {"plain": [], "ours": []}
    for triplets in world.size((256, 512, 1024, 2048, 4096, 8192), (16, 32)):
        epochs = _EpochsOf(world, world.data_path, triplets)
        ways = {"ours": epochs.ours} | ({"plain": epochs.plain} if triplets <= 1024 else {})
        for name, measured in alternate(ways, 1, warm_up=triplets == 256).items():
            curves[name].append((epochs.triplets, measured.seconds, measured.peak_bytes))
    return curves


class _Question:
    """Random queries that lie near their targets, as a validation set of CIRR asks them."""

    def __init__(self, images, dim, queries):
        draws = torch.Generator().manual_seed(0)
        self.names = [f"dev-{number}-{number % 4}-img0" for number in range(images)]
        self.features = torch.randn(images, dim, generator=draws)
        groups = torch.stack([torch.randperm(images, generator=draws)[:6] for _ in range(queries)])
        self.predicted = self.features[groups[:, 1]] + 3 * torch.randn(queries, dim, generator=draws)
        self.groups = [[self.names[row] for row in group] for group in groups.tolist()]
        self.features, self.predicted = self.features.to(device), self.predicted.to(device)

    def plain(self):
        references, targets = ([group[place] for group in self.groups] for place in (0, 1))
        return plain.cirr_recalls(self.predicted, self.features, self.names, references, targets, self.groups)

    def ours(self):
        queries = [(group[0], group[1], "", group) for group in self.groups]
        predict = {"combining_function": lambda image, text: text, "caption_features": self.predicted}
        return compute_cirr_val_metrics(queries, None, self.features, self.names, **predict)


# ---- CLIP ----


def text_encoding(world: World) -> Iterator[Row]:
    """Measure the encoding of real captions, padded to CLIP's context and no further than the batch's longest."""
    clip_model, captions = world.model("ViT-B/32"), world.captions[:: len(world.captions) // world.size(160, 8)]
    ways = {
        "plain": lambda: plain.encode_captions(captions, clip_model),
        "ours": lambda: extract_caption_features(captions, clip_model),
    }
    measured = alternate(ways, world.size(2, 1))
    torch.testing.assert_close(measured["ours"].result, measured["plain"].result, rtol=0, atol=1e-5)
    yield Row(f"text encoding, ViT-B/32, {len(captions)} captions", **measured)


def gallery_encoding(world: World) -> Iterator[Row]:
    """Measure the encoding of a gallery in fp32 and bf16."""
    count = 2
    clip_model = world.model("RN50x4")
    images = torch.randn(count, 3, *[clip_model.visual.input_resolution] * 2)
    gallery = [(str(number), image) for number, image in enumerate(images)]

    def ours(precision):
        clip_model.to(memory_format=torch.channels_last)
        with autocast(precision):
            extract_index_features(gallery, clip_model)

    def published():
        clip_model.to(memory_format=torch.contiguous_format)
        plain.encode_images(images.to(device), clip_model)

    ways = {"plain": published, "fp32": lambda: ours("fp32"), "bf16": lambda: ours("bf16")}
    measured = alternate(ways, world.size(2, 1))
    for precision in ("fp32", "bf16"):
        yield Row(f"gallery encoding, RN50x4, {count} pictures, {precision}", measured["plain"], measured[precision])


def fine_tuning_steps(world: World) -> Iterator[Row]:
    """Measure a step of stage 1; in bf16 only where the processor has instructions for it."""
    batch = world.size(8, 4)
    for name in ("ViT-B/32", "RN50"):
        precisions = ("fp32", "bf16") if has_fast_bf16() or world.quick else ("fp32",)
        clip_model = world.model(name)
        pixels = torch.randint(256, (2 * batch, *[clip_model.visual.input_resolution] * 2, 3), dtype=torch.uint8)
        references, targets = normalised(pixels, OPENAI_NORMALISATION).contiguous().split(batch)
        captions = world.captions[:batch]
        stage = FineTuning(OpenAIClip(clip_model), ENCODERS)
        learning = [parameter for parameter in stage.parameters() if parameter.requires_grad]
        optimizers = [torch.optim.AdamW(learning, lr=2e-6, eps=1e-7, fused=fused) for fused in (False, True)]
        rows = torch.arange(2 * batch).view(2, batch)

        def published(inputs=(references, targets, captions), clip_model=clip_model, optimizer=optimizers[0]):
            clip_model.to(memory_format=torch.contiguous_format)
            references, targets, captions = inputs
            plain.fine_tuning_step(references.to(device), targets.to(device), captions, clip_model, optimizer)

        def ours(precision, stage=stage, optimizer=optimizers[1], inputs=(pixels, rows, captions)):
            stage.clip_model.to(memory_format=torch.channels_last)
            pixels, rows, captions = inputs
            step = training_of(stage, optimizer, len(captions), precision=precision)
            step.train_step(stage.inputs(Batch(*rows, captions, pixels), captions))

        ways = {"plain": published} | {precision: partial(ours, precision) for precision in precisions}
        measured = alternate(ways, world.size(2, 1))
        for precision in precisions:
            what = f"stage 1, a step of {batch} triplets, {name}, {precision}"
            yield Row(what, measured["plain"], measured[precision])


def image_cache(world: World) -> Iterator[Row]:
    """Measure how long ordinary pictures take on their way to stage 1, from their files and from the image cache."""
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


def _preprocess(backbone):
    return make_transform("targetpad", 1.25, backbone.resolution)


def _training_split(data_path):
    (split,) = CIRR.read_all(data_path, "train").values()
    return split


CASES = (
    combiner_epochs,
    second_start,
    ranking,
    text_encoding,
    gallery_encoding,
    fine_tuning_steps,
    image_cache,
)
