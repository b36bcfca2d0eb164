"""Captions as the texts that CLIP encodes."""

from collections.abc import Sequence


class OneOf(tuple):
    """Captions of which training draws one, as it stands."""


def drawn_texts(captions: Sequence[str]) -> tuple[str, ...]:
    """Return the training variants of a triplet's captions (paper, section 4.1).

    One caption as it is, and those of OneOf; two in both orders and each by itself.
    """
    if len(captions) == 1 or isinstance(captions, OneOf):
        return tuple(captions)
    first, second = map(cleaned_caption, captions)
    # The published draw has these four in this order: below .25 the first, and so on.
    return joined_captions(first, second), joined_captions(second, first), first.capitalize(), second.capitalize()


def cleaned_caption(caption: str) -> str:
    """Return a caption without the punctuation that annotators put around it."""
    return caption.strip(".?, ")


def joined_captions(first: str, second: str) -> str:
    """Return two cleaned captions as one sentence: "First and second" (paper, section 4.1)."""
    return f"{first.capitalize()} and {second}"
