"""Files that are none, disks that fail, folders that nobody may read, and pictures that are deleted meanwhile."""

import json
import os
import re
import shutil
import socket
import tempfile
from pathlib import Path

import PIL.Image
import pytest

import check_data
import demo
import search
import validate
from src.base.errors import InputError, StorageError
from src.base.folders import pictures_below
from src.base.reading import file_digest, open_regular, read_json, read_text
from src.pictures.kinds import look_at
from src.pictures.opening import opened
from src.pictures.presence import require_present
from src.pictures.skipping import Skipping
from src.pictures.trying import unusable
from src.retrieval import picture_folder
from src.tasks.triplets import Split
from tests.support.commands import status_of, toy_options
from tests.support.odd_pictures import RGB, TURNED, saved
from tests.support.processes import assert_one_line, python
from tests.support.splits import read_cirr

FAILING = Path("/proc/self/mem")
"""A regular file that is opened, and whose first byte cannot be read: EIO."""
on_linux = pytest.mark.skipif(not FAILING.exists(), reason="needs Linux' /proc")
as_root = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root, to be somebody else")


def a_split(path):
    """Make a split of one picture."""
    return Split("val", path.parent / "triplets.val.csv", [], {path.name: path})


def nothing(image):
    image.load()


def fail(path):
    """Let reads of `path` fail as a disk's do."""
    path.unlink(missing_ok=True)
    path.symlink_to(FAILING)


def put_socket(path):
    here = Path.cwd()
    os.chdir(path.parent)  # the whole path may be longer than a socket's name can be
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(here)


NO_FILES = {
    "FIFO": os.mkfifo,
    "socket": put_socket,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "terminal": lambda path: path.symlink_to("/dev/tty"),
    "folder": os.mkdir,
}


@pytest.mark.parametrize("kind", NO_FILES)
def test_only_regular_files_are_opened(kind, tmp_path):
    """Each of these would hang, were it opened plainly, or never end."""
    path = tmp_path / "x.png"
    NO_FILES[kind](path)
    for read in (open_regular, file_digest):
        with pytest.raises(OSError, match=r"Is a \w+, not a file"):
            read(path)
    for read in (read_text, lambda path: read_json(path, dict)):
        with pytest.raises(InputError, match=rf"^{path}: Is a \w+, not a file$"):
            read(path)
    with pytest.raises(InputError, match=rf"^{path}: cannot be read as a picture \(Is a \w+, not a file\)$"):
        opened(path, nothing)
    assert look_at(path).kinds == (("missing",) if kind == "folder" else ("unreadable",))
    with pytest.raises(InputError, match="no such picture" if kind == "folder" else "cannot be opened"):
        require_present([a_split(path)])


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("search", ["--pictures", "P", "--caption", "red", "--queries", "F"], "is a FIFO, not a file"),
        ("search", ["--pictures", "P", "--caption", "red", "--clip-model-path", "F"], "is a FIFO, not a file"),
        ("search", ["--pictures", "P", "--reference", "F"], "neither a file nor a picture"),
        ("validate", ["--dataset", "CIRR", "--data-path", "D"], "Is a FIFO, not a file"),
        ("check_data", ["--dataset", "CIRR", "--data-path", "D"], "Is a FIFO, not a file"),
        ("compare", ["F", "F"], "FIFO, not a file"),
        ("check_submission", ["F"], "is a FIFO, not a file"),
        ("report", ["--run-folder", "R"], "not a run folder"),
    ],
)
def test_no_command_waits_for_a_pipe(name, arguments, said, forks, world, tmp_path):
    places = {"P": world / "my_pictures", "F": tmp_path / "F", "D": tmp_path, "R": tmp_path / "run"}
    os.mkfifo(places["F"])
    places["R"].mkdir()
    os.mkfifo(places["R"] / "training_hyperparameters.json")
    shutil.copytree(world / "cirr_dataset", tmp_path / "cirr_dataset")
    captions = tmp_path / "cirr_dataset" / "cirr" / "captions" / "cap.rc2.val.json"
    captions.unlink()
    os.mkfifo(captions)
    done = forks.done(name, [places.get(part, part) for part in arguments])
    assert done.returncode == 2, done.stderr
    assert said in done.stderr.splitlines()[-1]


@pytest.fixture
def folder(world, tmp_path):
    """Copy the toy world's own pictures, without its lists."""
    shutil.copytree(world / "my_pictures", tmp_path / "own", ignore=shutil.ignore_patterns("*.txt", "triplets.*"))
    return tmp_path / "own"


