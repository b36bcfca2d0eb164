"""Stage 2: train the Combiner on the features of a frozen CLIP, which are extracted once (paper, section 3.3).

With --encoder text CLIP's text encoder learns along, and a checkpoint holds both.

    python combiner_train.py --clip-model-path models/.../tuned_clip_arithmetic.pt --save-training --save-best

Options to know: --combiner-lr, --projection-dim, --hidden-dim, --dropout, --gallery-projection, and for --encoder text
--learning-rate and --frozen-epochs.
"""

from argparse import Namespace

from src.command import data_flags, flags, training_flags
from src.command.combining import names_in
from src.command.parser import Parser, any_case, count, count_or_zero, positive
from src.command.recipes import COMBINER_RECIPES

FUNCTIONS = names_in("combiner.py")


def make_parser() -> Parser:
    parser = Parser("Stage 2: train the Combiner on the training triplets of a data set.", __doc__)
    data_flags.add_dataset_option(parser, default="CIRR", split="train")
    parser.add_argument("--combiner-lr", type=positive, default=2e-5, help="learning rate of Adam")
    parser.add_argument("--clip-bs", type=count, default=32, help="pictures or captions that CLIP encodes at once")
    help_text = "text: CLIP's text encoder learns along with the Combiner, pictures stay frozen"
    parser.add_argument("--encoder", type=any_case("none", "text"), default="none", help=help_text)
    help_text = "with --encoder text: learning rate of AdamW for CLIP"
    parser.add_argument("--learning-rate", type=positive, default=2e-6, help=help_text)
    help_text = "with --encoder text: epochs of training only the Combiner first"
    parser.add_argument("--frozen-epochs", type=count_or_zero, default=0, metavar="N", help=help_text)
    training_flags.add_training_options(parser, COMBINER_RECIPES, batch_size=1024, validation_frequency=3)
    flags.add_combiner_options(parser, FUNCTIONS, trained=False)
    flags.add_clip_options(parser)
    data_flags.add_common_options(parser)
    return parser


def parse(argv: list[str] | None = None) -> Namespace:
    return training_flags.parse_training(make_parser(), COMBINER_RECIPES, argv)


if __name__ == "__main__":
    parse()  # --help and a wrong flag are answered here, before torch is imported

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from combiner import network_facts, new_network
from src.training.batches import Batch, TripletRows, encode_triplets
from src.training.losses import Bank
from src.training.one_encoder import OneEncoder
from src.training.pieces import Pieces
from src.training.run import COMBINER_TRAINING
from src.training.stage import Stage
from src.training.train import prepare, read_training_data, train_stage
from utils import ENCODERS, autocast, caption_tokens, command, compared, device, load_retriever, say_device, settings


