"""GeneCIS: its program's numbers, its crops, what each template ranks, and what is refused of its files."""

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image

import check_data
import compare
import report
import validate
from src.apps.own.__main__ import main as own
from src.base.crops import box_of, crop_of, file_of
from src.pictures.opening import UnusablePicture, opened
from src.tasks.registry import TASKS
from tests.support.commands import status_of, toy_paths
from tests.support.submissions import write

GENECIS = TASKS["GeneCIS"]
GENOME, COCO = GENECIS.categories[:2], GENECIS.categories[2:]


def coco(number):
    return {"val_image_id": number}


def genome(number, box=(5, 5, 10, 8)):
    return {"image_id": number, "instance_bbox": list(box)}


def template(reference, target, *gallery, condition="wall"):
    return {"condition": condition, "reference": reference, "target": target, "gallery": list(gallery)}


def write_genecis(folder, templates):
    """Write genecis/ with {task: templates}, Visual Genome's pictures in two folders; return `folder`."""
    root = folder / "genecis"
    for task, of_task in templates.items():
        write(root / f"{task}.json", of_task)
        for entry in of_task:
            for picture in (entry["reference"], entry["target"], *entry["gallery"]):
                number = picture.get("image_id", picture.get("val_image_id"))
                places = f"VG_100K{'_2' if number % 2 else ''}/{number}.jpg", f"coco/val2017/{number:012d}.jpg"
                path = root / places["val_image_id" in picture]
                if not path.exists():
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.new("RGB", (24, 20), (number * 7 % 256, number * 31 % 256, 90)).save(path)
    return folder


@pytest.fixture
def small(tmp_path):
    templates = {task: [template(*map(genome, (1, 2, 3, 4))), template(genome(2), genome(2, (0, 0, 6, 6)), genome(3))]
                 for task in GENOME}  # fmt: skip
    templates |= {task: [template(*map(coco, (11, 12, 13, 14))), template(*map(coco, (12, 13, 11)))] for task in COCO}
    return write_genecis(tmp_path, templates)


@pytest.mark.parametrize(
    ("function", "theirs"), [("sum", "image_plus_text"), ("image", "image_only"), ("text", "text_only")]
)
def test_the_numbers_of_its_program(function, theirs, shared, tmp_path, capsys):
    golden = json.loads((shared / "golden" / "datasets" / "genecis.json").read_text())
    features, templates = {}, {task: [] for task in GENECIS.categories}
    for task, of_task in templates.items():
        named = genome if task in GENOME else coco
        for number, entry in enumerate(golden["templates"]):
            pictures = [named(20 * number + place + 1) for place in range(2 + len(entry["gallery"]))]
            of_task.append(template(*pictures, condition=entry["condition"]))
    write_genecis(tmp_path, templates)
    for split in GENECIS.read_all(tmp_path, "val").values():
        for triplet, entry in zip(split.triplets, golden["templates"], strict=True):
            names, rows = (triplet.reference, *triplet.group), (entry["reference"], entry["target"], *entry["gallery"])
            paths = (split.pictures[name].relative_to(tmp_path).as_posix() for name in names)
            features |= dict(zip(paths, rows, strict=True))
    texts = {entry["condition"]: entry["words"] for entry in golden["templates"]}
    for stem, of_stem in (("pictures", features), ("texts", texts)):
        write(tmp_path / "features" / f"{stem}.txt", "".join(f"{line}\n" for line in of_stem))
        np.save(tmp_path / "features" / f"{stem}.npy", np.array([*of_stem.values()], np.float32))
    options = ["--clip-model-name", f"features:{tmp_path / 'features'}", *toy_paths(tmp_path, tmp_path / "out")]
    validate.main(["--dataset", "GeneCIS", "--combining-function", function, *options])
    lines = [line.split(" = ") for line in capsys.readouterr().out.splitlines() if " = " in line]
    wanted = {f"recall_at{k}": 100 * golden["golden"][theirs][f"R@{k}"] for k in (1, 2, 3)}
    expected = {f"{task}_{name}": value for task in GENECIS.categories for name, value in wanted.items()}
    printed = {name: float(value) for name, value in lines}
    assert printed == pytest.approx(expected | dict.fromkeys(GENECIS.means, wanted["recall_at1"]), abs=1e-3)


