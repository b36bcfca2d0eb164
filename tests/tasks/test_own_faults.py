"""Own triplets that cannot be used: each fault is named, with its line, and no row is lost."""

import csv
import importlib.util
import json
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import clip_fine_tune
import validate
from src.base.errors import InputError
from src.tasks.own import OwnTriplets
from src.tasks.own.rows import read_rows
from src.tasks.registry import TASKS
from tests.support.commands import status_of, toy_options
from tests.support.own_folders import HEADER, with_pictures, write


@pytest.fixture
def folder(tmp_path):
    return with_pictures(tmp_path / "my pictures")


FAULTY = {
    "triplets.val.csv": [
        ("", "holds no triplets"),
        (HEADER, "holds no triplets"),
        ("picture,target,caption\na.jpg,b.PNG,red\n", "has no column reference, only picture, target, caption"),
        ("reference,reference,target,caption\n1,2,3,4\n", "has two columns reference"),
        (HEADER + "a.jpg,b.PNG\n", "row 2: has 2 cells, the header has 3"),
        ("sep=;\n" + (HEADER + "a.jpg,b.PNG,\n").replace(",", ";"), "1 of 1 rows without caption: row 2"),
        (HEADER + "a.jpg,b.PNG,red\n\na.jpg,b.PNG,\n", "1 of 2 rows without caption: row 4"),
        (HEADER + "a.jpg,,red\n", "1 of 1 rows without target: row 2"),
        (HEADER + "../a.jpg,b.PNG,red\n", "1 of 1 rows with a reference outside the folder: row 2 (../a.jpg)"),
        (HEADER + "a.jpg,/b.PNG,red\n", "rows with a target outside the folder: row 2 (/b.PNG)"),
        (HEADER + "a.jpg,./a.jpg,red\n", "1 of 1 rows whose target is their reference: row 2"),
        (HEADER + "a.jpg,b.PNG|b.PNG,red\n", "1 of 1 rows with a target twice: row 2"),
        (HEADER + 'a.jpg,b.PNG,"red\n', "row 2: no row of a table"),
        (HEADER + 'a.jpg,b.PNG,"red" x\n', "row 2: no row of a table"),
        ("id," + HEADER + "1,a.jpg,b.PNG,red\n,a.jpg,i.jpg,red\n", "1 of 2 rows without id: row 3"),
        ("id," + HEADER + "1,a.jpg,b.PNG,red\n1,a.jpg,i.jpg,red\n", "1 of 2 rows with the id of another: row 3 (1)"),
        ("group," + HEADER + "a.jpg|i.jpg,a.jpg,b.PNG,red\n", "1 of 1 rows with a target outside their group: row 2"),
        ("group," + HEADER + "b.PNG,a.jpg,b.PNG,red\n,a.jpg,i.jpg,red\n", "1 of 2 rows without group: row 3"),
        (HEADER + "a.jpg,no.jpg,red\n", "no.jpg: no such picture"),
        (
            (HEADER + "a.jpg,b.PNG,grün\n").encode("latin-1"),
            "triplets.val.csv, line 2: not UTF-8; save it as CSV UTF-8",
        ),
    ],
    "triplets.val.jsonl": [
        ("[]", "line 1: not a JSON object"),
        ('{"reference": "a.jpg"', "line 1: not JSON ("),
        ('{"reference": 3, "target": "b.PNG", "caption": "red"}', "line 1: reference is not text"),
        ('{"reference": "a.jpg", "target": ["b.PNG", 3], "caption": "red"}', "target is not text or a list of texts"),
        ('{"reference": "a.jpg", "target": "b.PNG", "caption": ["a", "b", "c"]}', "has more than two captions"),
        ('{"reference": "a.jpg", "reference": "i.jpg", "caption": "red"}', "line 1: has reference twice"),
    ],
    "gallery.val.txt": [
        ("a.jpg\n", "gallery.val.txt does not list: row 2 (b.PNG)"),
        ("\n", "gallery.val.txt: holds no pictures"),
        ("a.jpg\nb.PNG\n./a.jpg\n", "gallery.val.txt: 1 of 3 pictures listed again: a.jpg"),
        ("a.jpg\n../b.PNG\n", "gallery.val.txt: 1 of 2 paths outside the folder: line 2"),
    ],
    "triplets.val.tsv": [(HEADER, "triplets.val.csv: triplets.val.tsv lies beside it")],
}
"""{file: what it holds, and what is said of it}"""


