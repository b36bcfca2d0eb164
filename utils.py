"""What stands around the model: device and precision, options, loading, features, and the loop of both stages."""

import random
import sys
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, RandomSampler, default_collate
from tqdm import tqdm

from combiner import Combiner
from data_utils import TRANSFORMS, training_variants
from src.errors import InputError
from src.files import PROJECT_ROOT, replacing
from src.losses import contrastive_loss
from src.openai_clip import MODEL_NAMES, load_clip_file, load_named_clip, read_clip_weights, tokenize
from src.options import any_case, count, count_or_zero, positive, usable_cores
from src.run import CometOptions
from src.weights import load_weights, read_weights

device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(precision, training=False):
    """The autocast context of a --precision; "auto" is fp16 for training on CUDA as published, else fp32."""
    dtype = autocast_dtype(precision, training)
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not torch.float32)


def autocast_dtype(precision, training=False):
    if precision == "auto":
        return torch.float16 if training and device.type == "cuda" else torch.float32
    return PRECISIONS[precision]


# ---- options ----


def add_common_options(parser):
    """What every command takes: where data is and results go, how the machine is used, and Comet."""
    group = parser.add_argument_group("data, output and machine")
    help_text = "folder that holds cirr_dataset/ and fashionIQ_dataset/"
    group.add_argument("--data-path", type=Path, default=PROJECT_ROOT, help=help_text)
    group.add_argument("--output-path", type=Path, default=PROJECT_ROOT, help="receives models/ and submission/")
    group.add_argument("--seed", type=count_or_zero, default=0, help="decides every random draw")
    group.add_argument("--num-workers", type=count_or_zero, default=usable_cores(), help="picture loading processes")
    help_text = "auto: fp16 autocast when training on CUDA, fp32 everywhere else"
    group.add_argument("--precision", choices=("auto", *PRECISIONS), default="auto", help=help_text)

    group = parser.add_argument_group(
        "Comet", "online where key and workspace are known, also from Comet's own settings"
    )
    group.add_argument("--api-key", help="Comet's API key")
    group.add_argument("--workspace", help="Comet's workspace")
    group.add_argument("--experiment-name", help="the experiment's name on Comet")
    group.add_argument(
        "--comet-offline", action="store_true", help="log to an archive instead, in the run folder or OUTPUT_PATH/comet"
    )


def comet_options(args):
    """The Comet group of a command's options."""
    return CometOptions(args.api_key, args.workspace, args.experiment_name, args.comet_offline)


def add_dataset_option(parser, default=None):
    """--dataset, required unless it has a `default`."""
    needed = {"required": True} if default is None else {"default": default}
    parser.add_argument("--dataset", type=any_case("CIRR", "FashionIQ"), help="CIRR or FashionIQ, any case", **needed)


def add_training_options(parser, batch_size, validation_frequency):
    group = parser.add_argument_group("training")
    group.add_argument("--num-epochs", type=count, default=300, help="passes over the triplets")
    group.add_argument("--batch-size", type=count, default=batch_size, help="triplets a step")
    help_text = "validate every so many epochs"
    group.add_argument("--validation-frequency", type=count, default=validation_frequency, help=help_text)
    group.add_argument("--save-training", action="store_true", help="save weights at each validation")
    group.add_argument("--save-best", action="store_true", help="with --save-training: keep only the best by each mean")


class TrainingPlan(NamedTuple):
    """What the loop of both stages is told by a command's options."""

    num_epochs: int
    validation_frequency: int
    precision: str
    seed: int
    save_training: bool
    save_best: bool


def training_plan(args):
    return TrainingPlan(**{name: getattr(args, name) for name in TrainingPlan._fields})


def add_clip_options(parser, tuned=True):
    """Which CLIP, how pictures are prepared for it, and (`tuned`) the checkpoint to load over it."""
    group = parser.add_argument_group("CLIP")
    help_text = f"one of {', '.join(MODEL_NAMES)}, or a file of CLIP weights"
    group.add_argument("--clip-model-name", default="RN50x4", help=help_text)
    if tuned:
        group.add_argument("--clip-model-path", type=Path, help="checkpoint of stage 1 to load over --clip-model-name")
    group.add_argument("--transform", choices=TRANSFORMS, default="targetpad", help="how pictures become square")
    group.add_argument("--target-ratio", type=positive, default=1.25, help="sides' ratio that targetpad pads down to")


def add_combiner_options(parser, trained=True):
    """The Combiner's dimensions and (`trained`) which function judges, with which weights."""
    group = parser.add_argument_group("Combiner")
    group.add_argument("--projection-dim", type=count, default=2560, help="of its two projections")
    group.add_argument("--hidden-dim", type=count, default=5120, help="of its two hidden layers")
    if trained:
        names = any_case("sum", "combiner", "image", "text")
        help_text = "sum, combiner, or image or text alone (default: combiner with --combiner-path, else sum)"
        group.add_argument("--combining-function", type=names, help=help_text)
        group.add_argument("--combiner-path", type=Path, help="checkpoint of stage 2")