def test_what_each_template_ranks(small, world, tmp_path, capsys):
    splits = GENECIS.read_all(small, "val")
    assert [triplet.group for triplet in splits["change_object"].triplets] == [
        ("000000000012.jpg", "000000000013.jpg", "000000000014.jpg"),
        ("000000000013.jpg", "000000000011.jpg"),
    ]
    of_attributes = splits["focus_attribute"].triplets[1]
    assert (of_attributes.reference, of_attributes.group) == (
        "2.jpg#xywh=0,0,17,14",
        ("2.jpg#xywh=0,0,10,10", "3.jpg#xywh=0,0,17,14"),
    )
    assert all(file_of(path).is_file() for split in splits.values() for path in split.pictures.values())
    options = [
        "--dataset",
        "genecis",
        *toy_paths(small, tmp_path / "out"),
        "--clip-model-name",
        world / "small_clip.pt",
    ]
    assert status_of(validate.main, [*options, "--per-query", tmp_path / "queries.csv"]) == 0
    assert "average_recall_at1" in capsys.readouterr().out
    with (tmp_path / "queries.csv").open() as file:
        assert [len(row["answers"].split("|")) for row in csv.DictReader(file)] == [3, 2] * 4
    assert status_of(validate.main, [*options, "--trec-run", tmp_path / "a.run", "--protocol", "genecis"]) == 0
    assert max(map(len, capsys.readouterr().out.split("no shortcut: ")[0].splitlines()[2:])) <= 80
    page = ["--run", tmp_path / "a.run", "--dataset", "GeneCIS", "--data-path", small, "--output", tmp_path / "a.html"]
    assert status_of(report.main, page) == 0
    assert status_of(compare.main, [tmp_path / "queries.csv", tmp_path / "a.run", "--data-path", small]) == 0


def test_tasks_without_files_are_named(small, capsys):
    for task in GENOME:
        (small / "genecis" / f"{task}.json").unlink()
    shutil.rmtree(small / "genecis" / "VG_100K")
    assert list(GENECIS.read_all(small, "val")) == list(COCO)
    line = "has no focus_attribute.json, change_attribute.json: judged without, and without a mean"
    assert line in capsys.readouterr().err


def test_a_picture_twice_in_a_gallery_is_ranked_once(small, capsys):
    write(
        small / "genecis" / "focus_object.json",
        [template(*map(coco, (11, 12, 13, 12))), template(*map(coco, (11, 12, 13)))],
    )
    (first, _) = GENECIS.read_all(small, "val")["focus_object"].triplets
    assert first.group == ("000000000012.jpg", "000000000013.jpg")
    assert "1 of 2 galleries name a picture twice, which is ranked once: 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("box", "size", "seen"),
    [
        # A box of 10 x 8 pixels at (10, 10) grows by 0.7 of them to the left and upwards, and ends 1.7 after that.
        ((10, 10, 10, 8), (17, 17), (3, 4, 20, 18)),
        ((2, 10, 10, 8), (17, 17), (0, 4, 17, 18)),
        ((25, 10, 10, 10), (17, 17), (18, 3, 32, 20)),  # the picture ends before
    ],
)
def test_crops_are_those_of_the_published_program(box, size, seen, small, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "2.png")
    write(small / "genecis" / "focus_attribute.json", [template(genome(2, box), *map(genome, (3, 4)))])
    (triplet,) = GENECIS.read(small, "focus_attribute", "val").triplets
    crop = crop_of(tmp_path / "2.png", box_of(triplet.reference))
    part = np.array(opened(crop, lambda image: image.copy()))
    left, top, right, bottom = seen
    height, width = bottom - top, right - left
    side = max(width, height)
    expected = np.zeros((side, side, 3), np.uint8)
    begin = (side - height) // 2, (side - width) // 2
    expected[begin[0] : begin[0] + height, begin[1] : begin[1] + width] = pixels[top:bottom, left:right]
    assert (part == expected).all()


