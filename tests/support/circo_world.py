"""A small CIRCO: drawn pictures, and triplets with one to three targets."""

import random

from PIL import Image

from tests.support.submissions import write

ASPECTS = "addition", "negation", "viewpoint"


def write_circo(folder, pictures=60, queries=(20, 12)):
    """Write CIRCO/ to `folder`: a list of pictures, and val and test of so many queries."""
    rng = random.Random(0)
    root = folder / "CIRCO"
    images = root / "COCO2017_unlabeled" / "unlabeled2017"
    images.mkdir(parents=True)
    ids = sorted(rng.sample(range(1, 600_000), pictures))
    for name in ids:
        colours = [tuple(rng.randrange(256) for _ in range(3)) for _ in range(16)]
        small = Image.new("RGB", (4, 4))
        small.putdata(colours)
        small.resize((40, 32)).save(images / f"{name:012}.jpg")
    listing = {"images": [{"id": name, "file_name": f"{name:012}.jpg"} for name in ids]}
    write(root / "COCO2017_unlabeled" / "annotations" / "image_info_unlabeled2017.json", listing)
    for split, number in zip(("val", "test"), queries, strict=True):
        write(root / "annotations" / f"{split}.json", [_entry(n, split, ids, rng) for n in range(number)])
    return folder


def _entry(number, split, ids, rng):
    reference, *targets = rng.sample(ids, 2 + number % 3)
    entry = {
        "id": number,
        "reference_img_id": reference,
        "relative_caption": f"has {number} dogs, and is at night",
        "shared_concept": "a dog on grass",
    }
    if split == "test":
        return entry
    aspects = [aspect for place, aspect in enumerate(ASPECTS) if number % (place + 2) == 0]
    return entry | {"target_img_id": targets[0], "gt_img_ids": targets, "semantic_aspects": aspects}