@pytest.fixture
def options(world, tmp_path):
    return ["--output-path", tmp_path, "--clip-model-name", world / "small_clip.pt", "--num-workers", "0"]


@pytest.mark.parametrize("workers", ["0", "2"])
@pytest.mark.workers
def test_pipes_and_sockets_among_pictures_are_named_and_left_out(workers, forks, folder, options):
    os.mkfifo(folder / "pipe.png")
    put_socket(folder / "socket.jpg")
    (folder / "loop.png").symlink_to(folder / "loop.png")
    done = forks.done("search", ["--pictures", folder, "--caption", "red", *options, "--num-workers", workers])
    assert done.returncode == 0, done.stderr
    assert (
        "loop.png (Too many levels of symbolic links), pipe.png (Is a FIFO, not a file), socket.jpg (Is a s"
        in done.stderr
    )


# ---- storage that fails ----


@on_linux
@pytest.mark.workers
def test_a_failing_disk_is_no_broken_picture(folder, world, broken_world, tmp_path):
    whole = read_cirr(broken_world, "val")
    picture = whole.pictures[whole.triplets[0].reference]
    fail(picture)
    for use in (
        lambda: opened(picture, nothing),
        lambda: unusable([picture], nothing, 0),
        lambda: look_at(picture),
        lambda: require_present([a_split(picture)]),
        lambda: Skipping(True).usable(whole, nothing),
        lambda: Skipping(True, num_workers=1).usable(whole, nothing),
    ):
        with pytest.raises(StorageError) as raised:
            use()
        assert str(raised.value).strip().endswith(f"{picture}: Input/output error")


@on_linux
@pytest.mark.parametrize("workers", ["0", "1"])
@pytest.mark.workers
def test_a_failing_disk_stops_commands_with_its_own_words(workers, forks, folder, options, broken_world):
    fail(folder / "x.png")
    read = read_cirr(broken_world, "val")
    data = read.pictures[read.triplets[0].reference]
    fail(data)
    options = [*options, "--num-workers", workers]
    judging = ["--dataset", "CIRR", "--data-path", broken_world, *options]
    for command, arguments, path in (
        ("search", ["--pictures", folder, "--caption", "red", *options], folder / "x.png"),
        ("validate", judging, data),
        ("validate", [*judging, "--skip-missing"], data),
        ("check_data", [*judging[:4], "--num-workers", workers], data),
    ):
        done = forks.done(command, arguments)
        assert_one_line(done, f"error: {path}: Input/output error")
        assert "left out" not in done.stderr


@pytest.mark.parametrize("number", ["EIO", "ESTALE", "ETIMEDOUT", "ENOTCONN", "EMFILE", "EHOSTDOWN"])
@pytest.mark.parametrize("moment", ["open", "read", "stat", "list"])
def test_whatever_the_storage_says(number, moment, folder, options, monkeypatch, capsys):
    """Neither when a folder is listed nor when a picture is looked at, opened or read is a fault of it a picture's."""
    import errno

    fault, victim = getattr(errno, number), folder / "dress"
    victim = victim if moment == "list" else min(victim.iterdir())

    def failing(original):
        def call(path, *arguments, **how):
            if str(path) in (str(victim), f"{victim}/"):
                raise OSError(fault, os.strerror(fault), str(path))
            return original(path, *arguments, **how)

        return call

    if moment == "read":
        monkeypatch.setattr(
            "src.base.reading.RegularFile.readinto",
            lambda file, _: file._naming(lambda: (_ for _ in ()).throw(OSError(fault, os.strerror(fault)))),
        )
    else:
        place = {"open": "open", "stat": "stat", "list": "scandir"}[moment]
        monkeypatch.setattr(os, place, failing(getattr(os, place)))
    assert status_of(search.main, ["--pictures", folder, "--caption", "red", *options]) == 2
    said = capsys.readouterr().err
    assert said.splitlines()[-1].startswith(f"error: {victim}")
    assert said.splitlines()[-1].endswith(f": {os.strerror(fault)}")
    assert "left out" not in said


# ---- folders ----

AS_NOBODY = """
import os, sys
from pathlib import Path
from src.base.folders import pictures_below
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
left_out = {}
print(list(pictures_below(Path(sys.argv[1]), left_out)), left_out)
try:
    pictures_below(Path(sys.argv[1]))
except PermissionError as error:
    print(error.filename)
"""


