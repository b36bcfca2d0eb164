"""Write the two files that CIRR's evaluation server takes, for the pictures and captions of its test1 split.

    python cirr_test_submission.py --submission-name tuned --clip-model-path models/.../tuned_clip_arithmetic.pt \
        --combiner-path models/.../combiner_arithmetic.pt
"""

from options import add_judging_options, comet_options, feature_cache_folder
from src.comet import start_experiment
from src.files import PROJECT_ROOT, time_stamp, write_json
from src.options import Parser, part_of_a_file_name


def parse_arguments(argv=None):
    parser = Parser("Write the two submission files for CIRR's evaluation server.")
    help_text = "end of both files' names (default: the time)"
    parser.add_argument("--submission-name", type=part_of_a_file_name, help=help_text)
    add_judging_options(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    parse_arguments()  # --help and a wrong flag are answered here, before torch is imported

from pathlib import Path

from data_utils import CIRRDataset, make_transform
from skipping import Skipping
from src.distributed import is_first, joining
from src.errors import one_line_errors
from src.retrieval import Gallery, best_candidates, best_rows
from utils import ENCODERS, Encoder, agree_with_checkpoints, autocast, load_clip, load_combining_function
from validate import columns, other_members, predict_features

ANSWERS, GROUP_ANSWERS = 50, 3


def generate_cirr_test_submissions(
    combining_function,
    file_name,
    clip_model,
    preprocess,
    data_path=PROJECT_ROOT,
    output_path=PROJECT_ROOT,
    num_workers=0,
    feature_cache=None,
    skipping=None,
):
    """Write submission/CIRR/recall_submission_<file_name>.json and recall_subset_submission_<file_name>.json.

    Returns both paths. Raises InputError when annotations or pictures of test1 are faulty or missing.
    """
    queries = CIRRDataset("test1", "relative", preprocess, data_path, skipping)
    gallery_set = CIRRDataset("test1", "classic", preprocess, data_path, skipping)
    encoder = Encoder(clip_model, ENCODERS, feature_cache, num_workers)
    gallery = Gallery(encoder.pictures(gallery_set), gallery_set.image_names)
    answers, group_answers = answer_queries(queries, gallery, encoder, combining_function)

    folder = Path(output_path) / "submission" / "CIRR"
    written = []
    for metric, content in (("recall", answers), ("recall_subset", group_answers)):
        written.append(folder / f"{metric}_submission_{file_name}.json")
        if is_first():
            write_json(written[-1], {"version": "rc2", "metric": metric, **content}, sort_keys=True)
    return written


def answer_queries(queries, gallery, encoder, combining_function):
    """{pair id: the first 50 names of the gallery} and {pair id: the first 3 of the group}, without the reference."""
    pair_ids, reference_names, captions, groups = columns(queries)
    predicted = predict_features(gallery, reference_names, encoder.captions(captions), combining_function)
    answers = min(ANSWERS, len(gallery.names) - 1)
    rows = best_rows(predicted, gallery.features, answers, excluded_rows=gallery.rows(reference_names))
    group_rows = other_members(gallery, reference_names, groups)
    group_rows = best_candidates(predicted, gallery.features, GROUP_ANSWERS, group_rows)
    return [
        {str(pair_id): [gallery.names[row] for row in best] for pair_id, best in zip(pair_ids, table, strict=True)}
        for table in (rows.tolist(), group_rows.tolist())
    ]


@one_line_errors
@joining
def main(argv=None):
    args = parse_arguments(argv)
    agree_with_checkpoints(args)
    clip_model = load_clip(args.clip_model_name, args.clip_model_path)
    combining_function = load_combining_function(
        args.combining_function, args.combiner_path, clip_model, args.projection_dim, args.hidden_dim
    )
    preprocess = make_transform(args.transform, args.target_ratio, clip_model.visual.input_resolution)

    skipping = Skipping(args.skip_missing, args.num_workers)

    experiment = start_experiment("CIRR test submission", comet_options(args), args.output_path / "comet")
    with autocast(args.precision):
        written = generate_cirr_test_submissions(
            combining_function,
            args.submission_name or time_stamp(),
            clip_model,
            preprocess,
            args.data_path,
            args.output_path,
            args.num_workers,
            feature_cache_folder(args),
            skipping,
        )
    for path in written:
        print(f"{path}{skipping.mark}")
        experiment.log_asset(str(path))
    experiment.log_others(skipping.remarks)
    experiment.end()


if __name__ == "__main__":
    main()
