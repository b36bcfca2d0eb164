"""An index on disk is one thing: whole or refused in a line, whatever happened to its files and to who wrote them."""

import json
import os
import random
import re
import resource
import shutil
import signal
import time

import numpy as np
import pytest
import torch

from src.apps.search import index
from src.apps.search.changes import Changes
from src.apps.search.index import open_index
from src.apps.search.index_writing import updating
from src.base.checksum import checksum
from src.base.errors import InputError
from src.base.locks import owning
from src.base.sealed import write_sealed
from src.retrieval.gallery import Gallery
from tests.support.indexes import write_index

DEPENDS_ON = {"weights": "x" * 64, "transform": {"name": "targetpad"}}
PICTURES, DIM = 40, 8


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Write files with the names of pictures, and a spare one."""
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(PICTURES + 1):
        (folder / f"{number:03d}.png").write_bytes(b"%d" % number)
    return folder


def gallery_of(folder, numbers=range(PICTURES), seed=0):
    """Return pictures whose features say by their seed and number which ones they are."""
    features = torch.randn((PICTURES + 1, DIM), generator=torch.Generator().manual_seed(seed))[list(numbers)]
    gallery = Gallery(features, [f"{number:03d}.png" for number in numbers], folder=folder)
    gallery.normalise()
    return gallery


@pytest.fixture
def written(pictures, tmp_path):
    write_index(tmp_path / "index", gallery_of(pictures), DEPENDS_ON, half=False)
    return tmp_path / "index"


def files_of(folder):
    """Return features, items and meta.json of an index."""
    return [*folder.glob("features.*"), *folder.glob("items.*"), folder / "meta.json"]


def assert_same(found, expected):
    assert found.names == expected.names
    assert torch.equal(found.features, expected.features)
    assert torch.equal(found.lengths, expected.lengths)
    assert str(found.folder) == str(expected.folder)


# ---- what was done to its files ----


def flip(path, place=-3):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def rows(change):
    """Return a damage that saves what `change` makes of the features."""

    def damage(features, items, meta):
        np.save(features, change(np.load(features)))
        if features.with_suffix(".npy.npy").exists():
            features.with_suffix(".npy.npy").replace(features)

    return damage


def with_nan(array):
    array[3] = np.nan
    return array


def text(change):
    return lambda features, items, meta: items.write_text(change(items.read_text()))


def items(**values):
    """Return a damage that gives each item other values."""
    return text(lambda lines: "".join(json.dumps(json.loads(line) | values) + "\n" for line in lines.splitlines()))


def told(**values):
    return lambda features, items, meta: meta.write_text(json.dumps(json.loads(meta.read_text()) | values))


def file(number, change):
    return lambda *paths: change(paths[number])


def sealed_anew(change):
    """Return a damage that gives the items another text, with checksums that fit it."""

    def damage(features, items, meta):
        items.write_text(change(items.read_text()))
        write_sealed(meta, json.loads(meta.read_text()) | {"items_sum": checksum(items.read_bytes())})

    return damage


def make_folder(path):
    path.unlink()
    path.mkdir()


def make_pipe(path):
    path.unlink()
    os.mkfifo(path)


DAMAGES = {
    "a flipped bit of a feature": file(0, flip),
    "a flipped bit of the header": file(0, lambda path: flip(path, 9)),
    "rows swapped": rows(lambda array: array[::-1]),
    "another index's": rows(lambda array: array[:, ::-1]),
    "zeros": rows(np.zeros_like),
    "a row of NaN": rows(with_nan),
    "int8": rows(lambda array: array.astype(np.int8)),
    "fp64": rows(lambda array: array.astype(np.float64)),
    "big-endian": rows(lambda array: array.astype(">f4")),
    "columns first": rows(np.asfortranarray),
    "another shape": rows(lambda array: array.reshape(-1, DIM // 2)),
    "no shape": rows(lambda array: np.float32(3)),
    "fewer rows": rows(lambda array: array[:-1]),
    "features cut": file(0, lambda path: os.truncate(path, path.stat().st_size - 3)),
    "features empty": file(0, lambda path: os.truncate(path, 0)),
    "features missing": file(0, os.unlink),
    "features a folder": file(0, make_folder),
    "features a pipe": file(0, make_pipe),
    "items reordered": text(lambda lines: "".join(sorted(lines.splitlines(True), reverse=True))),
    "names that are numbers": items(name=3),
    "names that are lists": items(name=["a"]),
    "names that leave the folder": items(name="../../etc/passwd"),
    "lengths that are texts": items(length="long"),
    "lengths that are not finite": items(length=float("nan")),
    "another digest": items(sha256=None),
    "items of nothing": text(lambda lines: "{}\n" * PICTURES),
    "items empty": text(lambda lines: ""),
    "items that are not JSON, sealed anew": sealed_anew(lambda lines: lines.replace("{", "<")),
    "items that are lists, sealed anew": sealed_anew(lambda lines: "[]\n" * len(lines.splitlines())),
    "items too deep, sealed anew": sealed_anew(lambda lines: lines.replace("[", "[" * 100_000)),
    "a column too few, sealed anew": sealed_anew(lambda lines: "".join(lines.splitlines(True)[:-1])),
    "a name too few, sealed anew": sealed_anew(lambda lines: lines.replace('["', '[3], "x": ["', 1)),
    "lengths that are texts, sealed anew": sealed_anew(lambda lines: re.sub(r"\d\.\d+", '"long"', lines)),
    "items not UTF-8": file(1, lambda path: path.write_bytes(b"\xff" + path.read_bytes())),
    "items missing": file(1, os.unlink),
    "items a folder": file(1, make_folder),
    "items a pipe": file(1, make_pipe),
    "another folder": told(folder="/etc"),
    "a folder that is a number": told(folder=3),
    "pictures that are a text": told(pictures="x"),
    "a huge number of pictures": told(pictures=10**40),
    "depends_on a list": told(depends_on=[1]),
    "another type": told(dtype="fp16"),
    "files elsewhere": told(items="../../etc/passwd"),
    "format a text": told(format="2"),
    "meta a list": file(2, lambda path: path.write_text("[1]")),
    "meta cut": file(2, lambda path: os.truncate(path, 20)),
    "meta empty": file(2, lambda path: os.truncate(path, 0)),
    "meta not UTF-8": file(2, lambda path: path.write_bytes(b"\xff\xfe")),
    "meta too deep": file(2, lambda path: path.write_text("[" * 100_000)),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_what_is_not_as_it_was_written_is_refused_and_written_anew(damage, written, pictures, capsys):
    damage(*files_of(written))
    with pytest.raises(InputError, match="writes the index anew") as refused:
        open_index(written, DEPENDS_ON)
    assert "\n" not in str(refused.value)
    changes = write_index(written, gallery_of(pictures), DEPENDS_ON, half=False)
    assert changes.added + changes.kept == PICTURES
    assert_same(open_index(written, DEPENDS_ON), gallery_of(pictures))
    assert len(capsys.readouterr().err.splitlines()) <= 1


@pytest.mark.parametrize("half", [False, True])
def test_every_mutated_byte_is_noticed(half, pictures, tmp_path):
    draws = random.Random(0)
    write_index(tmp_path / "index", gallery_of(pictures), DEPENDS_ON, half)
    expected = open_index(tmp_path / "index", DEPENDS_ON)
    refused = 0
    for number in range(200):
        path = draws.choice(files_of(shutil.copytree(tmp_path / "index", tmp_path / str(number))))
        content = bytearray(path.read_bytes())
        content[draws.randrange(len(content))] = draws.randrange(256)
        path.write_bytes(content)
        try:
            assert_same(open_index(path.parent, DEPENDS_ON), expected)
        except InputError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 100


def test_meta_of_another_program_is_not_replaced(pictures, tmp_path):
    (tmp_path / "meta.json").write_text('{"collections": {}}')
    with pytest.raises(InputError, match=r"meta.json: is not an index's of any version; name another folder"):
        write_index(tmp_path, gallery_of(pictures), DEPENDS_ON, half=False)
    assert list(tmp_path.iterdir()) == [tmp_path / "meta.json"]


@pytest.mark.parametrize(("number", "version"), [(1, ""), (2, "0" * 32 + ".")])
def test_an_index_of_an_older_format_is_written_anew(number, version, pictures, tmp_path, capsys):
    np.save(tmp_path / f"features.{version}npy", np.zeros((2, DIM), np.float32))
    (tmp_path / f"items.{version}jsonl").write_text("{}\n{}\n")
    meta = {"format": number, "pictures": 2, "folder": "/", "depends_on": DEPENDS_ON, "items_sha256": ""}
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(InputError, match="is of another version; --pictures FOLDER --index FOLDER writes the index"):
        open_index(tmp_path, DEPENDS_ON)
    write_index(tmp_path, gallery_of(pictures), DEPENDS_ON, half=False)
    assert "is of another version" in capsys.readouterr().err
    assert sorted(map(str, tmp_path.iterdir())) == sorted(map(str, files_of(tmp_path)))


def test_files_of_somebody_elses_stay(written, pictures):
    own = [written / name for name in ("features.npy", "items.jsonl", ".features.notes.2024", ".items.2024")]
    for path in own:
        path.write_text("mine")
    write_index(written, gallery_of(pictures), DEPENDS_ON, half=False)
    assert [path.read_text() for path in own] == 4 * ["mine"]


@pytest.mark.parametrize("value", [0, float("nan"), float("inf")])
def test_features_that_nothing_compares_with_are_never_written(value, written, pictures):
    broken = gallery_of(pictures)
    broken.features[7] = value
    with pytest.raises(InputError, match=r"^007.png: features that are zero or not finite"):
        write_index(written, broken, DEPENDS_ON, half=False)
    assert_same(open_index(written, DEPENDS_ON), gallery_of(pictures))
    assert len(list(written.iterdir())) == 3


# ---- what an update says ----


def test_an_update_says_what_it_changes(written, pictures, tmp_path):
    own = shutil.copytree(pictures, tmp_path / "own")
    (own / "005.png").write_bytes(b"other")
    changes = write_index(written, gallery_of(own, range(3, PICTURES + 1)), DEPENDS_ON, half=False)
    assert changes == Changes(added=1, changed=1, kept=PICTURES - 4, removed=3)
    assert str(changes) == "1 added, 1 changed, 36 kept, 3 removed"


def test_more_than_half_gone_is_meant_or_refused(written, pictures):
    half, less = (gallery_of(pictures, range(number)) for number in (PICTURES // 2, PICTURES // 2 - 1))
    with pytest.raises(InputError, match=r"21 of its 40 pictures are gone or cannot be read; .*--remove-missing"):
        write_index(written, less, DEPENDS_ON, half=False)
    assert_same(open_index(written, DEPENDS_ON), gallery_of(pictures))
    assert write_index(written, half, DEPENDS_ON, half=False).removed == 20
    assert write_index(written, gallery_of(pictures), DEPENDS_ON, half=False).added == 20
    assert write_index(written, less, DEPENDS_ON, half=False, remove_missing=True).removed == 21


# ---- processes ----


def forked(work):
    """Start a process that does `work`; its status is 2 where that is refused, 1 where it fails otherwise."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        work()
        status = 0
    except (InputError, OSError) as error:
        status = 2 if isinstance(error, InputError) or error.filename else 1
    finally:
        os._exit(status)


