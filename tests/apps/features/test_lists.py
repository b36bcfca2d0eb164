"""The lists of a folder of features: every picture and text that a command asks for, each once."""

import numpy as np
import pytest
from PIL import Image

from src.apps.features import __main__ as features
from src.models.features import FeatureFiles, read_list
from src.tasks.registry import TASKS
from tests.support.own_folders import HEADER, with_pictures, write

OWN = "my_pictures"


@pytest.fixture
def lists(world, tmp_path):
    """Return a function that lists a data set; it returns the lines of both lists."""

    def run(*arguments, folder=tmp_path / "features", data_path=world):
        features.main(list(map(str, [*arguments, "--data-path", data_path, "--list", folder])))
        return read_list(folder / "pictures.txt"), read_list(folder / "texts.txt")

    return run


@pytest.mark.parametrize("name", ["CIRR", "FashionIQ"])
def test_each_picture_and_text_of_all_splits_is_listed_once(name, lists, world, capsys):
    pictures, texts = lists("--dataset", name)
    for lines in (pictures, texts):
        assert len(set(lines)) == len(lines)
    assert all((world / line).is_file() for line in pictures)
    task, needed, asked = TASKS[name], set(), set()
    for split in task.splits:
        for read in task.read_all(world, split).values():
            needed |= set(read.pictures.values())
            asked |= {text for one in read.triplets if split == "train" for text in task.training_texts(one.captions)}
            if split != "train":
                asked |= {
                    text for how in task.captions for query in task.queries(read.triplets, how) for text in query.texts
                }
    assert {world / line for line in pictures} == needed
    assert set(texts) == asked
    assert f"texts.txt: {len(texts):,} lines, to be encoded into texts.npy" in capsys.readouterr().out


def test_data_sets_and_more_triplets_share_a_folder(lists, world):
    alone = [set(lines) for lines in lists("--dataset", "CIRR")]
    table = world / OWN / "triplets.train.csv"
    joined = [set(lines) for lines in lists("--dataset", "CIRR", world / OWN, "--extra-triplets", table)]
    assert all(lines < more for lines, more in zip(alone, joined, strict=True))
    assert all((world / line).is_file() for line in joined[0])


def test_a_picture_outside_the_data_path_is_listed_by_its_whole_path(lists, tmp_path):
    """A program that encodes joins lines with the one data path, below which another may lie by the same name."""
    data_sets = [with_pictures(tmp_path / place / "mine") for place in ("data", "other")]
    for folder in data_sets:
        write(folder, "triplets.val.csv", f"{HEADER}a.jpg,b.PNG,in red\n")
    pictures, texts = lists("--dataset", *data_sets, data_path=tmp_path / "data")
    assert {tmp_path / "data" / line for line in pictures} == {
        path for folder in data_sets for path in folder.rglob("*.*") if path.suffix != ".csv"
    }
    rows = np.arange(1, len(pictures) + 1, dtype=np.float32)[:, None]
    np.save(tmp_path / "features" / "pictures.npy", rows)
    np.save(tmp_path / "features" / "texts.npy", np.ones((len(texts), 1), np.float32))
    held = FeatureFiles(tmp_path / "features")
    for folder, line in reversed([*zip(data_sets, ("mine/a.jpg", f"{data_sets[1]}/a.jpg"), strict=True)]):
        assert held.held("image", [folder / "a.jpg"]).item() == pictures.index(line) + 1


def test_a_split_that_is_not_there_is_not_listed(lists, broken_world):
    next(broken_world.rglob("cap.rc2.test1.json")).unlink()
    next(broken_world.rglob("split.rc2.test1.json")).unlink()
    pictures, _ = lists("--dataset", "CIRR", data_path=broken_world)
    assert not any("test1" in line for line in pictures)


def test_a_missing_picture_is_refused_or_left_out(lists, broken_world, capsys):
    picture = next((broken_world / "cirr_dataset" / "dev").iterdir())
    picture.unlink()
    with pytest.raises(SystemExit):
        lists("--dataset", "CIRR", data_path=broken_world)
    assert f"{picture.name}: no such picture" in capsys.readouterr().err
    pictures, _ = lists("--dataset", "CIRR", "--skip-missing", "--num-workers", "0", data_path=broken_world)
    assert not any(picture.name in line for line in pictures)
    assert "not comparable" in capsys.readouterr().out


def test_a_text_is_one_line(lists, tmp_path):
    folder = with_pictures(tmp_path / "mine")
    write(folder, "triplets.train.csv", f'{HEADER}a.jpg,b.PNG,"in\nred  and\u2028blue "\na.jpg,i.jpg,in red and blue\n')
    _, texts = lists("--dataset", folder)
    assert texts == ["in red and blue"]


def test_a_name_of_two_lines_is_refused(lists, tmp_path, capsys):
    folder = with_pictures(tmp_path / "mine")
    Image.new("RGB", (8, 8)).save(folder / "two\nlines.png")
    write(folder, "triplets.val.csv", f"{HEADER}a.jpg,b.PNG,in red\n")
    with pytest.raises(SystemExit):
        lists("--dataset", folder)
    (line,) = capsys.readouterr().err.splitlines()
    assert "two\\nlines.png: its name cannot be a line of pictures.txt" in line


def test_features_keep_their_lists(lists, world, tmp_path, capsys):
    folder = tmp_path / "features"
    first = lists("--dataset", "CIRR")
    np.save(folder / "texts.npy", np.ones((len(first[1]), 4), np.float32))
    assert lists("--dataset", "CIRR") == first
    with pytest.raises(SystemExit):
        lists("--dataset", "FashionIQ")
    assert f"{folder / 'texts.npy'}: is there already, of other lines" in capsys.readouterr().err
    assert (read_list(folder / "pictures.txt"), read_list(folder / "texts.txt")) == first
