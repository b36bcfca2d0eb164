"""Files of weights: nothing in them runs, and what they give is what was written."""

import importlib.util
import io
import os
import pickle
import random
import shutil
import struct
import sys
import warnings
import zipfile
import zlib
from collections import OrderedDict

import pytest
import torch
from torch import nn

import clip_fine_tune
import validate
from src.base.errors import InputError
from src.models import archive as archives
from src.models import openai_clip
from src.models.checkpoints import write_checkpoint
from src.models.facts import read_facts
from src.models.openai_clip import random_clip
from src.models.registry import load_backbone
from src.models.weights import read_content, read_state_dict, read_weights
from src.training.resuming import read_state
from src.training.state import STATE_FILE
from tests.support.commands import status_of, toy_options
from tests.support.open_clips import write_open_clip
from tests.support.zips import data_of, entries_of, mutated, write_zip

SIZES = {"vit": (8, 16, 1, 64, 8, 8, 16, 64, 1, 1), "resnet": (8, 64, (1, 1, 1, 1), 64, None, 8, 16, 64, 1, 1)}
FORMS = {"zip": {}, "legacy": {"_use_new_zipfile_serialization": False}}


def assert_equal(found, expected):
    """Compare two contents to the bit: nested dicts and lists of tensors and plain values."""
    assert type(found) is type(expected)
    if isinstance(expected, torch.Tensor):
        assert (found.dtype, found.shape, found.stride()) == (expected.dtype, expected.shape, expected.stride())
        assert torch.equal(found, expected)
    elif isinstance(expected, dict):
        assert list(found) == list(expected)
        for key, value in expected.items():
            assert_equal(found[key], value)
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_equal(one, other)
    else:
        assert found == expected


def refused(read, path):
    """Return the line with which reading a file ends."""
    with pytest.raises(InputError) as raised:
        read(path)
    (line,) = str(raised.value).splitlines()
    assert line.startswith(f"{path}: ")
    return line


# ---- TorchScript, whose code never runs ----


def traced_clip(kind, path):
    """Write a small CLIP as OpenAI publish theirs: traced, in fp16, with its sizes as buffers."""
    resolution, context = SIZES[kind][1], SIZES[kind][5]
    model = random_clip(*SIZES[kind]).eval().requires_grad_(False)
    for name, size in (("input_resolution", resolution), ("context_length", context), ("vocab_size", 16)):
        vars(model).pop(name, None)
        model.register_buffer(name, torch.tensor(size))
    inputs = torch.zeros(1, 3, resolution, resolution), torch.zeros(1, context, dtype=torch.long)
    torch.jit.trace(model, inputs).half().save(str(path))
    return path


class Inner(nn.Module):
    """A module with all that a state dict may and may not name."""

    def __init__(self, shared: nn.Parameter):
        super().__init__()
        self.shared = shared
        self.linear = nn.Linear(3, 2, bias=False)
        self.register_buffer("kept", torch.arange(6).view(2, 3).T)
        self.register_buffer("not_kept", torch.ones(2), persistent=False)
        self.register_buffer("absent", None)
        self.plain = torch.full((2,), -1.0)
        self.names = {"a": [1, 2], "b": [3]}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x) + self.plain + self.kept.sum() + self.not_kept


class Outer(nn.Module):
    """Containers of modules, some of which stand in two places."""

    def __init__(self):
        super().__init__()
        # A view: with strides and an offset into values that another weight also uses.
        values = torch.randn(4, 5)
        self.whole = nn.Parameter(values)
        self.part = nn.Parameter(values[1:3, 2:].T)
        inner = Inner(self.part)
        self.list = nn.ModuleList([inner, Inner(self.whole)])
        self.again = inner
        self.named = nn.ModuleDict({"one": nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)), "two": nn.Identity()})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for module in self.list:
            x = module(x).repeat(1, 2)[:, :3]
        return self.again(x)


@pytest.mark.filterwarnings("ignore")  # torch says in several ways that TorchScript is deprecated
@pytest.mark.parametrize("kind", ["vit", "resnet", "containers", "half"])
def test_torchscript_gives_what_torch_would(kind, tmp_path):
    path = tmp_path / "archive.pt"
    if kind in SIZES:
        traced_clip(kind, path)
    else:
        scripted = torch.jit.script(Outer())
        (scripted.half() if kind == "half" else scripted).save(str(path))
    expected = dict(torch.jit.load(path).state_dict())
    assert len(expected) > 20 if kind in SIZES else len(expected) > 10
    assert_equal(read_content(path), expected)
    assert read_facts(path) == {}


