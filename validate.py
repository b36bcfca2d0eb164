"""Judge a CLIP, with the element-wise sum or a Combiner, on the validation split of a data set.

    python validate.py --dataset CIRR --clip-model-path models/.../tuned_clip_arithmetic.pt \
        --combining-function combiner --combiner-path models/.../combiner_arithmetic.pt
"""

from src.base.parser import Parser
from src.command.combining import names_in
from src.command.flags import (
    add_dataset_option,
    add_judging_options,
    add_protocol_options,
    chosen_protocols,
    parse_judging,
)
from src.command.outputs import data_files, output_files, require_outputs

FUNCTIONS = names_in("combiner.py")


def make_parser() -> Parser:
    parser = Parser("Print the recalls of a model on the validation split of a data set.")
    add_dataset_option(parser, otherwise="required", required=True)
    add_protocol_options(parser)
    add_judging_options(parser, FUNCTIONS)
    return parser


if __name__ == "__main__":
    parse_judging(make_parser(), FUNCTIONS)  # --help and a wrong flag are answered here, before torch is imported

import sys

from combiner import COMBINING_FUNCTIONS, line_of, load_combined
from src.base.files import require_writable, write_json
from src.command.comet import start_experiment
from src.evaluation import judged as results
from src.evaluation.intervals import CONFIDENCE, DRAWS, SEED
from src.evaluation.judged import Judged
from src.evaluation.judging import judge
from src.evaluation.per_query import write_per_query
from src.evaluation.trec import trec_files, write_trec
from src.evaluation.validation import Validation
from src.models.weights import weights_digest
from src.pictures.data import read_data
from src.processes.distributed import command, is_first
from src.retrieval.answers import answer, predict_queries
from src.retrieval.gallery import Gallery
from src.retrieval.metrics import in_percent
from src.retrieval.retriever import Retriever
from src.tasks.protocol import Protocol
from src.tasks.registry import TASKS, find_task
from src.tasks.triplets import Triplet
from utils import autocast, extract_caption_features, say_device, settings

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
    triplets, compared = [query.triplet for query in queries], gallery.compared_by(combining_function)
    return tuple(in_percent(answer(triplets, compared, predicted, protocol), protocol).values())


# ---- the command ----


def fingerprint(retriever: Retriever) -> dict[str, str]:
    """Return the SHA-256 of each part of the weights that answer: CLIP's two encoders and a fusion network."""
    digests = {f"clip_{encoder}": retriever.encoder.digest(encoder) for encoder in ("image", "text")}
    line = line_of(retriever.combining_function)
    if line.is_network:
        digests[line.name] = weights_digest(retriever.combining_function.__self__.state_dict())
    return digests


def describe(options: dict, all_judged: list[Judged], retriever: Retriever) -> dict:
    """Return what --json keeps, in plain values: the model, how it was judged, and what came out."""
    facts = ("clip_model_name", "clip_model_path", "combiner_path", "transform", "target_ratio", "precision")
    cluster = options["cluster"]
    return {
        "dataset": all_judged[0].task.name,
        "split": all_judged[0].split,
        "combining_function": all_judged[0].rung,
        "model": {name: None if options[name] is None else str(options[name]) for name in facts},
        "weights_sha256": fingerprint(retriever),
        "intervals": {"confidence": CONFIDENCE, "draws": DRAWS, "seed": SEED, "drawn": cluster or "query"},
        "protocols": [results.plain(judged, cluster) for judged in all_judged],
        **retriever.skipping.remarks,
    }


def _by_protocol(all_judged):
    return {f"{judged.protocol.name}/{name}": of for judged in all_judged for name, of in judged.measures().items()}


@command
def main(argv=None):
    args = parse_judging(make_parser(), FUNCTIONS, argv)
    given, task = settings(args), find_task(args.dataset)
    protocols = chosen_protocols(task, args.protocol, args.gallery, args.reference, args.captions)
    # Before CLIP is loaded or downloaded: what is wrong with the data is found in seconds.
    data = read_data(task, args.data_path, "val", skip_missing=args.skip_missing)
    files = output_files(vars(args), "per_query", "json", "trec_run")
    if args.trec_run is not None:
        files["--trec-run"] = [
            path for protocol in protocols for path in trec_files(args.trec_run, protocol, protocols)
        ]
    require_writable(args.output_path)
    require_outputs(vars(args), files, data_files(task, args.data_path, data["val"].values()))
    retriever = load_combined(given.retriever, given.combining)
    say_device(args.precision)
    validation = Validation(task, data["val"], retriever)

    experiment = start_experiment(f"{task.name} validation", given.comet, args.output_path / "comet")
    in_full = args.given & {"protocol", "gallery", "reference", "captions", "cluster"}
    with autocast(args.precision):
        if in_full or files:
            name = line_of(retriever.combining_function).name
            all_judged = [judge(validation, protocol, COMBINING_FUNCTIONS, name) for protocol in protocols]
        # A judged protocol has the recalls already; without files nothing but these is needed.
        published = {} if in_full else task.printed(all_judged[0].recalls() if files else validation.recalls())
    mark = retriever.skipping.mark
    if in_full:
        for judged in all_judged:
            print(*results.text_of(judged, args.cluster), *([mark.strip()] if mark else []), "", sep="\n")
    if published and task.names_protocol:
        print(validation.described())
    for name, recall in published.items():
        # In full where the published code prints so.
        print(f"{name} = {round(recall, 4) if task.names_protocol else recall}{mark}")
    if files and is_first():
        if args.per_query:
            write_per_query(args.per_query, all_judged)
        if args.trec_run:
            write_trec(args.trec_run, all_judged)
        if args.json:
            write_json(args.json, describe(given.options, all_judged, retriever), indent=1)
        # Standard output is for the metrics, which scripts read.
        print(*(f"wrote {path}" for paths in files.values() for path in paths), sep="\n", file=sys.stderr)
    with experiment.validate():
        experiment.log_metrics(published or _by_protocol(all_judged))
    experiment.log_others(retriever.skipping.remarks)
    experiment.end()


if __name__ == "__main__":
    main()