@pytest.mark.parametrize(("name", "content", "fault"), [(name, *case) for name in FAULTY for case in FAULTY[name]])
def test_faulty_files_are_named(name, content, fault, folder, world, tmp_path, capsys):
    if name != "triplets.val.jsonl":
        write(folder, "triplets.val.csv", HEADER + "a.jpg,b.PNG,red\n")
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert status_of(validate.main, ["--dataset", folder, *toy_options(world, tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(folder) in line
    assert fault in line


def test_what_is_no_folder_of_own_triplets(tmp_path, capsys):
    for name, fault in [
        (tmp_path, "holds no triplets.val.csv, .tsv, .xlsx or .jsonl, as a folder of own triplets does"),
        ("nowhere", f"'nowhere' is none of {', '.join(TASKS)}, and "),
    ]:
        assert status_of(validate.main, ["--dataset", name]) == 2
        assert fault in capsys.readouterr().err
    assert status_of(clip_fine_tune.main, ["--dataset", "CIRCO"]) == 2
    assert "'CIRCO' is none of CIRR, FashionIQ, Shoes, and " in capsys.readouterr().err


def workbook(path, *sheets):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.remove(book.active)
    for rows in sheets:
        sheet = book.create_sheet()
        for row in rows:
            sheet.append(row)
    book.save(path)


SHEET = [["reference", "target", "caption", "id", None], [" a.jpg", "b.PNG|i.jpg", "red", 7.0], [], [None, "", " "]]


def test_a_workbook_is_read(folder):
    workbook(folder / "triplets.val.xlsx", SHEET, [])
    (triplet,) = OwnTriplets.in_folder(folder).read_all(folder, "val")["all"].triplets
    assert triplet[:5] == ("a.jpg", ("red",), ("b.PNG", "i.jpg"), (), "7")
    assert triplet.place == "row 2"


@pytest.mark.parametrize(
    ("sheets", "fault"),
    [
        ([SHEET, SHEET], "has 2 sheets (Sheet, Sheet1), where one is expected; keep one"),
        ([[*SHEET, ["a.jpg", "i.jpg", "#N/A", 8]]], "row 5: column C holds the error #N/A"),
        ([[*SHEET, ["a.jpg", "i.jpg", None, 8]]], "1 of 2 rows without caption: row 5"),
        ([[*SHEET, ["a.jpg", "i.jpg", "red", 8, "x"]]], "row 5: has 5 cells, the header has 4"),
        ([[]], "holds no triplets"),
    ],
)
def test_faulty_workbooks_are_named(sheets, fault, folder, capsys):
    workbook(folder / "triplets.val.xlsx", *sheets)
    assert status_of(validate.main, ["--dataset", folder]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{folder}/triplets.val.xlsx" in line
    assert fault in line


def test_a_damaged_workbook_and_one_that_nothing_reads(folder, monkeypatch, capsys):
    (folder / "triplets.val.xlsx").write_bytes(b"PK\x03\x04 and no more")
    if importlib.util.find_spec("openpyxl"):
        assert status_of(validate.main, ["--dataset", folder]) == 2
        said = capsys.readouterr().err
        assert "triplets.val.xlsx: cannot be read as a workbook (" in said
        assert said.endswith("; save it as CSV UTF-8\n")
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    assert status_of(validate.main, ["--dataset", folder]) == 2
    said = "triplets.val.xlsx: needs openpyxl to be read (pip install openpyxl); or save it as CSV UTF-8"
    assert said in capsys.readouterr().err
    (folder / "triplets.val.xlsx").rename(folder / "triplets.val.csv")
    assert status_of(validate.main, ["--dataset", folder]) == 2
    said = "triplets.val.csv: is an Excel workbook or another archive; save it as CSV UTF-8"
    assert said in capsys.readouterr().err


UNWRITABLE = "\0" if sys.version_info < (3, 11) else ""  # Python 3.10's own csv does not write it
CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=UNWRITABLE), max_size=12)
EXAMPLES = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@EXAMPLES
@given(rows=st.lists(st.tuples(CELLS, CELLS, CELLS), min_size=1, max_size=6), delimiter=st.sampled_from(",;\t"))
def test_no_row_of_a_table_is_lost(rows, delimiter, tmp_path):
    path = tmp_path / ("t.tsv" if delimiter == "\t" else "t.csv")
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter).writerows([("reference", "target", "caption"), *rows])
    filled = [row for row in rows if any(map(str.strip, row))]
    if not filled:
        return
    read_back = [(row.text("reference"), row.cells.get("target", []), row.text("caption")) for row in read_rows(path)]
    assert read_back == [
        (first.strip(), [part.strip() for part in second.split("|") if part.strip()], third.strip())
        for first, second, third in filled
    ]


@EXAMPLES
@given(text=st.text(max_size=80), cut=st.integers(0, 120), suffix=st.sampled_from(["csv", "tsv", "jsonl"]))
def test_a_torn_table_is_told_in_words(text, cut, suffix, tmp_path):
    whole = {
        "csv": HEADER + 'a.jpg,b.PNG,"red, or\nnot"\n' * 3,
        "tsv": HEADER.replace(",", "\t") + "a.jpg\tb.PNG\tred\n" * 3,
        "jsonl": '{"reference": "a.jpg", "target": ["b.PNG"], "caption": "red"}\n' * 3,
    }[suffix]
    path = tmp_path / f"triplets.val.{suffix}"
    path.write_text(whole[:cut] + text + whole[cut:], encoding="utf-8", errors="surrogatepass", newline="")
    try:
        OwnTriplets.in_folder(tmp_path).read_all(tmp_path, "val")
    except InputError as error:
        assert str(tmp_path) in str(error)
        assert len(str(error).splitlines()) == 1
    finally:
        path.unlink()


@EXAMPLES
@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(max_size=5), st.lists, max_leaves=4))
def test_whatever_a_line_holds_it_is_told(tmp_path, value):
    path = tmp_path / "t.jsonl"
    for content in (value, {"reference": value, "target": "b", "caption": "c"}, {"reference": "a", "caption": value}):
        path.write_text(json.dumps(content), encoding="utf-8")
        try:
            assert len(read_rows(path)) == 1
        except InputError as error:
            assert "line 1: " in str(error)