@as_root
def test_an_unreadable_subfolder_is_left_out_where_that_is_asked():
    """A search goes on without lost+found; a gallery that results are made of never shrinks by itself."""
    with tempfile.TemporaryDirectory() as made:  # pytest's own lie in folders that others may not enter
        folder = Path(made)
        for name in ("a/x.png", "lost+found/y.png", "z.png"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(saved(RGB, "PNG"))
        folder.chmod(0o755)
        (folder / "lost+found").chmod(0)
        listed, refused = python("-c", AS_NOBODY, folder).stdout.splitlines()
    assert listed == "['a/x.png', 'z.png'] {'lost+found/': 'Permission denied'}"
    assert refused.rstrip("/") == str(folder / "lost+found")


def test_search_names_a_folder_that_it_leaves_out(folder, options, monkeypatch, capsys):
    original = os.scandir

    def refusing(path):
        if Path(path).name == "dress":
            raise PermissionError(13, "Permission denied", str(path))
        return original(path)

    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", refusing)
        assert status_of(search.main, ["--pictures", folder, "--caption", "red", *options]) == 0
    said = capsys.readouterr()
    assert said.err.count("1 of the folders may not be looked into and is left out: dress/ (Permission denied)") == 1
    assert "dress/" not in said.out


LEFT_OUT = ("@eaDir/x.png/SYNOPHOTO_THUMB_M.jpg", "__MACOSX/._x.png", "$RECYCLE.BIN/a.jpg", ".Trash-1000/files/b.png")


def test_what_is_no_picture_is_counted(folder, options, monkeypatch, capsys):
    for name in (*LEFT_OUT, "sub/#recycle/c.png", "raw/d.CR2", "raw/e.cr2", "f.mov", ".g.jpg", "prices.csv", "h.tga"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(saved(RGB, "TGA" if name == "h.tga" else "PNG"))
    (folder / "other").symlink_to(folder / "dress")
    assert status_of(search.main, ["--pictures", folder, "--caption", "red", "-k", "50", *options]) == 0
    said = capsys.readouterr()
    assert f"{folder}: not looked at, for their suffixes: 4 files (.cr2 2, .mov 1, hidden .jpg 1)" in said.err
    (line,) = (line for line in said.err.splitlines() if "left out" in line)
    assert line.startswith(f"{folder}: left out: 6 folders of thumbnails, bins and the like: ")
    assert {"@eaDir/", "__MACOSX/", "$RECYCLE.BIN/", ".Trash-1000/", "sub/#recycle/", "other/ (a link)"} == set(
        line.split(": ")[-1].split(", ")
    )
    assert "h.tga" in said.out
    assert len(said.out.splitlines()) == 1 + len(pictures_below(folder)) == 1 + 17 + 1


@pytest.mark.parametrize("command", [search, demo])
def test_a_folder_of_other_files_says_what_they_are(command, options, tmp_path, capsys):
    for name in ("a.NEF", "b.nef", "c"):
        (tmp_path / "raw" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "raw" / name).write_bytes(b"x")
    caption = ["--caption", "red"] if command is search else []
    assert status_of(command.main, ["--pictures", tmp_path / "raw", *caption, *options]) == 2
    said = "holds no pictures, at no depth; not looked at, for their suffixes: 3 files (.nef 2, without suffix 1)"
    assert said in capsys.readouterr().err


# ---- pictures that are deleted ----


def then_deleting(path, function):
    """Return `function`, after which the file at `path` is gone."""

    def deleting(*arguments):
        found = function(*arguments)
        path.unlink()
        return found

    return deleting


def test_a_picture_deleted_before_it_is_used_is_left_out(folder, options, monkeypatch, capsys):
    gone = min((folder / "dress").iterdir())
    monkeypatch.setattr(picture_folder, "pictures_below", then_deleting(gone, pictures_below))
    assert status_of(search.main, ["--pictures", folder, "--caption", "red", *options]) == 0
    name = gone.relative_to(folder)
    said = capsys.readouterr()
    assert f"1 of 17 pictures cannot be read and is left out: {name} (No such file or directory)" in said.err
    assert str(name) not in said.out


def test_a_picture_deleted_after_it_was_encoded_is_left_out(folder, options, monkeypatch, tmp_path, capsys):
    gone = min((folder / "dress").iterdir())
    monkeypatch.setattr(picture_folder, "collect", then_deleting(gone, picture_folder.collect))
    asked = ["--pictures", folder, "--caption", "red", "--index", tmp_path / "index", *options]
    assert status_of(search.main, asked) == 0
    said = capsys.readouterr().err
    assert f"1 of 17 pictures were deleted meanwhile and are left out: {gone.relative_to(folder)} (No such" in said
    assert "an index of 16 pictures" in said
    (items,) = (tmp_path / "index").glob("items.*.jsonl")
    names, *_ = map(json.loads, items.read_text().splitlines())
    assert len(names["name"]) == 16


def test_a_page_is_written_without_a_picture_that_is_gone(folder, options, tmp_path, capsys):
    index = ["--index", tmp_path / "index", "--caption", "red", "-k", "50", *options]
    assert status_of(search.main, ["--pictures", folder, *index]) == 0
    gone = min((folder / "dress").iterdir())
    gone.unlink()
    capsys.readouterr()
    assert status_of(search.main, [*index, "--page", tmp_path / "a.html"]) == 0
    assert f"1 pictures cannot be shown: {gone} (No such file or directory)" in capsys.readouterr().err
    page = (tmp_path / "a.html").read_text()
    assert page.count("<figure>") == 17
    assert page.count('"data:image/jpeg;base64,') == 16


SCRIPTS = {'<script type="application/json" id="pictures">', "<script>"}
"""All that a page of answers has."""


# ---- formats ----

FORMATS = "JPEG", "MPO", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "JPEG2000", "AVIF", "ICO", "TGA"


@pytest.mark.parametrize("form", FORMATS)
def test_formats_that_are_read(form, tmp_path):
    PIL.Image.init()
    if form not in PIL.Image.SAVE:
        pytest.skip(f"this Pillow has no {form}")
    more = {"save_all": True, "append_images": [RGB]} if form == "MPO" else {}
    # Whatever it is called, but for what has no mark of its format.
    name = "x.TGA" if form == "TGA" else "x.png"
    more |= {"sizes": [RGB.size]} if form == "ICO" else {}
    (tmp_path / name).write_bytes(saved(RGB, form, **more))
    assert opened(tmp_path / name, lambda image: image.convert("RGB")).size == RGB.size


def test_postscript_never_reaches_ghostscript(tmp_path):
    """Whatever it is called, also where there is a gs, which would run the file."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    (tmp_path / "bin" / "gs").chmod(0o755)
    (tmp_path / "x.png").write_bytes(saved(RGB, "EPS"))
    script = (
        "import sys, pathlib\nfrom src.pictures.opening import opened\nfrom src.pictures.kinds import look_at\n"
        "path = pathlib.Path(sys.argv[1])\nprint(look_at(path).fault)\nopened(path, lambda image: image.load())"
    )
    env = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    done = python("-c", script, tmp_path / "x.png", check=False, env=env)
    assert "it is a PostScript file" in done.stdout
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("suffix", "form"),
    [(".jfif", "JPEG"), (".jpe", "JPEG"), (".pnm", "PPM"), (".APNG", "PNG"), (".tga", "TGA"), (".ico", "ICO")],
)
def test_rarer_suffixes_are_pictures(suffix, form, tmp_path):
    (tmp_path / f"x{suffix}").write_bytes(saved(RGB, form))
    ((name, path),) = pictures_below(tmp_path).items()
    assert name == f"x{suffix}"
    require_present([a_split(path)])
    assert look_at(path).kinds == ()


def test_what_is_called_tga_is_read_as_what_it_is(tmp_path):
    (tmp_path / "x.tga").write_bytes(saved(RGB, "PNG"))
    assert opened(tmp_path / "x.tga", lambda image: image.format) == "PNG"


HEIF = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40)
STAND_IN = """
import PIL.Image

class Heif(PIL.Image.Image):
    format = "HEIF"

def register_heif_opener():
    PIL.Image.register_open("HEIF", lambda file, name: PIL.Image.new("RGB", (3, 4)), lambda head: head[4:8] == b"ftyp")
"""


def test_heif_needs_its_library(tmp_path):
    """Without pillow-heif a line says what it is; with it, it is read."""
    (tmp_path / "x.heic").write_bytes(HEIF)
    (tmp_path / "with").mkdir()
    (tmp_path / "with" / "pillow_heif.py").write_text(STAND_IN)
    (tmp_path / "without").mkdir()
    (tmp_path / "without" / "pillow_heif.py").write_text("raise ImportError")
    script = (
        "import sys, pathlib\nsys.path.insert(0, sys.argv[2])\nfrom src.pictures.opening import opened\n"
        "try:\n    print(opened(pathlib.Path(sys.argv[1]), lambda image: image.size))\n"
        "except ValueError as error:\n    print(error)"
    )
    said = {which: python("-c", script, tmp_path / "x.heic", tmp_path / which).stdout for which in ("with", "without")}
    assert said["with"] == "(3, 4)\n"
    assert "it is a HEIF picture, which pillow-heif reads (pip install pillow-heif)" in said["without"]
    assert list(pictures_below(tmp_path)) == ["x.heic"]


# ---- names ----

NAMES = [
    b"caf\xe9.png",
    b"two\nlines.png",
    b"tab\t.png",
    b"\x1b[31mred.png",
    b'<script>"quotes"\',;.png',
    b"%41|=1+1.png",
    "\u202eright.png".encode(),
]


@pytest.mark.parametrize("name", NAMES)
def test_any_name_works_where_a_path_can_be_kept(name, folder, options, tmp_path, capsys):
    name = os.fsdecode(name)
    (folder / name).write_bytes(saved(RGB, "PNG"))
    (folder / f"broken {name}").write_bytes(b"no picture")
    (folder / "link.png").symlink_to(f"nowhere {name}")
    outputs = ["--json", tmp_path / "a.json", "--csv", tmp_path / "a.csv", "--page", tmp_path / "a.html"]
    asked = ["--reference", folder / name, "--include-reference", "-k", "50", *options]
    for where in (["--pictures", folder, "--index", tmp_path / "index"], ["--index", tmp_path / "index"]):
        assert status_of(search.main, [*where, *asked, *outputs]) == 0
        said = capsys.readouterr()
        assert not set("\x1b\t\u202e") & set(said.out + said.err)
        (answered,) = read_json(tmp_path / "a.json", list)
        assert answered["answers"][0]["name"] == name
        assert [answered["answers"][0]["path"], answered["reference"]] == [str(folder / name)] * 2
        page = (tmp_path / "a.html").read_text(encoding="utf-8")
        assert set(re.findall(r"<script[^>]*>", page)) <= SCRIPTS
    # What cannot be read is named in one line.
    assert status_of(search.main, ["--pictures", folder, "--reference", folder / f"broken {name}", *options]) == 2
    said = capsys.readouterr().err
    assert said.splitlines()[-1].startswith(f"error: {folder}/broken ")
    assert not set("\x1b\t\u202e") & set(said)


def test_check_data_and_validation_take_any_name(world, tmp_path, capsys):
    shutil.copytree(world / "my_pictures", tmp_path / "own")
    (tmp_path / "own" / "gallery.val.txt").unlink()
    for name in NAMES:
        (tmp_path / "own" / os.fsdecode(name)).write_bytes(saved(RGB, "JPEG", exif=TURNED))
    outputs = ["--per-query", tmp_path / "p.csv", "--trec-run", tmp_path / "run.txt"]
    own = ["--dataset", tmp_path / "own"]
    assert status_of(validate.main, [*own, *toy_options(world, tmp_path), *outputs]) == 0
    assert status_of(check_data.main, [*own, "--output", tmp_path / "a.json", "--num-workers", "0"]) == 0
    said = capsys.readouterr()
    assert "caf\\udce9.png" in said.out
    assert not set("\x1b\t\u202e") & set(said.out)
    assert not any(part in said.err for part in ("\x1b[31m", "\t", "\u202e"))
    for path in (tmp_path / "p.csv", tmp_path / "run.txt", tmp_path / "a.json"):
        path.read_bytes().decode()


def test_the_demo_is_ready_in_spite_of_pipes_and_names(folder, options, monkeypatch):
    os.mkfifo(folder / "pipe.png")
    (folder / os.fsdecode(NAMES[0])).write_bytes(saved(RGB, "PNG"))
    parsed = demo.parse_judging(
        demo.make_parser(), demo.FUNCTIONS, [str(part) for part in ("--pictures", folder, *options)]
    )
    engine = demo.load_engine(demo.settings(parsed), parsed.pictures, parsed.k, parsed.precision)
    engine.encode()
    assert engine.remarks == ["1 of the pictures cannot be read and is left out: pipe.png (Is a FIFO, not a file)"]
    assert len(engine.names) == 18
