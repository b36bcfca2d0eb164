"""Places of weights: a file, a folder that was shared, or a repository on Hugging Face's hub."""

import functools
import re
import sys
from pathlib import Path
from types import ModuleType

from src.base.errors import InputError, first_ten, in_a_line

HUB = "hf:"
"""What the name of a place on the hub begins with."""
FORM = f"{HUB}OWNER/NAME[:FILE]"
NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
SHARED = "weights.safetensors"
"""The file of weights in a folder that was shared, and in a repository where no other is asked for."""
SUFFIXES = ".safetensors", ".pt", ".pth", ".bin", ".ckpt"
"""Suffixes of files of weights."""


def is_on_hub(place: Path | str) -> bool:
    return str(place).startswith(HUB)


def is_shared_folder(place: Path | str) -> bool:
    """Whether a place is a folder that weights were shared to."""
    return not is_on_hub(place) and (Path(place) / SHARED).is_file()


def repository_and_file(place: Path | str) -> tuple[str, str]:
    """Return the repository and the file that a place on the hub names; raises InputError for another form."""
    repository, colon, file = str(place).removeprefix(HUB).partition(":")
    if not NAME.fullmatch(repository) or (colon and not file) or ".." in file.split("/") or file.startswith("/"):
        raise InputError(f"{place}: {FORM} is expected")
    return repository, file or SHARED


def local_file(place: Path | str) -> Path:
    """Return the file that a place names on this machine; from the hub it is downloaded, where it is new.

    Whether there is such a file is for its reader to see. Raises InputError when the hub does not give it.
    """
    if is_on_hub(place):
        return _download(str(place))
    return Path(place) / SHARED if is_shared_folder(place) else Path(place)


@functools.cache
def beside(place: Path | str, name: str) -> Path | None:
    """Return the file `name` beside the weights at a place, on the hub in their repository; None without such a file.

    Raises InputError when the hub does not say.
    """
    if not is_on_hub(place):
        path = local_file(place).parent / name
        return path if path.is_file() else None
    repository, _ = repository_and_file(place)
    library = require_library(str(place))
    try:
        return Path(library.hf_hub_download(repository, name))
    except library.utils.EntryNotFoundError:  # also where neither hub nor cache has it, as their weights' reader says
        return None
    except Exception as error:  # as below
        raise InputError(f"{place}: {_fault(library, error, repository, name)}") from None


@functools.cache
def _download(place: str) -> Path:
    repository, file = repository_and_file(place)
    library = require_library(place)
    try:
        # Its cache, its token and its offline mode are those of all programs that take files from the hub.
        return Path(library.hf_hub_download(repository, file))
    except Exception as error:  # what the library raises, and those below it, may be anything
        raise InputError(f"{place}: {_fault(library, error, repository, file)}") from None


def require_without_weights(place: str) -> None:
    """Raise InputError for a repository that has weights, which an upload would replace, and where the hub is away."""
    repository, _ = repository_and_file(place)
    library = require_library(place)
    try:
        weights = _weights_of(library, repository)
    except library.utils.RepositoryNotFoundError:  # an upload makes it
        return
    except Exception as error:  # as below
        raise InputError(f"{place}: {_fault(library, error, repository)}") from None
    if weights:
        raise InputError(f"{place}: the repository has weights already ({first_ten(weights)}); name a new one")


def _weights_of(library: ModuleType, repository: str) -> list[str]:
    return [name for name in library.list_repo_files(repository) if name.endswith(SUFFIXES)]


def upload(folder: Path, place: str) -> None:
    """Upload the files of a folder to a repository, which is made where there is none; raises InputError."""
    repository, _ = repository_and_file(place)
    library = require_library(place)
    try:
        hub = library.HfApi()
        hub.create_repo(repository, exist_ok=True)
        hub.upload_folder(repo_id=repository, folder_path=folder, commit_message="Weights with their model card")
    except Exception as error:  # as above
        raise InputError(f"{place}: {_fault(library, error, repository)}") from None


def require_library(place: str) -> ModuleType:
    """Return the hub's own library; raises InputError where it is not installed."""
    try:
        import huggingface_hub
        from huggingface_hub.utils import disable_progress_bars, logging
    except ImportError:
        needs = "needs huggingface_hub; `pip install -r requirements/hub.txt` installs it"
        raise InputError(f"{place}: {needs}") from None
    logging.set_verbosity_error()
    if not sys.stderr.isatty():  # a file would be filled with bars
        disable_progress_bars()
    return huggingface_hub


def _fault(library: ModuleType, error: Exception, repository: str, file: str | None = None) -> str:
    """Say what is wrong, and what would be right, when the hub did not do what was asked."""
    # The order matters: one that may not be read, and one in no cache, are kinds of those not found.
    if isinstance(error, library.utils.GatedRepoError):
        return "gated: request access on its page, then set HF_TOKEN or run `hf auth login`"
    if isinstance(error, library.utils.RepositoryNotFoundError):
        return "no such repository, or a private one: HF_TOKEN or `hf auth login` says who you are"
    if isinstance(error, library.utils.LocalEntryNotFoundError):
        if library.constants.HF_HUB_OFFLINE:
            return "not in the cache, and HF_HUB_OFFLINE forbids downloading it"
        return "not in the cache, and the hub cannot be reached; a file on this machine will do too"
    if isinstance(error, library.utils.EntryNotFoundError):
        return f"the repository has no {file}; {_weights_in(library, repository)}"
    return f"the hub does not give it ({in_a_line(error)})" if file else f"the hub refuses ({in_a_line(error)})"


def _weights_in(library: ModuleType, repository: str) -> str:
    try:
        files = _weights_of(library, repository)
    except Exception:  # the list is only a help
        return f"name one of its files: {FORM}"
    return f"its weights are {first_ten(files)}" if files else "it has no weights"
