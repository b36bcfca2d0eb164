"""What requests to the demo's page say, which may be anything: a browser is not the only one that can send them."""

from collections.abc import Collection, Sequence

from src.apps.demo.walk import LONGEST_CAPTION, MOST_ANSWERS, Query
from src.base.errors import InputError, shown


def set_fields(query: Query, settings: Sequence, functions: Collection[str]) -> Query:
    """Return a query with what the page's fields say; raises InputError for what no browser sends."""
    caption, function, beside, weight, k = settings
    if not isinstance(caption, str):
        raise InputError("the caption must be a text")
    caption = caption.strip()
    if len(caption) > LONGEST_CAPTION:
        raise InputError(f"a caption of {len(caption):,} letters: the limit is {LONGEST_CAPTION}")
    for name, allowed in ((function, [*functions]), (beside, ["", *functions])):
        if name not in allowed:
            raise InputError(f"{shown(str(name))}: is none of {', '.join(functions)}")
    for number, what, least, most in ((weight, "caption weight", 0, 1), (k, "answers", 1, MOST_ANSWERS)):
        if not isinstance(number, int | float) or not least <= number <= most:
            raise InputError(f"{what} {shown(str(number))}: must be from {least} to {most}")
    beside = "" if beside == function else beside
    # A slider's steps are not exact.
    weight = round(weight, 2)
    return query._replace(caption=caption, function=function, beside=beside, caption_weight=weight, k=int(k))


def key_of(event: object) -> str:
    """Return the key of the card that was clicked; empty for an event that says none."""
    key = getattr(event, "key", None)
    return key if isinstance(key, str) else ""


def number_of(event: object, cards: Sequence) -> int | None:
    """Return the number of the card that was clicked; None for one that is not there."""
    return {str(number): number for number in range(len(cards))}.get(key_of(event))
