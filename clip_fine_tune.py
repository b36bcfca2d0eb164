"""Stage 1: fine-tune CLIP so that image feature + caption feature lands on the target's feature (section 3.2).

    python clip_fine_tune.py --dataset CIRR --num-epochs 100 --batch-size 128 --save-training --save-best

Options of its own: --encoder (which of CLIP's encoders learns) and --learning-rate.
"""

import torch
import torch.nn.functional as F
from torch import nn

from data_utils import make_transform
from src.errors import one_line_errors
from src.options import Parser, any_case, hyper_parameters, positive
from src.run import start_run
from utils import (
    add_clip_options,
    add_common_options,
    add_dataset_option,
    add_training_options,
    caption_tokens,
    comet_options,
    device,
    element_wise_sum,
    load_clip,
    model_label,
    train,
    training_loader,
    training_plan,
)
from validate import BENCHMARKS, Validation


class FineTuning(nn.Module):
    """Stage 1 as a module: CLIP, of which one or both encoders learn, and the element-wise sum."""

    weights_name = "tuned_clip"
    combining_function = staticmethod(element_wise_sum)

    def __init__(self, clip_model, encoder):
        """`encoder` names what learns: "both", "text" (the visual tower is frozen) or "image" (all but it is)."""
        super().__init__()
        self.clip_model = clip_model.requires_grad_(encoder != "image")
        clip_model.visual.requires_grad_(encoder != "text")
        clip_model.logit_scale.requires_grad_(False)  # not part of this loss

    @property
    def trained(self):
        return self.clip_model

    def train(self, mode=True):
        super().train(mode)
        self.clip_model.eval()  # while training too: batch-norm statistics stay CLIP's
        return self

    def inputs(self, reference_images, target_images, texts):
        images = (images.to(device, non_blocking=True) for images in (reference_images, target_images))
        return *images, caption_tokens(texts, self.clip_model)

    def forward(self, batch):
        """(predicted, target) features [batch, dim], normalised, of (reference images, target images, tokens)."""
        reference_images, target_images, tokens = batch
        images = torch.cat((reference_images, target_images))
        reference_features, target_features = self.clip_model.encode_image(images).chunk(2)
        predicted = self.combining_function(reference_features, self.clip_model.encode_text(tokens))
        return predicted, F.normalize(target_features, dim=-1)


def parse_arguments(argv):
    parser = Parser("Stage 1: fine-tune CLIP on the training triplets of CIRR or FashionIQ.")
    add_dataset_option(parser)
    parser.add_argument("--encoder", type=any_case("both", "text", "image"), default="both", help="what learns")
    parser.add_argument("--learning-rate", type=positive, default=2e-6, help="of AdamW")
    add_training_options(parser, batch_size=512, validation_frequency=1)
    add_clip_options(parser, tuned=False)
    add_common_options(parser)
    return parser.parse_args(argv)


@one_line_errors
def main(argv=None):
    args = parse_arguments(argv)
    torch.manual_seed(args.seed)
    benchmark = BENCHMARKS[args.dataset]

    clip_model = load_clip(args.clip_model_name)
    stage = FineTuning(clip_model, args.encoder)

    preprocess = make_transform(args.transform, args.target_ratio, clip_model.visual.input_resolution)
    training_set = benchmark.training_set(preprocess, args.data_path)
    loader = training_loader(training_set, args.batch_size, args.num_workers, args.seed)
    frozen = args.encoder == "text"
    validation = Validation(benchmark, preprocess, args.data_path, args.num_workers, frozen_galleries=frozen)

    learning = [parameter for parameter in stage.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=args.learning_rate, betas=(0.9, 0.999), eps=1e-7)

    name = f"clip_finetuned_on_{benchmark.short_name}_{model_label(args.clip_model_name)}"
    project = f"{args.dataset} clip fine-tuning"
    run = start_run(args.output_path / "models", name, project, comet_options(args), hyper_parameters(args))
    train(stage, optimizer, loader, validation, run, training_plan(args))


if __name__ == "__main__":
    main()
