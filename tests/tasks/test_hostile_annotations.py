"""Torn, mutated and hostile annotation files: a refusal of one line that begins with the file, or a right result."""

import json
import shutil

import clip
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.base.errors import InputError
from tests.support.splits import FASHIONIQ, read_cirr, read_fashioniq

CIRR, FIQ = "cirr_dataset/cirr", "fashionIQ_dataset"
FILES = {
    f"{CIRR}/captions/cap.rc2.train.json": (read_cirr, "train"),
    f"{CIRR}/captions/cap.rc2.val.json": (read_cirr, "val"),
    f"{CIRR}/captions/cap.rc2.test1.json": (read_cirr, "test1"),
    f"{CIRR}/image_splits/split.rc2.val.json": (read_cirr, "val"),
    f"{FIQ}/captions/cap.dress.val.json": (read_fashioniq, "dress", "val"),
    f"{FIQ}/captions/cap.dress.test.json": (read_fashioniq, "dress", "test"),
    f"{FIQ}/image_splits/split.dress.val.json": (read_fashioniq, "dress", "val"),
}
"""{file: the reader of it and its arguments}"""

HOSTILE_TEXT = st.one_of(
    st.text(st.characters(exclude_categories=()), max_size=20),  # halves of surrogate pairs too
    st.sampled_from(["", "\n", "a\0b", "\ud800", "../../x", "/etc/passwd", "C:\\x", "a\u2028b", ".", "..", "x" * 5000]),
)
HOSTILE_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([10**4000, -1, 1e308, float("nan"), float("inf"), [], {}, [[]], [{}], {"members": None}]),
    HOSTILE_TEXT,
    st.lists(HOSTILE_TEXT, max_size=7),
    st.dictionaries(HOSTILE_TEXT, HOSTILE_TEXT, max_size=3),
)
EXAMPLES = settings(max_examples=150, derandomize=True, deadline=None)


@pytest.fixture(scope="module")
def annotations_alone(world, tmp_path_factory):
    """Copy the toy world without its pictures, to be overwritten."""
    folder = tmp_path_factory.mktemp("annotations")
    for name in FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(world / name, folder / name)
    for split in ("train", "test1"):
        name = f"{CIRR}/image_splits/split.rc2.{split}.json"
        shutil.copyfile(world / name, folder / name)
    name = f"{FIQ}/image_splits/split.dress.test.json"
    shutil.copyfile(world / name, folder / name)
    return folder


def read_with(folder, name, content):
    """Read the split that `name` belongs to while that file holds `content`; None where it is refused in one line."""
    original = (folder / name).read_bytes()
    (folder / name).write_bytes(content)
    reader, *arguments = FILES[name]
    try:
        split = reader(folder, *arguments)
    except InputError as error:
        line = str(error)
        assert len(line.splitlines()) == 1
        assert line.isprintable()
        folders = f"{folder / CIRR}/", f"{folder / FIQ}/"
        assert line.startswith(folders)
        assert ".json: " in line
        return None
    finally:
        (folder / name).write_bytes(original)
    assert_right(split, folder, is_cirr=reader is read_cirr)
    return split


def assert_right(split, folder, is_cirr):
    """Assert what the rest of the code takes for granted of a split."""
    root = folder / ("cirr_dataset" if is_cirr else FIQ)
    for name, path in split.pictures.items():
        assert len(name.splitlines()) == 1
        assert root in path.parents
        assert ".." not in path.parts
    assert split.triplets
    for triplet in split.triplets:
        assert triplet.reference in split.pictures
        assert split.needed(triplet) <= set(split.pictures)
        assert len(triplet.targets) == (split.name in ("train", "val"))
        for text in triplet.captions:
            text.encode()
        assert len(triplet.captions) == (1 if is_cirr else 2)
        if is_cirr:
            assert len(triplet.group) == len(set(triplet.group)) == 6
            assert {triplet.reference, *triplet.targets} <= set(triplet.group)
            assert triplet.reference not in triplet.targets


