"""Judge a CLIP, with the element-wise sum or a Combiner, on the validation split of a data set.

    python validate.py --dataset CIRR --clip-model-path models/.../tuned_clip_arithmetic.pt \
        --combining-function combiner --combiner-path models/.../combiner_arithmetic.pt
"""

from src.base.parser import Parser
from src.command.flags import (
    add_dataset_option,
    add_judging_options,
    add_protocol_options,
    chosen_protocols,
    combining_options,
    comet_options,
    data_files,
    output_files,
    parse_judging,
    require_outputs,
    retriever_options,
)


def make_parser() -> Parser:
    parser = Parser("Print the recalls of a model on the validation split of a data set.")
    add_dataset_option(parser, otherwise="required", required=True)
    add_protocol_options(parser)
    add_judging_options(parser)
    return parser


if __name__ == "__main__":
    parse_judging(make_parser())  # --help and a wrong flag are answered here, before torch is imported

import hashlib
import sys
from collections.abc import Callable

import numpy as np
from torch import Tensor, nn

from combiner import image_only, load_combined, product, text_only
from retriever import Retriever
from src.base.distributed import command, is_first
from src.base.files import require_writable, write_json
from src.command.comet import start_experiment
from src.evaluation import judged as judging
from src.evaluation.intervals import CONFIDENCE, DRAWS, SEED
from src.evaluation.judged import Judged, JudgedCategory
from src.evaluation.per_query import write_per_query
from src.evaluation.trec import trec_files, write_trec
from src.models.facts import told_by_checkpoints
from src.models.weights import weights_digest
from src.retrieval.answers import Answers, Gallery, answer, predict_queries, with_graded
from src.retrieval.metrics import chance, in_percent, of_each_query
from src.retrieval.ranking import Predicted
from src.tasks.datasets import find_task
from src.tasks.registry import TASKS
from src.tasks.triplets import Protocol, Query, Split, Task, Triplet
from utils import autocast, element_wise_sum, extract_caption_features, read_data, say_device

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
    [queries, dim] are those of the captions, where they are known already; `protocol` None is the published one. Items
    have no soft targets, so the protocol soft is for validate.py alone.
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

    `relative_val_dataset` holds items (reference name, target name, two captions). `caption_features` [texts, dim] are
    those of what the protocol asks, where they are known already; `protocol` None is the published one.
    """
    items = map(relative_val_dataset.__getitem__, range(len(relative_val_dataset)))
    triplets = [Triplet(reference, tuple(captions), (target,)) for reference, target, captions in items]
    gallery = Gallery(index_features, index_names)
    return _recalls(TASKS["FashionIQ"], triplets, gallery, clip_model, combining_function, caption_features, protocol)


def _recalls(task, triplets, gallery, clip_model, combining_function, caption_features, protocol):
    protocol = task.protocol(protocol)
    queries = task.queries(triplets, protocol.captions)
    if caption_features is None:
        # Only where the caller has no features yet.
        caption_features = extract_caption_features([text for query in queries for text in query.texts], clip_model)
    predicted = predict_queries(gallery, queries, caption_features, combining_function)
    asked = [query.triplet for query in queries]
    return tuple(in_percent(answer(asked, gallery, predicted, protocol), protocol).values())


# ---- our own validation ----

Combining = Callable[[Tensor, Tensor], Tensor]
BASELINES = {"text": text_only, "image": image_only, "product": product, "sum": element_wise_sum}
"""{rung of the ladder: combining function}"""
BEST = 50
"""How many answers of each query are named at least."""


class Validation:
    """The validation split of a data set, ready to judge a retriever on."""

    def __init__(self, task: Task, splits: dict[str, Split], retriever: Retriever):
        """Take the validation split {category: Split} as it was read."""
        self.task, self.retriever = task, retriever
        self.protocol = task.protocol()
        self.splits = {category: retriever.usable(split) for category, split in splits.items()}
        self.pictures = {category: retriever.pictures(split.pictures) for category, split in self.splits.items()}
        self._known = {}

    def recalls(self, combining_function: Combining | None = None) -> dict[str, dict[str, float]]:
        """Return {category: {metric: percent}}; `combining_function` None is the retriever's."""
        function = combining_function or self.retriever.combining_function
        return {category: self._recalls(category, function) for category in self.splits}

    def metrics(self, combining_function=None) -> dict[str, float]:
        """Return the columns of validation_metrics.csv: {metric: percent}."""
        return self.task.columns(self.recalls(combining_function))

    def chance(self, protocol: Protocol) -> dict[str, float]:
        """Return the metrics that ranking at random is worth."""
        of_categories = {}
        for category, split in self.splits.items():
            gallery = self._gallery(category).ranked_by(protocol, split.triplets)
            of_categories[category] = chance(split.triplets, len(gallery.names), protocol)
        return self.task.columns(of_categories)

    def described(self) -> str:
        """Return how `recalls` counts, among how many pictures, in a line."""
        counts = {
            category: (len(self._queries(category, self.protocol)), len(self.pictures[category].names))
            for category in self.splits
        }
        name = next(iter(self.splits.values())).name
        return f"{self.task.name} {name}, {judging.sizes(self.protocol, counts)}"

    def judge(self, protocol: Protocol) -> Judged:
        """Return all that is to be told of the retriever under a protocol, beside the ladder of what is simpler."""
        function = self.retriever.combining_function
        rung = next((rung for rung, baseline in BASELINES.items() if baseline is function), "combiner")
        rungs = BASELINES | {rung: function}
        categories = {category: self._judged(category, protocol, rungs, rung) for category in self.splits}
        name = next(iter(self.splits.values())).name
        return Judged(self.task, name, protocol, rung, categories, self.chance(protocol))

    def _recalls(self, category, function) -> dict[str, float]:
        triplets = [query.triplet for query in self._queries(category, self.protocol)]
        predicted = self._predicted(category, self.protocol, function)
        answers = answer(triplets, self._gallery(category), predicted, self.protocol)
        return in_percent(with_graded(answers, predicted, self.protocol), self.protocol)

    def _judged(self, category, protocol, rungs, judged) -> JudgedCategory:
        queries = self._queries(category, protocol)
        scores, solved = {}, {}
        for rung, function in rungs.items():
            answered = self._answered(category, protocol, rung, function, BEST if rung == judged else 0)
            scores[rung] = {name: of.cpu().numpy() for name, of in of_each_query(answered, protocol).items()}
            solved[rung] = (answered.ranks < protocol.at[0]).cpu().numpy()
            if rung == judged:
                answers = answered
        names = answers.gallery.names
        return JudgedCategory(
            queries,
            gallery=names,
            ranked=answers.ranked,
            recalls=in_percent(answers, protocol),
            scores=scores,
            ranks=answers.ranks.cpu().numpy(),
            group_ranks=None if answers.group_ranks is None else answers.group_ranks.cpu().numpy(),
            solved=solved,
            best=_named(answers.best, names),
            similarities=answers.similarities.cpu().numpy(),
            group_best=None if answers.group_best is None else _named(answers.group_best, names),
            features=hashlib.sha256(np.ascontiguousarray(answers.gallery.features.cpu().numpy()).data).hexdigest(),
        )

    def _answered(self, category, protocol, rung, function, best) -> Answers:
        """Return the answers of a rung; protocols that only score otherwise share them."""
        triplets = [query.triplet for query in self._queries(category, protocol)]
        predicted = self._once(
            ("predicted", category, protocol.captions, rung), lambda: self._predicted(category, protocol, function)
        )
        answers = self._once(
            ("answers", category, protocol._replace(name="", soft=False), rung),
            lambda: answer(triplets, self._gallery(category), predicted, protocol, best),
        )
        return with_graded(answers, predicted, protocol)

    def _predicted(self, category, protocol, function) -> Predicted:
        """Return predicted features [queries, dim], two of them for the product."""
        queries, gallery = self._queries(category, protocol), self._gallery(category)
        return predict_queries(gallery, queries, self._caption_features(category, protocol), function)

    def _queries(self, category, protocol) -> list[Query]:
        captions = protocol.captions
        return self._once(
            ("queries", category, captions), lambda: self.task.queries(self.splits[category].triplets, captions)
        )

    def _gallery(self, category):
        return self._once_if_frozen("image", category, lambda: self.retriever.gallery(self.pictures[category]))

    def _caption_features(self, category, protocol):
        # Protocols may ask in the same words, which are encoded once.
        def encode():
            texts = [text for query in self._queries(category, protocol) for text in query.texts]
            return self.retriever.encoder.captions(texts)

        return self._once_if_frozen("text", (category, protocol.captions), encode)

    def _once_if_frozen(self, encoder, what, encode):
        """Return what `encode()` gives, and keep it where that encoder does not learn."""
        # In stage 1 the features of a learning encoder are others in every validation.
        frozen = encoder in self.retriever.encoder.frozen
        return self._once((encoder, what), encode) if frozen else encode()

    def _once(self, what, make):
        """Return what `make()` gave the first time that `what` was asked for."""
        if what not in self._known:
            self._known[what] = make()
        return self._known[what]


