"""Rows on disk: found again by another process, never mistaken for other ones, and whole or not used."""

import json
import os
import random
import shutil

import numpy as np
import pytest

from src.base.row_store import RowStore, file_key
from src.base.sealed import write_sealed

FACTS = {"weights": "abc", "resolution": 64}


def row(key):
    return np.array([len(key), ord(key[0])], np.float32)


def ask(store, keys):
    """Return the keys whose rows the store lacks; give it these, and check what it then returns for `keys`."""
    missing = [keys[position] for position in store.missing(keys)]
    if missing:
        store.add(missing, [np.stack([row(key) for key in missing])])
    np.testing.assert_array_equal(store.read(keys), np.stack([row(key) for key in keys]))
    return missing


@pytest.mark.parametrize("mapped", [False, True])
def test_every_row_is_computed_once(mapped, tmp_path):
    store = RowStore(tmp_path, FACTS, mapped)
    assert ask(store, ["b", "a", "b"]) == ["b", "a"]
    assert ask(store, ["a", "ccc", "b", "ccc"]) == ["ccc"]
    again = RowStore(tmp_path, FACTS, mapped)
    assert ask(again, ["ccc", "a", "b"]) == []
    assert ask(again, ["ccc", "dd"]) == ["dd"]
    assert "dd" in RowStore(tmp_path, FACTS, mapped)


def test_without_a_folder_memory_keeps_rows():
    store = RowStore()
    assert ask(store, ["a", "b"]) == ["a", "b"]
    assert ask(store, ["b", "c"]) == ["c"]


def test_other_facts_are_other_rows(tmp_path):
    ask(RowStore(tmp_path, FACTS), ["a"])
    assert ask(RowStore(tmp_path, FACTS | {"weights": "abd"}), ["a"]) == ["a"]
    assert ask(RowStore(tmp_path, FACTS), ["a"]) == []


def test_files_can_be_read_by_others(tmp_path):
    ask(RowStore(tmp_path, FACTS), ["b", "a"])
    (rows_path,), (index_path,) = tmp_path.rglob("*.npy"), tmp_path.rglob("*.json")
    assert rows_path.stem == index_path.stem
    index = json.loads(index_path.read_text())
    assert index["facts"] == FACTS
    assert index["keys"] == ["b", "a"]
    np.testing.assert_array_equal(np.load(rows_path, allow_pickle=False), [row("b"), row("a")])


# ---- damages, each of one of the two files ----


def rewritten(change):
    return lambda path: path.write_bytes(change(path.read_bytes()))


def saved(change):
    """Return a damage that saves what `change` makes of the rows."""
    return lambda path: np.save(path, change(np.load(path)))


def listed(**values):
    """Return a damage that gives the index other values under its old checksum."""
    return lambda path: path.write_text(json.dumps(json.loads(path.read_text()) | values))


def sealed(**values):
    """Return a damage that gives the index other values, with their checksum."""
    return lambda path: write_sealed(path, json.loads(path.read_text()) | values)


def replaced(make):
    """Return a damage that puts something else in the place of a file."""

    def damage(path):
        path.unlink()
        make(path)

    return damage


flip = rewritten(lambda content: content[:-1] + bytes([content[-1] ^ 1]))
ROWS = {
    "cut": rewritten(lambda content: content[:-3]),
    "header cut": rewritten(lambda content: content[:40]),
    "empty": rewritten(lambda content: b""),
    "missing": os.unlink,
    "pickled": lambda path: np.save(path, np.array([{"a": 1}, {"b": 2}], dtype=object), allow_pickle=True),
    "a folder": replaced(os.mkdir),
    "a pipe": replaced(os.mkfifo),
    "columns first": saved(np.asfortranarray),
    "big-endian": saved(lambda rows: rows.astype(">f4")),
    "no shape": saved(lambda rows: np.float32(3)),
    "flat": saved(lambda rows: rows.reshape(-1)),
    "narrow": saved(lambda rows: rows[:, :1]),
    "no rows": saved(lambda rows: rows[:0]),
    "integers": saved(lambda rows: rows.view(np.int32)),
    "fp64": saved(lambda rows: rows.astype(np.float64)),
}
INDEX = {
    "index cut": rewritten(lambda content: content[:50]),
    "other facts": listed(facts={}),
    "fewer keys": listed(keys=["a"]),
    "keys reordered": listed(keys=["a", "b"]),
    "keys repeated": listed(keys=["a", "a"]),
    "odd keys": listed(keys=[["b"], {}]),
    "a number for keys": listed(keys=2),
    "sealed type": sealed(dtype="zz"),
    "sealed shape": sealed(shape=None),
    "sealed number for keys": sealed(keys=5),
    "sealed keys": sealed(keys=[[1]]),
    "sealed checksums": sealed(crc32=[2**40]),
    "a list": rewritten(lambda content: b"[]"),
    "index not UTF-8": rewritten(lambda content: b"\xff\x00"),
    "nested": rewritten(lambda content: b"[" * 100_000),
    "index a folder": replaced(os.mkdir),
    "index a pipe": replaced(os.mkfifo),
}
DAMAGES = [pytest.param("*.npy", damage, id=name) for name, damage in ROWS.items()]
DAMAGES += [pytest.param("*.json", damage, id=name) for name, damage in INDEX.items()]


