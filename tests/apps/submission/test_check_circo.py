"""A right CIRCO submission is ready to upload. In a wrong one each fault is named, with its key and what mends it."""

import json
import random

import pytest

from tests.support.circo_submissions import IDS, KEYS, RIGHT, SPLIT, report, split_of
from tests.support.submissions import (
    FORMS,
    Case,
    findings,
    made_up,
    old_and_new_checkpoint,
    renamed,
    with_repeated_key,
    write,
)

READY = "ready to upload"


@pytest.fixture
def checked(tmp_path):
    """Return a function that checks a content and gives the printed lines."""
    return lambda content, split=SPLIT: report(write(tmp_path / "x.json", content), split)


# ---- ready ----


SPELLINGS = {"numbers": int, "digits": str, "twelve digits": lambda number: f"{number:012}"}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("indent", [None, 1])
def test_a_right_file_is_ready(checked, spelling, indent):
    spelled = {key: list(map(SPELLINGS[spelling], ids)) for key, ids in reversed(RIGHT.items())}
    first, last = checked(json.dumps(spelled, indent=indent))
    assert first.startswith("x.json: mAP, 800 queries, 0.")
    assert last == READY


def test_part_of_the_gallery_is_no_fault(checked):
    assert checked(RIGHT, split_of(IDS[:800], [*IDS, *map(str, range(500_000, 620_000))]))[-1] == READY


def test_the_reference_in_a_list_is_only_a_remark(checked):
    lines = checked(RIGHT | {"7": [int(IDS[7]), *RIGHT["7"][:49]]})
    assert lines[-1] == f"{READY}: 1 warning"
    ((heading, told),) = findings(lines).items()
    assert heading == "warning  lists with the query's reference: 1 of 800"
    assert told.startswith("7 Leave it if it is meant")


def test_a_checkpoint_that_is_newer_is_a_warning(tmp_path):
    lines = report(write(tmp_path / "x.json", RIGHT), checkpoints=old_and_new_checkpoint(tmp_path))
    assert lines[-1] == f"{READY}: 1 warning"
    told = findings(lines)["warning  older than its checkpoint"]
    assert told == "Write the submission again, if these weights are meant: tuned_clip.pt."


# ---- the real files ----


@pytest.fixture(scope="session")
def real(shared):
    """Return the folder of real submissions, and the split that they answer: its gallery is what they name."""
    folder = shared / "data" / "submissions" / "circo"
    entries = json.loads((shared / "data" / "annotations" / "circo" / "annotations" / "test.json").read_text())
    answers = [ids for file in folder.glob("*/*.json") for ids in json.loads(file.read_text()).values()]
    references = [str(entry["reference_img_id"]) for entry in entries]
    return folder, split_of(references, [*references, *(str(name) for ids in answers for name in ids)])


@pytest.mark.parametrize(
    ("name", "with_reference"),
    [
        ("example_runs/mmret_base_circo.json", 327),
        ("example_runs/mmret_large_circo.json", 335),
        ("submission_examples/submission_test.json", 10),
    ],
)
def test_real_files_are_ready(real, name, with_reference):
    folder, split = real
    lines = report(folder / name, split)
    assert lines[-1] == f"{READY}: 1 warning"
    assert [*findings(lines)] == [f"warning  lists with the query's reference: {with_reference} of 800"]


def test_the_real_file_of_val_is_told_as_that_alone(real):
    folder, split = real
    lines = report(folder / "submission_examples" / "submission_val.json", split)
    assert lines[-1] == "not ready to upload: 1 fault"
    mend = "Answer the 800 queries of test.json: val has 220, and no server scores it."
    assert findings(lines) == {"fault    a file of val": mend}


# ---- faults of single queries ----


def with_id(change):
    """Plant an id, made from the list's last one, in its place."""
    return lambda key: RIGHT | {key: [*RIGHT[key][:-1], change(RIGHT[key][-1])]}


def spelled(spelling):
    return lambda key: renamed(RIGHT, key, spelling)


def repeating_an_id(key):
    """Plant an id that stands there as a number already, as text."""
    return RIGHT | {key: [*RIGHT[key][:49], f"{RIGHT[key][0]:012}"]}


