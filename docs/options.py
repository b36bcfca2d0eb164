"""Write docs/options.md, the options of every command, from the commands' own parsers.

    python -m docs.options

An option that several commands have alike is said once, at the top.
"""

from argparse import Action, ArgumentParser
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import check_data
import check_submission
import circo_test_submission
import cirr_test_submission
import clip_fine_tune
import combiner_train
import compare
import demo
import quickstart
import report
import search
import validate
from src.base.files import PROJECT_ROOT, replacing

PAGE = Path(__file__).with_name("options.md")
DOORS = (
    clip_fine_tune,
    combiner_train,
    validate,
    compare,
    cirr_test_submission,
    circo_test_submission,
    check_submission,
    report,
    search,
    demo,
    check_data,
    quickstart,
)
SEVERAL = 3
INTRODUCTION = """\
# Options

`make docs` writes this page from the commands' parsers, and `--help` of a command says the same. An empty default means
that nothing is given, or that a switch is off.

## Options of several commands

Each command's section names those that it takes.
"""
HEADER = "| option | default | meaning |\n|---|---|---|\n"


class Row(NamedTuple):
    """An option as the page shows it."""

    option: str
    default: str
    meaning: str


Groups = dict[str, list[Row]]
"""{title of an argument group: its options}; the title of a parser's own options is empty."""


def page(doors: Iterable) -> str:
    """Return the page for some commands, each a module with a make_parser()."""
    parsers = {f"{door.__name__}.py": door.make_parser() for door in doors}
    of_commands = {command: groups(parser) for command, parser in parsers.items()}
    commands_with = Counter(row for of_command in of_commands.values() for rows in of_command.values() for row in rows)
    shared = {row for row, commands in commands_with.items() if commands >= SEVERAL}

    sections = [INTRODUCTION, tables(united(of_commands.values(), shared))]
    for command, of_command in of_commands.items():
        own = {title: [row for row in rows if row not in shared] for title, rows in of_command.items()}
        sections += [f"## {command}\n", f"{parsers[command].description}\n", tables(own)]
        taken = [f"`{row.option.split()[0]}`" for rows in of_command.values() for row in rows if row in shared]
        if taken:
            sections.append(f"Also {', '.join(taken)}: see the top of this page.\n")
    return "\n".join(sections)


def united(all_groups: Iterable[Groups], shared: set[Row]) -> Groups:
    """Return the shared options, each once, under the title that the first command gives it."""
    title_of = {}
    for groups_of_one in all_groups:
        for title, rows in groups_of_one.items():
            for row in rows:
                if row in shared:
                    title_of.setdefault(row, title)
    return {title: [row for row in title_of if title_of[row] == title] for title in dict.fromkeys(title_of.values())}


def tables(titled: Groups) -> str:
    """Return a table for each group that has options, its title above it."""
    found = []
    for title, rows in titled.items():
        lines = []
        for option, default, meaning in rows:
            cells = (cell.replace("|", r"\|") for cell in (f"`{option}`", default, meaning))
            lines.append(f"| {' | '.join(cells)} |\n")
        if lines:
            found.append((f"**{title}**\n\n" if title else "") + HEADER + "".join(lines))
    return "\n".join(found)


def groups(parser: ArgumentParser) -> Groups:
    """Return the options of a parser by its argument groups."""
    found = {}
    for group in parser._action_groups:
        # argparse names its own two groups, and differently in different versions of Python.
        title = "" if group in (parser._positionals, parser._optionals) else group.title
        title += f" ({group.description})" if group.description else ""
        found.setdefault(title, []).extend(row_of(action) for action in group._group_actions if action.dest != "help")
    return found


def row_of(action: Action) -> Row:
    """Return an option as a row. Its help text may end with "(default: …)", which says what an empty one stands for."""
    meaning, _, in_words = (action.help % vars(action)).partition(" (default: ")
    return Row(name_of(action), in_words.removesuffix(")") or default_of(action), meaning)


def name_of(action: Action) -> str:
    """Return an option's name, with the choices or the word that stands for its value where it has them."""
    name = ", ".join(action.option_strings) or action.dest
    value = f"{{{','.join(map(str, action.choices))}}}" if action.choices else action.metavar
    value = f"[{value}]" if action.nargs == "?" else value
    return f"{name} {value}" if value else name


def default_of(action: Action) -> str:
    """Return an option's default, in words where it depends on the machine."""
    if action.required:
        return "required"
    if action.dest == "num_workers":
        return "usable cores"
    if action.default == PROJECT_ROOT:
        return "the project's root"
    if action.default is None or action.default is False:
        return ""
    return str(action.default)


def main():
    with replacing(PAGE) as unfinished:
        unfinished.write_text(page(DOORS), encoding="utf-8")


if __name__ == "__main__":
    main()
