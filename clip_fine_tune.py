"""Stage 1: fine-tune CLIP so that image feature + caption feature lands on the target's feature (paper, section 3.2).

    python clip_fine_tune.py --dataset CIRR --num-epochs 100 --batch-size 128 --save-training --save-best

Options to know: --encoder (which of CLIP's encoders learns), --learning-rate, --clip-bs (how much of a batch CLIP has
in memory at a time; the loss still sees the whole batch), and --image-cache. --clip-model-path goes on from tuned
weights. With --encoder text the pictures' features never change, so they are extracted once.
"""

from argparse import Namespace

from src.command import data_flags, flags, training_flags
from src.command.parser import Parser, any_case, count, positive
from src.command.recipes import FINE_TUNING_RECIPES

LEARNING = {"both": ("image", "text"), "text": ("text",), "image": ("image",)}
"""{name of --encoder: CLIP's encoders that learn}"""


def make_parser() -> Parser:
    parser = Parser("Stage 1: fine-tune CLIP on the training triplets of a data set.", __doc__)
    data_flags.add_dataset_option(parser, otherwise="required, or the run's with --resume", split="train")
    help_text = f"which of CLIP's encoders learn: {', '.join(LEARNING)}"
    parser.add_argument("--encoder", type=any_case(*LEARNING), default="both", help=help_text)
    parser.add_argument("--learning-rate", type=positive, default=2e-6, help="learning rate of AdamW")
    help_text = "pictures or captions of a batch that CLIP has in memory at once (default: the whole batch)"
    parser.add_argument("--clip-bs", type=count, help=help_text)
    training_flags.add_training_options(parser, FINE_TUNING_RECIPES, batch_size=512, validation_frequency=1)
    flags.add_clip_options(parser)
    flags.add_image_cache_option(parser)
    data_flags.add_common_options(parser)
    return parser


def parse(argv: list[str] | None = None) -> Namespace:
    return training_flags.parse_training(make_parser(), FINE_TUNING_RECIPES, argv)


if __name__ == "__main__":
    parse()  # --help and a wrong flag are answered here, before torch is imported

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.training.batches import Batch, TripletImages, TripletRows
from src.training.losses import Bank
from src.training.one_encoder import OneEncoder
from src.training.pieces import Pieces
from src.training.run import FINE_TUNING
from src.training.stage import Stage
from src.training.train import prepare, read_training_data, train_stage
from utils import (
    ENCODERS,
    Backbone,
    caption_tokens,
    command,
    device,
    element_wise_sum,
    load_retriever,
    say_device,
    settings,
)


class FineTuning(Stage):
    """Stage 1 as a module: CLIP, of which one or both encoders learn, and the element-wise sum."""

    names = FINE_TUNING
    combining_function = staticmethod(element_wise_sum)

    def __init__(
        self,
        backbone: Backbone,
        learning: tuple[str, ...],
        picture_features: Tensor | Bank | None = None,
        clip_bs: int | None = None,
    ):
        """`learning` names the encoders that learn.

        `picture_features` [pictures, dim] of all that the triplets name replace the images where the picture encoder is
        frozen; a Bank of them is what --negatives bank needs.
        `clip_bs` is how many pictures or captions CLIP encodes at a time, None for all of a batch.
        """
        super().__init__()
        # logit_scale never learns, so it gets no gradient that DistributedDataParallel would wait for.
        backbone.let_learn(learning)
        self.backbone, self.clip_model = backbone, backbone.model
        # A plain dict: as submodules they would register CLIP's weights twice.
        self.encoders = {name: OneEncoder(backbone, name) for name in ENCODERS}
        self.picture_features = picture_features
        self.pieces = Pieces(clip_bs)

    @property
    def trained(self) -> nn.Module:
        return self.clip_model

    def train(self, mode: bool = True):
        super().train(mode)
        self.clip_model.eval()  # while training too: batch-norm statistics stay CLIP's
        return self

    def inputs(self, batch: Batch, texts: list[str]) -> tuple:
        """Return pixels (or None), reference rows, target rows and tokens, on the device."""
        tensors = batch.pixels, batch.references, batch.targets, caption_tokens(texts, self.backbone)
        return tuple(None if one is None else one.to(device, non_blocking=True) for one in tensors)

    def forward(self, inputs: tuple) -> tuple[Tensor, Tensor]:
        pixels, references, targets, tokens = inputs
        features = self.picture_features if pixels is None else self._features("image", pixels)
        predicted = self.combining_function(features[references], self._features("text", tokens))
        return predicted, F.normalize(features[targets], dim=-1)

    def _features(self, encoder, rows):
        return self.encoders[encoder].in_pieces(rows, self.pieces.size)


@command
def main(argv=None):
    args = parse(argv)
    given = settings(args)
    torch.manual_seed(args.seed)
    data = read_training_data(given.run)
    learning = LEARNING[args.encoder]
    frozen = tuple(encoder for encoder in ENCODERS if encoder not in learning)
    retriever = load_retriever(given.retriever, frozen)
    say_device(args.precision, training=True)
    batches = TripletRows if "image" in frozen else TripletImages
    loader, validation = prepare(data, retriever, batches, args.num_workers)

    pictures = loader.triplets.pictures
    # Before anything is encoded, so that a full disk is found first.
    retriever.keep_decoded([pictures, *validation.pictures.values()])
    picture_features = retriever.encoder.pictures(pictures) if "image" in frozen else None
    if args.negatives == "bank":
        picture_features = Bank(picture_features)
    stage = FineTuning(retriever.backbone, learning, picture_features, args.clip_bs)
    weights = [weight for weight in stage.parameters() if weight.requires_grad]
    # Published betas and eps; the fused step gives the same up to rounding.
    optimizer = torch.optim.AdamW(weights, lr=args.learning_rate, betas=(0.9, 0.999), eps=1e-7, fused=True)
    train_stage(stage, optimizer, loader, validation, data)


if __name__ == "__main__":
    main()
