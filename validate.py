"""Judge a CLIP, with the element-wise sum or a Combiner, on the validation split of a data set.

    python validate.py --dataset CIRR --clip-model-path models/.../tuned_clip_arithmetic.pt \
        --combining-function combiner --combiner-path models/.../combiner_arithmetic.pt
"""

from src.command.combining import names_in
from src.command.data_flags import (
    add_dataset_option,
    add_judging_options,
    add_protocol_options,
    add_run_options,
    chosen_protocols,
    parse_validation,
)
from src.command.parser import Parser

FUNCTIONS = names_in("combiner.py")


def make_parser() -> Parser:
    parser = Parser("Print the recalls of a model on the validation split of a data set.", __doc__)
    add_dataset_option(parser, otherwise="required", required=True)
    add_protocol_options(parser)
    add_run_options(parser)
    add_judging_options(parser, FUNCTIONS)
    return parser


if __name__ == "__main__":
    # --help, a wrong flag and what needs no model are answered here, before torch is imported.
    args = parse_validation(make_parser(), FUNCTIONS)
    if args.run_only:
        from src.evaluation.standalone import judge_run_only

        raise SystemExit(judge_run_only(vars(args)))

from combiner import COMBINING_FUNCTIONS, line_of, load_combined
from data_utils import TASKS, Protocol, Triplet, find_task, read_data
from src.command.comet import log_and_end, start_experiment
from src.evaluation.published import print_published
from src.evaluation.validation import Validation, recalls
from utils import (
    Gallery,
    Retriever,
    autocast,
    command,
    extract_caption_features,
    is_first,
    require_writable,
    say_device,
    settings,
    weights_digest,
)

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
    [queries, dim] are those of the captions, where they are known already; `protocol` None is the published one. The
    protocol soft is refused, since items have no soft targets.
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
    return tuple(recalls(queries, gallery, caption_features, combining_function, protocol).values())


# ---- the command ----


def fingerprint(retriever: Retriever) -> dict[str, str]:
    """Return the SHA-256 of CLIP's two encoders and of a fusion network."""
    digests = {f"clip_{encoder}": retriever.encoder.digest(encoder) for encoder in ("image", "text")}
    line = line_of(retriever.combining_function)
    if line.is_network:
        digests[line.name] = weights_digest(retriever.combining_function.__self__.state_dict())
    return digests


@command
def main(argv=None):
    args = parse_validation(make_parser(), FUNCTIONS, argv)
    if args.run_only:
        from src.evaluation.standalone import judge_run_only  # late: most runs judge a model

        judge_run_only(vars(args))
        return
    given, task = settings(args), find_task(args.dataset)
    protocols = chosen_protocols(task, args.protocol, args.gallery, args.reference, args.captions)
    clip_model_name = given.retriever.clip_model_name
    # Before CLIP is loaded or downloaded: what is wrong with the data is found in seconds.
    data = read_data(task, args.data_path, "val", skip_missing=args.skip_missing, clip_model_name=clip_model_name)
    require_writable(args.output_path)
    full = None
    if args.in_full:
        from src.evaluation.full import FullJudging  # late: most runs ask only for the recalls

        full = FullJudging(task, protocols, vars(args), data["val"])
    retriever = load_combined(given.retriever, given.combining)
    say_device(args.precision)
    validation = Validation(task, data["val"], retriever)

    experiment = start_experiment(f"{task.name} validation", given.comet, args.output_path / "comet")
    with autocast(args.precision):
        if full is not None:
            full.judge(validation, COMBINING_FUNCTIONS, line_of(retriever.combining_function).name)
        # A protocol that was judged in full has the recalls already.
        published = validation.recalls() if full is None else full.judged[0].recalls()
    mark = retriever.skipping.mark
    if args.prints_tables:
        full.print(mark)
        metrics = full.measures()
    else:
        metrics = task.printed(published)
        print_published(task, validation.described(), metrics, mark)
    if full is not None and is_first():
        # Digests take seconds, and only --json keeps them.
        full.write(given.options, fingerprint(retriever) if args.json else {}, retriever.skipping.remarks)
    log_and_end(experiment, metrics, retriever.skipping.remarks)


if __name__ == "__main__":
    main()
