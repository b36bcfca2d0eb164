"""Submissions as tests change them, and what is read off the report about them."""

import gzip
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from hypothesis import strategies as st

HOSTILE_TEXT = st.text(st.characters(exclude_categories=()), max_size=12) | st.sampled_from(
    [
        "0",
        "12063",
        "tensor(12064)",
        "000000001007.jpg",
        "version",
        "metric",
        "recall",
        "test1-0-0-img0",
        "/test1-0-0-img0.png",
        "\n",
        "\0",
    ]
)
HOSTILE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | HOSTILE_TEXT | st.just(10**4000),
    lambda inside: st.lists(inside, max_size=5) | st.dictionaries(HOSTILE_TEXT, inside, max_size=5),
    max_leaves=20,
)
SUBMISSIONS = st.dictionaries(HOSTILE_TEXT, st.lists(HOSTILE_TEXT | HOSTILE, max_size=5) | HOSTILE, max_size=8)
FORMS = {
    "gzip": (lambda text: gzip.compress(text.encode()), "packed", "Unpack it"),
    "byte order mark": (lambda text: f"\ufeff{text}", "byte order mark", "Save it as UTF-8 without"),
    "UTF-16": (lambda text: text[:999].encode("utf-16"), "not JSON", "'utf-8' codec can't decode"),
    "behind": (lambda text: f"{text}{text[:9]}", "text after the object", "Delete everything after its last brace"),
    "torn": (lambda text: text[:-100], "not JSON", "Write it with json.dump"),
    "Python's own": (lambda text: text.replace('"', "'"), "not JSON", "enclosed in double quotes"),
    "empty": (lambda text: "", "not JSON", "Expecting value"),
    "nested": (lambda text: "[" * 100_000, "not JSON", "Write it with json.dump"),
}
"""{form: how to make it of a right file, and the kind and the mend of the finding}"""


class Case(NamedTuple):
    """A fault in the answer to one query."""

    plant: Callable
    """Makes a file's content with the fault."""
    heading: str
    mend: str
    named: str = "{key}"
    """What stands below the heading."""
    file: str = "recall"

    def assert_alone(self, lines, key, **names):
        """Assert that the fault is all that is told: what follows from it is not told as another."""
        assert lines[-1] == "not ready to upload: 1 fault"
        ((heading, told),) = findings(lines).items()
        assert heading.startswith(f"fault    {self.heading}: 1 of ")
        assert told.startswith(f"{self.named.format(key=key)} ")
        assert self.mend.format(key=key, **names) in told


def renamed(content, key, spelling):
    return {spelling.format(key) if one == key else one: answer for one, answer in content.items()}


def with_repeated_key(content, key):
    return f'{json.dumps(content)[:-1]}, "{key}": {json.dumps(content[key])}}}'


def old_and_new_checkpoint(folder):
    """Write a checkpoint that is older than any submission, and one that is newer."""
    paths = write(folder / "old.pt", b""), write(folder / "tuned_clip.pt", b"")
    for path, time in zip(paths, (0, 2**31), strict=True):
        os.utime(path, (time, time))
    return paths


class Pair(NamedTuple):
    """A submission to be changed, and what its split asks."""

    recall: dict
    subset: dict
    entries: dict
    """{pair id: entry of the captions file}"""
    pictures: list
    val_id: str
    data_path: Path


def made_up(folder):
    """Write annotations of 120 pictures and 120 queries to `folder`, and return a right pair for them.

    Half of the pictures are references, of two queries each. A val split stands beside.
    """
    rng = random.Random(0)
    root = folder / "cirr_dataset" / "cirr"
    entries, splits = {}, {}
    for prefix, split, start in (("test1", "test1", 12063), ("dev", "val", 500)):
        names = splits[split] = [f"{prefix}-{number}-0-img{number % 2}" for number in range(120)]
        entries[split] = []
        for number in range(120):
            group = names[number // 6 * 6 :][:6]
            reference, target = group[number % 3], group[5]
            entry = {"pairid": start + number, "reference": reference, "caption": f"caption {number}"}
            answer = {"target_hard": target} if split == "val" else {}
            entries[split].append(entry | answer | {"img_set": {"members": group}})
        write(root / "image_splits" / f"split.rc2.{split}.json", {name: f"./{split}/{name}.png" for name in names})
        write(root / "captions" / f"cap.rc2.{split}.json", entries[split])
    asked = {str(entry["pairid"]): entry for entry in entries["test1"]}
    recall, subset = {"version": "rc2", "metric": "recall"}, {"version": "rc2", "metric": "recall_subset"}
    for key, entry in asked.items():
        ranked = rng.sample([name for name in splits["test1"] if name != entry["reference"]], 119)
        recall[key] = ranked[:50]
        subset[key] = [name for name in ranked if name in entry["img_set"]["members"]][:3]
    return Pair(recall, subset, asked, splits["test1"], "500", folder)


def official(folder, shared):
    """Return the example pair of CIRR's server; `folder` becomes the data path."""
    annotations, example = shared / "data" / "annotations" / "cirr", shared / "data" / "submissions" / "cirr"
    (folder / "cirr_dataset").mkdir(parents=True)
    (folder / "cirr_dataset" / "cirr").symlink_to(annotations)
    recall, subset = (
        json.loads((example / f"demo_test1_pred_ranks_{metric}.json").read_text())
        for metric in ("recall", "recall_subset")
    )
    entries = json.loads((annotations / "captions" / "cap.rc2.test1.json").read_text())
    pictures = list(json.loads((annotations / "image_splits" / "split.rc2.test1.json").read_text()))
    return Pair(recall, subset, {str(entry["pairid"]): entry for entry in entries}, pictures, "12060", folder)


def write(path, content):
    """Write bytes, text or anything that JSON takes; return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, (bytes, str)) else json.dumps(content)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def findings(lines):
    """Return {heading of a finding: all that stands below it, in one line}."""
    found, heading = {}, None
    for line in lines:
        if line.startswith(("  fault    ", "  warning  ")):
            heading = line.strip()
            found[heading] = ""
        elif line.startswith(" " * 11) and heading:
            found[heading] = f"{found[heading]} {line.strip()}".strip()
    return found
