"""Two things under one name: each reader of people's files refuses them with their places, and drops none."""

import json

import pytest

import search
from src.apps.own import __main__ as conversion
from src.apps.own.additions import Additions
from src.apps.own.tables import read_table
from src.base.errors import InputError
from src.evaluation.trec import _categories
from src.tasks.own import OwnTriplets, read_extra
from src.tasks.own.rows import Row
from src.tasks.triplets import Triplet
from tests.support.commands import status_of
from tests.support.own_folders import with_pictures, write

ROW = "a.jpg,b.PNG,red"
LINE = {"reference": "a.jpg", "target": "b.PNG", "caption": "red"}


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        (
            "q.csv",
            "reference,caption,id\na.jpg,red,x\nb.PNG,blue,y\na.jpg,green,x\n",
            "row 4: is called x, as row 2 is",
        ),
        ("q.csv", "caption,id,reference\nred,row 3,\nblue,,\n", "row 3: is called row 3, as row 2 is"),
        ("q.csv", "caption,id,reference\nred,,\nblue,row 2,\n", "row 3: is called row 2, as row 2 is"),
        ("q.tsv", "reference\tcaption\tid\na.jpg\tred\t1\na.jpg\tblue\t 1\n", "row 3: is called 1, as row 2 is"),
        ("q.jsonl", '{"caption": "red", "id": 1}\n{"caption": "blue", "id": "1"}\n', "line 2: is called 1, as line 1"),
        ("q.jsonl", '{"caption": "red", "id": "line 2"}\n{"caption": "blue"}\n', "line 2: is called line 2, as line 1"),
        ("q.jsonl", '{"caption": ["red", "blue"]}\n', "line 1: has two captions"),
        ("q.csv", "reference,caption,caption\na.jpg,red,blue\n", "has two columns caption"),
        ("q.csv", "reference,caption,ID,id\na.jpg,red,1,2\n", "has two columns id"),
        ("q.jsonl", '{"caption": "red", "caption": "blue"}\n', "line 1: has caption twice"),
    ],
)
def test_two_questions_of_one_name(name, content, fault, tmp_path, capsys):
    write(with_pictures(tmp_path), name, content)
    assert status_of(search.main, ["--pictures", tmp_path, "--queries", tmp_path / name]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{tmp_path / name}" in line
    assert fault in line


@pytest.mark.parametrize(
    ("name", "content", "columns", "fault"),
    [
        ("t.csv", f"reference,target,target,caption\n{ROW},x\n", {}, "has two columns target"),
        ("t.csv", f"reference,target,Caption,caption\n{ROW},x\n", {}, "has two columns caption"),
        ("t.csv", "a,b,a,caption\nx,y,z,red\n", {"reference": "a", "target": "b"}, "has two columns a"),
        ("t.jsonl", '{"reference": "a.jpg", "reference": "b.PNG", "caption": "red"}\n', {}, "'reference' stands twice"),
        ("t.jsonl", json.dumps(LINE | {"Reference": "i.jpg"}), {}, "has two columns reference"),
        ("t.json", '[{"reference": "a.jpg", "caption": "red", "caption": "blue"}]', {}, "caption stands twice"),
    ],
)
def test_two_columns_of_a_table_to_convert(name, content, columns, fault, tmp_path):
    write(with_pictures(tmp_path), name, content)
    with pytest.raises(InputError) as refused:
        read_table(tmp_path / name, columns, Additions(tmp_path))
    assert fault.replace("'", "") in str(refused.value)


def test_columns_that_nobody_reads_may_be_alike(tmp_path):
    write(with_pictures(tmp_path), "t.csv", f"reference,target,caption,,,note,note\n{ROW},,,1,2\n")
    (row,) = read_table(tmp_path / "t.csv", {}, Additions(tmp_path))
    assert row == Row("row 2", {"reference": ["a.jpg"], "target": ["b.PNG"], "caption": ["red"]})


def test_two_parquet_columns_of_one_name(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = [["a.jpg"], ["b.PNG"], ["red"], ["blue"]]
    table = pyarrow.Table.from_arrays(list(map(pyarrow.array, columns)), ["reference", "target", "caption", "Caption"])
    parquet.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(InputError, match="has two columns caption"):
        read_table(tmp_path / "t.parquet", {}, Additions(tmp_path))


def test_ids_that_repeat_in_a_table_to_convert(tmp_path, capsys):
    folder = with_pictures(tmp_path / "pictures")
    write(tmp_path, "t.csv", f"reference,target,caption,id\n{ROW},7\n{ROW},7\n")
    table = ["--table", tmp_path / "t.csv", "--pictures", folder, "--to", tmp_path / "own"]
    assert status_of(conversion.main, table) == 2
    assert "t.csv: 1 of 2 rows with the id of another: row 3 (7)" in capsys.readouterr().err


def test_one_table_of_extra_triplets_under_two_names(tmp_path):
    write(with_pictures(tmp_path), "t.csv", f"reference,target,caption\n{ROW}\n")
    (tmp_path / "link.csv").symlink_to("t.csv")
    with pytest.raises(InputError, match=r"link\.csv: is named twice as extra triplets"):
        read_extra([tmp_path / "t.csv", tmp_path / "link.csv"])


@pytest.mark.parametrize("ids", [("a", "a.1"), ("a.0", "a"), ("a", "a"), ("", "")])
def test_queries_of_one_name_are_numbered(ids):
    """Asked twice, a triplet "a" makes the queries a.0 and a.1."""
    task = OwnTriplets("own")
    triplets = [
        Triplet("r", ("red", "long"), ("t",), id=ids[0]),
        Triplet("r", ("blue",) if ids[1] == "a.1" else ("blue", "short"), ("t",), id=ids[1]),
    ]
    if ids[0] == "a.0":
        triplets[0] = triplets[0]._replace(captions=("red",))
    names = [query.id for query in task.queries(triplets, "both-two")]
    assert len(set(names)) == len(names)
    assert names[0].startswith("0")


def test_topics_of_categories_with_dashes_stay_apart():
    class Category:
        def __init__(self, *ids):
            self.queries = [Triplet("r", ("red",), id=name) for name in ids]

    class Judged:
        categories = {"a": Category("b-1", "2"), "a-b": Category("1"), "dress": Category("1")}

    topics = [topic for topics, _ in _categories(Judged) for topic in topics]
    assert topics == ["a-b-1", "a-2", "a%2Db-1", "dress-1"]
