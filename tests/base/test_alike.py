"""Names that are nearly the same: what there is instead of each, and how it differs."""

import unicodedata

import pytest

from src.base.alike import Alike

THERE = ["shoes/red.jpg", "shoes/Blue.JPG", "bags/green.png", "boots.jpg.jpg", "two/a.png", "one/a.png", "bare"]
THERE += ["screen shot 1.png", "shoes/IMG_0123.jpg", unicodedata.normalize("NFC", "café/é.jpg")]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("shoes/RED.jpg", "there is shoes/red.jpg, in other case"),
        ("SHOES/blue.jpg", "there is shoes/Blue.JPG, in other case"),
        ("shoes/red.png", "there is shoes/red.jpg, with another suffix"),
        ("shoes/red", "there is shoes/red.jpg, with a suffix"),
        ("bare.jpg", "there is bare, without a suffix"),
        ("boots.jpg", "there is boots.jpg.jpg, with another suffix"),
        ("green.png", "there is bags/green.png, in another folder"),
        ("shoes/green.png", "there is bags/green.png, in another folder"),
        ("old/green.JPEG", "there is bags/green.png, in another folder, with another suffix"),
        ("a.png", "there is two/a.png and 1 more, in another folder"),
        ("shose/rad.jpg", None),
        ("shose/IMG_0123.png", "there is shoes/IMG_0123.jpg, in another folder, with another suffix"),
        ("bags/gren.png", "there is bags/green.png, nearly the same name"),
        ("bag/gren.png", "there is bags/green.png, nearly the same name"),
        ("shoes/IMG_0124.jpg", None),
        ("screen\u202fshot\u00a01.png", "there is screen shot 1.png, with letters or blanks that look alike"),
        (unicodedata.normalize("NFD", "café/é.jpg"), "in another Unicode form"),
        ("elsewhere/entirely.gif", None),
        ("", None),
    ],
)
def test_what_there_is_instead(name, said):
    instead = Alike(THERE).instead(name)
    assert said in str(instead) if said else instead is None


def test_of_many_names_the_nearest_is_found():
    names = [f"dress_{number:06}_front.jpg" for number in range(20_000)]
    assert Alike(names).instead("dres_012345_front.jpg").names == ("dress_012345_front.jpg",)
    assert Alike(names).instead("dres_912345_front.jpg") is None
    assert Alike([]).instead("a.jpg") is None
