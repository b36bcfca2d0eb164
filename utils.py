"""What stands around the model: device and precision, loading, features, and what the training loop reports."""

import random
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Subset, default_collate

from combiner import Combiner
from data_utils import training_variants
from src import distributed
from src.bars import Bar
from src.checkpoint import write_checkpoint
from src.errors import InputError
from src.openai_clip import MODEL_NAMES, load_clip_file, load_named_clip, read_clip_weights, tokenize
from src.options import plain
from src.row_store import RowStore, file_key
from src.weights import load_weights, read_facts, read_weights, weights_digest
from src.workers import start_worker

device = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(precision, training=False):
    """The autocast context of a --precision; "auto" is fp16 for training on CUDA as published, else fp32."""
    dtype = autocast_dtype(precision, training)
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not torch.float32)


def autocast_dtype(precision, training=False):
    if precision == "auto":
        return torch.float16 if training and device.type == "cuda" else torch.float32
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def to_device(images):
    """Images [images, 3, dim, dim] on the device, channels last in memory as CLIP's convolutions want them."""
    return images.to(device, non_blocking=True, memory_format=torch.channels_last)


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
        with distributed.in_turn():  # the first one downloads it
            clip_model = load_named_clip(clip_model_name)
    elif Path(clip_model_name).is_file():
        clip_model = load_clip_file(clip_model_name)
    else:
        raise InputError(f"--clip-model-name {clip_model_name}: neither a file nor one of {', '.join(MODEL_NAMES)}")
    if clip_model_path is not None:
        load_weights(clip_model, read_clip_weights(clip_model_path), clip_model_path)
    return clip_model.to(device, memory_format=torch.channels_last).eval()


def load_combining_function(name, combiner_path, clip_model, projection_dim=None, hidden_dim=None):
    """The function (image features, text features) → predicted features called `name`.

    "sum", "image", "text", "combiner", or None: the Combiner when there is a `combiner_path`, else the sum. Its
    dimensions are the checkpoint's. Raises InputError when the Combiner has no checkpoint, or one of other dimensions,
    for other features, or trained on another CLIP than `clip_model`.
    """
    name = name or ("sum" if combiner_path is None else "combiner")
    if name != "combiner":
        combiners = {"--combiner-path": combiner_path, "--projection-dim": projection_dim, "--hidden-dim": hidden_dim}
        for flag, value in combiners.items():
            if value is not None:
                print(f"--combining-function {name}: {flag} {value} is not used", file=sys.stderr)
        return {"sum": element_wise_sum, "image": image_only, "text": text_only}[name]
    if combiner_path is None:
        raise InputError("--combining-function combiner needs --combiner-path, a checkpoint of stage 2")
    weights = read_weights(combiner_path, "Combiner")
    dimensions = _combiner_shape(weights, combiner_path, clip_model.visual.output_dim, projection_dim, hidden_dim)
    trained_on = read_facts(combiner_path).get("clip_weights")
    if trained_on not in (None, weights_digest(clip_model.state_dict())):
        raise InputError(f"{combiner_path}: was trained on another CLIP than this; --clip-model-path names its own")
    combiner = Combiner(*dimensions)
    load_weights(combiner, weights, combiner_path)
    return combiner.to(device).eval().combine_features


def _combiner_shape(weights, path, clip_feature_dim, projection_dim, hidden_dim):
    """CLIP's, projection and hidden dimension of a Combiner's weights; the last two must be those given, if any are."""
    layers = [weights.get(f"{layer}.weight") for layer in ("text_projection_layer", "output_layer")]
    if any(layer is None or layer.ndim != 2 for layer in layers):
        raise InputError(f"{path}: not the weights of a Combiner")
    (projection, feature), (_, hidden) = (layer.shape for layer in layers)
    if feature != clip_feature_dim:
        raise InputError(
            f"{path}: a Combiner of {feature} dimensions, but this CLIP's features have {clip_feature_dim}"
        )
    if projection_dim not in (None, projection) or hidden_dim not in (None, hidden):
        fitting = f"--projection-dim {projection} --hidden-dim {hidden}"
        given = " and ".join(str(dim) for dim in (projection_dim, hidden_dim) if dim is not None)
        raise InputError(f"{path}: a Combiner of {fitting}, not of {given}")
    return feature, projection, hidden


TOLD = ("clip_model_name", "transform", "target_ratio")
"""Options that a checkpoint tells of itself, because whoever uses it must use the same."""


def checkpoint_facts(args):
    """What the checkpoints of a training command are to tell of themselves."""
    return {name: plain(getattr(args, name)) for name in (*TOLD, "dataset", "seed")}


def agree_with_checkpoints(args):
    """Let options that were not given be what the checkpoints tell of themselves; published ones tell nothing.

    Raises InputError for a given one that contradicts. Of --clip-model-name only the shape matters: loading checks it.
    """
    for path in filter(None, (args.clip_model_path, getattr(args, "combiner_path", None))):
        facts = read_facts(path)
        for name in TOLD:
            told = facts.get(name)
            if told is None or (name == "target_ratio" and facts.get("transform") != "targetpad"):
                continue
            if name not in args.given:
                setattr(args, name, told)
            elif name != "clip_model_name" and getattr(args, name) != told:
                flag = f"--{name.replace('_', '-')}"
                raise InputError(f"{flag} {getattr(args, name)}: {path} was trained with {flag} {told}")


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


def caption_tokens(captions, clip_model):
    """Tokens [captions, length of the longest] on the device, cut to CLIP's context."""
    return _trimmed(_tokens(captions, clip_model))


def _tokens(captions, clip_model):
    return tokenize(captions, getattr(clip_model, "context_length", 77))  # a TorchScript CLIP does not say its context


