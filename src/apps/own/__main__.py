"""Make a folder of own triplets of a known data set, or of a table with columns of other names.

    python -m src.apps.own --dataset CIRR --data-path DATA --to FOLDER
    python -m src.apps.own --table pairs.parquet --split train --target-column edited_image --to FOLDER
    python -m src.apps.own --table lasco_val.json --lasco --split val --pictures COCO --to FOLDER

Pictures become links to where they are, with --copy copies.
"""

import filecmp
import json
import shutil
from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path

from src.apps.own.additions import Additions
from src.apps.own.tables import LASCO, NAMES, read_table
from src.base.alike import Alike
from src.base.crops import box_of
from src.base.errors import NAMED, InputError, shown
from src.base.files import replacing
from src.base.folders import files_below
from src.command.flags import add_data_path
from src.command.frame import one_line_errors
from src.command.parser import Parser, any_case, existing_file, file_path
from src.tasks.own import OwnTriplets, checked
from src.tasks.own.rows import COLUMNS, LISTS, Row
from src.tasks.registry import TASKS, find_task
from src.tasks.task import Task
from src.tasks.triplets import Triplet


def make_parser() -> Parser:
    parser = Parser("Make a folder of own triplets, which --dataset takes, of a data set or a table.", __doc__)
    parser.prog = "python -m src.apps.own"
    parser.add_argument("--to", type=file_path, required=True, metavar="FOLDER", help="the folder to make")
    parser.add_argument("--copy", action="store_true", help="copy pictures instead of linking to them")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--dataset", type=any_case(*TASKS), help=f"{', '.join(TASKS)}: all of its splits that are there"
    )
    source.add_argument(
        "--table", type=existing_file, metavar="FILE", help="a .parquet, .jsonl, .json, .csv, .tsv or .xlsx"
    )
    add_data_path(parser, "folder that holds the data set's folder")
    group = parser.add_argument_group("tables")
    group.add_argument("--split", choices=OwnTriplets.splits, default="train", help="the split that the table is")
    group.add_argument("--lasco", action="store_true", help="the table has LaSCo's columns")
    help_text = "folder where the table's paths start (default: the table's)"
    group.add_argument("--pictures", type=file_path, metavar="FOLDER", help=help_text)
    for column in COLUMNS:
        group.add_argument(f"--{column}-column", metavar="NAME", help=f"what the table calls {column}")
    return parser


def convert_dataset(task: Task, data_path: Path, added: Additions, copy: bool) -> list[Path]:
    """Write a data set's splits that are there as own triplets; return the tables' paths."""
    written, root = [], task.root(data_path)
    for split in task.splits:
        there = task.categories_in(data_path, split)
        if not there:
            continue
        name = split if split in OwnTriplets.splits else OwnTriplets.splits[-1]  # CIRR says test1
        rows = []
        for category in there:
            read = task.read(data_path, category, split)
            if any(box_of(path) for path in read.pictures.values()):
                raise InputError(f"{read.path}: its pictures are parts of files, and own triplets have whole files")
            paths = {picture: path.relative_to(root).as_posix() for picture, path in read.pictures.items()}
            shown = {"category": category} if len(task.categories) > 1 else {}
            rows += [_row(triplet, paths) | shown for triplet in read.triplets]
            _place(read.pictures.values(), paths.values(), added, copy)
            listing = ".".join(["gallery", name, *shown.values(), "txt"])
            _write(added.place(listing), (f"{path}\n" for path in paths.values()))
        written.append(_write_rows(added, name, rows))
    if not written:
        raise InputError(f"{root}: has annotations of no split")
    return written


def _row(triplet: Triplet, paths: dict[str, str]) -> dict:
    """Return a triplet as a line of JSONL has it. Soft grades, concepts and aspects have no column."""
    row = {"reference": paths[triplet.reference], "caption": triplet.captions[0]}
    row |= {"caption2": triplet.captions[1]} if len(triplet.captions) > 1 else {}
    row |= {"target": [paths[name] for name in triplet.targets]} if triplet.targets else {}
    row |= {"group": [paths[name] for name in triplet.group]} if triplet.group else {}
    return row | ({"id": triplet.id} if triplet.id else {})


