"""Judge a CLIP, with the element-wise sum or a Combiner, on the validation split of a data set.

    python validate.py --dataset CIRR --clip-model-path models/.../tuned_clip_arithmetic.pt \
        --combining-function combiner --combiner-path models/.../combiner_arithmetic.pt
"""

from src.base.parser import Parser
from src.command.flags import (
    add_dataset_option,
    add_judging_options,
    combining_options,
    comet_options,
    parse_judging,
    retriever_options,
)


def make_parser() -> Parser:
    parser = Parser("Print the recalls of a model on the validation split of a data set.")
    add_dataset_option(parser, required=True)
    add_judging_options(parser)
    return parser


if __name__ == "__main__":
    parse_judging(make_parser())  # --help and a wrong flag are answered here, before torch is imported

from collections.abc import Callable, Sequence

from torch import Tensor

from combiner import load_combined
from src.base.distributed import command
from src.base.files import require_writable
from src.command.comet import start_experiment
from src.models.facts import told_by_checkpoints
from src.retrieval.answers import Answers, Gallery, answer, predict_features
from src.retrieval.metrics import chance, recalls
from src.tasks.registry import TASKS
from src.tasks.triplets import Protocol, Split, Task, Triplet
from utils import Retriever, autocast, extract_caption_features, read_data

# ---- for other code ----


def compute_cirr_val_metrics(
    relative_val_dataset,
    clip_model,
    index_features,
    index_names,
    combining_function,
    caption_features=None,
    protocol: Protocol | str | None = None,
) -> tuple[float, ...]:
    """Return CIRR's recalls in percent: group 1, 2, 3, then 1, 5, 10, 50 (paper, section 5.1).

    `relative_val_dataset` holds items (reference name, target name, caption, group members). `caption_features`
    [queries, dim] are those of the captions, where they are known already; `protocol` None is the published one.
    """
    items = map(relative_val_dataset.__getitem__, range(len(relative_val_dataset)))
    triplets = [Triplet(reference, (caption,), (target,), tuple(group)) for reference, target, caption, group in items]
    gallery = Gallery(index_features, index_names)
    return _recalls(TASKS["CIRR"], triplets, gallery, clip_model, combining_function, caption_features, protocol)


def compute_fiq_val_metrics(
    relative_val_dataset,
    clip_model,
    index_features,
    index_names,
    combining_function,
    caption_features=None,
    protocol: Protocol | str | None = None,
) -> tuple[float, ...]:
    """Return FashionIQ's recall@10 and recall@50 of one category in percent (paper, section 5.1).

    `relative_val_dataset` holds items (reference name, target name, two captions). `caption_features` [queries, dim]
    are those of the captions, where they are known already; `protocol` None is the published one.
    """
    items = map(relative_val_dataset.__getitem__, range(len(relative_val_dataset)))
    triplets = [Triplet(reference, tuple(captions), (target,)) for reference, target, captions in items]
    gallery = Gallery(index_features, index_names)
    return _recalls(TASKS["FashionIQ"], triplets, gallery, clip_model, combining_function, caption_features, protocol)


def _recalls(task, triplets, gallery, clip_model, combining_function, caption_features, protocol):
    if caption_features is None:
        # Only where the caller has no features yet.
        captions = [task.query_text(triplet.captions) for triplet in triplets]
        caption_features = extract_caption_features(captions, clip_model)
    references = [triplet.reference for triplet in triplets]
    predicted = predict_features(gallery, references, caption_features, combining_function)
    protocol = task.protocol(protocol)
    return tuple(recalls(answer(triplets, gallery, predicted, protocol), protocol).values())


# ---- our own validation ----


class Validation:
    """The validation split of a data set, ready to judge a retriever on."""

    def __init__(self, task: Task, splits: dict[str, Split], retriever: Retriever):
        """Take the validation split {category: Split} as it was read."""
        self.task, self.retriever = task, retriever
        self.protocol = task.protocol()
        self.splits = {category: retriever.usable(split) for category, split in splits.items()}
        self.pictures = {category: retriever.pictures(split.pictures) for category, split in self.splits.items()}
        self._known = {}

    def answers(
        self, category: str, combining_function: Callable[[Tensor, Tensor], Tensor] | None = None, best: int = 0
    ) -> Answers:
        """Return the Answers to a category's queries; `combining_function` None is the retriever's."""
        retriever = self.retriever if combining_function is None else self.retriever.combining_by(combining_function)
        triplets = self.splits[category].triplets
        gallery, caption_features = self._gallery(category), self._caption_features(category)
        predicted = retriever.predict(gallery, [triplet.reference for triplet in triplets], caption_features)
        return answer(triplets, gallery, predicted, self.protocol, best)

    def recalls(self, combining_function=None) -> dict[str, dict[str, float]]:
        """Return {category: {recall: percent}}."""
        answered = {category: self.answers(category, combining_function) for category in self.splits}
        return {category: recalls(answers, self.protocol) for category, answers in answered.items()}

    def metrics(self, combining_function=None) -> dict[str, float]:
        """Return the columns of validation_metrics.csv: {metric: percent}."""
        return self.task.columns(self.recalls(combining_function))

    def chance(self) -> dict[str, float]:
        """Return the metrics that ranking at random is worth."""
        of_categories = {
            category: chance(split.triplets, len(split.pictures), self.protocol)
            for category, split in self.splits.items()
        }
        return self.task.columns(of_categories)

    def query_texts(self, category: str) -> Sequence[str]:
        """Return what each query of a category asks in words."""
        return [self.task.query_text(triplet.captions) for triplet in self.splits[category].triplets]

    def _gallery(self, category):
        return self._once_if_frozen("image", category, lambda: self.retriever.gallery(self.pictures[category]))

    def _caption_features(self, category):
        encode = self.retriever.encoder.captions
        return self._once_if_frozen("text", category, lambda: encode(self.query_texts(category)))

    def _once_if_frozen(self, encoder, category, encode):
        """Return what `encode()` gives, and keep it where that encoder does not learn."""
        # In stage 1 the features of a learning encoder are others in every validation.
        if encoder not in self.retriever.encoder.frozen:
            return encode()
        if (encoder, category) not in self._known:
            self._known[encoder, category] = encode()
        return self._known[encoder, category]


@command
def main(argv=None):
    args = parse_judging(make_parser(), argv)
    checkpoints = args.clip_model_path, args.combiner_path
    vars(args).update(told_by_checkpoints(checkpoints, vars(args), args.given))
    task = TASKS[args.dataset]
    # Before CLIP is loaded or downloaded: what is wrong with the data is found in seconds.
    data = read_data(task, args.data_path, "val", skip_missing=args.skip_missing)
    require_writable(args.output_path)
    retriever = load_combined(retriever_options(args), combining_options(args))
    validation = Validation(task, data["val"], retriever)

    experiment = start_experiment(f"{task.name} validation", comet_options(args), args.output_path / "comet")
    with autocast(args.precision):
        printed = task.printed(validation.recalls())
    skipping = retriever.skipping
    for name, recall in printed.items():
        print(f"{name} = {recall}{skipping.mark}")
    with experiment.validate():
        experiment.log_metrics(printed)
    experiment.log_others(skipping.remarks)
    experiment.end()


if __name__ == "__main__":
    main()
