"""i-CIR: pictures of one object each; a query ranks only its object's, and finds those that its text says."""

from pathlib import Path

from src.base.errors import repeated, require_one_of
from src.base.reading import read_text
from src.tasks.annotations import is_name, refuse, require_any, stays_inside
from src.tasks.protocol import Protocol
from src.tasks.task import Task
from src.tasks.triplets import Split, Triplet

TABLES = "query_files.csv", "database_files.csv"


class ICIR(Task):
    """i-CIR as its evaluator counts. It has no training split."""

    name = "i-CIR"
    short_name = "icir"
    folder = "icir"
    annotations = ""
    splits = ("val",)  # as commands call what is judged; it has no other
    categories = ("icir",)  # its instances are groups, over which it takes means
    protocols = (
        Protocol("icir", "keep", "group", at=(1, 5, 10), captions="caption", any_target=True, by_trapezoid=True),
    )
    captions = {"caption": lambda triplet: [triplet.captions]}
    means = {}
    headline = ("map", "mmap", "minmap")
    best = {}
    rungs = ("cosines",)

    def files(self, data_path: Path, category: str, split: str) -> tuple[Path, Path]:
        queries, database = (Path(data_path) / self.folder / table for table in TABLES)
        return queries, database

    def read(self, data_path: Path, category: str, split: str) -> Split:
        require_one_of(split, self.splits, "i-CIR split")
        self.root(data_path)
        path, listing = self.files(data_path, category, split)
        groups, targets = _read_database(listing)
        queries = _read_table(path)
        unknown = [place for place, (_, _, instance) in queries.items() if instance not in groups]
        refuse(path, unknown, len(queries), f"lines with an instance that {listing.name} lacks")
        lacking = [place for place, (_, text, instance) in queries.items() if (instance, text) not in targets]
        refuse(path, lacking, len(queries), f"lines whose text no picture of their instance in {listing.name} has")
        triplets = [
            Triplet(reference, (text,), tuple(targets[instance, text]), group=groups[instance])
            for reference, text, instance in queries.values()
        ]
        names = [*(triplet.reference for triplet in triplets), *(name for group in groups.values() for name in group)]
        # The paths start at the folder above the data set's.
        return Split(split, path, triplets, {name: Path(data_path) / name for name in dict.fromkeys(names)})


def _read_database(listing: Path) -> tuple[dict[str, tuple[str, ...]], dict[tuple[str, str], list[str]]]:
    """Return the pictures of each instance, and those that a text of it is true of."""
    rows = _read_table(listing)
    again = repeated(list(rows.items()), key=lambda row: (row[1][0], row[1][2]))
    refuse(listing, [place for place, _ in again], len(rows), "lines with a picture that their instance has already")
    groups, targets = {}, {}
    for name, text, instance in rows.values():
        groups.setdefault(instance, []).append(name)
        targets.setdefault((instance, text), []).append(name)
    return {instance: tuple(names) for instance, names in groups.items()}, targets


def _read_table(path: Path) -> dict[str, tuple[str, str, str]]:
    """Read {"line 3": (picture, text, instance)} of a table that has neither a header nor quotes."""
    lines = {f"line {number}": line.strip() for number, line in enumerate(read_text(path).split("\n"), start=1)}
    rows = {place: tuple(line.split(",")) for place, line in lines.items() if line}
    require_any(path, rows, "lines")
    odd = [place for place, row in rows.items() if len(row) != 3]
    refuse(path, odd, len(rows), "lines that are not a picture, a text and an instance with a comma between them")
    outside = [place for place, (name, _, _) in rows.items() if not (is_name(name) and stays_inside(name))]
    refuse(path, outside, len(rows), "lines with a path outside the folder of the data sets")
    return rows
