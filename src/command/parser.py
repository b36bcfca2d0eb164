"""Command-line options whose errors are one line, and the values they take."""

import argparse
import difflib
import math
import os
import re
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from src.base.errors import InputError
from src.base.files import HELD_FEATURES
from src.base.hub import is_on_hub, is_shared_folder, repository_and_file
from src.base.reading import kind_of
from src.command.terminal import command_lines, wrapped

EXAMPLE = re.compile("^ *(python .+)$", re.MULTILINE)
"""A command in the docstring of a door. Python 3.13 and newer may have removed its indentation."""
WORD = re.compile(r'"[^"]*"|\S+')


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    # argparse's own break flags and paths at their hyphens.
    def _split_lines(self, text, width):
        return wrapped(text, width)

    def _fill_text(self, text, width, indent):
        return "\n".join(indent + line for line in wrapped(text, width - len(indent)))

    def _get_help_string(self, action):
        return action.help if action.default is None or action.default is False else super()._get_help_string(action)


_NOT_GIVEN = []
"""Recognised by identity. A list, because argparse appends to a copy of what a repeatable option has."""


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that shows the defaults and answers a wrong flag with one line and exit status 2.

    Its result has another attribute: `given`, the names of the options that were not left at their defaults.
    """

    def __init__(self, description: str, doc: str | None = None):
        """`doc` is the docstring of the command; its first example begins the help."""
        super().__init__(description=description, formatter_class=_Help, allow_abbrev=False)
        self._example = EXAMPLE.search(doc or "")

    def format_help(self):
        self.usage = self._short_usage()
        example = f"{command_lines(WORD.findall(self._example[1]))}\n\n" if self._example else ""
        return example + super().format_help()

    def _short_usage(self):
        """Name what must be given. All options are listed below it, each with its meaning."""
        words = [self.prog]
        for action in self._actions:
            if action.required:
                value = action.metavar or action.dest.upper()
                words += [*action.option_strings[:1], f"{value} ..." if action.nargs == "+" else value]
        return " ".join([*words, "[options]"]).replace("%", "%%")

    def parse_args(self, args=None):
        # A mistyped flag is named before argparse complains about what is missing because of it.
        for text in sys.argv[1:] if args is None else args:
            flag = text.partition("=")[0]
            if flag.startswith("--") and flag not in self._option_string_actions:
                near = difflib.get_close_matches(flag, self._option_string_actions, n=1)
                self.error(f"unknown option {flag}" + (f"; did you mean {near[0]}?" if near else ""))
        # argparse does not tell a given value from an equal default, so it parses once more with marks for defaults.
        marked = argparse.Namespace(**{action.dest: _NOT_GIVEN for action in self._actions})
        super().parse_args(args, marked)
        options = super().parse_args(args)
        options.given = {name for name, value in vars(marked).items() if value is not _NOT_GIVEN}
        return options

    def print_help(self, file=None):
        if _from_torchrun("RANK", 0) == 0:  # once for all processes of a job
            super().print_help(file)

    def error(self, message):
        self.refuse(f"{message} ({self.prog} --help lists the options)")

    def refuse(self, line: str) -> None:
        """End with an error that is not the options'."""
        if _from_torchrun("RANK", 0) == 0:
            print(f"error: {line}", file=sys.stderr, flush=True)
        else:
            time.sleep(5)  # the first process says it for all; torchrun ends this one as soon as that one has ended
        raise SystemExit(2)


def _from_torchrun(name: str, otherwise: int) -> int:
    """A number that torchrun gives this process; `otherwise` where something else started it."""
    number = os.environ.get(name, "") if "TORCHELASTIC_RUN_ID" in os.environ else ""
    return int(number) if number.isdecimal() else otherwise


def any_case(*names: str) -> Callable[[str], str]:
    """Make an option type that takes one of `names` in any case and gives it as spelled here."""
    spelled = {name.lower(): name for name in names}

    def name(text):
        if text.lower() not in spelled:
            raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(names)}")
        return spelled[text.lower()]

    return name


