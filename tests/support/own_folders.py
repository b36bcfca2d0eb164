"""Folders of own triplets as tests write and read them."""

from PIL import Image

from src.tasks.own import OwnTriplets

HEADER = "reference,target,caption\n"


def with_pictures(root):
    """Write seven pictures below `root`, and nothing else; return it."""
    for number, name in enumerate(["a.jpg", "b.PNG", "in/c.webp", "in/d e.jpg", "in/deep/f.jpeg", "g,h.jpg", "i.jpg"]):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8 + number, 9), (30 * number, 90, 20)).save(root / name)
    return root


def write(folder, name, text):
    """Write a file of a folder, its line ends as they are; return the folder."""
    (folder / name).write_text(text, encoding="utf-8", newline="")
    return folder


def read(folder, split="val"):
    """Return the one Split of a folder."""
    (of_all,) = OwnTriplets.in_folder(folder).read_all(folder, split).values()
    return of_all