def convert_table(args: Namespace, added: Additions) -> Path:
    """Write a table as one split of own triplets; return its path."""
    given = {column: getattr(args, f"{column}_column") for column in COLUMNS}
    titles = (LASCO if args.lasco else {}) | {column: title for column, title in given.items() if title is not None}
    start = args.pictures or args.table.parent
    rows = read_table(args.table, titles, added)
    # As own triplets are checked, with the table's own rows in what is said.
    rows = checked(args.table, rows, args.split, start, args.to)
    places = {}
    for row in rows:
        places |= {name: row.place for column in NAMES for name in reversed(row.cells.get(column, ()))}
    names = list(places)
    _require_there(args.table, start, args.to, places)
    _place([start / name for name in names], names, added, args.copy)
    return _write_rows(added, args.split, [_line(row) for row in rows])


def _line(row: Row) -> dict:
    """Return a row as a line of JSONL has it."""
    several = {column: row.cells[column] for column in LISTS if column in row.cells}
    if row.grades:
        several["target"] = [f"{name}:{grade}" for name, grade in zip(several["target"], row.grades, strict=True)]
    return {column: values[0] for column, values in row.cells.items()} | several


def _require_there(table: Path, start: Path, folder: Path, places: dict[str, str]) -> None:
    """Raise InputError for pictures {name: row} that are neither where paths start nor in the folder already."""
    missing = [name for name in places if not (start / name).is_file() and not (folder / name).is_file()]
    there = Alike(files_below(start) if missing else ())
    described = [": ".join(map(str, filter(None, (places[name], there.instead(name))))) for name in missing[:NAMED]]
    if missing:
        names = ", ".join(f"{shown(name)} ({about})" for name, about in zip(missing, described, strict=False))
        names += f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        counted = f"{len(missing)} of {len(places)} pictures of {table} are missing: {names}"
        fault = f"no such picture; {counted} (--pictures says where a table's paths start)"
        raise InputError(f"{start / missing[0]}: {fault}")


def _place(files: Iterable[Path], names: Iterable[str], added: Additions, copy: bool) -> None:
    """Put pictures into the folder under their names; those that lie there already stay.

    Raises InputError for a picture that is not there, and for another one under its name.
    """
    for file, name in zip(files, names, strict=True):
        place = added.folder / name
        if place.is_symlink() or place.exists():
            # Pictures that the table itself holds lie only there.
            if file.is_file() and not _is_same(file, place):
                raise InputError(f"{place}: is there already, and another picture than {file}; make another folder")
            continue
        if not file.is_file():
            raise InputError(f"{file}: no such picture")
        added.place(name)
        if copy:
            shutil.copy2(file, place)
        else:
            place.symlink_to(file.absolute())


def _is_same(file: Path, other: Path) -> bool:
    return other.is_file() and (file.samefile(other) or filecmp.cmp(file, other, shallow=False))


def _write_rows(added: Additions, split: str, rows: list[dict]) -> Path:
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return _write(added.place(f"triplets.{split}.jsonl"), lines)


def _write(path: Path, lines: Iterable[str]) -> Path:
    with replacing(path) as unfinished:
        unfinished.write_text("".join(lines), encoding="utf-8")
    return path


def convert(args: Namespace, added: Additions) -> None:
    """Make the folder that the options ask for, and say what it holds."""
    if args.dataset:
        written = convert_dataset(find_task(args.dataset), args.data_path, added, args.copy)
    else:
        written = [convert_table(args, added)]
    # Read as a command will read it, so that a fault is found here and not in a training.
    task = OwnTriplets.in_folder(args.to)
    for path in written:
        split = path.name.split(".")[1]
        triplets = sum(len(category.triplets) for category in task.read_all(args.to, split).values())
        print(f"{path}: {triplets:,} triplets")


@one_line_errors
def main(argv=None):
    args = make_parser().parse_args(argv)
    splits = OwnTriplets.splits if args.dataset else (args.split,)
    # Before anything is written: two tables of one split would contradict each other, and a gallery may be hand-made.
    kinds = ("triplets", "gallery") if args.dataset else ("triplets",)
    there = [path for kind in kinds for split in splits for path in args.to.glob(f"{kind}.{split}.*")]
    if there:
        raise InputError(f"{there[0]}: is there already; remove it, or make another folder")
    with Additions(args.to) as added:
        convert(args, added)


if __name__ == "__main__":
    main()
