"""Names as other programs write them: the pictures and the queries of a data set that they mean."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from urllib.parse import unquote

from src.base.alike import Alike
from src.base.errors import InputError, first_ten, repeated, shown
from src.base.folders import PICTURE_SUFFIXES
from src.evaluation.run_files import TREC, Key, RunFile, RunPart, refuse
from src.evaluation.trec import topics_of, word_of
from src.tasks.triplets import Query

NUMBER = re.compile(r"(?!-)\D*0*([1-9][0-9]*|0)(\.0*)?\D*")
"""A text with one whole number, without its leading zeros, such as COCO's 000000000139.jpg or 139.0."""
PRINTED_NUMBER = re.compile(r"tensor\(([0-9]+)\)|([0-9]+)\.0*")
"""A whole number as programs write it that print a tensor's item or a float: tensor(12063), 12063.0."""


class Names:
    """The pictures of a gallery, by what other programs may call them."""

    def __init__(self, pictures: Iterable[str], are_words: bool):
        """`are_words`: names are words of a TREC run, in which blanks and percent signs are escaped."""
        self._pictures = dict.fromkeys(pictures)
        self._meant = {word_of(name): name for name in self._pictures} if are_words else dict.fromkeys(())
        self._are_numbers = all(map(str.isdecimal, self._pictures))
        self._by_end: dict[str, list[str]] | None = None

    def meant(self, name: str) -> str | None:
        """Return the one picture that a name means: without a folder, a suffix, escapes or leading zeros; else None."""
        if name not in self._meant:
            self._meant[name] = name if name in self._pictures else self._find(name)
        return self._meant[name]

    def _find(self, name: str) -> str | None:
        plain = unquote(name.strip(), errors="surrogateescape").replace("\\", "/")
        if self._are_numbers:
            number = NUMBER.fullmatch(plain.rpartition("/")[2])
            return number[1] if number and number[1] in self._pictures else None
        # What stands before a name is a folder of the other machine: as little of it goes as has to.
        ends = list(_ends(plain))
        whole = next((end for end in ends if end in self._pictures), None)
        if whole is not None or not ends:
            return whole
        if self._by_end is None:
            self._by_end = _by_end(self._pictures)
        first, *others = map(_without_suffix, ends)
        found = self._by_end.get(first, [])
        for end in others:
            found = found or [name for name in self._by_end.get(end, ()) if _without_suffix(name) == end]
        return found[0] if len(found) == 1 else None


def _ends(path: str) -> Iterable[str]:
    """Yield a path, then what remains of it without its first folder, its first two, …"""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    return ("/".join(parts[start:]) for start in range(len(parts)))


def _by_end(names: Iterable[str]) -> dict[str, list[str]]:
    """Return {end of a name, without its suffix: the names that end so}."""
    found: dict[str, list[str]] = {}
    for name in names:
        for end in _ends(_without_suffix(name)):
            found.setdefault(end, []).append(name)
    return found


def _without_suffix(name: str) -> str:
    suffix = PurePosixPath(name).suffix
    return name.removesuffix(suffix) if suffix.lower() in PICTURE_SUFFIXES else name


def find_names(part: RunPart, pictures: Sequence[str], what: str) -> dict[str, list[str]]:
    """Return the lists {query: names} with the names of `pictures` that are meant; those written otherwise are counted.

    Raises InputError, which calls the pictures those of `what`, for a name that means none or several of them, and for
    lists that repeat a picture.
    """
    run, lists = part.file, part.lists
    names = Names(pictures, run.form == TREC)
    spelled = {name: names.meant(name) for name in {name for found in lists.values() for name in found}}
    unknown = {query: name for query, found in lists.items() for name in found if spelled[name] is None}
    if unknown:
        query, name = next(iter(unknown.items()))
        instead = Alike(pictures).instead(name, nearly=len(pictures) < 20_000)
        hint = f"there are several: {instead}" if instead and len(instead.names) > 1 else instead or "rank its pictures"
        fault = f"lists with names that {what} does not list, as {shown(name) or repr(name)}"
        refuse(run.path, list(unknown), len(lists), fault, str(hint))
    meant = {query: [spelled[name] for name in found] for query, found in lists.items()}
    again = [query for query, found in meant.items() if len(set(found)) < len(found)]
    refuse(run.path, again, len(lists), "lists that repeat a name", "give each picture once in a list")
    odd = [name for name, picture in spelled.items() if name not in (picture, word_of(picture))]
    if odd:
        run.remarks.append(
            f"names written otherwise: {len(odd):,} of {len(spelled):,}, as {odd[0]} for {spelled[odd[0]]}"
        )
    return meant