def _trimmed(tokens):
    """CLIP's text tower is causal and its feature is taken at the end of the text: what follows it changes nothing."""
    longest = _ends(tokens).max() + 1
    return tokens[:, :longest].to(device)


def _ends(tokens):
    return tokens.argmax(dim=-1)  # the end of text has the highest number of the vocabulary


@torch.inference_mode()
def extract_caption_features(captions, clip_model, batch_size=32):
    """Features [captions, dim], fp32 and not normalised, of captions in any order and number."""
    tokens = _tokens(captions, clip_model)
    order = _ends(tokens).argsort(stable=True)  # alike in length: little is padded
    features = []
    for rows in Bar(order.split(batch_size), desc="captions", leave=False):
        features.append(clip_model.encode_text(_trimmed(tokens[rows])).float())
    return torch.cat(features)[order.argsort()]


@torch.inference_mode()
def extract_index_features(dataset, clip_model, num_workers=0, batch_size=32):
    """Features [images, dim] of a dataset in classic mode, fp32 and not normalised, and the pictures' names."""
    loader = DataLoader(
        dataset,
        batch_size=batch_size,
        num_workers=num_workers,
        pin_memory=device.type == "cuda",
        collate_fn=collate_fn,
        worker_init_fn=start_worker,
        generator=torch.Generator(),  # its own, so that workers draw no seed from the training's
    )
    features, names = [], []
    for batch_names, images in Bar(loader, desc="gallery", leave=False):
        features.append(clip_model.encode_image(to_device(images)).float())
        names.extend(batch_names)
    return torch.cat(features), names


ENCODERS = ("image", "text")


class Encoder:
    """CLIP's two encoders. What a frozen one gives is never computed twice, nor again by a process with its folder.

    Processes of one job share the work out, and all have all of its features; the first one keeps the folder.
    """

    def __init__(self, clip_model, frozen=(), cache_folder=None, num_workers=0, batch_size=32):
        """`frozen` lists those of ENCODERS whose weights will not change; without a folder, memory keeps all."""
        self.clip_model = clip_model
        self.frozen = frozen
        self.cache_folder = cache_folder
        self.num_workers = num_workers
        self.batch_size = batch_size
        self._stores, self._digests = {}, {}

    def pictures(self, dataset):
        """Features [images, dim] of a dataset in mode "classic", fp32 and not normalised."""

        def encode(numbers):
            pictures = Subset(dataset, numbers)
            return extract_index_features(pictures, self.clip_model, self.num_workers, self.batch_size)[0]

        if "image" not in self.frozen:
            return distributed.shared_out(range(len(dataset)), encode)
        keys = [file_key(dataset.path(name)) for name in dataset.image_names]
        return self._kept("image", dataset.preprocess.facts, keys, encode)

    def captions(self, captions):
        """Features [captions, dim], fp32 and not normalised."""

        def encode(numbers):
            return extract_caption_features([captions[number] for number in numbers], self.clip_model, self.batch_size)

        if "text" not in self.frozen:
            return distributed.shared_out(range(len(captions)), encode)
        return self._kept("text", {}, captions, encode)

    def _kept(self, encoder, facts, keys, encode):
        store = self._store(encoder, facts) if distributed.is_first() else None
        missing = distributed.broadcast(store and store.missing(keys))
        new = distributed.shared_out(missing, encode) if missing else None
        if store is not None and missing:
            store.add([keys[position] for position in missing], [new.cpu().numpy()])
        rows = distributed.broadcast(store and torch.from_numpy(store.read(keys)))
        return rows.to(device)

    def _store(self, encoder, facts):
        facts = {"encoder": encoder, "precision": _current_precision(), "device": device.type, **facts}
        if self.cache_folder is not None:
            facts["weights"] = self._weights(encoder)
        if str(facts) not in self._stores:
            self._stores[str(facts)] = RowStore(self.cache_folder, facts)
        return self._stores[str(facts)]

    def _weights(self, encoder):
        if encoder not in self._digests:
            weights = self.clip_model.state_dict().items()
            of_encoder = {name: value for name, value in weights if name.startswith("visual.") == (encoder == "image")}
            self._digests[encoder] = weights_digest(of_encoder)
        return self._digests[encoder]


def _current_precision():
    enabled = torch.is_autocast_enabled(device.type)
    return str(torch.get_autocast_dtype(device.type) if enabled else torch.float32).removeprefix("torch.")


# ---- training ----


def update_train_running_results(train_running_results, loss, images_in_batch):
    """Add a batch's mean loss to the epoch's sums, "accumulated_train_loss" and "images_in_epoch"."""
    train_running_results["accumulated_train_loss"] += loss.item() * images_in_batch
    train_running_results["images_in_epoch"] += images_in_batch


def mean_train_loss(train_running_results):
    return train_running_results["accumulated_train_loss"] / train_running_results["images_in_epoch"]


def set_train_bar_description(train_bar, epoch, num_epochs, train_running_results):
    """Show the epoch and its mean loss so far on the progress bar."""
    description = f"[{epoch}/{num_epochs}] train loss: {mean_train_loss(train_running_results):.3f}"
    train_bar.set_description(description, refresh=False)  # the bar redraws itself ten times a second


def save_model(name, cur_epoch, model_to_save, training_path, facts=None):
    """Write {"epoch", <class name>: state dict} to saved_models/<name>.pt of the run folder `training_path`.

    `facts`, plain values, are what the file tells of itself beside these.
    """
    content = {"epoch": cur_epoch, type(model_to_save).__name__: model_to_save.state_dict()}
    content |= {} if facts is None else {"facts": facts}
    write_checkpoint(Path(training_path) / "saved_models" / f"{name}.pt", content)