def status_of(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def write_for_ever(folder, galleries):
    while True:
        for gallery in galleries:
            write_index(folder, gallery, DEPENDS_ON, half=False)


def two_of(pictures):
    """Return two galleries of as many pictures, which differ in a name and in each feature."""
    return gallery_of(pictures), gallery_of(pictures, range(1, PICTURES + 1), seed=1)


@pytest.mark.slow
def test_killed_at_any_moment_it_is_the_old_or_the_new_one(written, pictures):
    draws, seen, longest = random.Random(0), [], 0.05
    for _ in range(200):
        pid = forked(lambda: write_for_ever(written, two_of(pictures)))
        time.sleep(draws.random() * longest)
        os.kill(pid, signal.SIGKILL)
        status_of(pid)
        found = open_index(written, DEPENDS_ON)
        which = int(found.names[0] != "000.png")
        assert_same(found, two_of(pictures)[which])
        seen.append(which)
        longest *= 1 if len(set(seen)) == 2 else 1.05  # a busy machine may not get to a second index in less
    assert len(set(seen)) == 2
    write_index(written, gallery_of(pictures), DEPENDS_ON, half=False)
    assert len(list(written.iterdir())) == 3, "what killed writers left is still there"


@pytest.mark.slow
def test_opened_beside_a_writer_it_is_whole(written, pictures):
    pid = forked(lambda: write_for_ever(written, two_of(pictures)))
    try:
        for _ in range(1000):
            found = open_index(written, DEPENDS_ON)
            assert_same(found, two_of(pictures)[found.names[0] != "000.png"])
    finally:
        os.kill(pid, signal.SIGKILL)
        status_of(pid)


@pytest.mark.slow
def test_two_writers_leave_one_index(pictures, tmp_path):
    for number in range(50):
        folder, both = tmp_path / str(number), two_of(pictures)
        writers = [forked(lambda one=one, folder=folder: write_index(folder, one, DEPENDS_ON, False)) for one in both]
        statuses = [status_of(pid) for pid in writers]
        assert 0 in statuses
        assert set(statuses) <= {0, 2}
        found = open_index(folder, DEPENDS_ON)
        assert_same(found, both[found.names[0] != "000.png"])
        assert len(list(folder.iterdir())) == 3


def begin(folder):
    with updating(folder, DEPENDS_ON):
        pass


def test_a_second_writer_is_refused_before_it_encodes(written, pictures):
    with updating(written, DEPENDS_ON):
        assert status_of(forked(lambda: begin(written))) == 2
        assert_same(open_index(written, DEPENDS_ON), gallery_of(pictures))
    assert status_of(forked(lambda: begin(written))) == 0


def own(folder):
    with owning(folder):
        pass


def test_nothing_is_left_where_nothing_was_written(tmp_path):
    with pytest.raises(KeyboardInterrupt), updating(tmp_path / "new", DEPENDS_ON):
        raise KeyboardInterrupt
    assert not (tmp_path / "new").exists()


def test_a_lock_whose_file_its_owner_removed_keeps_others_away(tmp_path, monkeypatch):
    """The other process may have opened the file before it was removed, and lock it then."""
    fcntl = pytest.importorskip("fcntl")
    lock, locks = fcntl.lockf, []

    def late(descriptor, *arguments):
        if not locks:
            (tmp_path / ".lock").unlink()
        locks.append(descriptor)
        lock(descriptor, *arguments)

    monkeypatch.setattr(fcntl, "lockf", late)
    with owning(tmp_path):
        monkeypatch.setattr(fcntl, "lockf", lock)
        assert len(locks) == 2
        assert status_of(forked(lambda: own(tmp_path))) == 2


@pytest.mark.parametrize("limit", [0, 100, 700, 1400])
def test_a_full_disk_leaves_the_old_one(limit, written, pictures):
    def work():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        write_index(written, two_of(pictures)[1], DEPENDS_ON, half=False)

    assert status_of(forked(work)) == 2
    assert_same(open_index(written, DEPENDS_ON), gallery_of(pictures))
    assert len(list(written.iterdir())) == 3


def test_files_that_were_replaced_are_looked_for_again(written, pictures, monkeypatch):
    """A reader that has read meta.json when a writer replaces everything."""
    read, news = index.read_meta, [gallery_of(pictures, seed=1)]

    def late(*arguments):
        meta = read(*arguments)
        if news:
            new = news.pop()
            write_index(written, new, DEPENDS_ON, half=False)
        return meta

    monkeypatch.setattr(index, "read_meta", late)
    assert_same(open_index(written, DEPENDS_ON), gallery_of(pictures, seed=1))


def test_what_was_open_stays_what_it_was(written, pictures):
    found = open_index(written, DEPENDS_ON)
    write_index(written, two_of(pictures)[1], DEPENDS_ON, half=False)
    assert_same(found, gallery_of(pictures))
