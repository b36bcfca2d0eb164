"""Names in tables of own triplets that are not on the disk: the row, what is there instead, and what is taken."""

import re
import unicodedata

import pytest

import check_data
import clip_fine_tune
import validate
from src.base.reading import read_json
from src.tasks.own import OwnTriplets, read_extra
from tests.support.commands import status_of, toy_options
from tests.support.own_folders import HEADER, read, with_pictures, write

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "café/é.jpg") for form in ("NFC", "NFD"))


@pytest.fixture
def folder(tmp_path):
    return with_pictures(tmp_path / "my pictures")


WRONG = {
    "A.jpg": "row 3: there is a.jpg, in other case",
    "b.jpg": "row 4: there is b.PNG, with another suffix",
    "c.webp": "row 5: there is in/c.webp, in another folder",
    "in/d  e.jpg": "row 6: there is in/d e.jpg, with letters or blanks that look alike",
    "inn/deep/f.jpeg": "row 7: there is in/deep/f.jpeg, in another folder",
}


def test_rows_whose_pictures_are_called_otherwise(folder, world, tmp_path, capsys):
    rows = [f"{name},i.jpg,red\n" for name in WRONG]
    write(folder, "triplets.val.csv", HEADER + "a.jpg,i.jpg,red\n" + "".join(rows))
    assert status_of(validate.main, ["--dataset", folder, *toy_options(world, tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {folder}/A.jpg: no such picture; 5 of 12 are missing: A.jpg (triplets.val.csv, ")
    for name, said in WRONG.items():
        assert f"{name} (triplets.val.csv, {said})" in line
    assert line.endswith(" (check_data.py --output FILE.json lists all)")
    assert status_of(check_data.main, ["--dataset", folder, "--num-workers", 0, "--output", tmp_path / "a.json"]) == 1
    found = {finding["kind"]: finding for finding in read_json(tmp_path / "a.json", dict)["datasets"][0]["findings"]}
    assert found["missing"]["names"] == [f"{name}: triplets.val.csv, {said}" for name, said in WRONG.items()]


def test_what_is_lost_may_be_left_out(folder, world, tmp_path, capsys):
    write(folder, "triplets.val.csv", HEADER + "a.jpg,i.jpg,red\nlost.jpg,i.jpg,red\nlost.jpg,b.PNG,red\n")
    assert status_of(validate.main, ["--dataset", folder, *toy_options(world, tmp_path)]) == 2
    line = capsys.readouterr().err
    assert "1 of 8 are missing: lost.jpg (triplets.val.csv, row 3 and 1 more) (check_data.py --output FILE.json" in line
    assert "--skip-missing leaves them out)" in line


def test_a_misspelled_name_is_the_fault_and_not_its_group(folder, world, tmp_path, capsys):
    write(folder, "triplets.val.csv", "group," + HEADER + "b.PNG|i.jpg,a.jpg,B.PNG,red\nb.PNG|I.jpg,a.jpg,b.PNG,red\n")
    assert status_of(validate.main, ["--dataset", folder, *toy_options(world, tmp_path)]) == 2
    line = capsys.readouterr().err
    assert "B.PNG (triplets.val.csv, row 2: there is b.PNG, in other case)" in line
    assert "I.jpg (triplets.val.csv, row 3: there is i.jpg, in other case)" in line


def test_a_listing_says_what_it_has_instead(folder, capsys):
    write(folder, "triplets.val.csv", HEADER + "a.jpg,B.png,red\na.jpg,c.webp,red\n")
    write(folder, "gallery.val.txt", "a.jpg\nb.PNG\nin/c.webp\n")
    assert status_of(validate.main, ["--dataset", folder]) == 2
    said = "list: row 2 (B.png; there is b.PNG, in other case), row 3 (c.webp; there is in/c.webp, in another folder)"
    assert said in capsys.readouterr().err


def test_extra_triplets_say_the_row_too(folder, options, capsys):
    write(folder, "more.csv", HEADER + "A.jpg,b.PNG,red\n")
    extra = ["--dataset", "CIRR", "--extra-triplets", folder / "more.csv"]
    assert status_of(clip_fine_tune.main, [*options, *extra]) == 2
    assert "A.jpg (more.csv, row 2: there is a.jpg, in other case)" in capsys.readouterr().err


@pytest.mark.parametrize(("on_disk", "written"), [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)])
def test_the_other_unicode_form_is_taken_and_said_once(on_disk, written, folder, capsys):
    (folder / on_disk).parent.mkdir()
    (folder / "i.jpg").rename(folder / on_disk)
    write(folder, "triplets.val.csv", HEADER + f"{written},a.jpg,red\nb.PNG,{on_disk},red\n")
    split = read(folder)
    assert [triplet.reference for triplet in split.triplets] == [on_disk, "b.PNG"]
    assert len(split.pictures) == 7
    read(folder)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{folder}/triplets.val.csv: 1 name is in another Unicode form than its file, which")
    write(folder, "gallery.val.txt", f"{written}\na.jpg\nb.PNG\n")
    assert list(read(folder).pictures) == [on_disk, "a.jpg", "b.PNG"]
    (triplet, _) = next(iter(read_extra([folder / "triplets.val.csv"]).values())).triplets
    assert triplet.reference == f"{folder}/{on_disk}"


def test_of_two_files_of_one_look_none_is_taken(folder, world, tmp_path, capsys):
    first, second, third = "\u1e69.jpg", "s\u0323\u0307.jpg", "s\u0307\u0323.jpg"  # ṩ in three spellings
    for name in (first, second):
        (folder / name).write_bytes((folder / "a.jpg").read_bytes())
    write(folder, "triplets.val.csv", HEADER + f"{third},a.jpg,red\n{second},a.jpg,red\n")
    assert status_of(validate.main, ["--dataset", folder, *toy_options(world, tmp_path)]) == 2
    assert " and 1 more, the same name in another Unicode form)" in capsys.readouterr().err


def test_a_good_folder_is_a_good_folder(folder, capsys, tmp_path):
    """Its gallery is every picture, so the splits share what no row of both names."""
    write(folder, "triplets.train.csv", HEADER + "a.jpg,b.PNG,red\n")
    write(folder, "triplets.val.csv", HEADER + "i.jpg,in/c.webp,red\n")
    write(folder, "prices.pdf", "%PDF")
    (folder / "@eaDir").mkdir()
    (folder / "@eaDir" / "a.jpg").write_bytes((folder / "a.jpg").read_bytes())
    check = ["--dataset", folder, "--num-workers", 0, "--output", tmp_path / "a.json"]
    assert status_of(check_data.main, check) == 0
    said = capsys.readouterr().out
    assert "warning" not in said
    assert "note" not in said
    assert "no annotations of test\n" in said
    assert "not looked at, for their suffixes: 1 file (.pdf 1)" in said
    assert "left out: 1 folder of thumbnails, bins and the like: @eaDir/" in said
    (checked,) = read_json(tmp_path / "a.json", dict)["datasets"]
    assert (checked["not_looked_at"], checked["left_out"]) == ({".pdf": 1}, ["@eaDir/"])
    # What rows of both name bears on a result, in a listing or without one.
    write(folder, "triplets.val.csv", HEADER + "a.jpg,in/c.webp,red\n")
    check_data.main([str(part) for part in check])
    assert re.search("val in train by name +1 of 2  pictures that both splits name in", capsys.readouterr().out)


def test_a_gallery_says_what_it_leaves_out(folder, capsys):
    write(folder, "triplets.val.csv", HEADER + "i.jpg,in/c.webp,red\n")
    (folder / "x.psd").write_bytes(b"8BPS")
    OwnTriplets.in_folder(folder).read_all(folder, "val")
    assert capsys.readouterr().err == f"{folder}: not looked at, for their suffixes: 1 file (.psd 1)\n"