def _number(takes: Callable[[float], bool], what: str, convert: Callable = float) -> Callable[[str], float]:
    """Make an option type of the numbers that it `takes`; `what` says which."""

    def number(text):
        try:
            value = convert(text)
        except ValueError:
            value = math.nan
        if not takes(value):
            raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
        return value

    return number


def _whole(text: str) -> int:
    if not text.isdecimal():  # int takes signs, blanks and underscores too
        raise ValueError(text)
    return int(text)


count = _number(lambda number: number > 0, "a whole number above 0", _whole)
width = _number(lambda number: 0 < number < 2**31, f"a whole number above 0 and below {2**31}", _whole)
"""Of a layer. Torch has no one-line error for sizes that no memory holds."""
count_or_zero = _number(lambda number: number >= 0, "a whole number of 0 or more", _whole)
positive = _number(lambda number: 0 < number < math.inf, "a number above 0")
one_or_more = _number(lambda number: 1 <= number < math.inf, "a number of 1 or more")
share = _number(lambda number: 0 <= number <= 1, "a number from 0 to 1")
positive_share = _number(lambda number: sys.float_info.min <= number <= 1, "a number above 0, up to 1")
finite = _number(math.isfinite, "a number")


def words(text: str) -> str:
    """Take a text that is not empty."""
    if not text.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is empty")
    return text


def existing_file(text: str) -> Path:
    """Take the path of a file that is there, made absolute."""
    path = Path(text)
    if not text or not path.is_file():
        kind = kind_of(path) if text else None
        fault = f"is {kind}, not a file" if kind else "no such file"
        raise argparse.ArgumentTypeError(f"{text or repr(text)}: {fault}")
    return path.absolute()


def weights_place(text: str) -> Path | str:
    """Take the path of a file that is there or of a folder of shared weights, made absolute, or a place on the hub."""
    if is_on_hub(text):
        return name_or_file(text)
    return Path(text).absolute() if text and is_shared_folder(text) else existing_file(text)


def file_path(text: str) -> Path:
    """Take a path, made absolute now: what a run keeps of it has to be found from any folder."""
    return Path(text).absolute()


def name_or_file(text: str) -> str:
    """Take a name, or the path of a file or of a folder with files of weights, made absolute.

    So are such paths after the colons of a name, as in open_clip:ViT-B-32:FILE, and the folder of features:FOLDER.
    """
    if text.startswith(HELD_FEATURES):
        return HELD_FEATURES + str(Path(text.removeprefix(HELD_FEATURES)).absolute())

    def absolute(part):
        path = Path(part)
        # A folder may be called like a CLIP by chance.
        with_weights = path.is_dir() and any(any(path.glob(f"*.{end}")) for end in ("safetensors", "bin"))
        return str(path.absolute()) if part and (path.is_file() or with_weights) else part

    if is_on_hub(text):
        try:
            repository_and_file(text)
        except InputError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        return text
    if absolute(text) != text:
        return absolute(text)
    first, *parts = text.split(":")
    return ":".join([first, *map(absolute, parts)])


def part_of_a_file_name(text: str) -> str:
    """Take a part of a file name, not a path."""
    if Path(text).name != text or "\\" in text or not text:
        raise argparse.ArgumentTypeError(f"{text!r} is not a part of a file name, which has no slashes")
    return text


def usable_cores() -> int:
    """The number of cores for this process: its part of them where torchrun's processes share the machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // _from_torchrun("LOCAL_WORLD_SIZE", 1))


def hyper_parameters(options: Mapping) -> dict:
    """Return a command's options as plain values, to be kept beside its results. The API key is not among them."""
    unkept = ("api_key", "resume", "given")
    return {name: plain(value) for name, value in options.items() if name not in unkept}


def plain(value):
    """Return an option's value as JSON takes it."""
    if isinstance(value, list):
        return [plain(part) for part in value]
    return str(value) if isinstance(value, Path) else value