ACTS = """
import torch
from typing import Tuple

class Acts(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("w", torch.zeros(1))

    @torch.jit.export
    def __getstate__(self):
        return (self.w, self.training)

    @torch.jit.export
    def __setstate__(self, state: Tuple[torch.Tensor, bool]) -> None:
        BODY
        self.training = state[1]

    def forward(self, x):
        return x

class Holds(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = Acts()

    def forward(self, x):
        return self.inner(x)
"""
BODIES = {
    "writes": "self.w = torch.from_file(TARGET, True, 9, dtype=torch.uint8).fill_(42).float()",
    "never ends": "n = 0\n        while True:\n            n += 1\n        self.w = state[0]",
}


def write_acting(path, body, target, name="Acts"):
    """Write an archive that acts when torch.jit.load loads it."""
    source = path.with_suffix(".py")
    source.write_text(ACTS.replace("BODY", BODIES[body].replace("TARGET", repr(str(target)))))
    # torch reads the source of a class from its module's file.
    spec = importlib.util.spec_from_file_location(path.stem, source)
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        torch.jit.save(torch.jit.script(getattr(module, name)()), path)
    finally:
        del sys.modules[path.stem]
    return path


def open_clip_name(path):
    return f"open_clip:ViT-B-32-quickgelu:{path}"


def open_clip_folder(path):
    name = write_open_clip(path.parent / "folder", "openai")
    shutil.copy(path, path.parent / "folder" / "open_clip_pytorch_model.bin")
    return name


def hugging_face_folder(path):
    (path.parent / "clip").mkdir()
    return shutil.copy(path, path.parent / "clip" / "pytorch_model.bin")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("name", ["Acts", "Holds"])
def test_an_archive_that_acts_is_refused_by_every_option(body, name, world, tmp_path, capsys):
    target = tmp_path / "target"
    target.write_bytes(b"untouched")
    path = write_acting(tmp_path / "acts.pt", body, target, name)
    options = ["--data-path", world, "--output-path", tmp_path, "--dataset", "CIRR"]
    for given in (
        ["--clip-model-name", path],
        ["--clip-model-name", open_clip_name(path)],
        ["--clip-model-name", open_clip_folder(path)],
        ["--clip-model-name", hugging_face_folder(path)],
        ["--clip-model-path", path, "--clip-model-name", world / "small_clip.pt"],
        ["--combiner-path", path, "--clip-model-name", world / "small_clip.pt"],
    ):
        assert status_of(validate.main, [*options, *given]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "its __torch__.acts.Acts is restored by the file's code, which never runs" in line
    assert target.read_bytes() == b"untouched"


@pytest.fixture
def without_torchs_readers(monkeypatch):
    """Let torch's own readers fail: one runs code, the other compares no checksums."""

    def fail(*_, **__):
        raise AssertionError("a reader of torch was called")

    monkeypatch.setattr(torch.jit, "load", fail)
    monkeypatch.setattr(torch, "load", fail)


@pytest.mark.filterwarnings("ignore")
def test_openais_names_are_read_like_files(tmp_path, monkeypatch, without_torchs_readers):
    path = traced_clip("vit", tmp_path / "ViT-B-32.pt")
    asked = []
    monkeypatch.setattr(openai_clip.clip.clip, "_download", lambda url, root: asked.append(url) or str(path))
    found = load_backbone("ViT-B/32").model.state_dict()
    weights = read_weights(path, "CLIP")
    assert asked == [openai_clip.clip.clip._MODELS["ViT-B/32"]]
    assert all(torch.equal(found[name], weights[name].float()) for name in weights)


def test_no_option_reaches_torchs_readers(world, small_clip, tmp_path, without_torchs_readers):
    for name in (world / "small_clip.pt", write_open_clip(tmp_path / "folder", "openai")):
        assert load_backbone(str(name)).dimension == 64
    small_clip.load_over(world / "small_clip.pt")


def test_a_tokenizers_code_does_not_run(tmp_path):
    name = write_open_clip(
        tmp_path / "folder", "openai", text={"hf_tokenizer_name": "x", "tokenizer_kwargs": {"trust_remote_code": True}}
    )
    folder = tmp_path / "folder"
    (folder / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "Mine", "auto_map": {"AutoTokenizer": ["mine.Mine", null]}}'
    )
    (folder / "config.json").write_text('{"model_type": "clip"}')
    (folder / "mine.py").write_text(f"open({str(tmp_path / 'touched')!r}, 'w')\nclass Mine: pass\n")
    with pytest.raises(InputError):
        load_backbone(name)
    assert not (tmp_path / "touched").exists()


