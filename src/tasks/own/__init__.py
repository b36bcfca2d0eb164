"""Own triplets: a folder with pictures and a table for each split, which --dataset takes in place of a name.

The folder holds triplets.train, triplets.val and perhaps triplets.test, each a .csv, .tsv, .xlsx or .jsonl; and, for a
gallery that is not every picture below it, gallery.<split>.txt or gallery.<split>.<category>.txt with a path a line.
"""

import functools
import re
import sys
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from src.base.alike import Alike
from src.base.errors import NAMED, InputError, first_ten, repeated, require_one_of
from src.base.folders import PassedOver, pictures_below
from src.base.reading import read_text
from src.tasks.annotations import KNOWN_NAMES, is_name, refuse, require_any, stays_inside
from src.tasks.captions import drawn_texts
from src.tasks.fashioniq import FashionIQ
from src.tasks.generated import read_generated
from src.tasks.own.names import Disk, all_there, mention_other_forms, plain
from src.tasks.own.rows import SUFFIXES, Row, read_rows, with_grades
from src.tasks.protocol import OWN, SOFT, Protocol
from src.tasks.task import Task
from src.tasks.triplets import Split, Triplet

ONLY_CATEGORY = "all"
PICTURE_COLUMNS = ("reference", "target", "group")
AT = (1, 5, 10, 50)
MAP_AT = (5, 10, 25, 50)


def _for_one_too(ask):
    """Let a way of asking two captions ask a triplet with one as that stands."""
    return lambda triplet: ask(triplet) if len(triplet.captions) == 2 else [triplet.captions]


