"""A toy world of drawn garments to try composed image retrieval on, as CIRR, as FashionIQ and as own triplets.

    python -m src.toy FOLDER

Every garment is another combination of seven attributes, so reference + relative caption name exactly one picture.
No combination recurs in train, val and test. Sizes, places, shades and names do not depend on it.
"""

import csv
import random
import shutil
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from src.base.bars import Bar
from src.base.errors import InputError
from src.base.files import replacing, write_json
from src.command.frame import one_line_errors
from src.command.parser import Parser, count_or_zero
from src.models.openai_clip import small_clip
from src.tasks.cirr import GROUP_SIZE

ATTRIBUTES = {
    "kind": ("dress", "shirt", "toptee"),
    "colour": ("red", "orange", "yellow", "green", "blue", "purple", "pink", "black"),
    "pattern": ("plain", "striped", "dotted", "checked"),
    "sleeves": ("no", "short", "long"),
    "length": ("short", "long"),
    "belt": ("no belt", "a white belt", "a black belt", "a gold belt"),
    "background": ("white", "grey", "brown", "rose", "mint", "navy"),
}
WORDINGS = {
    "kind": ("a {new} instead of a {old}", "make it a {new}", "replace the {old} with a {new}", "is a {new}"),
    "colour": ("make it {new}", "is {new} instead of {old}", "change the colour to {new}", "in {new}", "now {new}"),
    "pattern": ("is {new}", "{new} rather than {old}", "change the pattern to {new}", "make the fabric {new}"),
    "sleeves": ("has {new} sleeves", "{new} sleeves instead of {old} ones", "give it {new} sleeves"),
    "length": ("is {new}er", "make it {new}er", "{new}er than this one", "with a {new}er hem"),
    "belt": ("has {new}", "with {new}", "{new} instead of {old}", "wear it with {new}"),
    "background": ("on a {new} background", "{new} background, not {old}", "put it on {new}"),
}
JOINTS = (" and ", ", ", " but ", ", also ")
COLOURS = {
    "red": (208, 32, 38),
    "orange": (240, 134, 24),
    "yellow": (240, 214, 46),
    "green": (48, 146, 66),
    "blue": (42, 88, 196),
    "purple": (124, 58, 160),
    "pink": (240, 132, 178),
    "black": (44, 44, 50),
}
BACKGROUNDS = {
    "white": (246, 246, 244),
    "grey": (158, 160, 164),
    "brown": (150, 112, 82),
    "rose": (244, 206, 208),
    "mint": (188, 228, 206),
    "navy": (34, 44, 84),
}
BELTS = {"a white belt": (250, 250, 250), "a black belt": (20, 20, 20), "a gold belt": (232, 190, 60)}
PREFIXES = {"train": "train", "val": "dev", "test1": "test1"}
OWN = "my_pictures"
"""The folder of own triplets."""
PICTURES, QUERIES = (1600, 600, 600), (8000, 1200, 1200)