# ---- a mutated file ----


def checkpoint_of(seed):
    torch.manual_seed(seed)
    model = random_clip(*SIZES["vit"])
    return {"epoch": 3, "CLIP": model.state_dict(), "facts": {"transform": "targetpad", "metrics": {"recall_at1": 2.5}}}


def state_of():
    weights = {"layer.weight": torch.randn(40, 30), "layer.bias": torch.randn(40)}
    optimizer = {
        "state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.randn(40, 30)}},
        "param_groups": [{"lr": 0.1}],
    }
    return {
        "next_epoch": 2,
        "judged": True,
        "triplets": 48,
        "weights": OrderedDict(weights),
        "optimizer": optimizer,
        "scaler": {},
        "random": {
            "torch": torch.get_rng_state(),
            "cuda": None,
            "numpy": ["MT19937", [1, 2], 3],
            "python": (3, (1, 2), None),
        },
        "order": torch.get_rng_state(),
        "draws": (3, (4, 5), None),
        "facts": {"dataset": "CIRR", "seed": 0},
        "run": {
            "rows": {"train_metrics": [{"epoch": 0, "loss": 0.5}], "validation_metrics": []},
            "best": {},
            "experiment": None,
        },
    }


def read_checkpoint(path):
    return read_content(path), read_facts(path)


@pytest.mark.parametrize("kind", ["checkpoint", "state", "TorchScript"])
@pytest.mark.filterwarnings("ignore")
def test_two_hundred_mutations(kind, tmp_path):
    path = tmp_path / STATE_FILE
    if kind == "TorchScript":
        traced_clip("vit", path)
    else:
        write_checkpoint(path, checkpoint_of(0) if kind == "checkpoint" else state_of())
    read = (lambda path: read_state(path.parent)) if kind == "state" else read_checkpoint
    whole, expected, draws = path.read_bytes(), read(path), random.Random(7)
    loaded = 0
    for _ in range(200):
        path.write_bytes(mutated(whole, draws))
        try:
            found = read(path)
        except InputError as error:
            assert str(error).startswith(str(path))
            assert len(str(error).splitlines()) == 1
        else:
            assert_equal(found, expected)
            loaded += 1
    assert loaded < 60  # of what is no value: padding, times, and numbers that nobody needs


def test_each_byte_of_each_value_counts(tmp_path):
    path = tmp_path / "small.pt"
    torch.save({"CLIP": {"a": torch.arange(5.0)}, "facts": {"seed": 1}}, path)
    whole = path.read_bytes()
    for name in ("data.pkl", "data/0"):
        for place in range(*data_of(whole, name)):
            content = bytearray(whole)
            content[place] ^= 1 << place % 8
            path.write_bytes(content)
            assert "the CRC-32 of its entry" in refused(read_content, path)
            if name == "data.pkl":
                refused(read_facts, path)


def test_a_checkpoint_with_flipped_bits_answers_nothing(world, tmp_path, capsys):
    content = bytearray((world / "small_clip.pt").read_bytes())
    begin, end = max(
        (data_of(bytes(content), f"data/{key}") for key in range(6)), key=lambda place: place[1] - place[0]
    )
    for byte in range(begin + 3, min(end, begin + 4096), 4):
        content[byte] ^= 0x02
    (tmp_path / "mutated.pt").write_bytes(content)
    for script, given in (
        (validate, "--clip-model-path"),
        (clip_fine_tune, "--clip-model-path"),
        (validate, "--clip-model-name"),
    ):
        options = ["--dataset", "CIRR", *toy_options(world, tmp_path), given, tmp_path / "mutated.pt"]
        options += ["--batch-size", "16"] if script is clip_fine_tune else []
        assert status_of(script.main, options) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "mutated.pt: cannot be read as weights (it is damaged: the CRC-32 of its entry" in line


# ---- an archive that torch did not write ----


def directory_entries(content):
    """Yield where an archive's directory lists its entries, and where their names begin and end."""
    place = content.index(b"PK\x01\x02")
    while content[place : place + 4] == b"PK\x01\x02":
        name, extra, comment = struct.unpack_from("<3H", content, place + 28)
        yield place, place + 46, place + 46 + name
        place += 46 + name + extra + comment