class OwnTriplets(Task):
    """Somebody's own triplets. A second caption is treated as FashionIQ's, a group as CIRR's."""

    annotations = ""
    splits = ("train", "val", "test")
    captions = FashionIQ.captions | {
        how: _for_one_too(FashionIQ.captions[how]) for how in ("joined", "both-avg", "both-two")
    }
    best = {"": "mean_recall"}

    def __init__(
        self,
        name: str,
        categories: Sequence[str] = (ONLY_CATEGORY,),
        has_groups: bool = False,
        has_several: bool = False,
        has_grades: bool = False,
        path: Path | None = None,
    ):
        """Take what its validation split has: values of the column category, groups, several targets, their grades.

        `path` is its folder, where that is not called `name` in the data path.
        """
        self.name = self.folder = name
        self.short_name = re.sub(r"[^\w.-]", "_", name)
        self.path = path
        self.categories = tuple(categories)
        of_group, of_all = ((1, 2, 3) if has_groups else ()), (MAP_AT if has_several else ())
        own = Protocol(OWN, "drop", "full", AT, "joined", of_group, map_at=of_all, any_target=has_several)
        self.protocols = (own, own._replace(name=SOFT, soft=True)) if has_grades else (own,)
        metrics = self.protocols[0].metrics
        many = len(categories) > 1
        averages = {f"average_{metric}": tuple(f"{name}_{metric}" for name in categories) for metric in metrics}
        prefix = "average_" if many else ""
        self.means = (averages if many else {}) | {"mean_recall": tuple(f"{prefix}recall_at{k}" for k in AT)}
        headline = "recall_at1", "recall_at10", "map_at10", "group_recall_at1"
        self.headline = tuple(f"{prefix}{metric}" for metric in headline if metric in metrics)
        self._rows = {}
        self._pictures = {}

    @classmethod
    def in_folder(cls, path: Path) -> "OwnTriplets":
        """Make the task of a folder; raises InputError when it holds no table of triplets, or a faulty one."""
        path = Path(path).absolute()
        task = cls(path.name, path=path)
        # Judging decides what is counted; a folder only for training, or for a check, has another split.
        if not path.is_dir():
            raise InputError(f"{path}: no such folder")
        _require_known_names(path)
        split = next((split for split in ("val", "train", "test") if task.categories_in(path, split)), None)
        if split is None:
            raise InputError(
                f"{path}: holds no triplets.val.csv, .tsv, .xlsx or .jsonl, as a folder of own triplets does"
            )
        rows = task._table(path, split)
        categories = dict.fromkeys(row.text("category") or ONLY_CATEGORY for row in rows)
        has_groups = any("group" in row.cells for row in rows)
        has_several = any(len(row.cells.get("target", ())) > 1 for row in rows)
        has_grades = any(row.grades for row in rows)
        return cls(path.name, tuple(categories), has_groups, has_several, has_grades, path)

    def root(self, data_path: Path) -> Path:
        if self.path is not None:
            return self.path
        # Where only the name is known, the folder itself is meant as well as the one above it.
        return Path(data_path) if Path(data_path).absolute().name == self.name else super().root(data_path)

    def files(self, data_path: Path, category: str, split: str) -> tuple[Path, Path]:
        root = self.root(data_path)
        names = [root / f"gallery.{split}.{category}.txt", root / f"gallery.{split}.txt"]
        return self._path(root, split), next((path for path in names if path.is_file()), names[-1])

    def tables(self, data_path: Path) -> list[Path]:
        # Each split may have categories that the others lack, so by their names.
        return [path for path in self.root(data_path).iterdir() if KNOWN_NAMES.fullmatch(path.name) and path.is_file()]

    def categories_in(self, data_path: Path, split: str) -> list[str]:
        root = self.root(data_path)
        return list(self._by_category(root, split)) if self._path(root, split).is_file() else []

    def read_all(self, data_path: Path, split: str) -> dict[str, Split]:
        # Another split may have other categories.
        root = self.root(data_path)
        splits = {category: self.read(data_path, category, split) for category in self._by_category(root, split)}
        if root in self._pictures:
            _mention(root, *self._pictures[root][1].lines())
        return splits

    def read(self, data_path: Path, category: str, split: str) -> Split:
        require_one_of(split, self.splits, "split of own triplets")
        root = self.root(data_path)
        path, listing = self.files(data_path, category, split)
        rows = self._by_category(root, split)
        require_one_of(category, tuple(rows), f"category of {path}")
        triplets = [_triplet(row) for row in rows[category]]
        named = {name: root / name for triplet in triplets for name in _names(triplet)}
        if listing.is_file():
            pictures = _read_listing(listing, root)
            _require_listed(path, listing, pictures, triplets)
        else:
            # Training has no gallery. A named picture that is not there is found where pictures are looked at.
            pictures = named if split == "train" else self._all_below(root) | named
        if split == "train":
            triplets = _with_one_target(triplets)
        return Split(split, path, triplets, pictures, listing.is_file())

    def training_texts(self, captions: Sequence[str]) -> tuple[str, ...]:
        return drawn_texts(captions)

    def _by_category(self, root: Path, split: str) -> dict[str, list[Row]]:
        rows = {}
        for row in self._table(root, split):
            rows.setdefault(row.text("category") or ONLY_CATEGORY, []).append(row)
        return rows

    def _table(self, root: Path, split: str) -> list[Row]:
        """Return the rows of a split's table, which is read and checked once."""
        path = self._path(root, split)
        if path not in self._rows:
            self._rows[path] = _checked_rows(path, root, split)
        return self._rows[path]

    def _all_below(self, root: Path) -> dict[str, Path]:
        """Return every picture below the folder, which is looked through once."""
        if root not in self._pictures:
            passed = PassedOver.nothing()
            self._pictures[root] = pictures_below(root, passed=passed), passed
        return self._pictures[root][0]

    def _path(self, root: Path, split: str) -> Path:
        paths = [root / f"triplets.{split}{suffix}" for suffix in SUFFIXES]
        there = [path for path in paths if path.is_file()]
        if len(there) > 1:
            raise InputError(f"{there[0]}: {there[1].name} lies beside it; keep one of them")
        return there[0] if there else paths[0]