# ---- loading ----


def model_label(clip_model_name):
    """`clip_model_name` as a part of a file name: a file's stem, or a name with its slash as a dash."""
    return Path(clip_model_name).stem if Path(clip_model_name).is_file() else clip_model_name.replace("/", "-")


def load_clip(clip_model_name, clip_model_path=None):
    """CLIP on the device, in fp32 and eval mode, with the weights of a stage-1 checkpoint over its own.

    `clip_model_name` is a name that clip knows, which it downloads, or a file: a plain state dict, OpenAI's TorchScript
    archive or a stage-1 checkpoint. Raises InputError when either cannot be loaded.
    """
    if clip_model_name in MODEL_NAMES:
        clip_model = load_named_clip(clip_model_name)
    elif Path(clip_model_name).is_file():
        clip_model = load_clip_file(clip_model_name)
    else:
        raise InputError(f"--clip-model-name {clip_model_name}: neither a file nor one of {', '.join(MODEL_NAMES)}")
    if clip_model_path is not None:
        load_weights(clip_model, read_clip_weights(clip_model_path), clip_model_path)
    return clip_model.to(device).eval()


def load_combining_function(name, combiner_path, clip_feature_dim, projection_dim, hidden_dim):
    """The function (image features, text features) → predicted features called `name`.

    "sum", "image", "text", "combiner", or None: the Combiner when there is a `combiner_path`, else the sum. Raises
    InputError when the Combiner has no checkpoint, or one of other dimensions.
    """
    name = name or ("sum" if combiner_path is None else "combiner")
    if name != "combiner":
        if combiner_path is not None:
            print(f"--combining-function {name}: {combiner_path} is not used", file=sys.stderr)
        return {"sum": element_wise_sum, "image": image_only, "text": text_only}[name]
    if combiner_path is None:
        raise InputError("--combining-function combiner needs --combiner-path, a checkpoint of stage 2")
    weights = read_weights(combiner_path, "Combiner")
    _require_combiner_shape(weights, combiner_path, clip_feature_dim, projection_dim, hidden_dim)
    combiner = Combiner(clip_feature_dim, projection_dim, hidden_dim)
    load_weights(combiner, weights, combiner_path)
    return combiner.to(device).eval().combine_features


def _require_combiner_shape(weights, path, clip_feature_dim, projection_dim, hidden_dim):
    layers = [weights.get(f"{layer}.weight") for layer in ("text_projection_layer", "output_layer")]
    if any(layer is None or layer.ndim != 2 for layer in layers):
        raise InputError(f"{path}: not the weights of a Combiner")
    (projection, feature), (_, hidden) = (layer.shape for layer in layers)
    if feature != clip_feature_dim:
        raise InputError(
            f"{path}: a Combiner of {feature} dimensions, but this CLIP's features have {clip_feature_dim}"
        )
    if (projection, hidden) != (projection_dim, hidden_dim):
        fitting = f"--projection-dim {projection} --hidden-dim {hidden}"
        raise InputError(f"{path}: a Combiner of {fitting}, not of {projection_dim} and {hidden_dim}")


# ---- features ----


def collate_fn(batch):
    """torch's default collation; raises ValueError for a missing sample instead of dropping it."""
    if any(sample is None for sample in batch):
        raise ValueError("a dataset gave None for a sample: dropping it would change the result")
    return default_collate(batch)


def element_wise_sum(image_features, text_features):
    """Predicted features [queries, dim], normalised: the sum of both as CLIP gives them (paper, section 3.2)."""
    return F.normalize(image_features + text_features, dim=-1)


def image_only(image_features, text_features):
    """The shortcut that ignores the caption: how far the reference alone leads."""
    return F.normalize(image_features, dim=-1)


def text_only(image_features, text_features):
    """The shortcut that ignores the reference: how far the caption alone leads."""
    return F.normalize(text_features, dim=-1)


def generate_randomized_fiq_caption(flattened_captions, draws=random):
    """One of its four training captions for each FashionIQ pair, by a uniform draw from `draws.random()`.

    `flattened_captions` holds a, b of the first pair, a, b of the second, …
    """
    pairs = zip(flattened_captions[::2], flattened_captions[1::2], strict=True)
    return [training_variants(pair)[int(4 * draws.random())] for pair in pairs]


def encode_captions(captions, clip_model):
    """Features [captions, dim], fp32 and not normalised, of captions cut to CLIP's context."""
    return clip_model.encode_text(caption_tokens(captions, clip_model)).float()


def caption_tokens(captions, clip_model):
    """Tokens [captions, length of the longest] on the device; a context of 77 where the model does not say.

    CLIP's text tower is causal and its feature is taken at the end of the text: what follows it changes nothing.
    """
    tokens = tokenize(captions, getattr(clip_model, "context_length", 77))
    longest = tokens.argmax(dim=-1).max() + 1  # the end of text has the highest number of the vocabulary
    return tokens[:, :longest].to(device)