def names_swapped(content):
    """Swap the names of two storages in the directory alone."""
    content = bytearray(content)
    (_, *one), (_, *two) = (
        entry for entry in directory_entries(content) if content[slice(*entry[1:])].endswith((b"data/0", b"data/1"))
    )
    content[slice(*one)], content[slice(*two)] = content[slice(*two)], content[slice(*one)]
    return content


def overlapping(content):
    """Let the second storage's entry lead to the first one's header."""
    content = bytearray(content)
    one, two = (
        place for place, *name in directory_entries(content) if content[slice(*name)].endswith((b"data/0", b"data/1"))
    )
    content[two + 42 : two + 46] = content[one + 42 : one + 46]
    return content


def longer(content):
    """Let an entry claim more bytes than the file has."""
    content = bytearray(content)
    place, *_ = next(directory_entries(content))
    content[place + 20 : place + 28] = struct.pack("<2L", 2**31, 2**31)
    return content


CHANGES = {
    "names swapped": (names_swapped, "has another header than its directory says"),
    "overlapping": (overlapping, "overlaps another one"),
    "longer than the file": (longer, "longer than the file"),
    "more behind it": (lambda content: content + bytes(100), "is not at its end"),
    "more before it": (lambda content: b"PK\3\4" + content, "its first entry is not at its beginning"),
    "torn": (lambda content: content[:-40], "is not at its end"),
}


@pytest.mark.parametrize(("change", "said"), CHANGES.values(), ids=CHANGES)
def test_an_archive_that_does_not_fit_together(change, said, tmp_path):
    path = tmp_path / "odd.pt"
    torch.save({"CLIP": {"a": torch.zeros(4), "b": torch.ones(4)}}, path)
    path.write_bytes(change(path.read_bytes()))
    for read in (read_content, read_facts):
        assert said in refused(read, path)


@pytest.fixture
def entries(tmp_path):
    """Return the entries of an archive of two tensors."""
    torch.save({"a": torch.zeros(4), "b": torch.ones(4)}, tmp_path / "whole.pt")
    return {name.partition("/")[2]: content for name, content in entries_of(tmp_path / "whole.pt").items()}


@pytest.mark.filterwarnings("ignore")  # zipfile says that a name stands twice
def test_one_name_twice(entries, tmp_path):
    path = write_zip(tmp_path / "twice.pt", entries)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/data/0", bytes(16))
    assert "stands twice" in refused(read_content, path)
    path = write_zip(tmp_path / "two.pt", entries)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("other/data.pkl", entries["data.pkl"])
    assert "stands twice or outside of its folder" in refused(read_content, path)


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
@pytest.mark.parametrize("entry", ["data/0", "data.pkl", "unused"])
def test_a_compressed_entry_is_refused_before_it_is_unpacked(compression, entry, entries, tmp_path, monkeypatch):
    path = write_zip(tmp_path / "bomb.pt", entries)
    with zipfile.ZipFile(path, "a", compression) as archive:
        archive.writestr(f"archive/{entry}x", bytes(10**6))
    for name in ("decompressobj", "decompress"):
        monkeypatch.setattr(zlib, name, None)
    for read in (read_content, read_facts):
        assert "is compressed, which torch never does" in refused(read, path)


def test_code_that_would_unpack_to_much_is_refused(entries, tmp_path, monkeypatch):
    path = write_zip(tmp_path / "bomb.pt", entries | {"constants.pkl": b"N."})
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        for number in range(3):
            archive.writestr(f"archive/code/{number}.py", bytes(10**6))
    monkeypatch.setattr(archives, "UNPACKED", 2 * 10**6)
    assert "its code would unpack to 3 MB" in refused(read_content, path)


# ---- a pickle that asks for much ----


def tensor_pickle(offset, size, stride, count=4):
    """Return a pickle of one tensor in storage 0."""

    class Storage:
        """What pickles as a persistent id."""

    class Pickler(pickle._Pickler):
        def persistent_id(self, value):
            return ("storage", torch.FloatStorage, "0", "cpu", count) if isinstance(value, Storage) else None

    class Tensor:
        def __reduce__(self):
            return torch._utils._rebuild_tensor_v2, (Storage(), offset, size, stride, False, OrderedDict())

    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Pickler(file, 2).dump({"a": Tensor()})
    return file.getvalue()