class CombinerTraining(Stage):
    """Stage 2 as a module: the Combiner over features of pictures, which do not change, and of texts, which may."""

    names = COMBINER_TRAINING

    def __init__(
        self,
        combiner: nn.Module,
        picture_features: Tensor | Bank,
        caption_features: Tensor,
        texts: list[str],
        text_encoder: OneEncoder | None = None,
        clip_bs: int | None = None,
        frozen_epochs: int = 0,
    ):
        """`picture_features` [pictures, dim]; `caption_features` [texts, dim], a row for each of `texts`.

        A Bank of the pictures is what --negatives bank needs. A `text_encoder` learns along, after `frozen_epochs` of
        the features that it gave before; `clip_bs` is how many captions it encodes at a time.
        """
        super().__init__()
        self.combiner, self.text_encoder = combiner, text_encoder
        self.frozen_epochs = frozen_epochs
        # The Combiner takes a batch whole, so smaller pieces of CLIP would not save enough.
        self.pieces = Pieces(clip_bs, advice="a smaller batch, --clip-bs, --projection-dim or --hidden-dim takes less")
        self.begin(0)
        self.picture_features = picture_features
        self.caption_features = caption_features
        # By the text itself: triplets share captions, and FashionIQ draws one of four texts anew each epoch.
        self.text_row = {text: row for row, text in enumerate(texts)}
        self.combining_function = combiner.combine_features

    @property
    def trained(self) -> nn.Module:
        if self.text_encoder is None:
            return self.combiner
        return nn.ModuleDict(
            {type(self.combiner).__name__: self.combiner, self.text_encoder.backbone.key: self.text_encoder.clip_model}
        )

    def facts(self) -> dict:
        return {} if self.text_encoder is None else self.text_encoder.facts()

    def train(self, mode: bool = True):
        super().train(mode)
        if self.text_encoder is not None:
            self.text_encoder.eval()  # CLIP stays in eval mode, as in stage 1
        return self

    def begin(self, epoch: int) -> None:
        self.text_learns = self.text_encoder is not None and epoch >= self.frozen_epochs

    def inputs(self, batch: Batch, texts: list[str]) -> tuple[Tensor, Tensor, Tensor]:
        """Return features [share, dim] of references and targets, and those of the texts or their tokens."""
        if self.text_learns:
            tokens_or_features = caption_tokens(texts, self.text_encoder.backbone)
        else:
            rows = torch.tensor([self.text_row[text] for text in texts])
            tokens_or_features = self.caption_features[rows.to(device, non_blocking=True)]
        references, targets = (rows.to(device, non_blocking=True) for rows in (batch.references, batch.targets))
        return self.picture_features[references], self.picture_features[targets], tokens_or_features

    def forward(self, inputs: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        reference_features, target_features, texts = inputs
        text_features = self.text_encoder.in_pieces(texts, self.pieces.size) if self.text_learns else texts
        predicted = self.combiner.combine_features(reference_features, text_features)
        return predicted, F.normalize(compared(self.combining_function, target_features), dim=-1)


@command
def main(argv=None):
    args = parse(argv)
    given = settings(args)
    torch.manual_seed(args.seed)
    data = read_training_data(given.run)
    learning = () if args.encoder == "none" else (args.encoder,)
    frozen = tuple(encoder for encoder in ENCODERS if encoder not in learning)
    retriever = load_retriever(given.retriever, frozen, batch_size=args.clip_bs)
    say_device(args.precision, training=True)
    # After CLIP, whose loading draws random numbers too: the order decides the first weights of a seed.
    sizes = retriever.backbone.dimension, args.projection_dim, args.hidden_dim
    combiner = new_network(getattr(args, "network", None), *sizes, args.dropout, args.gallery_projection)
    # The rows are in memory, so workers would only copy them from process to process.
    loader, validation = prepare(data, retriever, TripletRows, num_workers=0)

    with autocast(args.precision):
        picture_features, caption_features, texts = encode_triplets(loader.triplets, data.task, retriever.encoder)
    if args.negatives == "bank":
        picture_features = Bank(picture_features)
    retriever.backbone.let_learn(learning)
    text_encoder = OneEncoder(retriever.backbone, "text") if learning else None
    features = picture_features, caption_features, texts
    stage = CombinerTraining(combiner, *features, text_encoder, args.clip_bs, args.frozen_epochs)
    optimizer = torch.optim.Adam(combiner.parameters(), lr=args.combiner_lr, fused=True)
    if text_encoder is not None:
        # Each learns as in its own stage: without weight decay Adam and AdamW are the same.
        groups = [
            {"params": combiner.parameters(), "lr": args.combiner_lr, "weight_decay": 0},
            {"params": text_encoder.learning().values(), "lr": args.learning_rate, "eps": 1e-7},
        ]
        optimizer = torch.optim.AdamW(groups, fused=True)
    facts = {"projection_dim": args.projection_dim, "hidden_dim": args.hidden_dim} | network_facts(combiner)
    train_stage(stage, optimizer, loader, validation, data, facts)


if __name__ == "__main__":
    main()