def test_a_crop_outside_its_picture_is_refused(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(UnusablePicture, match="8,0 of 4 x 4 pixels is empty"):
        opened(crop_of(tmp_path / "a.png", (8, 0, 4, 4)), np.array)


@pytest.mark.parametrize(
    "end", ["", "#xywh=1,2,3", "#xywh=1,2,3,-4", "#xywh=1,2,3,\u0663", f"#xywh=1,2,3,{5000 * '4'}"]
)
def test_other_ends_of_paths_are_no_parts(end, tmp_path):
    assert box_of(tmp_path / f"a.png{end}") is None
    assert file_of(tmp_path / f"a.png{end}").name == f"a.png{end}"


def test_check_data_looks_at_crops(small, tmp_path, capsys):
    assert (
        status_of(check_data.main, ["--dataset", "GeneCIS", "--data-path", small, "--output", tmp_path / "a.json"]) == 0
    )
    kinds = {
        finding["kind"]: finding for finding in json.loads((tmp_path / "a.json").read_text())["datasets"][0]["findings"]
    }
    assert kinds["missing"]["count"] == kinds["unlisted"]["count"] == 0


def test_a_part_of_a_picture_in_own_triplets(world, tmp_path):
    for number, name in enumerate(("a.png", "b.png", "c.png")):
        Image.new("RGB", (40, 30), (60 * number, 90, 40)).save(tmp_path / name)
    parts = "b.png#xywh=0,0,20,20", "c.png#xywh=5,5,20,20"
    rows = [{"reference": "a.png", "target": part, "caption": "redder", "group": parts} for part in parts]
    write(tmp_path / "triplets.val.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows))
    options = ["--dataset", tmp_path, "--clip-model-name", world / "small_clip.pt", "--num-workers", "0"]
    options += ["--output-path", tmp_path / "out", "--gallery", "group", "--per-query", tmp_path / "queries.csv"]
    assert status_of(validate.main, options) == 0
    with (tmp_path / "queries.csv").open() as file:
        assert all({*row["answers"].split("|")} == {*parts} for row in csv.DictReader(file))


def test_own_triplets_cannot_have_parts_of_files(small, tmp_path, capsys):
    assert status_of(own, ["--dataset", "GeneCIS", "--data-path", small, "--to", tmp_path / "mine"]) == 2
    assert "its pictures are parts of files" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("task", "content", "fault"),
    [
        ("focus_object", [], "holds no triplets"),
        ("focus_object", [template(coco(1), coco(2))], "1 of 1 entries without a reference, a target and a gallery"),
        ("focus_object", [template(coco(1), genome(2), coco(3))], "pictures that have a val_image_id: entry 0"),
        ("focus_object", [template(coco(1), coco(True), coco(3))], "pictures that have a val_image_id: entry 0"),
        ("focus_object", [template(*map(coco, (1, 2, 3)), condition=4)], "entries without text under 'condition'"),
        ("focus_attribute", [template(genome(1), genome(2, (1, 2, 3)), genome(3))], "an instance_bbox: entry 0"),
        ("focus_attribute", [template(genome(1), genome(2, (1, 2, 0, 3)), genome(3))], "an instance_bbox: entry 0"),
        ("focus_attribute", [template(genome(1), genome(2, (1, 2, 9**400, 3)), genome(3))], "instance_bbox: entry 0"),
        ("focus_attribute", [template(genome(1), genome(2, (1, 2, 1e308, 3)), genome(3))], "an instance_bbox: entry 0"),
        ("focus_attribute", [template(*map(genome, (1, 2, 99)))], "99.jpg#xywh=0,0,17,14: no such picture"),
        ("change_object", "[", "change_object.json"),
    ],
)  # fmt: skip
def test_faulty_files_are_named(task, content, fault, small, world, capsys):
    write(small / "genecis" / f"{task}.json", content)
    options = ["--data-path", small, "--clip-model-name", world / "small_clip.pt"]
    assert status_of(validate.main, ["--dataset", "GeneCIS", *options]) == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert fault in line
