"""The page of the training triplets that a model holds least likely, with their pictures."""

from pathlib import Path

from src.apps.checking.unlikely import MEANING, Ranking, Unlikely
from src.apps.pages.kit import Album, QueryRow, write_page

SHARE = 0.05
"""The part of the triplets that the page shows."""
FEWEST, MOST = 20, 500


def draw_page(path: Path, ranking: Ranking) -> None:
    """Write the page; raises InputError for a picture that cannot be read."""
    album = Album()
    shown = ranking.triplets[: min(MOST, max(FEWEST, round(SHARE * len(ranking.triplets))))]
    rows = [_drawn(one, album) for one in shown]
    introduction = f"{ranking.described()}. These are the first {len(rows):,}."
    about = {"title": "Rows that may be wrong", "introduction": introduction, "meaning": MEANING}
    write_page(path, "checking/unlikely.html", album, rows=rows, **about)


def _drawn(one: Unlikely, album: Album) -> QueryRow:
    reference, target = (one.split.pictures[name] for name in (one.triplet.reference, one.triplet.targets[0]))
    remark = f"loss {one.held.loss:.2f}, rank {one.held.rank:,.1f}: {one.place}"
    drawn = album.picture(reference), album.picture(target, is_target=True)
    return QueryRow(drawn[0], " | ".join(one.triplet.captions), remark, (), drawn[1])