NEST, LAUGHS, BOMB = 10_000, 60, 60
PICKLES = {
    "deep": (b"\x80\x02" + b"]" * NEST + b"a" * (NEST - 1) + b".", "nested more than 100 deep"),
    "in itself": (b"\x80\x02]q\x00h\x00a.", "nested more than 100 deep"),
    "laughs": (
        b"\x80\x02]" + b"".join(b"q%c](h%ch%ce" % (n, n, n) for n in range(LAUGHS)) + b".",
        "more than 10,000,000",
    ),
    "key of keys": (
        b"\x80\x02K\x01" + b"".join(b"q%ch%c\x86" % (n, n) for n in range(BOMB)) + b"q\xff}h\xffK\x01s.",
        "keys",
    ),
    "element of a set": (
        b"\x80\x02c__builtin__\nset\n(]K\x01" + b"".join(b"q%ch%c\x86" % (n, n) for n in range(BOMB)) + b"atR.",
        "keys",
    ),
    "bytes": (b"\x80\x02c__builtin__\nbytearray\n(\x8a\x06\x00\x00\x00\x00\x00\x01tR.", "needs builtins.bytearray"),
    "memo": (b"\x80\x02]r\xff\xff\xff\xff.", "holds a list"),
    "long text": (b"\x80\x02X\xff\xff\xff\xffa.", "torn"),
    "longer text": (b"\x80\x02\x8d" + b"\xff" * 7 + b"\x7fa.", "torn"),
    "code": (b"\x80\x02cos\nsystem\n(X\x04\x00\x00\x00truetR.", "it needs os.system, which is code"),
    "attribute": (b"\x80\x02ctorch\nSize\n}X\x01\x00\x00\x00xK\x01sb.", "holds a type"),
    "no end": (b"\x80\x02" + b"]0" * 1000, "torn"),
    "object": (b"\x80\x02ctorch\nTensor\n)\x81.", "is not a value"),
    "many values": (b"\x80\x02(" + b"N" * (2**24), "too large for a description of weights"),
    "negative stride": (tensor_pickle(3, (4,), (-1,)), "does not lie within"),
    "negative offset": (tensor_pickle(-1, (4,), (1,)), "does not lie within"),
    "beyond": (tensor_pickle(1, (4,), (1,)), "does not lie within"),
    "repeated": (tensor_pickle(0, (2**40, 4), (0, 1)), "does not lie within"),
    "huge": (tensor_pickle(0, (2**62, 2**62), (1, 1)), "does not lie within"),
    "more dimensions": (tensor_pickle(0, (1,) * 65, (1,) * 65), "does not lie within"),
    "another size": (tensor_pickle(0, (2**40,), (1,), 2**40), "its data/0 has 16 bytes, not the 4398046511104"),
    "negative size": (tensor_pickle(0, (4,), (1,), -4), "described in a way that torch does not use"),
    "texts": (tensor_pickle(0, ("a",), ("b",)), "does not lie within"),
}


@pytest.mark.parametrize(("content", "said"), PICKLES.values(), ids=PICKLES)
def test_a_pickle_that_asks_for_much(content, said, entries, tmp_path):
    path = write_zip(tmp_path / "odd.pt", entries | {"data.pkl": content})
    assert said in refused(lambda path: read_state_dict(path, "CLIP"), path)
    script = write_zip(tmp_path / "script.pt", entries | {"data.pkl": content, "constants.pkl": b"N."})
    refused(lambda path: read_state_dict(path, "CLIP"), script)
    try:
        assert read_facts(path) == {}
    except InputError as error:
        assert str(error).startswith(str(path))


MODULES = {
    "in itself": b"X\x01\x00\x00\x00ah\x00s",
    "in itself, without a name": b"X\x00\x00\x00\x00h\x00s",
    "twice in itself": b"(X\x01\x00\x00\x00ah\x00X\x01\x00\x00\x00bh\x00u",
}
"""What a module M, number 0 of the memo, has as its attributes."""


@pytest.mark.parametrize("state", MODULES.values(), ids=MODULES)
def test_modules_without_end(state, tmp_path):
    content = b"\x80\x02c__torch__.m\nM\n)\x81q\x00}" + state + b"b."
    code = b"class M(Module):\n  __parameters__ = []\n  __buffers__ = []\n"
    entries = {"data.pkl": content, "constants.pkl": b"N.", "code/__torch__/m.py": code}
    assert "nested without end" in refused(read_content, write_zip(tmp_path / "odd.pt", entries))


# ---- what is read as before ----


