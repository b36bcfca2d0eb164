"""The page of what was judged."""

from collections.abc import Mapping
from pathlib import Path

from src.apps.pages.kit import Album, write_page
from src.apps.report.queries import about_queries
from src.evaluation.judged import Judged
from src.tasks.triplets import Split


def write_report(output: Path, title: str, judged: Judged, splits: Mapping[str, Split], **page) -> None:
    """Write the page of what was judged on `splits` {category: split}, and print its path.

    `page` has what else its template shows.
    """
    pictures, album = {category: split.pictures for category, split in splits.items()}, Album()
    write_page(output, "report/report.html", album, title=title, **page, **about_queries(judged, pictures, album))
    print(output)
