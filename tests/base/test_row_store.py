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


def cut(rows_path, index_path):
    rows_path.write_bytes(rows_path.read_bytes()[:-3])


def flip(rows_path, index_path):
    content = bytearray(rows_path.read_bytes())
    content[-1] ^= 1
    rows_path.write_bytes(content)


def cut_header(rows_path, index_path):
    rows_path.write_bytes(rows_path.read_bytes()[:40])


def empty(rows_path, index_path):
    rows_path.write_bytes(b"")


def take_away(rows_path, index_path):
    rows_path.unlink()


def cut_index(rows_path, index_path):
    index_path.write_text(index_path.read_text()[:50])


def foreign_index(rows_path, index_path):
    index_path.write_text(json.dumps(json.loads(index_path.read_text()) | {"facts": {}}))


def fewer_keys(rows_path, index_path):
    index = json.loads(index_path.read_text())
    index_path.write_text(json.dumps(index | {"keys": index["keys"][1:]}))


def pickled(rows_path, index_path):
    np.save(rows_path, np.array([{"a": 1}, {"b": 2}], dtype=object), allow_pickle=True)


def reordered_keys(rows_path, index_path):
    index = json.loads(index_path.read_text())
    index_path.write_text(json.dumps(index | {"keys": index["keys"][::-1]}))


def repeated_keys(rows_path, index_path):
    index_path.write_text(json.dumps(json.loads(index_path.read_text()) | {"keys": ["a", "a"]}))


def sealed(**values):
    """Return a damage that writes other values with a checksum of their own."""

    def damage(rows_path, index_path):
        write_sealed(index_path, json.loads(index_path.read_text()) | values)

    return damage


def odd_keys(rows_path, index_path):
    index_path.write_text(json.dumps(json.loads(index_path.read_text()) | {"keys": [["b"], {}]}))


def number_of_keys(rows_path, index_path):
    index_path.write_text(json.dumps(json.loads(index_path.read_text()) | {"keys": 2}))


def list_of_nothing(rows_path, index_path):
    index_path.write_text("[]")


def no_text(rows_path, index_path):
    index_path.write_bytes(b"\xff\x00")


def nested(rows_path, index_path):
    index_path.write_text("[" * 100_000)


def saved(change):
    """Return a damage that saves what `change` makes of the rows."""

    def damage(rows_path, index_path):
        np.save(rows_path, change(np.load(rows_path)))

    return damage


def no_file(place, make):
    """Return a damage that puts something else in the place of the rows' file, 0, or of the keys', 1."""

    def damage(*paths):
        paths[place].unlink()
        make(paths[place])

    return damage


FILES = [cut, cut_header, empty, take_away, pickled, no_file(0, os.mkdir), no_file(0, os.mkfifo)]
FILES += [saved(np.asfortranarray), saved(lambda rows: rows.astype(">f4")), saved(lambda rows: np.float32(3))]
FILES += [saved(lambda rows: rows.reshape(-1)), saved(lambda rows: rows[:, :1]), saved(lambda rows: rows[:0])]
FILES += [saved(lambda rows: rows.view(np.int32)), saved(lambda rows: rows.astype(np.float64))]
INDEXES = [cut_index, foreign_index, fewer_keys, reordered_keys, repeated_keys, odd_keys, number_of_keys]
INDEXES += [sealed(dtype="zz"), sealed(shape=None), sealed(keys=5), sealed(keys=[[1]]), sealed(crc32=[2**40])]
INDEXES += [list_of_nothing, no_text, nested, no_file(1, os.mkdir), no_file(1, os.mkfifo)]


@pytest.mark.parametrize("damage", [flip, *FILES, *INDEXES])
def test_a_torn_or_foreign_file_is_noticed_and_made_again(damage, tmp_path, capsys):
    ask(RowStore(tmp_path, FACTS), ["b", "a"])
    (rows_path,), (index_path,) = tmp_path.rglob("*.npy"), tmp_path.rglob("*.json")
    damage(rows_path, index_path)
    damaged = RowStore(tmp_path, FACTS)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{rows_path}: not used, its rows are made again (")
    assert ask(damaged, ["b", "a"]) == ["b", "a"]
    assert ask(RowStore(tmp_path, FACTS), ["b", "a"]) == []
    # A folder cannot be removed, and is mentioned each time.
    assert capsys.readouterr().err == (f"{line}\n" if index_path.is_dir() else "")


@pytest.mark.parametrize("damage", [*FILES, *INDEXES])
def test_mapped_rows_are_checked_without_reading_them(damage, tmp_path, capsys):
    ask(RowStore(tmp_path, FACTS, mapped=True), ["b", "a"])
    damage(*tmp_path.rglob("*.npy"), *tmp_path.rglob("*.json"))
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
    (rows_path,) = tmp_path.rglob("*.npy")
    flip(rows_path, None)
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