@EXAMPLES
@given(name=st.sampled_from(sorted(FILES)), end=st.floats(0, 1))
def test_torn_files(name, end, annotations_alone):
    content = (annotations_alone / name).read_bytes()
    torn = content[: int(end * len(content))]
    assert (read_with(annotations_alone, name, torn) is None) == (torn != content)


@EXAMPLES
@given(
    name=st.sampled_from(sorted(FILES)),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(max_size=4)), min_size=1, max_size=5),
)
def test_flipped_and_inserted_bytes(name, changes, annotations_alone):
    content = bytearray((annotations_alone / name).read_bytes())
    for place, replacement in changes:
        start = int(place * len(content))
        content[start : start + 2] = replacement
    read_with(annotations_alone, name, bytes(content))


def places(content):
    """Yield all (container, key) of a JSON content."""
    keys = content if isinstance(content, dict) else range(len(content)) if isinstance(content, list) else ()
    for key in keys:
        yield content, key
        yield from places(content[key])


@EXAMPLES
@given(name=st.sampled_from(sorted(FILES)), place=st.floats(0, 1, exclude_max=True), value=HOSTILE_VALUES)
def test_replaced_values(name, place, value, annotations_alone):
    content = json.loads((annotations_alone / name).read_text())
    everywhere = list(places(content))
    container, key = everywhere[int(place * len(everywhere))]
    container[key] = value
    read_with(annotations_alone, name, json.dumps(content).encode())


@EXAMPLES
@given(name=st.sampled_from(sorted(FILES)), place=st.floats(0, 1, exclude_max=True), key=HOSTILE_TEXT)
def test_renamed_and_added_keys(name, place, key, annotations_alone):
    content = json.loads((annotations_alone / name).read_text())
    containers = [content, *(part[at] for part, at in places(content) if isinstance(part[at], (dict, list)))]
    container = containers[int(place * len(containers))]
    if isinstance(container, list):
        container.append(key)
    else:
        container[key] = container.pop(next(iter(container), ""), key)
    read_with(annotations_alone, name, json.dumps(content).encode())


@EXAMPLES
@given(name=st.sampled_from(sorted(FILES)), other=st.sampled_from(sorted(FILES)))
def test_a_file_in_the_place_of_another(name, other, annotations_alone):
    read = read_with(annotations_alone, name, (annotations_alone / other).read_bytes())
    assert read is not None or name != other


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "content",
    [
        b"[" * 200_000 + b"]" * 200_000,
        b'{"a":' * 200_000,
        b"[" + b"1" * 100_000 + b"]",
        b"[NaN, -Infinity]",
        b"\xef\xbb\xbf[]",
        '[{"reference": "é"}]'.encode("utf-16"),
        b'{"a": "a.png", "a": "b.png"}',
        b'{"a\\u0000\\n": 1, "a\\u0000\\n": 2}',
        b"null",
        b'"\\ud800"',
        b"\0" * 100,
    ],
    ids=[
        "deep lists",
        "deep objects",
        "huge",
        "NaN",
        "BOM",
        "UTF-16",
        "twice",
        "line break twice",
        "null",
        "text",
        "NUL",
    ],
)
def test_hostile_files(content, name, annotations_alone):
    assert read_with(annotations_alone, name, content) is None


@EXAMPLES
@given(caption=HOSTILE_TEXT)
def test_every_caption_that_is_read_can_be_tokenized(caption, annotations_alone):
    name = f"{CIRR}/captions/cap.rc2.val.json"
    content = json.loads((annotations_alone / name).read_text())
    content[3]["caption"] = caption
    split = read_with(annotations_alone, name, json.dumps(content).encode())
    if split is not None:
        assert clip.tokenize([split.triplets[3].captions[0]], 77, truncate=True).shape == (1, 77)
    assert (split is None) == any("\ud800" <= character <= "\udfff" for character in caption)


def test_every_category_of_the_world_is_read(world):
    for dress_type in FASHIONIQ.categories:
        assert_right(read_fashioniq(world, dress_type, "val"), world, is_cirr=False)
