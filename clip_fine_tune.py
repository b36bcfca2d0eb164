"""Stage 1: fine-tune CLIP so that image feature + caption feature lands on the target's feature (section 3.2).

    python clip_fine_tune.py --dataset CIRR --num-epochs 100 --batch-size 128 --save-training --save-best

Options of its own: --encoder (which of CLIP's encoders learns), --learning-rate, --clip-bs (how much of a batch CLIP
has in memory at a time; the batch stays one), and --image-cache.
With --encoder text the pictures' features never change: they are extracted once.
"""

from options import (
    add_clip_options,
    add_common_options,
    add_dataset_option,
    add_feature_cache_options,
    add_image_cache_option,
    add_training_options,
    feature_cache_folder,
    parse_training,
    training_plan,
)
from src.options import Parser, any_case, count, positive


def parse_arguments(argv=None):
    parser = Parser("Stage 1: fine-tune CLIP on the training triplets of CIRR or FashionIQ.")
    add_dataset_option(parser)
    parser.add_argument(
        "--encoder", type=any_case("both", "text", "image"), default="both", help="or text, image: what learns"
    )
    parser.add_argument("--learning-rate", type=positive, default=2e-6, help="of AdamW")
    help_text = "pictures or captions of a batch that CLIP has in memory at once (default: all of them)"
    parser.add_argument("--clip-bs", type=count, help=help_text)
    add_training_options(parser, batch_size=512, validation_frequency=1)
    add_clip_options(parser, tuned=False)
    add_image_cache_option(parser)
    add_feature_cache_options(parser)
    add_common_options(parser)
    return parse_training(parser, argv)


if __name__ == "__main__":
    parse_arguments()  # --help and a wrong flag are answered here, before torch is imported

import torch
import torch.nn.functional as F
from torch import nn

from data_utils import TripletImages, TripletRows, make_transform
from image_cache import cache_images
from skipping import Skipping
from src.distributed import joining
from src.errors import one_line_errors
from src.gradient_caching import in_pieces
from training import Training, start_or_resume, training_loader
from utils import (
    Encoder,
    caption_tokens,
    checkpoint_facts,
    device,
    element_wise_sum,
    load_clip,
    model_label,
    to_device,
)
from validate import BENCHMARKS, Validation

FROZEN = {"both": (), "text": ("image",), "image": ("text",)}
"""Which of CLIP's encoders keep their weights while --encoder learns."""


class FineTuning(nn.Module):
    """Stage 1 as a module: CLIP, of which one or both encoders learn, and the element-wise sum."""

    weights_name = "tuned_clip"
    combining_function = staticmethod(element_wise_sum)

    def __init__(self, clip_model, encoder, picture_features=None, clip_bs=None):
        """`encoder` names what learns: "both", "text" (the visual tower is frozen) or "image" (all but it is).

        `picture_features` [pictures, dim] of all that the triplets name stand in for images when the tower is frozen.
        `clip_bs` is how many pictures or captions CLIP encodes at a time, None for all of a batch.
        """
        super().__init__()
        self.clip_model = clip_model.requires_grad_(encoder != "image")
        clip_model.visual.requires_grad_(encoder != "text")
        clip_model.logit_scale.requires_grad_(False)  # not part of this loss
        self.picture_features = picture_features
        self.clip_bs = clip_bs

    @property
    def trained(self):
        return self.clip_model

    def train(self, mode=True):
        super().train(mode)
        self.clip_model.eval()  # while training too: batch-norm statistics stay CLIP's
        return self

    def inputs(self, *pictures, texts):
        """The batch that `forward` takes, of an item of TripletImages or, with `picture_features`, of TripletRows."""
        *images, references, targets = pictures
        images = None if self.picture_features is not None else images[0]
        return images, references.to(device), targets.to(device), caption_tokens(texts, self.clip_model)

    def forward(self, batch):
        """(predicted, target) features [batch, dim], normalised, of (images, reference rows, target rows, tokens)."""
        images, references, targets, tokens = batch
        features = self.picture_features if images is None else self._features("image", images)
        predicted = self.combining_function(features[references], self._features("text", tokens))
        return predicted, F.normalize(features[targets], dim=-1)

    def _features(self, encoder, rows):
        module = _OneEncoder(self.clip_model, encoder)
        learning = {
            name: weight
            for name, weight in module.named_parameters()
            if weight.requires_grad and (".visual." in name) == (encoder == "image")
        }
        return in_pieces(module, rows, self.clip_bs, learning)


class _OneEncoder(nn.Module):
    """One of CLIP's encoders, of images from anywhere or of tokens on the device."""

    def __init__(self, clip_model, encoder):
        super().__init__()
        self.clip_model = clip_model
        self.encoder = encoder

    def forward(self, rows):
        if self.encoder == "image":  # to the device as late as here: a card need not hold a whole batch of them
            return self.clip_model.encode_image(to_device(rows))
        return self.clip_model.encode_text(rows)


@one_line_errors
@joining
def main(argv=None):
    args = parse_arguments(argv)
    torch.manual_seed(args.seed)
    benchmark = BENCHMARKS[args.dataset]

    clip_model = load_clip(args.clip_model_name)
    frozen = FROZEN[args.encoder]
    encoder = Encoder(clip_model, frozen, feature_cache_folder(args), args.num_workers)

    skipping = Skipping(args.skip_missing, args.num_workers)
    preprocess = make_transform(args.transform, args.target_ratio, clip_model.visual.input_resolution)
    training_set = benchmark.training_set(preprocess, args.data_path, skipping)
    triplets = TripletRows(training_set) if "image" in frozen else TripletImages(training_set)
    loader = training_loader(triplets, args.batch_size, args.num_workers, args.seed)
    validation = Validation(benchmark, preprocess, args.data_path, encoder, skipping)
    if args.image_cache is not None:
        cache_images([triplets.pictures, *validation.galleries], args.image_cache, args.num_workers)

    picture_features = encoder.pictures(triplets.pictures) if "image" in frozen else None
    stage = FineTuning(clip_model, args.encoder, picture_features, args.clip_bs)
    learning = [parameter for parameter in stage.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=args.learning_rate, betas=(0.9, 0.999), eps=1e-7, fused=True)

    facts = checkpoint_facts(args)
    training = Training(stage, optimizer, loader, validation, training_plan(args), facts | skipping.remarks)
    name = f"clip_finetuned_on_{benchmark.short_name}_{model_label(args.clip_model_name)}"
    training.train(start_or_resume(training, args, name, f"{args.dataset} clip fine-tuning", skipping.remarks))


if __name__ == "__main__":
    main()
