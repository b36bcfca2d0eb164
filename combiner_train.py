"""Stage 2: train the Combiner on the features of a frozen CLIP, which are extracted once (paper, section 3.3).

    python combiner_train.py --clip-model-path models/.../tuned_clip_arithmetic.pt --save-training --save-best

Options of its own: --combiner-lr, and --clip-bs, the pictures or captions that CLIP encodes at a time.
"""

from src.base.parser import Parser, count, positive
from src.command import flags, training_flags


def make_parser() -> Parser:
    parser = Parser("Stage 2: train the Combiner on the training triplets of a data set, CLIP frozen.")
    flags.add_dataset_option(parser, default="CIRR", split="train")
    parser.add_argument("--combiner-lr", type=positive, default=2e-5, help="learning rate of Adam")
    parser.add_argument("--clip-bs", type=count, default=32, help="pictures or captions that CLIP encodes at once")
    training_flags.add_training_options(parser, batch_size=1024, validation_frequency=3)
    flags.add_combiner_options(parser, trained=False)
    flags.add_clip_options(parser)
    flags.add_common_options(parser)
    return parser


if __name__ == "__main__":
    training_flags.parse_training(make_parser())  # --help and a wrong flag are answered here, before torch is imported

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from combiner import Combiner
from data_utils import Batch, TripletRows
from retriever import load_retriever
from src.base.distributed import command
from src.command.run import COMBINER_TRAINING
from src.models.facts import told_by_checkpoints
from src.tasks.triplets import Task
from src.training.losses import Bank
from training import prepare, read_training_data, train_stage
from utils import Encoder, autocast, device


class CombinerTraining(nn.Module):
    """Stage 2 as a module: the Combiner over features of pictures and texts, which do not change."""

    names = COMBINER_TRAINING

    def __init__(self, combiner: Combiner, picture_features: Tensor | Bank, caption_features: Tensor, texts: list[str]):
        """`picture_features` [pictures, dim]; `caption_features` [texts, dim], a row for each of `texts`.

        A Bank of the pictures is what --negatives bank needs.
        """
        super().__init__()
        self.combiner = combiner
        self.picture_features = picture_features
        self.caption_features = caption_features
        # By the text itself: triplets share captions, and FashionIQ draws one of four texts anew each epoch.
        self.text_row = {text: row for row, text in enumerate(texts)}
        self.combining_function = combiner.combine_features

    given_pieces = None
    way_out = "; a smaller batch, --projection-dim or --hidden-dim takes less"

    def smaller_pieces(self, batch_size: int) -> None:
        """Return None: the Combiner takes a batch whole."""

    @property
    def trained(self) -> nn.Module:
        return self.combiner

    def inputs(self, batch: Batch, texts: list[str]) -> tuple[Tensor, Tensor, Tensor]:
        """Return what `forward` takes: the features [share, dim] of references, targets and texts."""
        text_rows = torch.tensor([self.text_row[text] for text in texts])
        return (
            self.picture_features[batch.references.to(device)],
            self.picture_features[batch.targets.to(device)],
            self.caption_features[text_rows.to(device)],
        )

    def forward(self, inputs: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Return (predicted, target) features [share, dim], normalised."""
        reference_features, target_features, text_features = inputs
        predicted = self.combiner.combine_features(reference_features, text_features)
        return predicted, F.normalize(target_features, dim=-1)


def encode_triplets(triplets: TripletRows, task: Task, encoder: Encoder) -> tuple[Tensor, Tensor, list[str]]:
    """Return features [pictures, dim] and [texts, dim] of what the triplets name, each encoded once, and the texts."""
    # Every text that training may draw, each once and in a fixed order.
    texts = list(dict.fromkeys(text for captions in triplets.captions for text in task.training_texts(captions)))
    return encoder.pictures(triplets.pictures), encoder.captions(texts), texts


@command
def main(argv=None):
    args = training_flags.parse_training(make_parser(), argv)
    vars(args).update(told_by_checkpoints([args.clip_model_path], vars(args), args.given))
    torch.manual_seed(args.seed)
    data = read_training_data(training_flags.run_options(args))
    retriever = load_retriever(flags.retriever_options(args), batch_size=args.clip_bs)
    # Behind CLIP, whose loading draws random numbers too: the order decides the first weights of a seed.
    combiner = Combiner(retriever.backbone.dimension, args.projection_dim, args.hidden_dim, args.dropout).to(device)
    # The rows are in memory, so workers would only copy them from process to process.
    loader, validation = prepare(data, retriever, TripletRows, num_workers=0)

    with autocast(args.precision):
        picture_features, *of_texts = encode_triplets(loader.dataset, data.task, retriever.encoder)
    if args.negatives == "bank":
        picture_features = Bank(picture_features)
    stage = CombinerTraining(combiner, picture_features, *of_texts)
    optimizer = torch.optim.Adam(combiner.parameters(), lr=args.combiner_lr, fused=True)
    facts = {"projection_dim": args.projection_dim, "hidden_dim": args.hidden_dim}
    train_stage(stage, optimizer, loader, validation, data, facts)


if __name__ == "__main__":
    main()
