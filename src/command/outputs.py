"""Outputs of a command, which replace none of its inputs."""

import re
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path

from src.base.crops import file_of
from src.base.errors import InputError, repeated
from src.base.files import require_replaceable, require_writable
from src.base.folders import PICTURE_SUFFIXES
from src.tasks.annotations import KNOWN_NAMES
from src.tasks.triplets import Split

FOLDERS_OF_FILES = "clip_model_name", "clip_model_path", "combiner_path", "index", "feature_cache", "image_cache"
"""Options that may name a folder all of whose files are read."""
TABLE_NAMES = re.compile(rf"{KNOWN_NAMES.pattern}|(cap|split)\..+\.json")
"""Names of tables of own triplets, and of CIRR's and FashionIQ's, wherever they lie."""
NEVER_REPLACED = (
    *PICTURE_SUFFIXES,
    *(".pt", ".pth", ".ckpt", ".bin", ".safetensors", ".npy", ".npz", ".parquet"),
)
"""Suffixes of pictures, weights, features and tables that no command writes where --json or --csv says."""


def output_files(options: Mapping, *names: str) -> dict[str, list[Path]]:
    """Return {option: its file} of the options `names` that name a file to write."""
    return {_flag(name): [options[name]] for name in names if options[name] is not None}


def require_outputs(options: Mapping, outputs: dict[str, list[Path]], inputs: dict[str, Iterable[Path]]) -> None:
    """Raise InputError unless all of `outputs` {option: its files} can be written, and none replaces what is needed.

    That is a file that the other `options` name or one of `inputs` {option: files}, under whatever name; a table of a
    data set; a picture; and a file of weights or features.
    """
    wanted = [(option, path.absolute()) for option, paths in outputs.items() for path in paths]
    again = repeated([path for _, path in wanted], key=_place)
    if again:
        raise InputError(f"{again[0]}: is asked for twice, each output needs a file of its own")
    for option, path in wanted:
        if path.is_file() and TABLE_NAMES.fullmatch(path.name):
            raise InputError(f"{option} {path}: is a table of a data set; name another file")
        require_replaceable(path)
        require_writable(path.parent)
        if path.exists() and path.suffix.lower() in NEVER_REPLACED:
            raise InputError(f"{option} {path}: is a picture or holds weights or features; name another file")
    there = [(option, path, _identities(path)) for option, path in wanted if path.exists()]
    if not there:
        return
    given = {_flag(name): _files_in(name, value) for name, value in options.items() if _flag(name) not in outputs}
    for source, paths in (given | inputs).items():
        for identity in filter(None, map(_identity, paths)):
            for option, path, identities in there:
                if identity in identities:
                    raise InputError(f"{option} {path}: is an input of this command ({source}); name another file")


def data_files(tables: Iterable[Path], splits: Iterable[Split] = ()) -> dict[str, list[Path]]:
    """Return {option: files} of a data set that no output may replace: its `tables`, and the pictures of `splits`."""
    pictures = (path for split in splits for path in split.pictures.values())
    # Most are known by their suffixes and need no look.
    others = (path for path in map(file_of, pictures) if path.suffix.lower() not in NEVER_REPLACED)
    return {"--dataset": [*tables, *others]}


def _flag(name: str) -> str:
    return "FILE" if name == "files" else f"--{name.replace('_', '-')}"


def _files_in(name: str, value: object) -> list[Path]:
    """Return the files that an option's value names, and a folder where all its files are read."""
    found = []
    for part in value if isinstance(value, list) else [value]:
        # open_clip:ViT-B-32:FILE is a name with a file in it.
        paths = [Path(text) for text in (part, *part.split(":"))] if isinstance(part, str) else [part]
        found += [path for path in paths if isinstance(path, Path) and (path.is_file() or name in FOLDERS_OF_FILES)]
    return found


def _place(path: Path) -> Hashable:
    """Return a key that two names of one file share, whether it is there or not."""
    return _identity(path) or path.parent.resolve() / path.name


def _identity(path: Path) -> tuple[int, int] | None:
    """Return device and inode of a file or a folder; None where there is none."""
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _identities(path: Path) -> set:
    """Return the identities of a file and of all folders that it lies in."""
    return {_identity(path), *map(_identity, path.absolute().parents), *map(_identity, path.resolve().parents)}