def draw(garment: dict[str, str], rng: random.Random) -> Image.Image:
    """Draw `garment` {attribute: value}; size, place, scale and shade are drawn apart from these."""
    width, height = rng.randint(64, 112), rng.randint(64, 112)
    side = 2 * min(width, height) * rng.uniform(0.92, 1)  # drawn at twice the size
    left, top = (length - side / 2 + side * rng.uniform(-0.04, 0.04) for length in (width, height))

    def at(*points):
        return [(left + side * x, top + side * y) for x, y in points]

    # Everything random besides the attributes: size, place, scale and shade may not give a garment away.
    background = _shade(BACKGROUNDS[garment["background"]], rng)
    colour = _shade(COLOURS[garment["colour"]], rng)
    picture = Image.new("RGB", (2 * width, 2 * height), background)
    # Drawn at twice the size and shrunk, which smooths the edges.
    picture.paste(_cloth(garment["pattern"], colour, picture.size, side), mask=_cut(garment, at, picture.size))

    pen = ImageDraw.Draw(picture)
    dark = tuple(channel // 3 for channel in colour)
    if garment["kind"] == "shirt":
        for y in (0.28, 0.37, 0.55):
            pen.ellipse(at((0.48, y), (0.52, y + 0.04)), fill="white", outline=dark)
        for edge in (0.35, 0.65):
            pen.polygon(at((edge, 0.03), (0.5, 0.15), (edge + (0.5 - edge) * 0.2, 0.24)), fill="white", outline=dark)
    if garment["belt"] in BELTS:
        pen.rectangle(at((0.29, 0.43), (0.71, 0.53)), fill=BELTS[garment["belt"]], outline=dark)
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def _cut(garment, at, size):
    """Draw the garment's outline as a mask."""
    mask = Image.new("L", size)
    pen = ImageDraw.Draw(mask)
    is_dress, is_long = garment["kind"] == "dress", garment["length"] == "long"
    hem = (0.98 if is_long else 0.74) if is_dress else (0.84 if is_long else 0.60)
    flare = (0.44 if is_long else 0.34) if is_dress else 0.20
    waist = 0.15 if is_dress else 0.20
    shoulder = 0.17 if garment["kind"] == "toptee" else 0.22
    half = ((shoulder, 0.03), (waist, 0.48), (flare, hem))
    pen.polygon(at(*((0.5 + x, y) for x, y in half), *((0.5 - x, y) for x, y in reversed(half))), fill=255)
    if garment["sleeves"] != "no":
        reach, cuff = (0.38, 0.24) if garment["sleeves"] == "short" else (0.50, 0.64)
        sleeve = ((shoulder, 0.03), (shoulder - 0.04, 0.26), (reach - 0.13, cuff + 0.06), (reach, cuff))
        for sign in (-1, 1):
            pen.polygon(at(*((0.5 + sign * x, y) for x, y in sleeve)), fill=255)
    # The neck, cut out last.
    pen.ellipse(at((0.40, -0.06), (0.60, 0.13)), fill=0)
    return mask


def _cloth(pattern, colour, size, side):
    """Draw the fabric."""
    cloth = Image.new("RGB", size, colour)
    pen = ImageDraw.Draw(cloth)
    light = tuple((channel + 4 * 255) // 5 for channel in colour)
    step = max(4, round(side * 0.12))
    if pattern in ("striped", "checked"):
        for y in range(0, size[1], step):
            pen.rectangle((0, y, size[0], y + step // 2), fill=light)
    if pattern == "checked":
        for x in range(0, size[0], step):
            pen.rectangle((x, 0, x + step // 2, size[1]), fill=light)
    if pattern == "dotted":
        for row, y in enumerate(range(0, size[1], step)):
            for x in range(step // 2 * (row % 2), size[0], step):
                pen.ellipse((x, y, x + step // 2, y + step // 2), fill=light)
    return cloth


def _shade(colour, rng):
    """Return `colour`, a little lighter or darker."""
    shift = rng.randint(-16, 16)
    return tuple(max(0, min(255, channel + shift + rng.randint(-4, 4))) for channel in colour)


def describe(reference: dict[str, str], target: dict[str, str], rng: random.Random) -> str:
    """Write a relative caption that turns garment `reference` into garment `target`."""
    changed = [name for name in ATTRIBUTES if reference[name] != target[name]]
    clauses = [
        rng.choice(WORDINGS[name]).format(old=reference[name], new=target[name])
        # In any order, so that the place in a sentence tells nothing.
        for name in rng.sample(changed, len(changed))
    ]
    return "".join(clause + rng.choice(JOINTS) for clause in clauses[:-1]) + clauses[-1]


def draw_pairs(garments: list[dict], queries: int, rng: random.Random) -> list[tuple[int, int]]:
    """Draw `queries` pairs (reference, target) of indices into `garments`.

    The two differ in one to three attributes, or in as few more as it takes where no garment is so near.
    """
    distances = _distances(garments)
    pairs = []
    # Every garment is a reference before any is one again.
    while len(pairs) < queries:
        for reference in rng.sample(range(len(garments)), len(garments)):
            apart = distances[reference]
            nearest = apart[apart >= rng.choice((1, 2, 2, 3))].min()
            pairs.append((reference, rng.choice(np.flatnonzero(apart == nearest).tolist())))
    return pairs[:queries]


def _distances(garments):
    """Return in how many attributes [garments, garments] two garments differ."""
    codes = np.array([[ATTRIBUTES[name].index(garment[name]) for name in ATTRIBUTES] for garment in garments])
    return (codes[:, None] != codes[None]).sum(axis=2)


def write_cirr_split(folder: Path, split: str, garments: list[dict], queries: int, rng: random.Random) -> None:
    """Write a split in CIRR's layout below `folder`; a group holds garments that are near the target."""
    prefix = PREFIXES[split]
    names = [f"{prefix}-{number}-{rng.randrange(4)}-img{rng.randrange(2)}" for number in _numbers(garments, rng)]
    paths = {name: f"./{prefix}/{name}.png" for name in names}
    _save_pictures([folder / path for path in paths.values()], garments, rng)

    distances = _distances(garments)
    triplets = []
    for pair_id, (reference, target) in enumerate(draw_pairs(garments, queries, rng)):
        nearest = np.argsort(distances[target], kind="stable")[1 : 3 * GROUP_SIZE]  # the first is the target itself
        # Near the target, as CIRR's groups are of similar pictures: the caption has to decide.
        members = [reference, target, *rng.sample([i for i in nearest.tolist() if i != reference], GROUP_SIZE - 2)]
        # The target may not be told by its place.
        rng.shuffle(members)
        caption = describe(garments[reference], garments[target], rng)
        group = {"id": pair_id, "members": [names[member] for member in members]}
        triplet = {"pairid": pair_id, "reference": names[reference], "caption": caption, "img_set": group}
        if split != "test1":
            triplet |= {"target_hard": names[target], "target_soft": {names[target]: 1.0}}
        triplets.append(triplet)
    write_json(folder / "cirr" / "captions" / f"cap.rc2.{split}.json", triplets)
    write_json(folder / "cirr" / "image_splits" / f"split.rc2.{split}.json", dict(sorted(paths.items())))


def write_fashioniq_split(folder: Path, split: str, garments: list[dict], queries: int, rng: random.Random) -> None:
    """Write a split in FashionIQ's layout below `folder`: a category for each kind of garment, two captions a pair."""
    split_code = list(PREFIXES).index(split)
    names = [f"B{split_code}{number:06d}" for number in _numbers(garments, rng)]
    _save_pictures([folder / "images" / f"{name}.jpg" for name in names], garments, rng)

    for kind in ATTRIBUTES["kind"]:
        of_kind = [index for index, garment in enumerate(garments) if garment["kind"] == kind]
        triplets = []
        pairs = draw_pairs([garments[index] for index in of_kind], queries // len(ATTRIBUTES["kind"]), rng)
        for reference, target in ((of_kind[reference], of_kind[target]) for reference, target in pairs):
            captions = [describe(garments[reference], garments[target], rng) for _ in range(2)]
            triplet = {"candidate": names[reference], "captions": captions}
            triplets.append(triplet if split == "test1" else {"target": names[target], **triplet})
        split_name = split.replace("test1", "test")
        write_json(folder / "captions" / f"cap.{kind}.{split_name}.json", triplets)
        # Sorted: the order of drawing follows the garments.
        split_names = sorted(names[index] for index in of_kind)
        write_json(folder / "image_splits" / f"split.{kind}.{split_name}.json", split_names)


def write_own_split(folder: Path, split: str, garments: list[dict], queries: int, rng: random.Random) -> None:
    """Write a split of own triplets below `folder`: a table as a spreadsheet saves it, and pictures by kind."""
    numbered = zip(_numbers(garments, rng), garments, strict=True)
    names = [f"{garment['kind']}/{number:06d}.png" for number, garment in numbered]
    _save_pictures([folder / name for name in names], garments, rng)
    rows = [
        (names[reference], names[target], describe(garments[reference], garments[target], rng))
        for reference, target in draw_pairs(garments, queries, rng)
    ]
    with replacing(folder / f"triplets.{split}.csv") as unfinished, unfinished.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("reference", "target", "caption"), *rows])
    with replacing(folder / f"gallery.{split}.txt") as unfinished:
        unfinished.write_text("".join(f"{name}\n" for name in names))


def _numbers(garments, rng):
    return rng.sample(range(10**6), len(garments))


def _save_pictures(paths, garments, rng):
    for path, garment in zip(Bar(paths, desc=str(paths[0].parent), leave=False), garments, strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        draw(garment, rng).save(path)


def write_world(folder: Path, pictures: Sequence[int], queries: Sequence[int], seed: int = 0) -> None:
    """Write both layouts, own triplets of a quarter of their size, and small_clip.pt into `folder`.

    `pictures` and `queries` give their number for train, val and test1, the same in both layouts.
    """
    folder, rng = Path(folder), random.Random(seed)
    combinations = [dict(zip(ATTRIBUTES, values, strict=True)) for values in product(*ATTRIBUTES.values())]
    # Without repetition, so that a query has one right answer and splits share no garment.
    taken = garments = rng.sample(combinations, sum(pictures))
    for split, number, split_queries in zip(PREFIXES, pictures, queries, strict=True):
        of_split, garments = garments[:number], garments[number:]
        write_cirr_split(folder / "cirr_dataset", split, of_split, split_queries, rng)
        write_fashioniq_split(folder / "fashionIQ_dataset", split, of_split, split_queries, rng)
    # Drawn apart, of garments that nobody else has: the layouts stay what they are without it.
    rng = random.Random(f"own {seed}")
    garments = rng.sample([garment for garment in combinations if garment not in taken], sum(pictures[:2]) // 4)
    for split, number, split_queries in zip(("train", "val"), pictures, queries, strict=False):
        of_split, garments = garments[: number // 4], garments[number // 4 :]
        write_own_split(folder / OWN, split, of_split, split_queries // 4, rng)
    write_small_clip(folder / "small_clip.pt", seed=seed)


def write_small_clip(path: Path, seed: int = 0) -> None:
    """Write the random weights of a small CLIP to `path` as a plain state dict."""
    # The caller's random numbers stay as they were.
    with torch.random.fork_rng(devices=[]), replacing(path) as unfinished:
        torch.manual_seed(seed)
        torch.save(small_clip().state_dict(), unfinished)


@one_line_errors
def main(argv=None):
    parser = Parser(
        "Draw a toy world to try composed image retrieval on, as CIRR, as FashionIQ and as own triplets.", __doc__
    )
    parser.prog = "python -m src.toy"
    help_text = f"receives cirr_dataset/, fashionIQ_dataset/, {OWN}/ and small_clip.pt"
    parser.add_argument("folder", type=Path, help=help_text)
    parser.add_argument("--seed", type=count_or_zero, default=0, help="decides every garment, picture and caption")
    args = parser.parse_args(argv)
    if args.folder.is_file():
        raise InputError(f"{args.folder}: is a file, the toy world needs a folder")
    if args.folder.is_dir() and any(args.folder.iterdir()):
        raise InputError(f"{args.folder}: is not empty, and the toy world must not replace anybody's data")
    # Under another name until it is whole, since a world of which a part is there could not be told from real data.
    unfinished = args.folder.absolute().with_name(f".{args.folder.absolute().name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    args.folder.mkdir(parents=True, exist_ok=True)  # now, before the bar of its first pictures stands in the way
    write_world(unfinished, PICTURES, QUERIES, args.seed)
    args.folder.rmdir()
    unfinished.rename(args.folder.absolute())
    print(args.folder)


if __name__ == "__main__":
    main()