def find_queries(run: RunFile, queries: Mapping[str, list[Query]], split: str) -> dict[str, RunPart]:
    """Return {category: its part of the file} for all `queries` {category: queries} of a split.

    Raises InputError for keys that mean no query or one that another key means, and for queries that have no key.
    """
    _require_categories(run, queries)
    by_key, plain = {}, {}
    for category, topics in topics_of(queries).items():
        for topic, query in zip(topics, queries[category], strict=True):
            meant = category, query.id
            by_key |= {("", topic): meant, meant: meant}
            plain.setdefault(("", query.id if len(queries) == 1 else f"{category}-{query.id}"), []).append(meant)
    # Not escaped, "a-b-c" may be the query c of a-b, or b-c of a.
    by_key = {key: those[0] for key, those in plain.items() if len(those) == 1} | by_key
    meant = {key: by_key.get(key) or _of_number(key, by_key, run.lists) for key in run.lists}
    unknown = [_named(key) for key, query in meant.items() if query is None]
    example = next(query for _, query in by_key)
    mend = f"call them as {shown(example)}, and answer only those of {split}"
    refuse(run.path, unknown, len(meant), f"queries that {split} does not have", mend)
    again = [_named(key) for key in repeated(list(meant), key=meant.get)]
    refuse(run.path, again, len(meant), "keys that mean the query of another", "write each query once, with one list")
    keys = {query: key for key, query in meant.items()}
    every = dict.fromkeys(by_key.values())
    missing = [_named(query if len(queries) > 1 else ("", query[1])) for query in every if query not in keys]
    refuse(run.path, missing, len(every), "queries missing", f"answer every query of {split}")
    odd = [key for key in meant if key not in by_key]
    if odd:
        right = meant[odd[0]][1]
        run.remarks.append(f"queries called otherwise: {len(odd):,} of {len(meant):,}, as {_named(odd[0])} for {right}")
    return {
        category: _part(run, {query.id: keys[category, query.id] for query in of}) for category, of in queries.items()
    }


def _part(run: RunFile, keys: Mapping[str, Key]) -> RunPart:
    """Return what a file has of the queries with `keys` {query: its key in the file}."""
    rows = {query: run.rows[key] for query, key in keys.items()} if run.rows else {}
    return RunPart(run, {query: run.lists[key] for query, key in keys.items()}, rows)


def _require_categories(run: RunFile, categories: Collection[str]) -> None:
    """Raise InputError where the file names a category that the data set does not have."""
    others = [category for category in dict.fromkeys(category for category, _ in run.lists) if category]
    wrong = [category for category in others if category not in categories]
    if wrong:
        raise InputError(f"{run.path}: has categories {first_ten(wrong)}, expected {', '.join(categories)}")


def _of_number(key: Key, by_key: Mapping[Key, Key], there: Collection[Key]) -> Key | None:
    """Return the query that a key such as tensor(12063) means, if the file does not have that by its own name too."""
    number = PRINTED_NUMBER.fullmatch(key[1])
    plain = number and (key[0], number[1] or number[2])
    return by_key.get(plain) if plain and plain not in there else None


def _named(key: Key) -> str:
    return f"{key[1]} of {key[0]}" if key[0] else key[1]
