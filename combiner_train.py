"""Stage 2: train the Combiner on the features of a frozen CLIP (section 3.3).

    python combiner_train.py --clip-model-path models/.../tuned_clip_arithmetic.pt --save-training --save-best

Options of its own: --combiner-lr, and --clip-bs, the pictures that CLIP encodes at a time.
"""

import torch
import torch.nn.functional as F
from torch import nn

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
    comet_options,
    device,
    load_clip,
    model_label,
    train,
    training_loader,
    training_plan,
)
from validate import BENCHMARKS, Validation


class CombinerTraining(nn.Module):
    """Stage 2 as a module: a frozen CLIP and the Combiner that learns on its features."""

    weights_name = "combiner"

    def __init__(self, clip_model, combiner, clip_batch_size):
        """`clip_batch_size`: pictures and captions that CLIP encodes at a time."""
        super().__init__()
        self.clip_model = clip_model.requires_grad_(False)
        self.combiner = combiner
        self.clip_batch_size = clip_batch_size
        self.combining_function = combiner.combine_features

    @property
    def trained(self):
        return self.combiner

    def train(self, mode=True):
        super().train(mode)
        self.clip_model.eval()  # it is frozen, batch-norm statistics included
        return self

    def forward(self, batch):
        """(predicted, target) features [batch, dim], normalised, of (reference images, target images, tokens)."""
        reference_images, target_images, tokens = batch
        reference_features = self._encode(self.clip_model.encode_image, reference_images)
        target_features = self._encode(self.clip_model.encode_image, target_images)
        text_features = self._encode(self.clip_model.encode_text, tokens)
        predicted = self.combiner.combine_features(reference_features, text_features)
        return predicted, F.normalize(target_features, dim=-1)

    @torch.no_grad()
    def _encode(self, encoder, inputs):
        return torch.cat([encoder(part).float() for part in inputs.split(self.clip_batch_size)])


def parse_arguments(argv):
    parser = Parser("Stage 2: train the Combiner on the training triplets of CIRR or FashionIQ, CLIP frozen.")
    add_dataset_option(parser, default="CIRR")
    parser.add_argument("--combiner-lr", type=positive, default=2e-5, help="learning rate of Adam")
    parser.add_argument("--clip-bs", type=count, default=32, help="pictures that CLIP encodes at a time")
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
    stage = CombinerTraining(clip_model, combiner, args.clip_bs)

    preprocess = make_transform(args.transform, args.target_ratio, clip_model.visual.input_resolution)
    training_set = benchmark.training_set(preprocess, args.data_path)
    loader = training_loader(training_set, args.batch_size, args.num_workers, args.seed)
    validation = Validation(benchmark, preprocess, args.data_path, args.num_workers, frozen_galleries=True)

    optimizer = torch.optim.Adam(combiner.parameters(), lr=args.combiner_lr)

    name = f"combiner_trained_on_{benchmark.short_name}_{model_label(args.clip_model_name)}"
    project = f"{args.dataset} combiner training"
    run = start_run(args.output_path / "models", name, project, comet_options(args), hyper_parameters(args))
    train(stage, optimizer, loader, validation, run, training_plan(args))


if __name__ == "__main__":
    main()
