"""Write the tables of docs/evaluation.md that say what check_submission.py finds, from its rules.

python -m docs.findings
"""

import re
from pathlib import Path

from src.apps.submission import SERVERS
from src.apps.submission.files import SubmissionFile
from src.apps.submission.rules import FAULT, WARNING
from src.base.files import replacing

PAGE = Path(__file__).with_name("evaluation.md")
BEGIN, END = "<!-- findings: `make docs` writes them -->\n", "<!-- end of findings -->\n"
PLACES = {
    "the file": ("", "content"),
    "{file.key}s and their values": ("values", "triplets"),
    "lists of {file.names}": ("answers", "pictures", "comparable"),
}
"""{what is looked at: the `of` of its rules}"""


def table(form: type[SubmissionFile]) -> str:
    """Return a server's findings as a table, each under the name that the command gives it."""
    lines = [f"| what is checked of {form.dataset}'s | {FAULT}s | {WARNING}s |\n|---|---|---|\n"]
    for place, attributes in PLACES.items():
        cells = [place.format(file=form)]
        for level in (FAULT, WARNING):
            rules = [rule for rule in form.rules if rule.level == level and rule.of in attributes]
            cells.append("; ".join(dict.fromkeys(rule.kind.format(file=form) for rule in rules)))
        lines.append(f"| {' | '.join(cells)} |\n")
    return "".join(lines)


def page(text: str) -> str:
    """Return the text of the page with the tables as they are now."""
    tables = BEGIN + "\n" + "\n".join(map(table, SERVERS.values())) + "\n" + END
    return re.sub(f"{re.escape(BEGIN)}.*{re.escape(END)}", lambda _: tables, text, flags=re.DOTALL)


def main():
    text = page(PAGE.read_text(encoding="utf-8"))
    with replacing(PAGE) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