def read_extra(paths: Sequence[Path], train: Collection[Split] = ()) -> dict[str, Split]:
    """Read tables of triplets that are to join those of a training: {path: Split}. Paths in one start at its folder.

    Pictures are called by their whole paths, which no data set's names equal; but a .json, SPN4CIR's of generated
    triplets, names pictures of the splits `train`. Raises InputError for a faulty table, and for one that is named
    twice.
    """
    for path in repeated(paths, key=Path.resolve):
        raise InputError(f"{path}: is named twice as extra triplets")
    return {
        str(path): read_generated(path, train) if path.suffix.lower() == ".json" else _read_extra(path)
        for path in paths
    }


def _read_extra(path: Path) -> Split:
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path}: a table of triplets is a {', '.join(SUFFIXES)}, or SPN4CIR's .json")
    rows = _checked_rows(path, path.parent, "train")

    def whole(name):
        return str(path.parent / name)

    triplets = [
        triplet._replace(reference=whole(triplet.reference), targets=(whole(triplet.targets[0]),), group=(), graded=())
        for triplet in _with_one_target(map(_triplet, rows))
    ]
    return Split("train", path, triplets, {name: Path(name) for triplet in triplets for name in _names(triplet)})


def _with_one_target(triplets: Iterable[Triplet]) -> list[Triplet]:
    """Return triplets as training takes them: a step takes one target, so several are as many triplets."""
    return [triplet._replace(targets=(name,)) for triplet in triplets for name in triplet.targets]


ROLES = {
    "reference": lambda triplet: (triplet.reference,),
    "target": lambda triplet: triplet.targets,
    "group member": lambda triplet: triplet.group,
}
"""{what a picture is to a triplet: the names of these}"""


def _require_known_names(folder: Path) -> None:
    """Raise InputError for a table or a gallery under a name that no split has, which would never be read."""
    tables = (".csv", ".tsv", ".jsonl", ".json", ".xlsx", ".xls", ".ods", ".txt", ".parquet")
    for path in sorted(folder.iterdir()):
        is_table = path.name.lower().startswith(("triplets", "gallery")) and path.suffix.lower() in tables
        if is_table and path.is_file() and not KNOWN_NAMES.fullmatch(path.name):
            names = "triplets.train, triplets.val or triplets.test with .csv, .tsv, .xlsx or .jsonl, or gallery.val.txt"
            raise InputError(f"{path}: unknown file name; expected {names}")


@functools.cache
def _mention(root: Path, *lines: str) -> None:
    for line in lines:
        print(f"{root}: {line}", file=sys.stderr)


def _checked_rows(path: Path, root: Path, split: str) -> list[Row]:
    """Read a table whose paths start at `root`; raises InputError for the first kind of fault of its rows."""
    return checked(path, read_rows(path), split, root)


def checked(path: Path, rows: list[Row], split: str, *roots: Path) -> list[Row]:
    """Return rows with the names of pictures as they are called below the first of the folders `roots`.

    Raises InputError for the first kind of fault. A picture may lie in any of the folders.
    """
    disk = Disk(roots[0])
    rows = [_below(row, disk) for row in with_grades(path, rows)]
    _check(path, rows, split, roots)
    if disk.other_forms:
        mention_other_forms(path, tuple(disk.other_forms))
    return rows


def _below(row: Row, disk: Disk) -> Row:
    """Return a row whose absolute paths below the folder start at the folder, and are spelled as on the disk."""
    start = f"{disk.root}/"
    cells = {
        column: [disk.spelled(name.removeprefix(start)) for name in values] if column in PICTURE_COLUMNS else values
        for column, values in row.cells.items()
    }
    return row._replace(cells=cells)


def _require_listed(path: Path, listing: Path, pictures: dict[str, Path], triplets: list[Triplet]) -> None:
    """Raise InputError for rows that name what the listing lacks, with what it has instead."""
    for role, names_of in ROLES.items():
        unlisted = [(triplet, name) for triplet in triplets for name in names_of(triplet) if name not in pictures]
        listed = Alike(pictures if unlisted else ())
        culprits = [
            f"{triplet.place} ({'; '.join(map(str, filter(None, (name, listed.instead(name)))))})"
            for triplet, name in unlisted[:NAMED]
        ]
        refuse(
            path,
            [*culprits, *unlisted[NAMED:]],
            len(triplets),
            f"rows with a {role} that {listing.name} does not list",
        )


