"""A right submission is ready to upload. In a wrong one each fault is named, with its pair ids and what mends it."""

import json
import random

import pytest

import check_submission
from tests.support.commands import status_of
from tests.support.submissions import (
    FORMS,
    Case,
    findings,
    made_up,
    official,
    old_and_new_checkpoint,
    renamed,
    with_repeated_key,
    write,
)


@pytest.fixture(params=["made up", "official"])
def pair(request, tmp_path):
    folder = tmp_path / "data"
    return made_up(folder) if request.param == "made up" else official(folder, request.getfixturevalue("shared"))


@pytest.fixture
def check(tmp_path, capsys, pair):
    """Return a function that checks contents and gives the exit status and the printed lines."""

    def run(recall=pair.recall, subset=pair.subset, options=()):
        contents = {"r.json": recall, "s.json": subset}
        paths = [write(tmp_path / name, content) for name, content in contents.items() if content is not None]
        status = status_of(check_submission.main, [*paths, "--data-path", pair.data_path, *options])
        return status, capsys.readouterr().out.splitlines()

    return run


# ---- ready ----


@pytest.mark.parametrize("swapped", [False, True])
def test_a_right_pair_is_ready(check, pair, swapped):
    status, lines = check(*((pair.subset, pair.recall) if swapped else (pair.recall, pair.subset)))
    assert status == 0
    assert lines[-1] == "ready to upload"
    assert findings(lines) == {}
    assert sorted(line.split(", ")[0].split(": ")[1] for line in lines[:2]) == ["recall", "recall_subset"]


def test_layout_and_order_are_only_warnings(check, pair, tmp_path):
    key = next(key for key in pair.entries if set(pair.subset[key][:2]) <= set(pair.recall[key]))
    first, second, third = pair.subset[key]
    status, lines = check(subset=json.dumps(pair.subset | {key: [second, first, third]}, indent=1))
    assert (status, lines[-1]) == (0, "ready to upload: 2 warnings")
    indented, order = findings(lines)
    assert indented == "warning  indented"
    assert order.startswith("warning  other order than the recall file: 1 of ")
    assert findings(lines)[order] == f"{key} Write both files from one run: they seem to be of two."


def test_an_order_is_contrary_too_where_one_name_is_beyond_the_fifty(check, pair):
    """The first of the group's ranking is among the fifty, its second is not, and the other file has it first."""

    def is_cut(key):
        first, second, _ = pair.subset[key]
        return first in pair.recall[key] and second not in pair.recall[key]

    key = next(key for key in pair.entries if is_cut(key))
    first, second, third = pair.subset[key]
    status, lines = check(subset=pair.subset | {key: [second, first, third]})
    assert status == 0
    ((heading, told),) = findings(lines).items()
    assert heading.startswith("warning  other order than the recall file: 1 of ")
    assert told.startswith(f"{key} ")


def test_a_checkpoint_that_is_newer_is_a_warning(check, tmp_path):
    status, lines = check(options=["--checkpoint", *old_and_new_checkpoint(tmp_path)])
    assert (status, lines[-1]) == (0, "ready to upload: 2 warnings")  # one for each file
    told = findings(lines)["warning  older than its checkpoint"]
    assert told.startswith("Write the submission again, if these weights are meant: tuned_clip.pt.")


# ---- faults of single pairs ----


def with_name(name_of):
    """Plant a name, which may depend on the list's last one, in its place."""
    return lambda pair, key, content: content | {key: [*content[key][:-1], name_of(pair, key, content[key][-1])]}


def spelled(spelling):
    return lambda pair, key, content: renamed(content, key, spelling)


def outsider(pair, key, name):
    return next(name for name in pair.pictures if name not in pair.entries[key]["img_set"]["members"])


def with_one_more(pair, key, content):
    unused = set(pair.pictures) - {pair.entries[key]["reference"], *content[key]}
    return content | {key: [*content[key], min(unused)]}


def without_the_key(pair, key, content):
    return {one: names for one, names in content.items() if one != key}


