"""Rows on disk: found again by another process, never mistaken for other ones, and whole or not used."""

import json

import numpy as np
import pytest

from src.base.row_store import RowStore, file_key

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


@pytest.mark.parametrize(
    "damage", [cut, flip, cut_header, empty, take_away, cut_index, foreign_index, fewer_keys, pickled]
)
def test_a_torn_or_foreign_file_is_noticed_and_made_again(damage, tmp_path, capsys):
    ask(RowStore(tmp_path, FACTS), ["b", "a"])
    (rows_path,), (index_path,) = tmp_path.rglob("*.npy"), tmp_path.rglob("*.json")
    damage(rows_path, index_path)
    damaged = RowStore(tmp_path, FACTS)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{rows_path}: not used, its rows are made again (")
    assert ask(damaged, ["b", "a"]) == ["b", "a"]
    assert ask(RowStore(tmp_path, FACTS), ["b", "a"]) == []
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("damage", [cut, cut_header, empty, take_away, foreign_index, fewer_keys, pickled])
def test_mapped_rows_are_checked_without_reading_them(damage, tmp_path, capsys):
    ask(RowStore(tmp_path, FACTS, mapped=True), ["b", "a"])
    damage(*tmp_path.rglob("*.npy"), *tmp_path.rglob("*.json"))
    assert ask(RowStore(tmp_path, FACTS, mapped=True), ["b", "a"]) == ["b", "a"]
    assert "not used" in capsys.readouterr().err


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