def _named(rows: Tensor, names: list[str]) -> list[list[str]]:
    # A group smaller than others ends in -1.
    return [[names[row] for row in of_query if row >= 0] for of_query in rows.tolist()]


# ---- the command ----


def fingerprint(retriever: Retriever) -> dict[str, str]:
    """Return the SHA-256 of each part of the weights that answer: CLIP's two encoders and the Combiner."""
    digests = {f"clip_{encoder}": retriever.encoder.digest(encoder) for encoder in ("image", "text")}
    owner = getattr(retriever.combining_function, "__self__", None)
    return digests | ({"combiner": weights_digest(owner.state_dict())} if isinstance(owner, nn.Module) else {})


def describe(args, all_judged: list[Judged], retriever: Retriever) -> dict:
    """Return what --json keeps, in plain values: the model, how it was judged, and what came out."""
    facts = ("clip_model_name", "clip_model_path", "combiner_path", "transform", "target_ratio", "precision")
    return {
        "dataset": all_judged[0].task.name,
        "split": all_judged[0].split,
        "combining_function": all_judged[0].rung,
        "model": {name: None if getattr(args, name) is None else str(getattr(args, name)) for name in facts},
        "weights_sha256": fingerprint(retriever),
        "intervals": {"confidence": CONFIDENCE, "draws": DRAWS, "seed": SEED, "drawn": args.cluster or "query"},
        "protocols": [judging.plain(judged, args.cluster) for judged in all_judged],
        **retriever.skipping.remarks,
    }


