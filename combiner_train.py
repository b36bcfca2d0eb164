"""Stage 2: train the Combiner on the features of a frozen CLIP, which are extracted once (section 3.3).

    python combiner_train.py --clip-model-path models/.../tuned_clip_arithmetic.pt --save-training --save-best

Options of its own: --combiner-lr, and --clip-bs, the pictures or captions that CLIP encodes at a time.
"""

from options import (
    add_clip_options,
    add_combiner_options,
    add_common_options,
    add_dataset_option,
    add_feature_cache_options,
    add_training_options,
    feature_cache_folder,
    parse_training,
    training_plan,
)
from src.options import Parser, count, positive


def parse_arguments(argv=None):
    parser = Parser("Stage 2: train the Combiner on the training triplets of CIRR or FashionIQ, CLIP frozen.")
    add_dataset_option(parser, default="CIRR")
    parser.add_argument("--combiner-lr", type=positive, default=2e-5, help="learning rate of Adam")
    parser.add_argument("--clip-bs", type=count, default=32, help="pictures or captions that CLIP encodes at once")
    add_training_options(parser, batch_size=1024, validation_frequency=3)
    add_combiner_options(parser, trained=False)
    add_clip_options(parser)
    add_feature_cache_options(parser)
    add_common_options(parser)
    return parse_training(parser, argv)


if __name__ == "__main__":
    parse_arguments()  # --help and a wrong flag are answered here, before torch is imported

import torch
import torch.nn.functional as F
from torch import nn

from combiner import Combiner
from data_utils import TripletRows, make_transform
from skipping import Skipping
from src.distributed import joining
from src.errors import one_line_errors
from src.weights import weights_digest
from training import Training, start_or_resume, training_loader
from utils import ENCODERS, Encoder, agree_with_checkpoints, autocast, checkpoint_facts, device, load_clip, model_label
from validate import BENCHMARKS, Validation


class CombinerTraining(nn.Module):
    """Stage 2 as a module: the Combiner, and the features that a frozen CLIP gives the pictures and captions."""

    weights_name = "combiner"

    def __init__(self, clip_model, combiner, picture_features, caption_features, texts):
        """`picture_features` [pictures, dim]; `caption_features` [texts, dim], a row for each of `texts`."""
        super().__init__()
        self.clip_model = clip_model.requires_grad_(False)
        self.combiner = combiner
        self.picture_features = picture_features
        self.caption_features = caption_features
        self.text_row = {text: row for row, text in enumerate(texts)}
        self.combining_function = combiner.combine_features

    @property
    def trained(self):
        return self.combiner

    def train(self, mode=True):
        super().train(mode)
        self.clip_model.eval()  # it is frozen, batch-norm statistics included
        return self

    def inputs(self, references, targets, texts):
        text_rows = torch.tensor([self.text_row[text] for text in texts])
        return (
            self.picture_features[references.to(device)],
            self.picture_features[targets.to(device)],
            self.caption_features[text_rows.to(device)],
        )

    def forward(self, batch):
        """(predicted, target) features [batch, dim], normalised, of (reference, target, text) features."""
        reference_features, target_features, text_features = batch
        predicted = self.combiner.combine_features(reference_features, text_features)
        return predicted, F.normalize(target_features, dim=-1)


def encode_triplets(triplets, caption_variants, encoder):
    """Features [pictures, dim] and [texts, dim] of what the triplets name, each encoded once, and the texts."""
    texts = list(dict.fromkeys(text for captions in triplets.captions for text in caption_variants(captions)))
    return encoder.pictures(triplets.pictures), encoder.captions(texts), texts


@one_line_errors
@joining
def main(argv=None):
    args = parse_arguments(argv)
    agree_with_checkpoints(args)
    torch.manual_seed(args.seed)
    benchmark = BENCHMARKS[args.dataset]

    clip_model = load_clip(args.clip_model_name, args.clip_model_path)
    combiner = Combiner(clip_model.visual.output_dim, args.projection_dim, args.hidden_dim).to(device)

    skipping = Skipping(args.skip_missing, args.num_workers)
    preprocess = make_transform(args.transform, args.target_ratio, clip_model.visual.input_resolution)
    triplets = TripletRows(benchmark.training_set(preprocess, args.data_path, skipping))
    loader = training_loader(triplets, args.batch_size, num_workers=0, seed=args.seed)
    encoder = Encoder(clip_model, ENCODERS, feature_cache_folder(args), args.num_workers, args.clip_bs)
    validation = Validation(benchmark, preprocess, args.data_path, encoder, skipping)

    with autocast(args.precision):
        features = encode_triplets(triplets, benchmark.caption_variants, encoder)
    stage = CombinerTraining(clip_model, combiner, *features)
    optimizer = torch.optim.Adam(combiner.parameters(), lr=args.combiner_lr, fused=True)

    dimensions = {"projection_dim": args.projection_dim, "hidden_dim": args.hidden_dim}
    facts = checkpoint_facts(args) | dimensions | {"clip_weights": weights_digest(clip_model.state_dict())}
    training = Training(stage, optimizer, loader, validation, training_plan(args), facts | skipping.remarks)
    name = f"combiner_trained_on_{benchmark.short_name}_{model_label(args.clip_model_name)}"
    training.train(start_or_resume(training, args, name, f"{args.dataset} combiner training", skipping.remarks))


if __name__ == "__main__":
    main()