@torch.inference_mode()
def extract_caption_features(captions, clip_model, batch_size=32):
    """Features [captions, dim], fp32 and not normalised, of captions in any order and number."""
    order = sorted(range(len(captions)), key=lambda index: len(captions[index]))  # alike in length: little is padded
    features = []
    for start in tqdm(range(0, len(order), batch_size), desc="captions", leave=False, dynamic_ncols=True):
        features.append(encode_captions([captions[index] for index in order[start : start + batch_size]], clip_model))
    return torch.cat(features)[torch.tensor(order).argsort()]


@torch.inference_mode()
def extract_index_features(dataset, clip_model, num_workers=0, batch_size=32):
    """Features [images, dim] of a dataset in classic mode, fp32 and not normalised, and the pictures' names."""
    loader = DataLoader(
        dataset,
        batch_size=batch_size,
        num_workers=num_workers,
        pin_memory=device.type == "cuda",
        collate_fn=collate_fn,
        generator=torch.Generator(),  # its own, so that workers draw no seed from the training's
    )
    features, names = [], []
    for batch_names, images in tqdm(loader, desc="gallery", leave=False, dynamic_ncols=True):
        features.append(clip_model.encode_image(images.to(device, non_blocking=True)).float())
        names.extend(batch_names)
    return torch.cat(features), names


# ---- training ----


def update_train_running_results(train_running_results, loss, images_in_batch):
    """Add a batch's mean loss to the epoch's sums, "accumulated_train_loss" and "images_in_epoch"."""
    train_running_results["accumulated_train_loss"] += loss.item() * images_in_batch
    train_running_results["images_in_epoch"] += images_in_batch


def mean_train_loss(train_running_results):
    return train_running_results["accumulated_train_loss"] / train_running_results["images_in_epoch"]


def set_train_bar_description(train_bar, epoch, num_epochs, train_running_results):
    """Show the epoch and its mean loss so far on the progress bar."""
    train_bar.set_description(f"[{epoch}/{num_epochs}] train loss: {mean_train_loss(train_running_results):.3f}")


def save_model(name, cur_epoch, model_to_save, training_path):
    """Write {"epoch", <class name>: state dict} to saved_models/<name>.pt of the run folder `training_path`."""
    with replacing(Path(training_path) / "saved_models" / f"{name}.pt") as unfinished:
        torch.save({"epoch": cur_epoch, type(model_to_save).__name__: model_to_save.state_dict()}, unfinished)


def training_loader(training_set, batch_size, num_workers, seed):
    """Shuffled full batches of a training set; the order follows from `seed` alone.

    Raises InputError when the set does not fill one batch.
    """
    if batch_size > len(training_set):
        raise InputError(f"--batch-size {batch_size}: there are only {len(training_set)} training triplets")
    return DataLoader(
        training_set,
        batch_size=batch_size,
        sampler=RandomSampler(training_set, generator=torch.Generator().manual_seed(seed)),
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=device.type == "cuda",
        drop_last=True,
        collate_fn=collate_fn,
        generator=torch.Generator(),  # its own, so that workers draw no seed from the model's
    )


def train(stage, optimizer, loader, validation, run, plan):
    """The loop of both stages; `run` keeps what comes of it.

    `stage.inputs` makes the loader's references and targets and their texts a batch on the device, and `stage(batch)`
    gives its (predicted, target) features.
    """
    scaler = torch.amp.GradScaler(device.type, enabled=autocast_dtype(plan.precision, training=True) is torch.float16)
    draws = random.Random(plan.seed)  # apart from the global generator, which other libraries draw from
    best_weights = validation.benchmark.best_weights(stage.weights_name) if plan.save_best else {}
    for epoch in range(plan.num_epochs):
        results = {"images_in_epoch": 0, "accumulated_train_loss": 0.0}
        stage.train()
        bar = tqdm(loader, dynamic_ncols=True)
        for step, (references, targets, captions) in enumerate(bar, start=epoch * len(loader)):
            texts = validation.benchmark.training_captions(captions, draws)
            loss = _step(stage, optimizer, scaler, plan.precision, stage.inputs(references, targets, texts))
            update_train_running_results(results, loss, len(texts))
            set_train_bar_description(bar, epoch, plan.num_epochs, results)
            run.log_step(step, loss.item())
        run.log_training(epoch, mean_train_loss(results))

        if epoch % plan.validation_frequency == 0:
            stage.eval()
            with autocast(plan.precision):
                metrics = validation.metrics(stage.clip_model, stage.combining_function)
            run.log_validation(epoch, metrics)
            if plan.save_training:
                _save_weights(stage, epoch, metrics, run, best_weights)
    run.end()


def _step(stage, optimizer, scaler, precision, batch):
    with autocast(precision, training=True):
        loss = contrastive_loss(*stage(batch))
    optimizer.zero_grad()
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    return loss.detach()


def _save_weights(stage, epoch, metrics, run, best_weights):
    names = [name for name, metric in best_weights.items() if run.improves(name, metrics[metric])]
    for name in names if best_weights else [f"{stage.weights_name}_{epoch}"]:
        save_model(name, epoch, stage.trained, run.folder)