def one_more(key):
    return RIGHT | {key: [*RIGHT[key], next(int(name) for name in IDS[800:] if int(name) not in RIGHT[key])]}


FILES, NO_NUMBERS = "file names for ids", "ids that are not whole numbers"
UNLISTED, NO_LIST = "ids that the gallery does not have", "values that are not a list of ids"
UNKNOWN, PLAIN = "queries that test does not have", "keys that are not a plain query id"
CASES = {
    "missing": Case(
        lambda key: {one: ids for one, ids in RIGHT.items() if one != key}, "queries missing", "Answer every"
    ),
    "extra": Case(lambda key: RIGHT | {"800": RIGHT[key]}, UNKNOWN, "Answer only the queries", "800"),
    "extra word": Case(lambda key: RIGHT | {"email": RIGHT[key]}, UNKNOWN, "Answer only the queries", "email"),
    "twice in two ways": Case(lambda key: RIGHT | {f"0{key}": RIGHT[key]}, UNKNOWN, "Answer only", "0{key}"),
    "repeated": Case(lambda key: with_repeated_key(RIGHT, key), "repeated keys", "Write each key once"),
    "tensor": Case(spelled("tensor({})"), PLAIN, "str(int(query_id)) makes it", "tensor({key})"),
    "float key": Case(spelled("{}.0"), PLAIN, 'Write "{key}", where it has "{key}.0"', "{key}.0"),
    "zeros": Case(spelled("00{}"), PLAIN, 'Write "{key}", where it has "00{key}"', "00{key}"),
    "version": Case(lambda key: RIGHT | {"version": "rc2"}, "keys of CIRR's files", "Delete what is no", "version"),
    "metric": Case(lambda key: {"metric": ["recall"]} | RIGHT, "keys of CIRR's files", "Delete what is no", "metric"),
    "file name": Case(with_id(lambda n: f"{n:012}.jpg"), FILES, "Write {last}, where it has 000"),
    "folder": Case(with_id(lambda n: f"unlabeled2017/{n:012}"), FILES, "Write {last}, where it has unlabeled2017/"),
    "other file": Case(with_id(lambda n: "7.png"), FILES, "Write the number that COCO gives the picture, where"),
    "float": Case(with_id(float), NO_NUMBERS, "Write {last}, where it has {last}.0."),
    "half": Case(with_id(lambda n: n + 0.5), NO_NUMBERS, "Write the number that COCO gives the picture"),
    "tensor id": Case(with_id(lambda n: f"tensor({n})"), NO_NUMBERS, "Write {last}, where it has tensor({last})."),
    "nothing": Case(with_id(lambda n: ""), NO_NUMBERS, 'where it has "".'),
    "unlisted": Case(with_id(lambda n: n + 1), UNLISTED, "image_info_unlabeled2017.json: "),
    "negative": Case(with_id(lambda n: -n), UNLISTED, "-{last} is none of them."),
    "endless": Case(with_id(lambda n: 10**4000), UNLISTED, "is none of them."),
    "one short": Case(lambda key: RIGHT | {key: RIGHT[key][:49]}, "lists one id short", "before it is cut at 50"),
    "short": Case(lambda key: RIGHT | {key: []}, "lists too short", "Give the first 50 ids of the whole ranking"),
    "long": Case(one_more, "lists too long", "Cut each ranking at 50 ids"),
    "repeats": Case(repeating_an_id, "lists that repeat an id", "Give each picture once in a list"),
    "NaN": Case(with_id(lambda n: float("nan")), "NaN", "Write ids alone: JSON has no NaN"),
    "null": Case(lambda key: RIGHT | {key: None}, NO_LIST, 'Write a list of ids for each query id: "0": ['),
    "true": Case(with_id(lambda n: True), NO_LIST, "Write a list of ids for each query id"),
    "scores": Case(with_id(lambda n: [n, 0.5]), NO_LIST, "Write a list of ids for each query id"),
}