@pytest.mark.parametrize(("file", "damage"), [pytest.param("*.npy", flip, id="a flipped bit"), *DAMAGES])
def test_a_torn_or_foreign_file_is_noticed_and_made_again(file, damage, tmp_path, capsys):
    ask(RowStore(tmp_path, FACTS), ["b", "a"])
    (rows_path,), (index_path,) = tmp_path.rglob("*.npy"), tmp_path.rglob("*.json")
    damage(next(tmp_path.rglob(file)))
    damaged = RowStore(tmp_path, FACTS)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{rows_path}: not used, its rows are made again (")
    assert ask(damaged, ["b", "a"]) == ["b", "a"]
    assert ask(RowStore(tmp_path, FACTS), ["b", "a"]) == []
    # A folder cannot be removed, and is mentioned each time.
    assert capsys.readouterr().err == (f"{line}\n" if index_path.is_dir() else "")


@pytest.mark.parametrize(("file", "damage"), DAMAGES)
def test_mapped_rows_are_checked_without_reading_them(file, damage, tmp_path, capsys):
    ask(RowStore(tmp_path, FACTS, mapped=True), ["b", "a"])
    damage(next(tmp_path.rglob(file)))
    assert ask(RowStore(tmp_path, FACTS, mapped=True), ["b", "a"]) == ["b", "a"]
    assert "not used" in capsys.readouterr().err


@pytest.mark.parametrize("mapped", [False, True])
def test_every_mutated_byte_is_noticed(mapped, tmp_path, capsys):
    draws, keys = random.Random(0), [chr(97 + number) * number for number in range(1, 25)]
    ask(RowStore(tmp_path / "whole", FACTS, mapped), keys)
    for number in range(200):
        path = draws.choice([*shutil.copytree(tmp_path / "whole", tmp_path / str(number)).rglob("*.*")])
        content = bytearray(path.read_bytes())
        content[draws.randrange(len(content))] = draws.randrange(256)
        path.write_bytes(content)
        store = RowStore(tmp_path / str(number), FACTS, mapped)
        missing = [keys[position] for position in store.missing(keys)]
        if missing:
            store.add(missing, [np.stack([row(key) for key in missing])])
        found = store.read(keys, lambda position: row(keys[position]))
        np.testing.assert_array_equal(found, np.stack([row(key) for key in keys]))
    assert "not used, its rows are made again" in capsys.readouterr().err


@pytest.mark.parametrize("other", [np.ones((1, 5), np.float32), np.ones((1, 2), np.int32), np.ones(1, np.float32)])
@pytest.mark.parametrize("mapped", [False, True])
def test_rows_of_another_shape_than_expected_are_made_again(mapped, other, tmp_path, capsys):
    RowStore(tmp_path, FACTS).add(["a"], [other])
    store = RowStore(tmp_path, FACTS, mapped, kind=((2,), "float32"))
    assert "made again (rows of another shape or type)" in capsys.readouterr().err
    assert ask(store, ["a", "b"]) == ["a", "b"]


def test_torn_rows_that_are_mapped_are_made_again_when_they_are_read(tmp_path, capsys):
    ask(RowStore(tmp_path, FACTS, mapped=True), ["b", "a"])
    flip(next(tmp_path.rglob("*.npy")))
    made, store = [], RowStore(tmp_path, FACTS, mapped=True)
    for _ in range(2):
        rows = store.read(["b", "a", "b"], lambda position: made.append(position) or row("a"))
        np.testing.assert_array_equal(rows, [row("b"), row("a"), row("b")])
    assert made == [1, 1]
    assert capsys.readouterr().err.count("holds rows that are torn; they are made again") == 1


def test_an_interrupted_addition_leaves_the_others(tmp_path):
    ask(RowStore(tmp_path, FACTS), ["a"])

    def torn():
        yield row("b")[None]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        RowStore(tmp_path, FACTS).add(["b", "c"], torn())
    assert ask(RowStore(tmp_path, FACTS), ["a", "b"]) == ["b"]
    assert len(list(tmp_path.rglob("*.*"))) == 4


def test_a_changed_file_has_another_key(tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(b"1234")
    key = file_key(path)
    assert file_key(path) == key
    path.write_bytes(b"12345")
    assert file_key(path) != key
    (tmp_path / "other.png").write_bytes(b"12345")
    assert file_key(tmp_path / "other.png") != file_key(path)
