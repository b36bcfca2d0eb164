"""Judge a CLIP, with the element-wise sum or a Combiner, on the validation split of CIRR or FashionIQ.

    python validate.py --dataset CIRR --clip-model-path models/.../tuned_clip_arithmetic.pt \
        --combining-function combiner --combiner-path models/.../combiner_arithmetic.pt
"""

from options import add_dataset_option, add_judging_options, comet_options, feature_cache_folder
from src.comet import start_experiment
from src.options import Parser


def parse_arguments(argv=None):
    parser = Parser("Print the recalls of a CLIP, with the sum or a Combiner, on a validation split.")
    add_dataset_option(parser, required=True)
    add_judging_options(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    parse_arguments()  # --help and a wrong flag are answered here, before torch is imported

from statistics import geometric_mean, harmonic_mean, mean
from typing import NamedTuple

import torch

from annotations import DRESS_TYPES, GROUP_SIZE
from data_utils import (
    MODES,
    CIRRDataset,
    FashionIQDataset,
    cleaned_caption,
    joined_captions,
    make_transform,
    training_variants,
)
from skipping import Skipping
from src.distributed import joining
from src.errors import InputError, one_line_errors
from src.retrieval import Gallery, rank_targets, rank_targets_among, recall_at
from utils import (
    ENCODERS,
    Encoder,
    agree_with_checkpoints,
    autocast,
    extract_caption_features,
    generate_randomized_fiq_caption,
    load_clip,
    load_combining_function,
)


@torch.inference_mode()
def predict_features(gallery, reference_names, caption_features, combining_function, batch_size=512):
    """Predicted features [queries, dim]: each reference's feature in the gallery, combined with its caption's."""
    rows = gallery.rows(reference_names)
    batches = zip(rows.split(batch_size), caption_features.split(batch_size), strict=True)
    return torch.cat([combining_function(gallery.features[row], caption).float() for row, caption in batches])


def other_members(gallery, reference_names, groups):
    """Gallery rows [queries, 5] of each CIRR group but for the query's own reference."""
    others = []
    for reference, members in zip(reference_names, groups, strict=True):
        if reference not in members:
            raise InputError(f"{reference}: not a member of its own group of {len(members)}")
        others.append(gallery.rows([member for member in members if member != reference]))
    return torch.stack(others)


class Queries(NamedTuple):
    """The questions of a validation set, an entry a query."""

    reference_names: list
    target_names: list
    captions: list
    groups: list | None = None


def cirr_queries(relative_val_dataset):
    """Raises InputError when a target is its own reference or not a member of its group."""
    queries = Queries(*columns(relative_val_dataset))
    for reference, target, _, members in zip(*queries, strict=True):
        if target == reference or target not in members:
            raise InputError(f"{target}: the target of {reference} must be another member of its group")
    return queries


def fashioniq_queries(relative_val_dataset):
    reference_names, target_names, pairs = columns(relative_val_dataset)
    return Queries(reference_names, target_names, [joined_captions(*map(cleaned_caption, pair)) for pair in pairs])


def compute_cirr_val_metrics(
    relative_val_dataset, clip_model, index_features, index_names, combining_function, caption_features=None
):
    """CIRR's recalls in percent: group 1, 2, 3, then 1, 5, 10, 50 (section 5.1). The reference leaves the ranking.

    `caption_features` [queries, dim] are those of the queries' captions, where they are known already.
    """
    gallery = Gallery(index_features, index_names)
    reference_names, target_names, captions, groups = cirr_queries(relative_val_dataset)
    target_rows = gallery.rows(target_names)
    group_rows = other_members(gallery, reference_names, groups)

    if caption_features is None:
        caption_features = extract_caption_features(captions, clip_model)
    predicted = predict_features(gallery, reference_names, caption_features, combining_function)
    group_ranks = rank_targets_among(predicted, gallery.features, target_rows, group_rows)
    ranks = rank_targets(predicted, gallery.features, target_rows, excluded_rows=gallery.rows(reference_names))
    return (*(recall_at(group_ranks, k) for k in (1, 2, 3)), *(recall_at(ranks, k) for k in (1, 5, 10, 50)))


def compute_fiq_val_metrics(
    relative_val_dataset, clip_model, index_features, index_names, combining_function, caption_features=None
):
    """FashionIQ's recall@10 and recall@50 of one category, in percent (section 5.1). The reference stays in.

    `caption_features` [queries, dim] are those of the queries' captions, where they are known already.
    """
    gallery = Gallery(index_features, index_names)
    reference_names, target_names, captions, _ = fashioniq_queries(relative_val_dataset)
    target_rows = gallery.rows(target_names)

    if caption_features is None:
        caption_features = extract_caption_features(captions, clip_model)
    predicted = predict_features(gallery, reference_names, caption_features, combining_function)
    ranks = rank_targets(predicted, gallery.features, target_rows)
    return recall_at(ranks, 10), recall_at(ranks, 50)


def columns(dataset):
    """The items of a dataset without pictures, as one list for each of their parts."""
    return [list(column) for column in zip(*(dataset[index] for index in range(len(dataset))), strict=True)]


class CIRR:
    """What is CIRR's own: its sets, its metrics, and which metric picks which weights."""

    short_name = "cirr"
    recall_names = (*(f"group_recall_at{k}" for k in (1, 2, 3)), *(f"recall_at{k}" for k in (1, 5, 10, 50)))
    headline = ("recall_at1", "recall_at5", "recall_at10", "group_recall_at1")
    reference_stays = False
    queries = staticmethod(cirr_queries)
    compute_recalls = staticmethod(compute_cirr_val_metrics)

    @staticmethod
    def training_set(preprocess, data_path, skipping=None):
        return CIRRDataset("train", "relative", preprocess, data_path, skipping)

    @staticmethod
    def training_captions(captions, draws):
        """The captions of a batch, as they are."""
        return captions

    @staticmethod
    def caption_variants(caption):
        """What `training_captions` may make of a triplet's caption."""
        return [caption]

    @staticmethod
    def validation_sets(preprocess, data_path, skipping=None):
        """{category: (gallery, queries)}"""
        return {"val": [CIRRDataset("val", mode, preprocess, data_path, skipping) for mode in MODES]}

    @classmethod
    def metrics(cls, recalls):
        """The columns of validation_metrics.csv from {"val": the seven recalls}."""
        named = dict(zip(cls.recall_names, recalls["val"], strict=True))
        return named | {
            "mean(R@5+R_s@1)": (named["group_recall_at1"] + named["recall_at5"]) / 2,
            "arithmetic_mean": mean(recalls["val"]),
            "harmonic_mean": harmonic_mean(recalls["val"]),
            # Before Python 3.13 statistics refuses a zero, which makes the mean zero.
            "geometric_mean": geometric_mean(recalls["val"]) if all(recalls["val"]) else 0.0,
        }

    @classmethod
    def printed(cls, recalls):
        """What validate.py prints."""
        return dict(zip(cls.recall_names, recalls["val"], strict=True))

    @staticmethod
    def chance(pictures):
        """The recalls that ranking `pictures` at random is worth, in percent."""
        return tuple(
            min(100, 100 * k / of)
            for of, ks in ((GROUP_SIZE - 1, (1, 2, 3)), (pictures - 1, (1, 5, 10, 50)))
            for k in ks
        )

    @staticmethod
    def best_weights(weights_name):
        """{name of the weights: metric that picks them}"""
        return {f"{weights_name}_{kind}": f"{kind}_mean" for kind in ("arithmetic", "harmonic", "geometric")}


class FashionIQ:
    """What is FashionIQ's own: its sets, its metrics, and which metric picks which weights."""

    short_name = "fiq"
    headline = ("average_recall_at10", "average_recall_at50")
    reference_stays = True
    queries = staticmethod(fashioniq_queries)
    compute_recalls = staticmethod(compute_fiq_val_metrics)

    @staticmethod
    def training_set(preprocess, data_path, skipping=None):
        return FashionIQDataset("train", DRESS_TYPES, "relative", preprocess, data_path, skipping)

    @staticmethod
    def training_captions(captions, draws):
        """One caption for each pair of a batch."""
        return generate_randomized_fiq_caption([text for pair in captions for text in pair], draws)

    @staticmethod
    def caption_variants(captions):
        """What `training_captions` may make of a triplet's captions."""
        return training_variants(captions)

    @staticmethod
    def validation_sets(preprocess, data_path, skipping=None):
        """{category: (gallery, queries)}"""
        return {
            kind: [FashionIQDataset("val", [kind], mode, preprocess, data_path, skipping) for mode in MODES]
            for kind in DRESS_TYPES
        }

    @staticmethod
    def metrics(recalls):
        """The columns of validation_metrics.csv from {category: (recall@10, recall@50)}."""
        at10, at50 = map(mean, zip(*recalls.values(), strict=True))
        named = {f"{name}_recall_at{k}": recalls[name][i] for name in recalls for i, k in enumerate((10, 50))}
        return named | {"average_recall_at10": at10, "average_recall_at50": at50, "average_recall": (at10 + at50) / 2}

    @staticmethod
    def printed(recalls):
        """What validate.py prints."""
        at10, at50 = map(mean, zip(*recalls.values(), strict=True))
        order = ("shirt", "dress", "toptee")
        named = {f"{name}_recallat{k}": recalls[name][i] for name in order for i, k in enumerate((10, 50))}
        return named | {"average recall10": at10, "average recall50": at50}

    @staticmethod
    def chance(pictures):
        """The recalls that ranking `pictures` at random is worth, in percent."""
        return min(100, 1000 / pictures), min(100, 5000 / pictures)

    @staticmethod
    def best_weights(weights_name):
        """{name of the weights: metric that picks them}"""
        return {{"tuned_clip": "tuned_clip_best", "combiner": "combiner"}[weights_name]: "average_recall"}


BENCHMARKS = {"CIRR": CIRR, "FashionIQ": FashionIQ}


class Validation:
    """A benchmark's validation split, ready to judge a CLIP on.

    Raises InputError when its annotations are faulty or pictures are missing.
    """

    def __init__(self, benchmark, preprocess, data_path, encoder, skipping=None):
        self.benchmark = benchmark
        self.sets = benchmark.validation_sets(preprocess, data_path, skipping)
        self.encoder = encoder
        self._known = {}

    @property
    def galleries(self):
        """The gallery of each category, as a dataset in mode "classic"."""
        return [gallery for gallery, _ in self.sets.values()]

    def recalls(self, combining_function):
        """{category: recalls in percent}"""
        return {
            category: self.benchmark.compute_recalls(
                queries,
                self.encoder.clip_model,
                self.gallery_features(category),
                gallery.image_names,
                combining_function,
                self.caption_features(category),
            )
            for category, (gallery, queries) in self.sets.items()
        }

    def metrics(self, combining_function):
        """The columns of validation_metrics.csv: {metric: percent}"""
        return self.benchmark.metrics(self.recalls(combining_function))

    def chance(self):
        """The metrics that ranking at random is worth."""
        return self.benchmark.metrics({name: self.benchmark.chance(len(sets[0])) for name, sets in self.sets.items()})

    def gallery_features(self, category):
        """Features [images, dim] of a category's gallery."""
        return self._known_if_frozen("image", category, lambda: self.encoder.pictures(self.sets[category][0]))

    def caption_features(self, category):
        """Features [queries, dim] of the captions of a category's queries."""
        queries = self.benchmark.queries(self.sets[category][1])
        return self._known_if_frozen("text", category, lambda: self.encoder.captions(queries.captions))

    def _known_if_frozen(self, encoder, category, encode):
        features = self._known.get((encoder, category))
        if features is None:
            features = encode()
        if encoder in self.encoder.frozen:
            self._known[encoder, category] = features
        return features


@one_line_errors
@joining
def main(argv=None):
    args = parse_arguments(argv)
    agree_with_checkpoints(args)
    clip_model = load_clip(args.clip_model_name, args.clip_model_path)
    combining_function = load_combining_function(
        args.combining_function, args.combiner_path, clip_model, args.projection_dim, args.hidden_dim
    )

    benchmark = BENCHMARKS[args.dataset]
    preprocess = make_transform(args.transform, args.target_ratio, clip_model.visual.input_resolution)
    encoder = Encoder(clip_model, ENCODERS, feature_cache_folder(args), args.num_workers)
    skipping = Skipping(args.skip_missing, args.num_workers)
    validation = Validation(benchmark, preprocess, args.data_path, encoder, skipping)

    experiment = start_experiment(f"{args.dataset} validation", comet_options(args), args.output_path / "comet")
    with autocast(args.precision):
        recalls = benchmark.printed(validation.recalls(combining_function))
    for name, recall in recalls.items():
        print(f"{name} = {recall}{skipping.mark}")
    with experiment.validate():
        experiment.log_metrics(recalls)
    experiment.log_others(skipping.remarks)
    experiment.end()


if __name__ == "__main__":
    main()
