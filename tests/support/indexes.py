"""Writing an index in a line."""

from pathlib import Path

from src.apps.search.changes import Changes
from src.apps.search.index_writing import updating
from src.retrieval.gallery import Gallery


def write_index(folder: Path, gallery: Gallery, depends_on: dict, half: bool, remove_missing: bool = False) -> Changes:
    """Write a gallery whose pictures are at hand."""
    with updating(folder, depends_on, remove_missing) as update:
        return update.write(gallery, half)