@pytest.mark.parametrize("form", FORMS)
def test_what_torch_saves_is_read(form, tmp_path):
    path = tmp_path / "any.pt"
    values = torch.randn(6, 5)
    content = {
        "views": {"whole": values, "part": values[1:4, 2:].T, "row": values[3], "none": values[:0]},
        "types": [
            torch.arange(4).to(kind) for kind in (torch.bool, torch.int8, torch.int64, torch.bfloat16, torch.float64)
        ],
        "complex": torch.complex(torch.ones(2), torch.zeros(2)),
        "plain": [
            None,
            True,
            1,
            -(2**70),
            1.5,
            "text",
            b"bytes",
            (1, (2,)),
            {"a"},
            torch.Size([2, 3]),
            torch.float16,
            1j,
        ],
        "keys": {1: "a", 2.5: "b", "c": []},
        "channels last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "scalar": torch.tensor(3.0),
    }
    torch.save(content, path, **FORMS[form])
    found = read_content(path)
    assert_equal(found, torch.load(path, weights_only=True))
    assert_equal(found, content)
    assert found["views"]["part"].data_ptr() == found["views"]["whole"].data_ptr() + 7 * 4
    torch.save({"p": nn.Parameter(values), "sd": nn.BatchNorm1d(3).state_dict()}, path, **FORMS[form])
    found = read_content(path)
    assert torch.equal(found["p"], values)
    assert found["sd"]._metadata == nn.BatchNorm1d(3).state_dict()._metadata


def test_the_old_form_is_read_whole_or_not(tmp_path):
    path = tmp_path / "old.pt"
    torch.save({"a": torch.arange(40.0), "b": torch.ones(3)}, path, **FORMS["legacy"])
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        refused(read_content, path)
    path.write_bytes(whole + b"x")
    assert "it has more values than its tensors need" in refused(read_content, path)
    draws = random.Random(3)
    for _ in range(200):
        path.write_bytes(mutated(whole, draws))
        try:
            read_content(path)
        except InputError as error:
            assert len(str(error).splitlines()) == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float8_e4m3fn])
def test_weights_that_are_no_numbers_are_refused(value, dtype, tmp_path):
    weights = {"a": torch.full((9,), 240.0).to(dtype), "b.c": torch.full((300,), 240.0)}
    path = tmp_path / "nan.pt"
    torch.save(weights, path)  # whose sum is more than fp16 holds
    assert_equal(read_weights(path, "CLIP"), weights)
    weights["b.c"] = torch.tensor([1.0, value, 1.0]).to(dtype)
    if not weights["b.c"].float().isfinite().all():  # fp8 has no infinity
        torch.save(weights, path)
        assert "b.c holds values that are not finite numbers" in refused(lambda path: read_weights(path, "CLIP"), path)


def test_sizes_that_do_not_fit_together_take_no_memory(tmp_path):
    weights = random_clip(*SIZES["vit"]).state_dict()
    weights["ln_final.weight"] = torch.zeros(100_000)  # for which each layer would have 40 GB
    torch.save(weights, tmp_path / "odd.pt")
    assert "not the weights of a CLIP" in refused(lambda path: load_backbone(str(path)), tmp_path / "odd.pt")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"transform": 5}, "its transform is a int, expected a str"),
        ({"transform": "mirror"}, "was trained with --transform mirror, which is unknown here"),
        ({"target_ratio": 0.0}, "its target_ratio is 0.0, expected 1 or more"),
        ({"clip_model_name": ["a"]}, "its clip_model_name is a list"),
    ],
)
def test_facts_that_no_training_wrote(change, said, tmp_path):
    path = tmp_path / "odd.pt"
    torch.save({"CLIP": {}, "facts": change}, path)
    assert said in refused(read_facts, path)


@pytest.mark.parametrize(
    "change",
    [
        {"next_epoch": "1"},
        {"next_epoch": -3},
        {"next_epoch": True},
        {"run": {"rows": {}, "best": {}, "experiment": None}},
        {"weights": {"a": 1}},
        {"facts": None},
        {"run": {}},
        {"run": {"rows": {"train": [1]}, "best": {}, "experiment": None}},
    ],
)
def test_a_state_of_other_kinds_is_refused(change, tmp_path):
    write_checkpoint(tmp_path / STATE_FILE, state_of() | change)
    refused(lambda path: read_state(path.parent), tmp_path / STATE_FILE)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_stands_in_the_place_of_a_state_is_refused(make, tmp_path):
    make(tmp_path / STATE_FILE)
    refused(lambda path: read_state(path.parent), tmp_path / STATE_FILE)
