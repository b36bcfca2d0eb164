"""List what another program has to encode, so that its features take the place of a CLIP (docs/other-encoders.md).

    python -m src.apps.features --dataset CIRR --data-path DATA --list FOLDER

Writes pictures.txt, paths from the data path or whole ones, and texts.txt. A program encodes both into pictures.npy and
texts.npy, a row for each line; then `--clip-model-name features:FOLDER` names them.
"""

from collections.abc import Sequence
from pathlib import Path

from src.apps.features.lists import pictures, read_splits, texts, usable, write_lists
from src.base.files import require_writable
from src.command.data_flags import add_data_sets_path, add_skip_missing_option, dataset_name
from src.command.flags import add_num_workers
from src.command.frame import one_line_errors
from src.command.parser import Parser, existing_file, file_path
from src.pictures.skipping import Skipping
from src.tasks.registry import TASKS, find_task
from src.tasks.task import Task


def make_parser() -> Parser:
    parser = Parser("List the pictures and texts of data sets, for another program to encode.", __doc__)
    parser.prog = "python -m src.apps.features"
    help_text = f"{', '.join(TASKS)}, in any case, or folders of own triplets; several, for one Combiner on all"
    names = dataset_name(TASKS)
    parser.add_argument("--dataset", type=names, nargs="+", required=True, metavar="NAME", help=help_text)
    help_text = "folder that receives pictures.txt and texts.txt"
    parser.add_argument("--list", type=file_path, required=True, metavar="FOLDER", help=help_text)
    add_data_sets_path(parser, file_path)
    help_text = "table of more triplets that training will take; may be given several times"
    parser.add_argument("--extra-triplets", action="append", type=existing_file, metavar="FILE", help=help_text)
    add_num_workers(parser)
    add_skip_missing_option(parser)
    return parser


def lines_of(tasks: Sequence[Task], data_path: Path, extra: Sequence[Path], skipping: Skipping) -> dict[str, list[str]]:
    """Return {encoder: lines} of all splits of data sets, and of tables of extra triplets."""
    splits = list(read_splits(tasks, data_path, skipping))
    if extra:
        from src.tasks.own import read_extra  # late: most runs train on a data set with a name

        train = [split for _, split in splits if split.name == "train"]
        more = usable(list(read_extra(extra, train).values()), skipping)
        splits += [(task, split) for split in more for task in tasks]
    return {
        "image": [line for _, split in splits for line in pictures(split, data_path.absolute())],
        "text": [line for task, split in splits for line in texts(task, split)],
    }


@one_line_errors
def main(argv=None):
    args = make_parser().parse_args(argv)
    require_writable(args.list)
    skipping = Skipping(args.skip_missing, args.num_workers)
    tasks = [find_task(name) for name in dict.fromkeys(args.dataset)]
    lines = lines_of(tasks, args.data_path, args.extra_triplets or [], skipping)
    for path, number in write_lists(args.list, lines).items():
        print(f"{path}: {number:,} lines, to be encoded into {path.with_suffix('.npy').name}")
    if skipping.mark:
        print(skipping.mark.strip())


if __name__ == "__main__":
    main()
