"""What a page shows of single queries: a wall of them, the misses in numbers, the worst, and a list of all."""

import json
import re
from bisect import bisect_right
from collections.abc import Hashable, Iterator, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

from src.command.page import bars, picture, table, wall_row
from src.evaluation.judged import Judged

Pictures = dict[str, dict[str, Path]]
"""{category: {name: file}}"""
ANSWERS = 5
WALL_ROWS = 6
WORST = 6
WALL_RULE = (
    "In the order of the validation captions{each}: the first {rows} queries whose target comes first, then the first "
    "{rows} whose target does not. On the left the reference picture and the caption, on the right the first five "
    "answers of the ladder's last rung. The target is framed; it stands apart where it is not among the five."
)
WORST_RULE = (
    f"The {WORST} queries whose target ranks last, drawn as below; the first in the file where ranks are equal."
)
MISSES_RULE = (
    "A query is missed where the ladder's last rung does not rank its target {place}. How many things a caption "
    "changes is an estimate: the caption is cut at commas and semicolons and at the words “and”, “but”, “also” and "
    "“with”, and the parts are counted."
)
LIST_RULE = (
    "Ranks are those of the ladder's last rung. A tick says that what the column names ranks the target {place}. The "
    "filters work offline."
)
WORDS = 1, 6, 11, 16
CHANGES = 1, 2, 3, 4, 5, 6
RANKS = 1, 2, 6, 11, 51, 101, 501
"""Where the groups of caption lengths, of numbers of changed things and of target ranks start."""
JOINT = re.compile(r"\b(?:and|but|also|with)\b|[,;]", re.IGNORECASE)
MOST = 200
"""How many rows of the list are drawn at once: thousands would make a browser slow at each key."""


class Asked(NamedTuple):
    """A query and what it got; ranks count from 1."""

    id: str
    category: str
    caption: str
    reference: str
    target: str
    rank: int
    group_rank: int | None
    solved: dict[str, bool]
    """{combining function: whether the target is among the first}"""


def asked(judged: Judged) -> list[Asked]:
    """Return every query of all categories, in the order of their files."""
    return [
        Asked(
            query.id,
            name,
            " | ".join(query.texts),
            query.triplet.reference,
            query.triplet.targets[0],
            int(category.ranks[number]) + 1,
            None if category.group_ranks is None else int(category.group_ranks[number]) + 1,
            {rung.name: bool(category.solved[rung.name][number]) for rung in judged.reported()},
        )
        for name, category in judged.categories.items()
        for number, query in enumerate(category.queries)
    ]


# ---- the misses in numbers ----


def changes(caption: str) -> int:
    """Estimate how many things a caption changes: the parts between commas, semicolons, and, but, also, with."""
    return max(1, sum(part.strip(" .?!") != "" for part in JOINT.split(caption)))


def grouped(values: Sequence[int], starts: Sequence[int]) -> list[str]:
    """Return the group of each value, as "1–5"; a group reaches to the next of `starts`, the last one on and on."""
    labels = [
        str(start) if end - start == 1 else f"{start}–{end - 1}" for start, end in zip(starts, starts[1:], strict=False)
    ]
    labels.append(f"{starts[-1]} or more")
    # A blank caption has no word; it goes with the shortest.
    return [labels[max(0, bisect_right(starts, value) - 1)] for value in values]


def missed_by(keys: Sequence[Hashable], missed: Sequence[bool]) -> dict[Hashable, tuple[int, float]]:
    """Return {key: (queries with it, percent of these that are missed)}, in the order in which keys come."""
    of = {key: [] for key in keys}
    for key, is_missed in zip(keys, missed, strict=True):
        of[key].append(is_missed)
    return {key: (len(those), 100 * sum(those) / len(those)) for key, those in of.items()}


def rank_histogram(ranks: Sequence[int], last: int) -> list[tuple[str, int]]:
    """Return (group of ranks, queries) for each group up to the rank `last`, the empty ones too."""
    labels = grouped(ranks, RANKS)
    return [(label, labels.count(label)) for label in grouped([start for start in RANKS if start <= last], RANKS)]


def place(judged: Judged) -> str:
    """Return where the target of a solved query ranks, in words."""
    first = judged.protocol.at[0]
    return "first" if first == 1 else f"among the first {first}"


def misses(judged: Judged) -> str:
    """Return tables of misses by kind of query and a histogram of target ranks, as HTML."""
    queries, first = asked(judged), judged.protocol.at[0]
    missed = [query.rank > first for query in queries]
    words = {"words in the caption": ([len(query.caption.split()) for query in queries], WORDS)}
    counted = words | {"changed things (estimate)": ([changes(query.caption) for query in queries], CHANGES)}
    tables = []
    for title, (values, starts) in counted.items():
        of = missed_by(grouped(values, starts), missed)
        # From short to long, and not as the file has them.
        tables.append((title, {label: of[label] for label in grouped(starts, starts) if label in of}))
    if len(judged.categories) > 1:
        tables.append(("category", missed_by([query.category for query in queries], missed)))
    drawn = [_miss_table(title, rows, first) for title, rows in tables]
    last = max(category.ranked for category in judged.categories.values())
    histogram = bars("rank of the target", rank_histogram([query.rank for query in queries], last))
    return f'<div class="beside">{"".join([*drawn, histogram])}</div>'


def _miss_table(title, rows, first):
    header = [title, "queries", f"missed at {first}, %"]
    return table(header, [[label, f"{queries:,}", f"{percent:.1f}"] for label, (queries, percent) in rows.items()])


# ---- drawn queries ----


