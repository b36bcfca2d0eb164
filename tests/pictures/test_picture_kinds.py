"""Looking at picture files one by one: in worker processes, and however damaged they are."""

import os
from pathlib import Path

import numpy as np
import pytest

from src.base.errors import InputError
from src.pictures.kinds import look_at, look_at_all
from tests.support.odd_pictures import REFUSED, RGB, TAKEN, saved, write
from tests.support.splits import read_cirr


@pytest.mark.parametrize("case", [*TAKEN, *REFUSED])
def test_what_is_found(case, tmp_path):
    odd = (TAKEN | REFUSED)[case]
    write(odd, tmp_path / "picture.png")
    look = look_at(tmp_path / "picture.png")
    assert look.kinds == odd.kinds
    if look.kinds == ("unreadable",):
        assert odd.fault in look.fault
    elif look.kinds == ("too long",):
        assert look.fault == "refused by --transform clip, squarepad, targetpad"
    else:
        assert look.fault == ""


@pytest.mark.workers
def test_worker_processes_see_what_one_process_sees(broken_world):
    paths = list(read_cirr(broken_world, "train").pictures.values())
    for number, odd in ((1, REFUSED["text"]), (2, REFUSED["missing"]), (30, TAKEN["palette"])):
        write(odd, paths[number])
    alone = look_at_all(paths, 0)
    assert look_at_all(paths, 2) == alone
    assert list(alone) == paths
    assert [alone[paths[n]].kinds for n in (0, 1, 2, 30)] == [(), ("unreadable",), ("missing",), ("palette",)]


class Deadly(type(Path())):
    """A picture that ends whoever looks at it, as the kernel does when memory runs out."""

    def __fspath__(self):
        os._exit(9)


@pytest.mark.workers
def test_a_dead_worker_is_an_error_that_names_where(tmp_path):
    with pytest.raises(InputError, match=r"heavy\.png: .* ended the process"):
        look_at_all([Deadly(tmp_path / "heavy.png")], 1)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "JPEG2000", "PPM", "TGA", "ICO"])
def test_no_damage_is_too_much(form, tmp_path):
    """Whatever a damaged file is, looking at it raises nothing, and says why where it is unreadable."""
    whole, rng = saved(RGB, form), np.random.default_rng(0)
    picture = tmp_path / "picture"
    for number in range(60):
        damaged = bytearray(whole[: rng.integers(1, len(whole))] if number % 2 else whole)
        for place in rng.integers(0, len(damaged), size=4):
            damaged[place] = rng.integers(0, 256)
        picture.write_bytes(damaged)
        look = look_at(picture)
        assert ("unreadable" in look.kinds) == bool(look.fault)
        assert "\n" not in look.fault
        assert "BytesIO" not in look.fault