PLAIN, PATHS, NUMBERS = "keys that are not a plain pair id", "names with a folder or a suffix", "numbers for names"
REFERENCE, NO_LIST = "lists with the query's reference", "values that are not a list of names"
CASES = {
    "missing": Case(without_the_key, "pairs missing", "Answer every query of cap.rc2.test1.json"),
    "extra": Case(lambda _, key, a: a | {"99": a[key]}, "pairs that test1 does not have", "only", "99"),
    "repeated": Case(lambda _, key, a: with_repeated_key(a, key), "repeated keys", "Write each key once"),
    "tensor": Case(spelled("tensor({})"), PLAIN, 'Write "{key}", where it has', "tensor({key})"),
    "float": Case(spelled("{}.0"), PLAIN, "str(int(pair_id)) makes it", "{key}.0", file="subset"),
    "suffix": Case(with_name(lambda p, k, name: f"{name}.png"), PATHS, "Write test1-"),
    "folder": Case(with_name(lambda p, k, name: f"./test1/{name}.png"), PATHS, "where it has ./test1/", file="subset"),
    "number": Case(with_name(lambda p, k, name: 17), NUMBERS, "where it has 17."),
    "number as text": Case(with_name(lambda p, k, name: "tensor(17)"), NUMBERS, "has tensor(17)."),
    "endless number": Case(with_name(lambda p, k, name: 10**4000), NUMBERS, "has 1000"),
    "unlisted": Case(
        with_name(lambda p, k, name: "test1-0-9-img9"), "names that test1 does not list", "test1-0-9-img9 is"
    ),
    "picture of val": Case(with_name(lambda p, k, name: "dev-1-0-img0"), "names of val", "dev-1-0-img0 is"),
    "one short": Case(lambda _, key, a: a | {key: a[key][:49]}, "lists one name short", "before it is cut"),
    "short": Case(lambda _, key, a: a | {key: a[key][:1]}, "lists too short", "Give the first 3 names", file="subset"),
    "long": Case(with_one_more, "lists too long", "Cut each ranking at 50 names"),
    "repeats": Case(
        lambda _, key, a: a | {key: a[key][:1] * 3}, "lists that repeat a name", "once in a list", file="subset"
    ),
    "reference": Case(with_name(lambda p, k, _: p.entries[k]["reference"]), REFERENCE, "own reference out"),
    "outside": Case(with_name(outsider), "names outside the group", "Rank only the members", file="subset"),
    "NaN": Case(with_name(lambda p, k, name: float("nan")), "NaN", "JSON has no NaN"),
    "null": Case(lambda _, key, a: a | {key: None}, NO_LIST, "Write a list of names for each pair id", file="subset"),
    "scores": Case(lambda _, key, a: a | {key: [[n, 0.5] for n in a[key]]}, NO_LIST, "Write a list of names"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_fault_of_one_pair_is_named(check, pair, name):
    case = CASES[name]
    key = list(pair.entries)[len(pair.entries) // 2]
    status, lines = check(**{case.file: case.plant(pair, key, getattr(pair, case.file))})
    assert status == 1
    case.assert_alone(lines, key)


def test_an_id_of_val(check, pair):
    status, lines = check(pair.recall | {pair.val_id: ["dev-1-0-img0"] * 50})
    ((heading, told),) = findings(lines).items()
    assert heading == f"fault    pairs of val: 1 of {len(pair.entries) + 1:,}"
    assert told == f"{pair.val_id} Answer the queries of cap.rc2.test1.json: these are of the split val."


# ---- faults of a whole file ----


def test_all_of_a_kind_are_counted_and_ten_are_named(check, pair):
    keys = list(pair.entries)
    status, lines = check(pair.recall | {key: pair.recall[key][:49] for key in keys})
    ((heading, told),) = findings(lines).items()
    assert heading == f"fault    lists one name short: {len(keys):,} of {len(keys):,}"
    assert told.startswith(f"{', '.join(keys[:10])} and {len(keys) - 10} more Take the reference out")
    assert all(len(line) <= 100 for line in lines)


def test_faults_that_do_not_depend_on_each_other_are_all_told(check, pair):
    """The name is mended to see what else is wrong with it, and the key as well."""
    key = next(iter(pair.entries))
    names = [f"{pair.entries[key]['reference']}.png", *pair.recall[key][:48]]
    content = renamed(pair.recall | {key: names, "version": "1.0"}, key, "tensor({})")
    _, lines = check(f"{json.dumps(content)} {{}}")
    assert [heading.split(": ")[0].split(None, 1)[1] for heading in findings(lines)] == [
        "text after the object",
        "wrong version",
        PLAIN,
        PATHS,
        "lists one name short",
        REFERENCE,
    ]


def test_a_file_of_val_is_told_as_that_alone(check, pair):
    entries = json.loads((pair.data_path / "cirr_dataset/cirr/captions/cap.rc2.val.json").read_text())
    ids = [str(entry["pairid"]) for entry in entries]
    recall = {"version": "rc2", "metric": "recall"} | {key: ["dev-1-0-img0"] * 50 for key in ids}
    status, lines = check(recall)
    ((heading, told),) = findings(lines).items()
    assert heading == f"fault    pairs of val: {len(ids):,} of {len(ids):,}"
    assert told.startswith(f"{', '.join(ids[:10])} and ")


def test_the_two_metrics_are_exchanged(check, pair):
    status, lines = check(pair.recall | {"metric": "recall_subset"}, pair.subset | {"metric": "recall"})
    assert (status, lines[-1]) == (1, "not ready to upload: 2 faults")
    text = " ".join(" ".join(lines).split())
    assert lines.count("  fault    metric of the other file") == 2
    assert 'Write "metric": "recall", where it has "recall_subset" and lists of 50. Or were the files confused?' in text
    assert 'Write "metric": "recall_subset", where it has "recall" and lists of 3. Or were the files confused?' in text


HEADS = [
    ({}, "has none", "has none"),
    ({"version": "rc1", "metric": "Recall"}, "has 'rc1'", "has 'Recall'"),
    ({"version": 2, "metric": ["recall"]}, "has 2", "has no text"),
    ({"version": None, "metric": float("nan")}, "has no text", "has NaN"),
]


@pytest.mark.parametrize(("head", "version", "metric"), HEADS)
def test_version_and_metric(check, pair, head, version, metric):
    status, lines = check({key: names for key, names in pair.recall.items() if key in pair.entries} | head)
    assert status == 1
    assert findings(lines) == {
        "fault    wrong version": f'Write "version": "rc2", where it {version}.',
        "fault    wrong metric": f'Write "metric": "recall", where it {metric}: most lists have 50 names.',
    }


def test_one_list_for_all_queries(check, pair):
    ranked = pair.recall[next(iter(pair.entries))]
    status, lines = check(pair.recall | dict.fromkeys(pair.entries, ranked))
    count = len(pair.entries)
    told = findings(lines)[f"fault    identical lists: {count:,} of {count:,}"]
    assert told.endswith(f"Rank for each query anew: {count:,} queries have 1 different lists.")
    assert "captions" not in "".join(findings(lines))


def test_captions_that_play_no_part(check, pair):
    """The ranking by the picture alone is the same for all queries of a reference."""
    ranked = {}
    for key, entry in pair.entries.items():
        ranked.setdefault(entry["reference"], pair.recall[key])
    alone = {key: ranked[entry["reference"]] for key, entry in pair.entries.items()}
    status, lines = check(pair.recall | alone)
    heading = next(iter(findings(lines)))
    # A submission of the picture alone may be meant.
    assert status == 0
    assert heading.startswith("warning  captions that change nothing: ")
    assert "Look whether the captions are used" in findings(lines)[heading]


@pytest.mark.parametrize("part", ["references", "some"])
def test_a_gallery_that_is_not_whole(check, pair, part):
    references = {entry["reference"] for entry in pair.entries.values()}
    gallery = [name for name in pair.pictures if name in references] if part == "references" else pair.pictures[:56]
    rng = random.Random(0)
    answers = {}
    for key, entry in pair.entries.items():
        answers[key] = rng.sample([name for name in gallery if name != entry["reference"]], 50)
    status, lines = check(pair.recall | answers)
    assert status == 1
    unnamed = [name for name in pair.pictures if name not in gallery]
    told = findings(lines)[f"fault    pictures that no list names: {len(unnamed):,} of {len(pair.pictures):,}"]
    assert told.startswith(", ".join(unnamed[:10]))
    assert told.endswith(
        "Rank every picture of split.rc2.test1.json, not only " + ("the references.", "some.")[part == "some"]
    )


FORMS = FORMS | {
    "a list": (lambda text: f"[{text}]", "not a JSON object", "Write one object"),
    "too large": (lambda text: text + " " * 5_000_000, "too large", "the server takes 5 MB"),
    "far too large": (lambda text: text + " " * 50_000_000, "too large", "the server takes 5 MB"),
    "no pairs": (lambda text: '{"version": "rc2", "metric": "recall"}', "no pairs", "Write a list of names"),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_form_of_a_file(check, pair, form):
    change, kind, mend = FORMS[form]
    status, lines = check(change(json.dumps(pair.recall)))
    assert status == 1
    ((heading, told),) = findings(lines).items()
    assert heading == f"fault    {kind}"
    assert mend in told


@pytest.mark.parametrize("given", ["recall", "subset"])
def test_one_file_alone(check, pair, given):
    status, lines = check(**{"recall": None, "subset": None} | {given: getattr(pair, given)})
    other = {"recall": "recall_subset", "subset": "recall"}[given]
    assert status == 1
    assert findings(lines) == {"fault    not both files": f"Give that of {other} as well: the server wants two files."}


def test_the_same_file_twice(check, pair):
    assert "Give that of recall_subset as well" in " ".join(check(pair.recall, pair.recall)[1])


def test_json_has_all_findings_whole(check, pair, tmp_path):
    keys = list(pair.entries)[:30]
    file = tmp_path / "found.json"
    status, _ = check(pair.recall | {key: pair.recall[key][:49] for key in keys}, options=["--json", file])
    told = json.loads(file.read_text())
    assert (status, told["ready"]) == (1, False)
    recall, subset = told["files"]
    assert recall["file"] == str(tmp_path / "r.json")
    assert (recall["metric"], recall["pairs"], subset["findings"]) == ("recall", len(pair.entries), [])
    (finding,) = recall["findings"]
    assert finding == {
        "level": "fault",
        "kind": "lists one name short",
        "count": 30,
        "of": len(pair.entries),
        "names": keys,
        "mend": "Take the reference out of the ranking before it is cut at 50, not after.",
    }
