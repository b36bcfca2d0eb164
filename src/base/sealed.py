"""JSON objects in files that carry a checksum of themselves."""

import hashlib
import json
from pathlib import Path

from src.base.files import write_json

SEAL = "sha256"
"""The key of the checksum, which is of all other keys and values."""


def write_sealed(path: Path, content: dict, **options) -> None:
    """Write `content` with its checksum; `options` are json.dumps's."""
    write_json(path, content | {SEAL: _checksum(content)}, **options)


def is_whole(content: dict) -> bool:
    """Whether an object that was read is the one that `write_sealed` wrote."""
    try:
        return content.get(SEAL) == _checksum(content)
    except RecursionError:  # nested deeper than anything that was written
        return False


def _checksum(content: dict) -> str:
    plain = {key: value for key, value in content.items() if key != SEAL}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
