"""Measure each fast path next to the plain way of doing the same, in turn, in one run.

    python -m benchmarks
    python -m benchmarks bank pieces

Writes results.json, table.md and curves.png to this folder, or to --output; named cases are only printed. Ratios hold
on a busy machine, seconds do not.
"""

import os
import sys
import tempfile
import time
from argparse import Namespace
from pathlib import Path

from src.command.parser import Parser, usable_cores


def parse_arguments(argv=None) -> Namespace:
    parser = Parser("Measure each fast path next to the plain way of doing the same.", __doc__)
    parser.prog = "python -m benchmarks"
    help_text = "cases to run, and only print; two long ones run only when named: bank, pieces (default: all others)"
    parser.add_argument("cases", nargs="*", metavar="CASE", help=help_text)
    parser.add_argument("--quick", action="store_true", help="run everything once on tiny inputs, to see that it runs")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent, help="receives the results")
    help_text = "folder that holds cirr_dataset/, with small pictures (default: a new toy world)"
    parser.add_argument("--data-path", type=Path, help=help_text)
    parser.add_argument("--clip-model-name", help="a small CLIP for these pictures (default: the toy world's)")
    help_text = "CIRR captions for the text encoder (default: the validation captions of the pictures' folder)"
    parser.add_argument("--captions", type=Path, help=help_text)
    return parser.parse_args(argv)


if __name__ == "__main__":
    parse_arguments()  # --help and a wrong flag are answered here, before torch is imported
    os.environ["TQDM_DISABLE"] = "1"  # bars of a hundred short epochs

from benchmarks.cases import CASES, LONG_CASES, World, growth
from benchmarks.measure import machine
from benchmarks.results import draw_curves, table
from benchmarks.worlds import write_large_pictures
from src.base.errors import require_one_of
from src.base.files import write_json
from src.base.reading import read_json
from src.command.frame import one_line_errors
from src.toy import write_world
from utils import load_clip


def prepare(args: Namespace, folder: Path) -> World:
    """Make the World of the options; what has to be drawn for it is written to `folder`."""
    data_path, clip_model_name = args.data_path or folder / "toy", args.clip_model_name
    if args.data_path is None:
        sizes = ((60, 12, 12), (64, 16, 8)) if args.quick else ((1600, 60, 60), (9000, 200, 8))
        write_world(data_path, *sizes)
        clip_model_name = clip_model_name or data_path / "small_clip.pt"
    write_large_pictures(folder / "large", data_path, 8 if args.quick else 256)
    captions = args.captions or data_path / "cirr_dataset" / "cirr" / "captions" / "cap.rc2.val.json"
    texts = [triplet["caption"] for triplet in read_json(captions, list)]
    workers = 0 if args.quick else usable_cores()  # starting workers takes longer than loading a few pictures
    return World(data_path, folder / "large", load_clip(str(clip_model_name)), texts, workers, args.quick)


@one_line_errors
def main(argv=None):
    args = parse_arguments(argv)
    started = time.monotonic()
    cases = {case.__name__: case for case in (*CASES, *LONG_CASES)}
    for name in args.cases:
        require_one_of(name, cases, "case")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        world = prepare(args, Path(folder))
        for case in [cases[name] for name in args.cases] or CASES:
            for row in case(world):
                print(f"{time.monotonic() - started:4.0f} s {table([row]).splitlines()[-1]}", file=sys.stderr)
                rows.append(row)
        curves = None if args.cases else growth(world)

    print(f"{table(rows)}\n\n{machine()}\n{time.monotonic() - started:.0f} s")
    if curves:
        args.output.mkdir(parents=True, exist_ok=True)
        costs = [{"what": row.what, "plain": row.plain and row.plain[:2], "ours": row.ours[:2]} for row in rows]
        write_json(args.output / "results.json", {"machine": machine(), "rows": costs, "curves": curves}, indent=1)
        (args.output / "table.md").write_text(table(rows) + "\n", encoding="utf-8")
        draw_curves(curves, args.output / "curves.png")
        print(f"written to {args.output}")


if __name__ == "__main__":
    main()
