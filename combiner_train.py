"""Stage 2: train the Combiner on the features of a frozen CLIP, which are extracted once (section 3.3).

    python combiner_train.py --clip-model-path models/.../tuned_clip_arithmetic.pt --save-training --save-best

Options of its own: --combiner-lr, and --clip-bs, the pictures or captions that CLIP encodes at a time.
"""

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import Dataset

from combiner import Combiner
from data_utils import make_transform
from src.errors import one_line_errors
from src.options import Parser, count, hyper_parameters, positive
from src.run import start_run
from utils import (
    add_clip_options,
    add_combiner_options,
    add_common_options,
    add_dataset_option,
    add_training_options,
    autocast,
    comet_options,
    device,
    extract_caption_features,
    extract_index_features,
    load_clip,
    model_label,
    train,
    training_loader,
    training_plan,
)
from validate import BENCHMARKS, Validation


class TripletRows(Dataset):
    """The triplets of a training set as (row of the reference, row of the target, caption or captions).

    Rows are those of its `pictures()`.
    """

    def __init__(self, training_set):
        row = {name: row for row, name in enumerate(training_set.pictures().image_names)}
        self.items = [(row[reference], row[target], texts) for reference, target, texts in training_set.triplet_names()]

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


class CombinerTraining(nn.Module):
    """Stage 2 as a module: the Combiner, and the features that a frozen CLIP gives the pictures and captions."""

    weights_name = "combiner"

    def __init__(self, clip_model, combiner, picture_features, caption_features):
        """`picture_features` [pictures, dim] by row, `caption_features` {text: [dim]}."""
        super().__init__()
        self.clip_model = clip_model.requires_grad_(False)
        self.combiner = combiner
        self.picture_features = picture_features
        self.caption_features = caption_features
        self.combining_function = combiner.combine_features

    @property
    def trained(self):
        return self.combiner

    def train(self, mode=True):
        super().train(mode)
        self.clip_model.eval()  # it is frozen, batch-norm statistics included
        return self

    def inputs(self, reference_rows, target_rows, texts):
        text_features = torch.stack([self.caption_features[text] for text in texts])
        return self.picture_features[reference_rows], self.picture_features[target_rows], text_features

    def forward(self, batch):
        """(predicted, target) features [batch, dim], normalised, of (reference, target, text) features."""
        reference_features, target_features, text_features = batch
        predicted = self.combiner.combine_features(reference_features, text_features)
        return predicted, F.normalize(target_features, dim=-1)


def encode_training_set(training_set, caption_variants, clip_model, num_workers, clip_batch_size):
    """Features of the pictures [pictures, dim] and captions {text: [dim]} of a training set, each encoded once."""
    picture_features, _ = extract_index_features(training_set.pictures(), clip_model, num_workers, clip_batch_size)
    variants = (text for _, _, captions in training_set.triplet_names() for text in caption_variants(captions))
    texts = list(dict.fromkeys(variants))
    caption_features = extract_caption_features(texts, clip_model, clip_batch_size)
    # Copies: what inference mode gave cannot take part in training.
    return picture_features.clone(), dict(zip(texts, caption_features.clone(), strict=True))


def parse_arguments(argv):
    parser = Parser("Stage 2: train the Combiner on the training triplets of CIRR or FashionIQ, CLIP frozen.")
    add_dataset_option(parser, default="CIRR")
    parser.add_argument("--combiner-lr", type=positive, default=2e-5, help="learning rate of Adam")
    parser.add_argument("--clip-bs", type=count, default=32, help="pictures or captions that CLIP encodes at once")
    add_training_options(parser, batch_size=1024, validation_frequency=3)
    add_combiner_options(parser, trained=False)
    add_clip_options(parser)
    add_common_options(parser)
    return parser.parse_args(argv)


@one_line_errors
def main(argv=None):
    args = parse_arguments(argv)
    torch.manual_seed(args.seed)
    benchmark = BENCHMARKS[args.dataset]

    clip_model = load_clip(args.clip_model_name, args.clip_model_path)
    combiner = Combiner(clip_model.visual.output_dim, args.projection_dim, args.hidden_dim).to(device)

    preprocess = make_transform(args.transform, args.target_ratio, clip_model.visual.input_resolution)
    training_set = benchmark.training_set(preprocess, args.data_path)
    loader = training_loader(TripletRows(training_set), args.batch_size, num_workers=0, seed=args.seed)
    validation = Validation(benchmark, preprocess, args.data_path, args.num_workers, frozen_galleries=True)

    with autocast(args.precision):
        features = encode_training_set(
            training_set, benchmark.caption_variants, clip_model, args.num_workers, args.clip_bs
        )
    stage = CombinerTraining(clip_model, combiner, *features)
    optimizer = torch.optim.Adam(combiner.parameters(), lr=args.combiner_lr)

    name = f"combiner_trained_on_{benchmark.short_name}_{model_label(args.clip_model_name)}"
    project = f"{args.dataset} combiner training"
    run = start_run(args.output_path / "models", name, project, comet_options(args), hyper_parameters(args))
    train(stage, optimizer, loader, validation, run, training_plan(args))


if __name__ == "__main__":
    main()
