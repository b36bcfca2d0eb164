"""A submission is ready to upload, or each fault is named with its pair ids and with what mends it."""

import gzip
import json
import os
import random
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import check_submission
from src.base.files import PROJECT_ROOT
from tests.commands import status_of
from tests.processes import PATIENCE

NAMES = "recall.json", "recall_subset.json"


def write_annotations(root):
    """Write test1 of 140 pictures and 60 queries, two to a reference, and a val split; return its triplets."""
    folder = root / "cirr_dataset" / "cirr"
    for name in ("captions", "image_splits"):
        (folder / name).mkdir(parents=True)
    pictures = [f"test1-{number}-0-img0" for number in range(140)]
    listing = {name: f"./test1/{name}.png" for name in pictures}
    (folder / "image_splits" / "split.rc2.test1.json").write_text(json.dumps(listing))
    triplets = [
        {
            "pairid": 12063 + number,
            "reference": pictures[number // 2],
            "caption": f"change number {number}",
            "img_set": {"members": pictures[number // 2 : number // 2 + 6]},
        }
        for number in range(60)
    ]
    (folder / "captions" / "cap.rc2.test1.json").write_text(json.dumps(triplets))
    (folder / "captions" / "cap.rc2.val.json").write_text(json.dumps([{"pairid": 5}, {"pairid": 6}]))
    return triplets, pictures


@pytest.fixture(params=["made up", "official"])
def pair(request, tmp_path):
    """Return the contents of a right pair, its annotations in tmp_path."""
    if request.param == "official":
        shared = request.getfixturevalue("shared")
        (tmp_path / "cirr_dataset").mkdir()
        (tmp_path / "cirr_dataset" / "cirr").symlink_to(shared / "data" / "annotations" / "cirr")
        folder = shared / "data" / "submissions" / "cirr"
        return tuple(json.loads((folder / f"demo_test1_pred_ranks_{name}").read_text()) for name in NAMES)
    triplets, pictures = write_annotations(tmp_path)
    draws, recall, subset = random.Random(0), {}, {}
    for triplet in triplets:
        ranked = [name for name in draws.sample(pictures, 140) if name != triplet["reference"]]
        recall[str(triplet["pairid"])] = ranked[:50]
        subset[str(triplet["pairid"])] = [name for name in ranked if name in triplet["img_set"]["members"]][:3]
    contents = zip(("recall", "recall_subset"), (recall, subset), strict=True)
    return tuple({"version": "rc2", "metric": metric, **content} for metric, content in contents)


@pytest.fixture
def check(tmp_path, capsys):
    """Return a function that writes contents (text, bytes or values) and gives the status and what is printed."""

    def run(*contents, extra=()):
        paths = []
        for name, content in zip(NAMES, contents, strict=False):
            paths.append(tmp_path / name)
            text = content if isinstance(content, (str, bytes)) else json.dumps(content)
            paths[-1].write_bytes(text if isinstance(text, bytes) else text.encode())
        status = status_of(check_submission.main, [*paths, "--data-path", tmp_path, *extra])
        return status, capsys.readouterr().out

    return run


def test_a_right_pair_is_ready(pair, check):
    assert check(*pair) == (0, "ready to upload\n")
    assert check(*reversed(pair)) == (0, "ready to upload\n")


def changed(content, **changes):
    return content | {key.removeprefix("_"): value for key, value in changes.items()}


def triplets_of(tmp_path):
    entries = json.loads((tmp_path / "cirr_dataset" / "cirr" / "captions" / "cap.rc2.test1.json").read_text())
    return {str(entry["pairid"]): entry for entry in entries}


def planted(fault, recall, subset, tmp_path):
    """Return the pair with a fault planted at its first id, and the words that tell it."""
    first, *others = [key for key in recall if key.isdecimal()]
    triplet = triplets_of(tmp_path)[first]
    outside = next(name for name in recall[others[-1]] if name not in triplet["img_set"]["members"])
    ranked = recall[first]
    swapped = {"recall_subset": recall, "recall": subset}
    without = {key: names for key, names in recall.items() if key != first}
    some = {"version": "rc2", "metric": "recall"}
    part = sorted({name for key in others for name in recall[key]})[:52]
    return {
        "1 metric": lambda: (
            *(changed(content, metric=name) for name, content in swapped.items()),
            "says metric recall_subset, but most of its lists have 50 names",
        ),
        "2 version": lambda: (changed(recall, version=2.0), subset, "version is 2.0"),
        "2 no metric": lambda: ({k: v for k, v in recall.items() if k != "metric"}, subset, "metric is missing"),
        "3 missing": lambda: (without, subset, f"pair ids are missing (1 of {len(others) + 1:,}: {first})"),
        "3 extra": lambda: (
            changed(recall, _99=ranked),
            subset,
            f"pair ids that test1 does not have (1 of {len(others) + 2:,}: 99)",
        ),
        "3 twice": lambda: (
            f'{json.dumps(recall)[:-1]}, "{first}": {json.dumps(ranked)}}}',
            subset,
            f"pair ids stand there twice (1 of {len(others) + 2:,}: {first})",
        ),
        "4 val": lambda: (some | {"5": ["dev-1-0-img0"] * 50}, subset, "answers to the val split (1 of 1: 5)"),
        "5 keys": lambda: (
            without | {f"tensor({first})": ranked},
            subset,
            f"keys that are no plain pair id (1 of {len(others) + 1:,}: tensor({first}))",
        ),
        "6 suffix": lambda: (
            changed(recall, **{first: [f"{ranked[0]}.png", *ranked[1:]]}),
            subset,
            f"names with a suffix or a folder (1 of {len(others) + 1:,}: {first})",
        ),
        "6 number": lambda: (
            changed(recall, **{first: [7, *ranked[1:]]}),
            subset,
            f"no picture of test1 (1 of {len(others) + 1:,}: {first})",
        ),
        "7 unlisted": lambda: (
            changed(recall, **{first: ["test1-0-7-img7", *ranked[1:]]}),
            subset,
            f"names that are no picture of test1 (1 of {len(others) + 1:,}: {first})",
        ),
        "8 short": lambda: (
            changed(recall, **{first: ranked[:49]}),
            subset,
            f"lists of 49 names where the server wants 50 (1 of {len(others) + 1:,}: {first})",
        ),
        "8 length": lambda: (
            changed(recall, **{first: ranked[:9]}),
            subset,
            f"lists that have not 50 names (1 of {len(others) + 1:,}: {first})",
        ),
        "9 repeats": lambda: (
            changed(recall, **{first: [ranked[1], *ranked[1:]]}),
            subset,
            f"repeat a name (1 of {len(others) + 1:,}: {first})",
        ),
        "10 reference": lambda: (
            changed(recall, **{first: [triplet["reference"], *ranked[1:]]}),
            subset,
            f"the query's own reference (1 of {len(others) + 1:,}: {first})",
        ),
        "11 outside": lambda: (
            recall,
            changed(subset, **{first: [*subset[first][:2], outside]}),
            f"names outside the query's group (1 of {len(others) + 1:,}: {first})",
        ),
        "13 equal": lambda: (
            some | {key: recall[others[-1]] for key in recall if key.isdecimal()},
            subset,
            "all queries share 1 lists",
        ),
        "14 part": lambda: (
            some | {key: random.Random(key).sample(part, 50) for key in recall if key.isdecimal()},
            subset,
            "all lists together name 52 of",
        ),
        "15 gzip": lambda: (gzip.compress(json.dumps(recall).encode()), subset, "is a gzip archive"),
        "15 mark": lambda: ("\ufeff" + json.dumps(recall), subset, "begins with a byte order mark"),
        "15 behind": lambda: (json.dumps(recall) + "}", subset, "is no JSON file (Extra data"),
        "15 NaN": lambda: (json.dumps(recall)[:-1] + ', "x": NaN}', subset, "holds NaN"),
        "15 large": lambda: (json.dumps(recall) + " " * 6 * 10**6, subset, "MB, and the server takes 5"),
        "16 alone": lambda: (recall, None, "there is no file of recall_subset beside it"),
    }[fault]()


FAULTS = (
    *("1 metric", "2 version", "2 no metric", "3 missing", "3 extra", "3 twice", "4 val", "5 keys", "6 suffix"),
    *("6 number", "7 unlisted", "8 short", "8 length", "9 repeats", "10 reference", "11 outside", "13 equal"),
    *("14 part", "15 gzip", "15 mark", "15 behind", "15 NaN", "15 large", "16 alone"),
)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_named(fault, pair, check, tmp_path):
    recall, subset, words = planted(fault, *pair, tmp_path)
    status, printed = check(*(content for content in (recall, subset) if content is not None))
    assert status == 1
    assert words in printed
    assert printed.splitlines()[-1].startswith("not ready: ")


def test_the_captions_play_no_part(pair, check, tmp_path):
    """Fault 13 again: the order of the picture alone gives all queries of a reference the same list."""
    recall, subset = pair
    first_of, answers, triplets = {}, {}, triplets_of(tmp_path)
    for key, names in recall.items():
        answers[key] = first_of.setdefault(triplets[key]["reference"], names) if key.isdecimal() else names
    status, printed = check(answers, subset)
    assert status == 1
    assert "queries of one reference have the same list whatever the caption" in printed


def test_warnings_leave_a_pair_ready(pair, check, tmp_path):
    recall, subset = pair
    first = next(key for key in recall if key.isdecimal() and set(subset[key][:2]) <= set(recall[key]))
    mixed = changed(subset, **{first: [subset[first][1], subset[first][0], subset[first][2]]})
    status, printed = check(recall, json.dumps(mixed, indent=1))
    assert status == 0
    assert "warning: recall_subset.json: is indented" in printed
    assert f": {first})" in next(line for line in printed.splitlines() if "orders a group otherwise" in line)
    weights = tmp_path / "weights.pt"
    weights.touch()
    os.utime(weights, (2**31, 2**31))
    status, printed = check(recall, subset, extra=["--checkpoint", weights, "--json", tmp_path / "found.json"])
    assert status == 0
    assert f"is older than {weights}" in printed
    assert printed.splitlines()[-1] == "ready to upload"
    told = json.loads((tmp_path / "found.json").read_text())
    assert (told["ready"], len(told["findings"])) == (True, 2)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=json_values | st.dictionaries(st.sampled_from(["12063", "version", "metric"]), json_values))
def test_whatever_a_file_holds_it_is_told(content, tmp_path):
    if not (tmp_path / "cirr_dataset").exists():
        write_annotations(tmp_path)
    path = tmp_path / "recall.json"
    path.write_text(json.dumps(content))
    assert status_of(check_submission.main, [path, "--data-path", tmp_path]) == 1


def test_it_needs_no_torch():
    """Nor numpy, nor Pillow, nor pandas."""
    code = "import check_submission, sys; print({'torch', 'numpy', 'PIL', 'pandas'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PROJECT_ROOT, timeout=PATIENCE
    )
    assert done.stdout.strip() == "set()"


def test_what_cannot_be_checked(tmp_path, capsys):
    path = tmp_path / "recall.json"
    path.write_text("{}")
    for arguments, fault in (
        ([path, "--data-path", tmp_path], "no such folder; --data-path names the folder that holds cirr_dataset/"),
        ([tmp_path / "nowhere.json"], "nowhere.json: no such file"),
        ([path, path, path, "--data-path", tmp_path], "a submission has two files"),
    ):
        assert status_of(check_submission.main, arguments) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert fault in line