def wall_rule(judged: Judged) -> str:
    """Return which queries the wall shows."""
    each = " of each category" if len(judged.categories) > 1 else ""
    return WALL_RULE.format(each=each, rows=WALL_ROWS // len(judged.categories))


def wall(judged: Judged, pictures: Pictures) -> str:
    """Return rows of queries by WALL_RULE, as HTML."""
    rows = WALL_ROWS // len(judged.categories)
    return "".join(
        drawn(judged, pictures, name, number)
        for name, category in judged.categories.items()
        for number in _of_the_wall(category.ranks.tolist(), rows)
    )


def _of_the_wall(ranks, rows_of_a_kind) -> Iterator[int]:
    # The first in the order of the file, not the best: nobody should suspect a choice.
    yield from [number for number, rank in enumerate(ranks) if rank == 0][:rows_of_a_kind]
    yield from [number for number, rank in enumerate(ranks) if rank > 0][:rows_of_a_kind]


def worst_misses(judged: Judged, pictures: Pictures) -> str:
    """Return the queries whose target ranks last, as HTML."""
    ranked = [
        (rank, name, number)
        for name, category in judged.categories.items()
        for number, rank in enumerate(category.ranks.tolist())
        if rank > 0
    ]
    # Sorting keeps the order of the file among equal ranks.
    worst = sorted(ranked, key=lambda query: -query[0])[:WORST]
    return "".join(drawn(judged, pictures, name, number) for _, name, number in worst)


def drawn(judged: Judged, pictures: Pictures, name: str, number: int) -> str:
    """Return a query of category `name` with its first answers, as HTML."""
    category, files = judged.categories[name], pictures[name]
    query = category.queries[number]
    target, answered = query.triplet.targets[0], category.best[number][:ANSWERS]
    return wall_row(
        picture(files[query.triplet.reference]),
        " | ".join(query.texts),
        f"target ranked {category.ranks[number] + 1} of {category.ranked}",
        [picture(files[answer], is_target=answer in query.triplet.targets) for answer in answered],
        "" if target in answered else picture(files[target], is_target=True),
    )


# ---- the list of all queries ----

SCRIPT = """
const {rows, shown, shortcuts, most} = JSON.parse(document.getElementById("rows").textContent);
const filters = {};
for (const field of document.querySelectorAll("#filters [name]")) filters[field.name] = field;
function matches(row) {
  const [, category, caption, , , rank] = row, {text, of, from, to, alone} = filters;
  return caption.toLowerCase().includes(text.value.trim().toLowerCase())
    && (!of || of.value === "" || of.value === category)
    && (from.value === "" || rank >= +from.value) && (to.value === "" || rank <= +to.value)
    && !(alone.checked && shortcuts.some(column => row[column]));
}
function show() {
  const matching = rows.filter(matches), first = matching.slice(0, most);
  const cut = matching.length > most ? `, the first ${most} are shown` : "";
  document.getElementById("matching").textContent = `${matching.length} of ${rows.length} queries match${cut}`;
  document.querySelector("#list tbody").replaceChildren(...first.map(row => {
    const line = document.createElement("tr");
    for (const column of shown) {
      line.insertCell().textContent = column < 7 ? row[column] ?? "" : row[column] ? "\\u2713" : "";
    }
    return line;
  }));
}
// A link may carry filters: report.html#text=red&from=11&alone=on
for (const [name, value] of new URLSearchParams(location.hash.slice(1))) {
  if (filters[name]) filters[name].type === "checkbox" ? filters[name].checked = true : filters[name].value = value;
}
document.getElementById("filters").addEventListener("input", show);
show();
"""


def query_list(judged: Judged) -> str:
    """Return a table of every query behind filters, as HTML with its script."""
    queries = asked(judged)
    rungs = judged.reported()
    header = ["id", "category", "caption", "reference", "target", "rank", "rank in group"]
    shortcuts = [number for number, rung in enumerate(rungs, start=len(header)) if rung.is_shortcut]
    header += [rung.label for rung in rungs]
    # What all queries share, or none has, is no column.
    empty = {1} if len(judged.categories) == 1 else set()
    empty |= {6} if queries[0].group_rank is None else set()
    shown = [number for number in range(len(header)) if number not in empty]
    rows = [[*query[:7], *map(int, query.solved.values())] for query in queries]
    cells = "".join(f"<th>{escape(header[number])}</th>" for number in shown)
    data = {"shown": shown, "shortcuts": shortcuts, "most": MOST, "rows": rows}
    return (
        f'{_filters(judged)}<p id="matching"></p>\n'
        f'<table id="list"><thead><tr>{cells}</tr></thead><tbody></tbody></table>\n'
        f'<script type="application/json" id="rows">{script_json(data)}</script>'
        f"\n<script>{SCRIPT}</script>"
    )


def _filters(judged):
    categories = list(judged.categories)
    shortcuts = escape(" nor ".join(shortcut.label for shortcut in judged.shortcuts()))
    options = "".join(f'<option value="{escape(name)}">{escape(name)}</option>' for name in categories)
    of = f'<label>category <select name="of"><option value="">all</option>{options}</select></label>'
    return (
        '<div id="filters"><label>caption holds <input name="text" type="search"></label>'
        f"{of if len(categories) > 1 else ''}"
        '<label>rank from <input name="from" type="number" min="1"></label>'
        '<label>to <input name="to" type="number" min="1"></label>'
        '<label><input name="alone" type="checkbox"> neither '
        f"{shortcuts} solves it</label></div>"
    )


def script_json(value) -> str:
    """Return `value` as JSON that may stand inside a <script>."""
    # A caption with "</script>" in it would end the script, and "<!--" would open a comment.
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
