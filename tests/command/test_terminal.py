"""Text, tables and help that fit the terminal, without a break inside a word."""

import fcntl
import inspect
import os
import pty
import re
import shlex
import struct
import subprocess
import sys
import termios

import pytest

import check_data
import validate
from docs.options import DOORS
from src.base.files import PROJECT_ROOT
from src.command.parser import Parser
from src.command.terminal import command_lines, filled, width
from src.command.text import text_table
from tests.support.commands import status_of

LONG = "a-word-with-hyphens " * 8


def test_without_a_terminal_lines_are_of_any_length(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert width() is None
    assert filled(LONG) == LONG
    assert max(map(len, filled(LONG, longest=100).splitlines())) <= 100


@pytest.mark.parametrize("columns", ["30", "80", "100"])
def test_text_is_broken_between_words(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    lines = filled(LONG, indent="  ").splitlines()
    assert max(map(len, lines)) <= int(columns)
    assert set(" ".join(lines).split()) == {"a-word-with-hyphens"}


@pytest.mark.parametrize("columns", [None, "60", "80", "100"])
def test_a_command_can_be_pasted(columns, monkeypatch):
    if columns:
        monkeypatch.setenv("COLUMNS", columns)
    else:
        monkeypatch.delenv("COLUMNS", raising=False)
    words = ["python", "a.py", "--path", "my folder/x", "--flag", *(f"--number-{n}" for n in range(12)), "9"]
    text = command_lines(list(map(shlex.quote, words)))
    # As a shell joins lines, which shlex does not.
    assert shlex.split(text.replace("\\\n", "")) == words
    assert max(map(len, text.splitlines())) <= int(columns or 1000)
    assert columns or "\n" not in text


def test_names_are_to_the_left_and_numbers_to_the_right(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    rows = [["1", "0.5", "a.jpg", "<0.0001"], ["10", "+12.5", "folder/b.jpg", "0.2500"]]
    assert text_table(["", "score", "picture", "p"], rows).splitlines() == [
        "    score  picture             p",
        "1     0.5  a.jpg         <0.0001",
        "10  +12.5  folder/b.jpg   0.2500",
    ]


def test_a_table_that_is_too_wide_goes_on_below(monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    names = [f"column {n}" for n in range(6)]
    rows = [["first", *map(str, range(6))], ["second", *map(str, range(10, 16))]]
    text = text_table(["%", *names], rows)
    assert max(map(len, text.splitlines())) <= 30
    parts = [part.splitlines() for part in text.split("\n\n")]
    assert [part[0].split("  ")[0] for part in parts] == ["%"] * 3
    assert [number for part in parts for number in part[2].split()[1:]] == rows[1][1:]


COLOURS = re.compile(r"\x1b\[[0-9;]*m")  # which Python 3.14 writes into the help of a terminal


@pytest.mark.parametrize("columns", ["80", "100"])
@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
def test_help_begins_with_an_example_and_a_short_usage(door, columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    parser = door.make_parser()
    text = parser.format_help()
    example, usage, *_ = text.split("\n\n")
    assert shlex.split(example)[:2] == ["python", f"{door.__name__}.py"]
    assert usage.startswith("usage: ")
    assert usage.endswith(" [options]")
    assert "\n" not in usage
    for line in text.splitlines():
        assert len(line) <= int(columns) or len(line.split()) == 1, line
    words = {word for action in parser._actions for word in (action.help or "").split()}
    assert {word for word in words if "%" not in word} <= set(text.split())


def test_an_example_is_found_without_the_indentation_that_python_3_13_removes():
    assert Parser("", inspect.cleandoc(validate.__doc__)).format_help().startswith("  python validate.py ")


@pytest.mark.parametrize("columns", ["80", "100"])
@pytest.mark.parametrize(
    ("main", "flags"), [(check_data.main, []), (validate.main, ["--protocol", "all"]), (validate.main, [])]
)
def test_what_commands_print_fits(main, flags, columns, options, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", columns)
    status_of(main, ["--dataset", "FashionIQ", *(options if main is validate.main else options[:2]), *flags])
    for line in capsys.readouterr().out.splitlines():
        assert len(line) <= int(columns) or len(line.split()) == 1, line


@pytest.mark.parametrize("columns", [80, 100])
def test_help_in_a_real_terminal(columns):
    first, second = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    fcntl.ioctl(second, termios.TIOCSWINSZ, struct.pack("4H", 40, columns, 0, 0))
    command = [sys.executable, "compare.py", "--help"]
    process = subprocess.Popen(command, cwd=PROJECT_ROOT, env=environment, stdout=second, stderr=second)
    os.close(second)
    written = b""
    while True:
        try:
            piece = os.read(first, 65536)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        written += piece
    os.close(first)
    assert process.wait(60) == 0
    plain = COLOURS.sub("", written.decode())
    lines = plain.replace("\r\n", "\n").splitlines()
    assert lines[0].startswith("  python compare.py ")
    assert columns - 25 < max(map(len, lines)) <= columns