@pytest.mark.parametrize("key", ["0", "400", "799"])
@pytest.mark.parametrize("name", CASES)
def test_a_fault_of_one_query_is_named(checked, name, key):
    case = CASES[name]
    case.assert_alone(checked(case.plant(key)), key, last=RIGHT[key][-1])


def test_faults_that_do_not_depend_on_each_other_are_all_told(checked):
    """The ids are mended to see what else is wrong with the list, and the key as well."""
    ids = [f"{IDS[5]}.jpg", *RIGHT["5"][:47], RIGHT["5"][0]]
    content = renamed(RIGHT, "5", "tensor({})") | {"tensor(5)": ids, "version": "1.0"}
    assert [heading.split(": ")[0] for heading in findings(checked(f"{json.dumps(content)} {{}}"))] == [
        "fault    text after the object",
        "fault    keys of CIRR's files",
        f"fault    {PLAIN}",
        f"fault    {FILES}",
        "fault    lists one id short",
        "fault    lists that repeat an id",
        "warning  lists with the query's reference",
    ]


# ---- faults of a whole file ----


@pytest.mark.parametrize("spelling", ["{}", "tensor({})"])
def test_a_file_of_val_is_told_as_that(checked, spelling):
    """The references of test are not those of its queries, so they may stand in its lists."""
    lists = RIGHT | {"7": [int(IDS[7]), *RIGHT["7"][:49]]}
    found = findings(checked({spelling.format(key): lists[key] for key in KEYS[:220]}))
    assert found.pop("fault    a file of val").startswith("Answer the 800 queries of test.json")
    assert [heading.split(": ")[0] for heading in found] == [f"fault    {PLAIN}"] * (spelling != "{}")


def test_a_split_as_large_as_val_is_not_taken_for_it(checked):
    assert checked({key: RIGHT[key] for key in KEYS[:220]}, split_of(IDS[:220], IDS))[-1] == READY


@pytest.mark.parametrize("count", [100, 219, 221, 799])
def test_another_part_of_the_queries_is_told_as_missing(checked, count):
    ((heading, told),) = findings(checked({key: RIGHT[key] for key in KEYS[:count]})).items()
    assert heading == f"fault    queries missing: {800 - count} of 800"
    assert told.startswith(f"{count}")


def test_one_list_for_all_queries(checked):
    lines = checked(dict.fromkeys(KEYS, RIGHT["0"]))
    told = findings(lines)["fault    identical lists: 800 of 800"]
    assert told.endswith("Rank for each query anew: 800 queries have 1 different lists.")


def test_rows_of_the_gallery_are_told_as_such(checked):
    lines = checked({key: random.Random(key).sample(range(1000), 50) for key in KEYS})
    told = findings(lines)[f"fault    {UNLISTED}: 800 of 800"]
    assert told.endswith("is none of them. Is it the row of a gallery?")


def test_a_number_that_python_does_not_read_is_no_row(checked):
    told = findings(checked(dict.fromkeys(KEYS, ["9" * 5000])))[f"fault    {UNLISTED}: 800 of 800"]
    assert told.endswith("is none of them.")


def test_a_file_of_cirr_is_told_whose_it_is(checked, tmp_path):
    told = findings(checked(made_up(tmp_path).recall))["fault    keys of CIRR's files: 2 of 122"]
    assert told.endswith("Is it a submission to CIRR? Then add --dataset CIRR.")


FORMS = FORMS | {
    "a list": (lambda text: f"[{text}]", "not a JSON object", 'Write one object, {"<query id>": [ids], …}.'),
    "too large": (lambda text: text + " " * 5_000_000, "too large", "Write ids alone, without indentation: a right"),
    "far too large": (lambda text: text + " " * 50_000_000, "too large", "a right file has 0.3 MB"),
    "no queries": (lambda text: "{}", "no queries", "Write a list of ids"),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_form_of_a_file(checked, form):
    change, kind, mend = FORMS[form]
    lines = checked(change(json.dumps(RIGHT)))
    assert lines[-1] == "not ready to upload: 1 fault"
    ((heading, told),) = findings(lines).items()
    assert heading == f"fault    {kind}"
    assert mend in told
