"""Measure each thing that is made faster beside the plain way of doing it, in turn, in one run.

    python -m benchmarks

Writes results.json, table.md and curves.png to this folder, or to --output. Ratios hold on a busy machine, seconds do
not. --quick runs everything once, on next to nothing.
"""

import os
import sys
import tempfile
import time
from argparse import Namespace
from pathlib import Path

from src.base.parser import Parser


def parse_arguments(argv=None) -> Namespace:
    parser = Parser("Measure each thing that is made faster beside the plain way of doing it.")
    parser.add_argument("--quick", action="store_true", help="once, on next to nothing: only to see that it runs")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent, help="receives the results")
    help_text = "folder that holds cirr_dataset/, with small pictures (default: a toy world drawn for it)"
    parser.add_argument("--data-path", type=Path, help=help_text)
    parser.add_argument("--clip-model-name", help="a small CLIP for these pictures (default: the toy world's)")
    help_text = "CIRR captions for the text encoder (default: the validation captions of the pictures' folder)"
    parser.add_argument("--captions", type=Path, help=help_text)
    return parser.parse_args(argv)


if __name__ == "__main__":
    parse_arguments()  # --help and a wrong flag are answered here, before torch is imported
    os.environ["TQDM_DISABLE"] = "1"  # bars of a hundred short epochs

from benchmarks.cases import CASES, World, growth_with_gallery, growth_with_triplets
from benchmarks.measure import machine
from benchmarks.results import draw_curves, facts, table
from benchmarks.worlds import write_large_pictures
from src.base.errors import one_line_errors
from src.base.files import read_json, write_json
from src.toy import write_world
from utils import load_clip


def prepare(args: Namespace, folder: Path) -> World:
    """Return the World that the options name; what has to be drawn for it goes to `folder`."""
    data_path, clip_model_name = args.data_path, args.clip_model_name
    if data_path is None:
        data_path = folder / "toy"
        write_world(data_path, *(((60, 12, 12), (64, 16, 8)) if args.quick else ((1600, 60, 60), (9000, 200, 8))))
        clip_model_name = clip_model_name or data_path / "small_clip.pt"
    write_large_pictures(folder / "large", data_path, 8 if args.quick else 256)
    captions = args.captions or data_path / "cirr_dataset" / "cirr" / "captions" / "cap.rc2.val.json"
    texts = [triplet["caption"] for triplet in read_json(captions, list)]
    return World(data_path, folder / "large", load_clip(str(clip_model_name)), texts, args.quick)


@one_line_errors
def main(argv=None):
    args = parse_arguments(argv)
    started = time.monotonic()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        world = prepare(args, Path(folder))
        for case in CASES:
            for row in case(world):
                print(f"{time.monotonic() - started:4.0f} s {table([row]).splitlines()[-1]}", file=sys.stderr)
                rows.append(row)
        curves = {"pictures in the gallery": growth_with_gallery(world), "triplets": growth_with_triplets(world)}

    args.output.mkdir(parents=True, exist_ok=True)
    results = {"machine": machine(), "rows": [facts(row) for row in rows], "curves": curves}
    write_json(args.output / "results.json", results, indent=1)
    (args.output / "table.md").write_text(table(rows) + "\n", encoding="utf-8")
    draw_curves(curves, args.output / "curves.png")
    print(f"{table(rows)}\n\n{machine()}\n{time.monotonic() - started:.0f} s; written to {args.output}")


if __name__ == "__main__":
    main()