def _names(triplet: Triplet) -> Collection[str]:
    return dict.fromkeys(name for names_of in ROLES.values() for name in names_of(triplet))


def _check(path: Path, rows: list[Row], split: str, roots: Sequence[Path]) -> None:
    """Raise InputError for the first kind of fault that the rows of a split have, with their numbers.

    Paths start at one of the folders `roots`.
    """
    needed = ("reference", "caption") if split == "test" else ("reference", "target", "caption")

    def require_none(faulty, fault):
        refuse(path, [row.place for row in rows if faulty(row)], len(rows), fault)

    # What some rows have, all need; but training looks at no group.
    shared = ("id", "category") if split == "train" else ("id", "category", "group")
    needed += tuple(column for column in shared if any(column in row.cells for row in rows))
    for column in needed:
        require_none(lambda row, column=column: column not in row.cells, f"rows without {column}")
    for column in PICTURE_COLUMNS:
        outside = [
            f"{row.place} ({name})" for row in rows for name in row.cells.get(column, ()) if not stays_inside(name)
        ]
        refuse(path, outside, len(rows), f"rows with a {column} outside the folder")
    require_none(lambda row: not is_name(row.text("category") or "-"), "rows with a category that is not a name")
    again = repeated([row for row in rows if "id" in row.cells], key=lambda row: row.text("id"))
    refuse(path, [f"{row.place} ({row.text('id')})" for row in again], len(rows), "rows with the id of another")
    triplets = {row.place: _triplet(row) for row in rows}
    for fault, is_faulty in (
        ("rows whose target is their reference", lambda triplet: triplet.reference in triplet.targets),
        ("rows with a target twice", lambda triplet: len(set(triplet.targets)) < len(triplet.targets)),
        (
            "rows with a target outside their group",
            # A name that is misspelled is the fault, and found where pictures are looked at.
            lambda triplet: (
                triplet.group
                and not set(triplet.targets) <= set(triplet.group)
                and all_there(roots, (*triplet.targets, *triplet.group))
            ),
        ),
    ):
        refuse(path, [place for place, triplet in triplets.items() if is_faulty(triplet)], len(rows), fault)


def _triplet(row: Row) -> Triplet:
    """Return the triplet of a row. Without an id it is called by its row's number."""
    reference = plain(row.text("reference"))
    group = [plain(name) for name in row.cells.get("group", ())]
    targets = tuple(plain(name) for name in row.cells.get("target", ()))
    return Triplet(
        reference=reference,
        captions=tuple(row.text(column) for column in ("caption", "caption2") if column in row.cells),
        targets=targets,
        # A list of the others means the reference too.
        group=tuple(dict.fromkeys([*group, reference] if group else ())),
        id=row.text("id") or row.place.rpartition(" ")[2],
        graded=tuple(zip(targets, row.grades, strict=True)) if row.grades else (),
        place=row.place,
    )


def _read_listing(listing: Path, root: Path) -> dict[str, Path]:
    lines = {number: line.strip() for number, line in enumerate(read_text(listing).splitlines(), start=1)}
    named = {number: line for number, line in lines.items() if line}
    require_any(listing, named, "pictures")
    outside = [f"line {number}" for number, name in named.items() if not stays_inside(name)]
    refuse(listing, outside, len(named), "paths outside the folder")
    disk = Disk(root)
    names = [plain(disk.spelled(name)) for name in named.values()]
    if disk.other_forms:
        mention_other_forms(listing, tuple(disk.other_forms))
    again = repeated(names)
    if again:
        raise InputError(f"{listing}: {len(again)} of {len(names)} pictures listed again: {first_ten(again)}")
    return {name: root / name for name in names}
