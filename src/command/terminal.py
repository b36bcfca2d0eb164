"""The terminal's width, and text that fits it without a break inside a word."""

import shutil
import textwrap
from collections.abc import Sequence

PROSE = 100
"""Columns of a line of prose, in a wider terminal and in a file too."""


def width() -> int | None:
    """The columns of the terminal; None for a file or a pipe, where a line may be of any length."""
    return shutil.get_terminal_size((0, 0)).columns or None


def wrapped(text: str, columns: int, indent: str = "") -> list[str]:
    """Return `text` in lines of at most `columns`, all but the first indented. A flag or a path is one word."""
    whole = {"break_long_words": False, "break_on_hyphens": False}
    return textwrap.wrap(text, columns, subsequent_indent=indent, **whole)


def filled(text: str, indent: str = "", longest: int | None = None) -> str:
    """Return `text` in lines that fit the terminal and have at most `longest` columns, all but the first indented."""
    columns = min(filter(None, (width(), longest)), default=None)
    return "\n".join(wrapped(text, columns, indent)) if columns else text


def command_lines(words: Sequence[str], indent: str = "  ") -> str:
    """Return a command, whose `words` are quoted as a shell wants them, in lines that fit the terminal, to be pasted.

    A flag stays beside its value where both fit into a line.
    """
    columns, lines = width(), [indent + words[0]]
    for number, word in enumerate(words[1:], start=1):
        with_value = f"{word} {words[number + 1]}" if word.startswith("-") and number + 1 < len(words) else word
        if columns and len(f"{lines[-1]} {with_value} \\") > columns:
            lines.append(f"{indent}    {word}")
        else:
            lines[-1] += f" {word}"
    return " \\\n".join(lines)
