"""The annotation readers: each kind of fault counted and named in one line, and nothing else ever raised."""

import json

import pytest

from data_utils import CIRRDataset, FashionIQDataset
from src.base.errors import InputError
from src.tasks.triplets import Triplet
from tests.support.splits import CIRR, FASHIONIQ, read_cirr, read_fashioniq

CIRR_CAPTIONS, CIRR_LISTING = (
    "cirr_dataset/cirr/captions/cap.rc2.{}.json",
    "cirr_dataset/cirr/image_splits/split.rc2.{}.json",
)
FIQ_CAPTIONS, FIQ_LISTING = (
    "fashionIQ_dataset/captions/cap.dress.{}.json",
    "fashionIQ_dataset/image_splits/split.dress.{}.json",
)


def changed(path, change):
    """Rewrite a JSON file after `change` to its content."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def fault_of(read, *arguments):
    """Return the message that a reader ends with, which is one line."""
    with pytest.raises(InputError) as raised:
        read(*arguments)
    (line,) = str(raised.value).splitlines()
    return line


def test_the_toy_world_is_read(world):
    for split in CIRR.splits:
        read = read_cirr(world, split)
        entries = json.loads((world / CIRR_CAPTIONS.format(split)).read_text())
        assert read.triplets == [
            Triplet(
                entry["reference"],
                (entry["caption"],),
                (entry["target_hard"],) if split != "test1" else (),
                tuple(entry["img_set"]["members"]),
                str(entry["pairid"]),
                tuple(entry.get("target_soft", {}).items()),
            )
            for entry in entries
        ]
        assert read.path == world / CIRR_CAPTIONS.format(split)
        assert all(path.is_file() for path in read.pictures.values())
    for split in FASHIONIQ.splits:
        read = read_fashioniq(world, "dress", split)
        entries = json.loads((world / FIQ_CAPTIONS.format(split)).read_text())
        assert read.triplets == [
            Triplet(entry["candidate"], tuple(entry["captions"]), (entry["target"],) if split != "test" else ())
            for entry in entries
        ]
        assert list(read.pictures) == json.loads((world / FIQ_LISTING.format(split)).read_text())
        assert all(path.is_file() for path in read.pictures.values())


def test_the_published_annotations_are_read(shared, tmp_path):
    """The real files keep every rule that the readers check."""
    annotations = shared / "data" / "annotations"
    (tmp_path / "cirr_dataset").mkdir()
    (tmp_path / "cirr_dataset" / "cirr").symlink_to(annotations / "cirr")
    (tmp_path / "fashionIQ_dataset").symlink_to(annotations / "fashionIQ")
    splits = read_cirr(tmp_path, "val"), read_cirr(tmp_path, "test1")
    sizes = [(len(split.triplets), len(split.pictures)) for split in splits]
    assert sizes == [(4181, 2297), (4148, 2315)]
    galleries = [len(read_fashioniq(tmp_path, dress_type, "val").pictures) for dress_type in FASHIONIQ.categories]
    assert galleries == [3817, 5373, 6346]
    for split in ("train", "test"):
        for dress_type in FASHIONIQ.categories:
            assert read_fashioniq(tmp_path, dress_type, split).triplets


NO_GROUP = "without an img_set of 6 different members: entry 2"
FAULTS = {
    CIRR_CAPTIONS: [
        ("val", lambda all: all[2].pop("caption"), "1 of 24 entries without text under 'caption': entry 2"),
        ("val", lambda all: all[2].update(reference=7), "1 of 24 entries without text under 'reference': entry 2"),
        ("val", lambda all: all[2].update(reference="a\ud800"), "entries without text under 'reference': entry 2"),
        ("test1", lambda all: all[2].update(pairid=True), "entries without a whole number under 'pairid': entry 2"),
        ("val", lambda all: all.insert(2, "entry"), "1 of 25 entries that are not objects: entry 2"),
        ("val", lambda all: all.clear(), "holds no triplets"),
        ("val", lambda all: all[2]["img_set"]["members"].pop(), NO_GROUP),
        ("val", lambda all: all[2]["img_set"].pop("members"), NO_GROUP),
        ("val", lambda all: all[2]["img_set"].update(members=[{}] * 6), NO_GROUP),
        ("val", lambda all: all[2]["img_set"].update(members=[*"aabcde"]), NO_GROUP),
        ("val", lambda all: all[2].update(img_set=[]), NO_GROUP),
        ("val", lambda all: all[2].update(reference="no\nname"), r"that split.rc2.val.json does not list: no\nname"),
        ("train", lambda all: all[2].update(target_hard="gone"), "1 of 48 triplets with a target that split.rc2.train"),
        ("val", lambda all: all[2].update(target_hard=all[2]["reference"]), "1 of 24 triplets whose target is their"),
        ("test1", lambda all: all[2].update(pairid=all[5]["pairid"]), "1 of 33 triplets with the pair id of another: "),
    ],
    CIRR_LISTING: [
        ("val", lambda paths: paths.update(dev="/etc"), "1 of 31 paths outside the data set's folder: /etc"),
        (
            "val",
            lambda paths: paths.update(dev="./dev/../../../x.png"),
            "outside the data set's folder: ./dev/../../../x.png",
        ),
        ("val", lambda paths: paths.update(dev="C:\\x.png"), "outside the data set's folder: C:\\x.png"),
        ("val", lambda paths: paths.update(dev="dev/a\0.png"), r"outside the data set's folder: dev/a\x00.png"),
        ("val", lambda paths: paths.update(dev="."), "outside the data set's folder: ."),
        ("val", lambda paths: paths.update(dev=["dev.png"]), "1 of 31 entries without a name and a path: dev"),
        ("val", lambda paths: paths.update({"": "dev.png"}), "1 of 31 entries without a name and a path: "),
        ("val", lambda paths: paths.clear(), "holds no pictures"),
    ],
    FIQ_CAPTIONS: [
        ("val", lambda all: all[1].update(captions=["alone"]), ": 1 of 8 entries without two captions: entry 1"),
        ("val", lambda all: all[1].update(captions=["a", "b", "c"]), ": 1 of 8 entries without two captions: entry 1"),
        ("val", lambda all: all[1].update(captions="ab"), ": 1 of 8 entries without two captions: entry 1"),
        ("val", lambda all: all[1].update(captions=["a", None]), ": 1 of 8 entries without two captions: entry 1"),
        ("val", lambda all: all[1].pop("target"), ": 1 of 8 entries without text under 'target': entry 1"),
        (
            "val",
            lambda all: all[1].update(candidate="gone"),
            ": 1 of 8 triplets with a reference that split.dress.val.json",
        ),
        ("val", lambda all: all[1].update(target="gone"), ": 1 of 8 triplets with a target that split.dress.val.json"),
    ],
    FIQ_LISTING: [
        ("val", lambda names: names.append(names[3]), "names listed again: "),
        ("val", lambda names: names.append("../../x"), "names outside the data set's folder: ../../x"),
        ("val", lambda names: names.append("a/b"), "names outside the data set's folder: a/b"),
        ("val", lambda names: names.append("a\\b"), "names outside the data set's folder: a\\b"),
        ("val", lambda names: names.append(7), "entries without a name: entry "),
        ("val", lambda names: names.append("a\nb"), "entries without a name: entry "),
    ],
}
"""{file: split, what becomes of its content, what is said of it}"""


@pytest.mark.parametrize(
    ("name", "split", "change", "fault"), [(name, *case) for name in FAULTS for case in FAULTS[name]]
)
def test_a_fault_is_named(name, split, change, fault, broken_world):
    path = broken_world / name.format(split)
    changed(path, change)
    of_cirr = name in (CIRR_CAPTIONS, CIRR_LISTING)
    line = fault_of(read_cirr if of_cirr else read_fashioniq, broken_world, *([] if of_cirr else ["dress"]), split)
    assert line.startswith(f"{path}: ")
    assert fault in line


@pytest.mark.parametrize("role", ["reference", "target_hard"])
@pytest.mark.parametrize(("split", "triplets"), [("train", 48), ("val", 24)])
def test_reference_and_target_are_members(role, split, triplets, broken_world):
    def change(entries):
        members = entries[0]["img_set"]["members"]
        entries[0][role] = next(entry["reference"] for entry in entries if entry["reference"] not in members)

    changed(broken_world / CIRR_CAPTIONS.format(split), change)
    line = fault_of(read_cirr, broken_world, split)
    assert f"1 of {triplets} triplets with a {role[:9].removesuffix('_ha')} outside their" in line


def test_a_name_may_be_in_any_script(broken_world):
    name = "été-\N{WOMAN}\N{ZERO WIDTH JOINER}\N{AIRPLANE}"
    changed(broken_world / CIRR_LISTING.format("val"), lambda paths: paths.update({name: f"./dev/{name}.png"}))
    read = read_cirr(broken_world, "val")
    assert read.pictures[name] == broken_world / "cirr_dataset" / "dev" / f"{name}.png"


def test_all_faults_of_a_kind_are_counted_and_ten_named(broken_world):
    path = broken_world / CIRR_CAPTIONS.format("val")

    def change(triplets):
        for number, triplet in enumerate(triplets):
            triplet["reference"] = f"gone-{number}"

    changed(path, change)
    named = ", ".join(f"gone-{number}" for number in range(10))
    line = fault_of(read_cirr, broken_world, "val")
    assert line.startswith(f"{path}: 24 of 24 triplets with a reference that split.rc2.val.json does not list: ")
    assert line.endswith(f": {named} and 14 more")


def test_group_members_are_listed(broken_world):
    def change(triplets):
        members = triplets[0]["img_set"]["members"]
        members[members[0] == triplets[0]["reference"]] = "gone"

    changed(broken_world / CIRR_CAPTIONS.format("test1"), change)
    line = fault_of(read_cirr, broken_world, "test1")
    assert "1 of 198 group members that split.rc2.test1.json does not list: gone" in line


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"[{", "not a JSON file"),
        (b"", "not a JSON file"),
        (b"\xff\xfe[]", "not a JSON file"),
        (b"[" * 100_000, "not a JSON file"),
        (b"[" + b"9" * 5000 + b"]", "not a JSON file"),
        (b'[{"reference": "a", "reference": "b"}]', "the key reference stands twice in one object"),
        (b"{}", "holds a dict where a list is expected"),
        (None, "no such file"),
        ("folder", "Is a folder, not a file"),
    ],
    ids=["torn", "empty", "no UTF-8", "deep", "huge number", "key twice", "object", "missing", "folder"],
)
def test_files_that_are_no_annotations(content, fault, broken_world):
    path = broken_world / CIRR_CAPTIONS.format("val")
    path.unlink()
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    line = fault_of(read_cirr, broken_world, "val")
    assert f"{path}: " in line
    assert fault in line


def test_datasets_are_checked_when_they_are_built(broken_world):
    changed(broken_world / CIRR_CAPTIONS.format("val"), lambda triplets: triplets[0].update(target_hard="gone"))
    changed(broken_world / FIQ_CAPTIONS.format("val"), lambda triplets: triplets[0].update(target="gone"))
    for mode in ("classic", "relative"):
        assert "does not list: gone" in fault_of(CIRRDataset, "val", mode, None, broken_world)
        assert "does not list: gone" in fault_of(FashionIQDataset, "val", ["dress"], mode, None, broken_world)
