"""The lists of a folder of features: which pictures and texts of a data set have to be encoded."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from src.base.errors import InputError, escaped
from src.base.files import replacing
from src.models.features import LISTS, read_list, text_line
from src.pictures.data import require_pictures
from src.pictures.skipping import Skipping
from src.pictures.transforms import make_transform
from src.tasks.task import Task
from src.tasks.triplets import Split


def read_splits(tasks: Sequence[Task], data_path: Path, skipping: Skipping) -> Iterator[tuple[Task, Split]]:
    """Yield all splits of data sets that there are annotations of, without what --skip-missing leaves out."""
    for task in tasks:
        there = [(category, split) for split in task.splits for category in task.categories_in(data_path, split)]
        if not there:
            raise InputError(f"{task.root(data_path)}: has annotations of no split")
        splits = [task.read(data_path, category, split) for category, split in there]
        yield from ((task, split) for split in usable(splits, skipping))


def usable(splits: Sequence[Split], skipping: Skipping) -> list[Split]:
    """Return splits without what --skip-missing leaves out; raises InputError for pictures that are missing."""
    require_pictures(splits, skipping.enabled, "")
    preprocess = make_transform("clip", None, 224)
    return [skipping.usable(split, preprocess) for split in splits]


def pictures(split: Split, start: Path) -> Iterator[str]:
    """Yield the paths of a split's pictures, from `start` where they lie below it."""
    for path in split.pictures.values():
        whole = path.absolute()
        line = (whole.relative_to(start) if whole.is_relative_to(start) else whole).as_posix()
        if line.splitlines() != [line] or not _is_utf8(line):
            raise InputError(f"{escaped(str(path))}: its name cannot be a line of pictures.txt; rename it")
        yield line


def texts(task: Task, split: Split) -> Iterator[str]:
    """Yield every text that training may draw of a split, or that any way of asking its captions gives."""
    if split.name == "train":
        for triplet in split.triplets:
            yield from map(text_line, task.training_texts(triplet.captions))
        return
    for captions in task.captions:
        for query in task.queries(split.triplets, captions):
            yield from map(text_line, query.texts)


def write_lists(folder: Path, lines: dict[str, Iterable[str]]) -> dict[Path, int]:
    """Write {encoder: lines} as the lists of a folder; return {list: how many lines it has}.

    Raises InputError, and writes nothing, where features lie there that were made of other lines.
    """
    lists = {folder / f"{LISTS[encoder]}.txt": list(dict.fromkeys(of_one)) for encoder, of_one in lines.items()}
    for path, of_one in lists.items():
        features = path.with_suffix(".npy")
        if features.exists() and (not path.is_file() or read_list(path) != of_one):
            raise InputError(f"{features}: is there already, of other lines than these; name another folder")
    for path, of_one in lists.items():
        with replacing(path) as unfinished:
            unfinished.write_text("".join(f"{line}\n" for line in of_one), encoding="utf-8", newline="\n")
    return {path: len(of_one) for path, of_one in lists.items()}


def _is_utf8(line: str) -> bool:
    try:
        line.encode()
    except UnicodeEncodeError:
        return False
    return True