def keep(args, all_judged: list[Judged], retriever: Retriever) -> None:
    """Write the files that the options ask for, and name them on stderr."""
    written = []
    if args.per_query:
        write_per_query(args.per_query, all_judged)
        written.append(args.per_query)
    if args.trec_run:
        written += write_trec(args.trec_run, all_judged)
    if args.json:
        write_json(args.json, describe(args, all_judged, retriever), indent=1)
        written.append(args.json)
    # Standard output is for the metrics, which scripts read.
    for path in written:
        print(f"wrote {path}", file=sys.stderr)


def _by_protocol(all_judged):
    return {f"{judged.protocol.name}/{name}": of for judged in all_judged for name, of in judged.measures().items()}


@command
def main(argv=None):
    args = parse_judging(make_parser(), argv)
    checkpoints = args.clip_model_path, args.combiner_path
    vars(args).update(told_by_checkpoints(checkpoints, vars(args), args.given))
    task = find_task(args.dataset)
    protocols = chosen_protocols(args, task)
    # Before CLIP is loaded or downloaded: what is wrong with the data is found in seconds.
    data = read_data(task, args.data_path, "val", skip_missing=args.skip_missing)
    files = output_files(args, "per_query", "json", "trec_run")
    if args.trec_run is not None:
        files["--trec-run"] = [
            path for protocol in protocols for path in trec_files(args.trec_run, protocol, protocols)
        ]
    require_writable(args.output_path)
    require_outputs(args, files, data_files(task, args.data_path, data["val"].values()))
    retriever = load_combined(retriever_options(args), combining_options(args))
    say_device(args.precision)
    validation = Validation(task, data["val"], retriever)

    experiment = start_experiment(f"{task.name} validation", comet_options(args), args.output_path / "comet")
    in_full = args.given & {"protocol", "gallery", "reference", "captions", "cluster"}
    with autocast(args.precision):
        if in_full or files:
            all_judged = [validation.judge(protocol) for protocol in protocols]
        # A judged protocol has the recalls already; without files nothing but these is needed.
        published = {} if in_full else task.printed(all_judged[0].recalls() if files else validation.recalls())
    mark = retriever.skipping.mark
    if in_full:
        for judged in all_judged:
            print(*judging.text_of(judged, args.cluster), *([mark.strip()] if mark else []), "", sep="\n")
    if published and task.names_protocol:
        print(validation.described())
    for name, recall in published.items():
        # In full where the published code prints so.
        print(f"{name} = {round(recall, 4) if task.names_protocol else recall}{mark}")
    if files and is_first():
        keep(args, all_judged, retriever)
    with experiment.validate():
        experiment.log_metrics(published or _by_protocol(all_judged))
    experiment.log_others(retriever.skipping.remarks)
    experiment.end()


if __name__ == "__main__":
    main()
