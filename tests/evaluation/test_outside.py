"""Rankings of other programs: counted as our own are, up to where they end, or refused in a line."""

import gzip
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

import compare
import validate
from src.base.files import PROJECT_ROOT
from src.evaluation.run_ranking import UNRANKED, Places, Ranking
from src.retrieval.metrics import GradedRanks
from src.tasks.registry import TASKS
from src.tasks.triplets import Query, Triplet
from tests.support.circo_world import write_circo
from tests.support.commands import status_of, toy_options
from tests.support.own_folders import with_pictures

# ---- what validate.py writes, given back ----


@pytest.fixture(scope="module")
def data(world, tmp_path_factory):
    """Return a folder with CIRR, FashionIQ, CIRCO, and own triplets in two categories, some of several targets."""
    folder = write_circo(tmp_path_factory.mktemp("data"))
    for name in ("cirr_dataset", "fashionIQ_dataset"):
        (folder / name).symlink_to(world / name)
    shutil.copy(world / "small_clip.pt", folder)
    rows = ["a.jpg,b.PNG|i.jpg,redder,x-1,p", "in/d e.jpg,in/c.webp,bluer,x 2,p", 'b.PNG,"g,h.jpg",older,50%,q-r']
    table = "\n".join(["reference,target,caption,id,category", *rows])
    (with_pictures(folder / "own") / "triplets.val.csv").write_text(table)
    return folder


@pytest.fixture(scope="module")
def ours(data, tmp_path_factory):
    """Return a function that judges the toy CLIP on a data set, once, and gives the folder of all its files."""
    folders = {}

    def judge(dataset):
        if dataset not in folders:
            folder = folders[dataset] = tmp_path_factory.mktemp("ours")
            files = [f"--{what}={folder / name}" for what, name in WRITTEN.items()]
            validate.main(["--dataset", named(dataset, data), "--protocol", "all", *files, *toy_options(data, folder)])
        return folders[dataset]

    return judge


WRITTEN = {"per-query": "run.csv", "trec-run": "run.trec", "json": "run.json", "candidates": "run.jsonl"}


def named(dataset, data):
    return str(data / "own") if dataset == "own" else dataset


def lists_in(trec):
    """Return {topic: names} of a TREC run."""
    lists = {}
    for line in trec.read_text().splitlines():
        topic, _, name, *_ = line.split()
        lists.setdefault(topic, []).append(name)
    return lists


def as_json(runs, folder):
    return [written(folder / f"{run.stem}.json", json.dumps(lists_in(run))) for run in runs]


def as_scores(runs, folder):
    """Write {topic: {name: score}} with the names in the order of the alphabet."""
    lists = [lists_in(run) for run in runs]
    scored = [{key: {name: -names.index(name) for name in sorted(names)} for key, names in of.items()} for of in lists]
    return [written(folder / f"{run.stem}.json", json.dumps(of)) for run, of in zip(runs, scored, strict=True)]


def as_submission(runs, folder):
    """Write the forms of CIRR's two files; CIRCO's has numbers for names."""
    files = []
    for run, metric in zip(runs, ("recall", "recall_subset"), strict=False):
        lists = {key: [int(name) if name.isdecimal() else name for name in of] for key, of in lists_in(run).items()}
        head = {"version": "rc2", "metric": metric} if len(runs) > 1 else {}
        files.append(written(folder / f"{run.stem}.json", json.dumps(head | lists)))
    return files


def written(path, text):
    path.write_text(text)
    return path


GIVEN_BACK = [
    *((dataset, protocol) for dataset, protocols in (
        ("CIRR", ("clip4cir", "soft")), ("FashionIQ", ("clip4cir", "covr", "val", "searle")),
        ("CIRCO", ("searle", "covr", "magiclens")), ("own", ("own",)),
    ) for protocol in protocols)
]  # fmt: skip


@pytest.mark.parametrize(("dataset", "protocol"), GIVEN_BACK)
def test_what_it_writes_is_taken_back(dataset, protocol, data, ours, tmp_path):
    folder = ours(dataset)
    (expected,) = [
        one for one in json.loads((folder / "run.json").read_text())["protocols"] if one["protocol"] == protocol
    ]
    middle = "" if dataset == "own" else f".{protocol}"
    runs = [folder / f"run{middle}.trec", *([folder / f"run{middle}.group.trec"] if dataset == "CIRR" else [])]
    forms = [runs, [folder / "run.csv"], as_json(runs, tmp_path)]
    forms += [as_submission(runs, tmp_path)] if dataset in ("CIRR", "CIRCO") else []
    for files in [*forms, as_scores(runs, tmp_path)]:
        options = [f"--{name}={file}" for name, file in zip(("run", "group-run"), files, strict=False)]
        result, again = tmp_path / "back.json", tmp_path / "back.csv"
        validate.main([
            *("--dataset", named(dataset, data), "--protocol", protocol, "--data-path", str(data), *options),
            *("--json", str(result), "--per-query", str(again)),
        ])  # fmt: skip
        (found,) = json.loads(result.read_text())["protocols"]
        assert found["data_sha256"] == expected["data_sha256"]
        assert found["metrics"].keys() == expected["metrics"].keys()
        for name, of in expected["metrics"].items():
            # A table has nine digits of a score.
            assert found["metrics"][name] == pytest.approx(of, abs=1e-6), name
        assert found["run"]["not_known"] == {}
        # What it then writes is as good.
        assert status_of(compare.main, [folder / "run.csv", again]) == 0


def test_the_ladder_of_a_model_below_a_run(data, ours, tmp_path, capsys):
    run = ours("CIRR") / "run.clip4cir.trec"
    groups = ["--group-run", str(run.with_name("run.clip4cir.group.trec"))]
    validate.main(["--dataset", "CIRR", "--run", str(run), *groups, *toy_options(data, tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    sums, own = (next(line.split()[1:] for line in lines if line.startswith(f"{name} ")) for name in ("sum", run.name))
    assert sums == own[-len(sums) :]
    assert any(line.startswith(f"{run.name}, no shortcut") for line in lines)


def test_no_torch_is_needed(data, ours, tmp_path):
    argv = ["validate.py", "--dataset", "CIRR", "--data-path", str(data), "--run", str(ours("CIRR") / "run.csv")]
    argv += ["--per-query", str(tmp_path / "again.csv"), "--candidates", str(tmp_path / "again.jsonl")]
    hidden = f"import runpy, sys; sys.modules['torch'] = None; sys.argv = {argv}"
    command = [sys.executable, "-c", f"{hidden}; runpy.run_path('validate.py', run_name='__main__')"]
    done = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "recall_at50 = " in done.stdout


def test_the_official_evaluators_numbers(shared, tmp_path):
    """Of CIRCO's example, as its evaluator prints them."""
    root, form = tmp_path / "CIRCO", shared / "data" / "submissions" / "circo" / "submission_examples"
    (root / "COCO2017_unlabeled" / "annotations").mkdir(parents=True)
    (root / "annotations").symlink_to(shared / "data" / "annotations" / "circo" / "annotations")
    lists = json.loads((form / "submission_val.json").read_text())
    names = {int(name) for of in lists.values() for name in of}
    for entry in json.loads((root / "annotations" / "val.json").read_text()):
        names |= {entry["reference_img_id"], *entry["gt_img_ids"]}
    images = [{"id": name, "file_name": f"{name:012}.jpg"} for name in sorted(names)]
    listing = root / "COCO2017_unlabeled" / "annotations" / "image_info_unlabeled2017.json"
    listing.write_text(json.dumps({"images": images}))
    result = tmp_path / "result.json"
    validate.main(["--dataset", "CIRCO", "--data-path", str(tmp_path), "--run", str(form / "submission_val.json"),
                   "--json", str(result)])  # fmt: skip
    (protocol,) = json.loads(result.read_text())["protocols"]
    found = {name: of["percent"] for name, of in protocol["metrics"].items()}
    expected = dict(zip((f"map_at{k}" for k in (5, 10, 25, 50)), (0.4861, 0.5178, 0.5400, 0.6020), strict=True))
    expected |= dict(zip((f"recall_at{k}" for k in (5, 10, 25, 50)), (0.9091, 0.9091, 1.3636, 3.6364), strict=True))
    aspects = {"addition": 0.0871, "comparative_statement": 1.05, "compare_change": 0.0242, "direct_addressing": 0.9197,
               "spatial_relations_background": 0.1808, "statement_with_conjunction": 0.6183, "viewpoint": 0.6173,
               "cardinality": 0, "negation": 0}  # fmt: skip
    expected |= {f"semantic_map_at10_{name}": value for name, value in aspects.items()}
    assert found == pytest.approx(expected, abs=1e-4)


# ---- by hand: three queries over six pictures, whose references leave the ranking ----

TRIPLETS = "id,reference,target,caption\n1,a.jpg,b.jpg,red\n2,a.jpg,in/c.jpg,blue\n3,d.jpg,f.jpg,old\n"
GALLERY = ["a.jpg", "b.jpg", "in/c.jpg", "d.jpg", "e.jpg", "f.jpg"]
RANKED = {
    "1": ["b.jpg", "in/c.jpg", "d.jpg", "e.jpg", "f.jpg"],
    "2": ["f.jpg", "in/c.jpg", "d.jpg", "e.jpg", "b.jpg"],
    "3": ["a.jpg", "b.jpg", "in/c.jpg", "e.jpg", "f.jpg"],
}


@pytest.fixture
def judged(tmp_path, capsys):
    """Return a function that judges a run by hand: (status, {metric: percent}, lines on stderr)."""
    folder = tmp_path / "hand"
    folder.mkdir()

    def judge(content, *options, name="other.run", triplets=TRIPLETS, gallery=GALLERY):
        (folder / "triplets.val.csv").write_text(triplets)
        (folder / "gallery.val.txt").write_text("\n".join(gallery))
        path = tmp_path / name
        path.write_bytes(content) if isinstance(content, bytes) else path.write_text(
            content if isinstance(content, str) else json.dumps(content)
        )
        status = status_of(validate.main, ["--dataset", folder, "--run", path, *options])
        said = capsys.readouterr()
        metrics = dict(line.split(" = ") for line in said.out.splitlines() if " = " in line)
        return status, {metric: float(value) for metric, value in metrics.items()}, said.err.splitlines()

    return judge


def test_a_ranking_by_hand(judged):
    status, metrics, said = judged(RANKED)
    assert (status, said) == (0, [])
    assert metrics == pytest.approx(
        {"recall_at1": 100 / 3, "recall_at5": 100, "recall_at10": 100, "recall_at50": 100, "mean_recall": 250 / 3},
        abs=1e-4,
    )


def test_a_ranking_that_ends_early(judged, tmp_path):
    """Two places are known: the third query's target comes later, or not."""
    path = tmp_path / "cut.csv"
    status, metrics, said = judged({query: names[:2] for query, names in RANKED.items()}, "--per-query", path)
    assert status == 0
    assert metrics == pytest.approx({"recall_at1": 100 / 3}, abs=1e-4)
    assert [line.partition(": ")[2] for line in said[:3]] == [
        f"recall_at{k} is not known: 1 of 3 lists end too early (3)" for k in (5, 10, 50)
    ]
    assert [line.split(",")[7] for line in path.read_text().splitlines()] == ["rank", "1", "2", ">2"]


def trec(lists, score=lambda place: -place):
    return "".join(
        f"{query} Q0 {name} {place} {score(place)} other\n"
        for query, names in lists.items()
        for place, name in enumerate(names, start=1)
    )


def changed(query, names):
    return RANKED | {query: names}


CSV = "query,rank,answers\n1,1,b.jpg|e.jpg\n2,2,f.jpg|in/c.jpg\n3,{},a.jpg\n"


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (RANKED | {"9": ["a.jpg"]}, "queries that val does not have: 1 of 4 (9); call them as 1, and answer only"),
        ({"1": RANKED["1"], "2": RANKED["2"]}, "queries missing: 1 of 3 (3); answer every query of val"),
        ('{"1": [], "1": []}', "not JSON (the key 1 stands twice in one object)"),
        (
            {"tensor(1)": RANKED["1"], "1.0": RANKED["1"]} | RANKED | {"1": None},
            "values that are not a list of names: 1 of 5 (1)",
        ),
        (
            {"tensor(1)": RANKED["1"], "1.0": [], "2": [], "3": []},
            "keys that mean the query of another: 1 of 4 (1.0); write each query once",
        ),
        (changed("2", ["zebra.jpg"]), "lists with names that val does not list, as zebra.jpg: 1 of 3 (2); rank its"),
        (changed("2", ["B.JPG"]), "as B.JPG: 1 of 3 (2); there is b.jpg, in other case"),
        (changed("2", ["other/b.jpg", "elsewhere/c.jpg"]), "as elsewhere/c.jpg: 1 of 3 (2); there is in/c.jpg, in"),
        (changed("2", ["b.jpg", "e.jpg", "b.jpg"]), "lists that repeat a name: 1 of 3 (2); give each picture once"),
        (changed("2", ["b.jpg", "e.jpg", "/tmp/b.png"]), "lists that repeat a name: 1 of 3 (2)"),
        (changed("2", [17]), "lists with names that val does not list, as 17: 1 of 3 (2)"),
        (changed("2", [float("nan")]), "NaN: 1 of 3 (2); write only names"),
        (changed("2", True), "values that are not a list of names: 1 of 3 (2)"),
        ({"all": changed("2", True)}, "values that are not a list of names: 1 of 3 (2)"),
        ({"pair_1": RANKED["1"], "2": RANKED["2"], "b3": RANKED["3"]}, "that val does not have: 2 of 3 (pair_1, b3)"),
        (changed("2", {"b.jpg": float("nan")}), "NaN: 1 of 3 (2)"),
        (changed("2", {"b.jpg": "high"}), "values that are not a list of names: 1 of 3 (2)"),
        (changed("2", "b.jpg"), "values that are not a list of names: 1 of 3 (2)"),
        (changed("2", []), "lists too short for recall_at1: 1 of 3 lists end too early (2); give longer ones"),
        ([RANKED], "not a JSON object, but a list"),
        ({}, "holds no queries"),
        ("", "is empty; expected a TREC run, a JSON object"),
        ('{"1": ["b.jpg"', "not JSON ("),
        (RANKED | {"metric": "recall_subset"}, "metric of the other file (recall_subset); give it as --group-run"),
        ({"dresses": RANKED}, "has categories dresses, expected all"),
        (trec(RANKED, lambda place: place), "queries whose scores contradict their ranks: 3 of 3 (1, 2, 3); write"),
        (trec(RANKED, lambda place: "nan"), "line 1: score 'nan' is not a number; write query Q0 name rank score run"),
        (trec(RANKED).replace(" other\n", "\n"), "line 1: has 5 columns, a TREC run has six"),
        (gzip.compress(b"{}", mtime=0), "line 1: not UTF-8; unpack it, or save it as UTF-8"),
        (trec({"9": ["b.jpg"]}).replace(" ", "\t").replace("other", "query"), "queries that val does not have: 1 of 1"),
        ("name,answers\n1,b.jpg\n", "line 1: has 1 columns"),
        (CSV.format(1), "query 3 has the rank 1, but its target is no answer"),
        (CSV.format(5).replace("1,1,", "1,2,"), "query 1 has the rank 2, but its target is answer 1"),
        (CSV.format("x"), "line 4: 'x' is not a rank; write a whole number from 1"),
        (CSV.format(5) + "1,1,b.jpg\n", "line 5: query 1 stands in it twice"),
        (CSV.format(5).replace("query,", "protocol,query,").replace("\n1,", "\nx,1,"), "line 3: has another number"),
        ("query,protocol,rank\n1,val,1\n", "has rows of protocol val, none of own, by which it is to be judged"),
        ("query,data,rank\n1,x.val.0,1\n2,x.val.0,1\n3,x.val.0,1\n", "is of other data: x.val.0 where hand.val."),
    ],
)
def test_faults(content, fault, judged):
    status, metrics, said = judged(content)
    assert (status, metrics) == (2, {})
    (line,) = said
    assert fault in line
    assert "other.run" in line


def test_a_run_without_references_where_they_are_kept(judged):
    status, _, (line,) = judged(RANKED, "--reference", "keep")
    assert status == 2
    assert "no list has its query's reference, which protocol full-keep-joined keeps in the ranking; judge it" in line


@pytest.mark.parametrize(
    ("content", "recall", "remark"),
    [
        (
            changed("1", ["a.jpg", *RANKED["1"]]),
            1,
            "the query's reference, which leaves them, and so one place: 1 of 3",
        ),
        (changed("1", ["b", "c", "D:\\x\\d.png", "e", "f"]), 1, "names written otherwise: 5 of 11, as "),
        ({"tensor(1)": RANKED["1"], "2": RANKED["2"], "3.0": RANKED["3"]}, 1, "queries called otherwise: 2 of 3, as "),
        (trec(RANKED, lambda place: 1), 1, "queries with equal scores, taken in the order of their ranks: 3 of 3"),
        (changed("1", {"e.jpg": 1, "b.jpg": 1}), 0, "queries with equal scores, taken in the order of the file: 1 of"),
        (
            trec({"2": RANKED["2"], "3": RANKED["3"]}) + trec({"1": RANKED["1"]}, lambda place: place),
            0,
            "queries whose scores contradict their ranks, taken by their scores as TREC's tools do: 1 of 3 (1)",
        ),
    ],
)
def test_what_is_counted_and_said(content, recall, remark, judged):
    status, metrics, said = judged(content)
    assert status == 0
    assert metrics["recall_at1"] == pytest.approx(100 * recall / 3, abs=1e-4)
    assert any(remark in line for line in said)


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (["--skip-missing"], "--skip-missing leaves queries out"),
        (["--transform", "squarepad"], "--transform: a --run without a model looks at no picture"),
        (["--num-workers", "0"], "--num-workers: a --run without a model looks at no picture"),
        (["--no-feature-cache"], "--no-feature-cache: a --run without a model looks at no picture"),
        (["--comet-offline"], "--comet-offline: a --run without a model is not logged to Comet"),
        (["--group-run", "{run}"], "ranks groups, which protocol own of hand does not count"),
        (["--json", "{run}"], "is an input of this command (--run); name another file"),
    ],
)
def test_options_that_do_not_go_with_a_run(options, fault, judged, tmp_path):
    status, _, (line,) = judged(RANKED, *(option.format(run=tmp_path / "other.run") for option in options))
    assert status == 2
    assert fault in line


@pytest.mark.parametrize(
    ("cut", "protocols", "lines"),
    [
        (
            10,
            ["all"],
            ["protocol covr: left out, {run}: lists too short for recall_at10: ", "{run}: recall_at50 is not "],
        ),
        (
            12,
            ["clip4cir", "covr"],
            [
                "protocol clip4cir: {run}: lists with the query's reference, which counts as a miss: 24 of 24",
                "protocol covr: {run}: lists with the query's reference, which leaves them, and so one place: 24 of 24",
            ],
        ),
    ],
)
def test_what_each_protocol_says(cut, protocols, lines, data, ours, tmp_path, capsys):
    """Lists that are too short for one protocol are judged by the others; each line says of which one it is."""
    lists = {query: names[:cut] for query, names in lists_in(ours("FashionIQ") / "run.clip4cir.trec").items()}
    run = written(tmp_path / "cut.json", json.dumps(lists))
    capsys.readouterr()
    options = ["--dataset", "FashionIQ", "--data-path", data, "--run", run, "--protocol", *protocols]
    assert status_of(validate.main, options) == 0
    said = capsys.readouterr().err.splitlines()
    for line in lines:
        assert sum(one.startswith(line.format(run=run)) for one in said) == 1, said


@pytest.mark.parametrize(
    ("k", "listed", "unlisted", "is_unknown"),
    [(2, 0.5, 1, False), (5, 0.5, 1, True), (5, 1, 0.5, False), (5, 1, 1, False), (5, 0, -1, False)],
)
def test_what_a_grade_leaves_unknown(k, listed, unlisted, is_unknown):
    """Two places are known, and one of two graded pictures comes later."""
    places = Places([["a", "b"]], [9], np.array([1]), np.array([2]))
    graded = GradedRanks(np.zeros(2, int), np.array([listed, unlisted]), np.array([1, UNRANKED]), None)
    query = Query("1", Triplet("r", ("",), ("b",)), ("",))
    ranking = Ranking([query], list("abcdefghi"), 9, places, None, graded)
    assert ranking.unknown(f"recall_at{k}", k, soft=True) == [is_unknown]


# ---- ranks of a table, groups, and what all lists show together ----

PLACES = "query,rank,answers\n1,{}\n2,2,f.jpg|in/c.jpg\n3,4,a.jpg|b.jpg\n"


@pytest.mark.parametrize(
    ("row", "options", "metrics", "remark"),
    [
        # The reference was ranked too: the target's place is one less than its rank, unless it comes after the list.
        (
            "4,a.jpg|e.jpg|d.jpg|b.jpg",
            (),
            {"recall_at1": 0, "recall_at5": 100},
            "which leaves them, and so one place: 1",
        ),
        ("2,a.jpg|b.jpg", (), {"recall_at1": 100 / 3, "recall_at5": 100}, "ranks left out, as pictures left the list"),
        ("6,a.jpg|d.jpg", (), {"recall_at1": 0}, "recall_at5 is not known: 1 of 3 lists end too early (1)"),
        ("2,e.jpg|b.jpg", ("--gallery", "val"), {}, "pictures left the list before them: 1"),
        ("3,d.jpg", (), {"recall_at1": 0, "recall_at5": 100}, "without an answer, taken as of protocol own: 2"),
        ("3,d.jpg", ("--gallery", "val"), {}, "taken as of protocol val-drop-joined: 2"),
    ],
)
def test_ranks_of_a_table(row, options, metrics, remark, judged):
    status, found, said = judged(PLACES.format(row), *options)
    assert status == 0
    assert any(remark in line for line in said)
    assert {name: found.get(name) for name in metrics} == pytest.approx(metrics, abs=1e-4)


GROUPED = """id,reference,target,caption,group
1,a.jpg,b.jpg,red,a.jpg|b.jpg|e.jpg
2,a.jpg,in/c.jpg,blue,in/c.jpg|e.jpg
3,d.jpg,f.jpg,old,f.jpg|a.jpg
"""
MEMBERS = {"1": ["b.jpg", "e.jpg"], "2": ["e.jpg", "in/c.jpg"], "3": ["f.jpg", "a.jpg"]}
TABLE = "query,group_rank,answers\n1,1,b.jpg\n2,2,\n3,{}\n"


@pytest.mark.parametrize(
    ("run", "groups", "says"),
    [
        (MEMBERS, None, "ranks groups: all its lists name only members of their query's group; give it as --group-run"),
        (trec(MEMBERS), None, "ranks groups: all its lists"),
        (
            RANKED,
            MEMBERS | {"1": ["a.jpg", "b.jpg", "e.jpg"]},
            "groups with the query's reference, which leaves them: 1",
        ),
        (RANKED, TABLE.format("3,"), "query 3 has the group_rank 3, where 2 pictures are ranked"),
        (RANKED, TABLE.format(">2,"), "query 3 has the group_rank >2, where 2 pictures are ranked"),
        (RANKED, TABLE.format("2,f.jpg"), "query 3 has the group_rank 2, but its target is answer 1"),
        (RANKED, TABLE.format("1,"), "ranks without an answer, taken as of protocol own: 2"),
        (RANKED, CSV.format(1).replace("a.jpg", "").replace("b.jpg|e.jpg", ""), "lists with names outside the group"),
        (RANKED, "query,rank\n1,1\n2,1\n3,1\n", "groups with a rank and no group_rank: 3 of 3 (1, 2, 3); call"),
        (CSV.format(6), None, "query 3 has the rank 6, where 5 pictures are ranked"),
        (CSV.format(900), None, "query 3 has the rank 900, where 5 pictures are ranked"),
    ],
)
def test_groups(run, groups, says, judged, tmp_path):
    options = []
    if groups is not None:
        file = written(tmp_path / "groups.run", groups if isinstance(groups, str) else json.dumps(groups))
        options = ["--group-run", file]
    status, metrics, said = judged(run, *options, triplets=GROUPED)
    assert any(says in line for line in said)
    is_fault = "taken as" not in says and "leaves them" not in says
    assert status == (2 if is_fault else 0)
    if not is_fault:
        assert metrics["group_recall_at1"] == pytest.approx(200 / 3, abs=1e-4)


MANY = [f"{number:02}.jpg" for number in range(60)]
"""The first twenty are references of two queries each, the next ten only targets; nothing names the last thirty."""
ASKED = [(reference, MANY[20 + number % 10]) for number, reference in enumerate(MANY[:20] * 2)]


@pytest.mark.parametrize(
    ("ranked", "remark"),
    [
        (lambda number, pictures: pictures[number:] + pictures[:number], None),
        (lambda number, pictures: MANY[30:], "identical lists: 1 different for 40 queries"),
        (
            lambda number, pictures: pictures[number % 20 :] + pictures[: number % 20],
            "captions that change nothing: all",
        ),
        (
            lambda number, pictures: [*MANY[:20][number % 19 :: -1], *MANY[:20][number % 19 + 1 :], ASKED[number][1]],
            "pictures that no list ranks: all 40 of 60 that are not a reference, but for the query's own targets",
        ),
        (
            lambda number, pictures: MANY[:30][number % 29 :: -1] + MANY[:30][number % 29 + 1 :],
            "pictures that no list ranks: all 30 of 60 that no query names",
        ),
        (
            lambda number, pictures: MANY[5:33][number % 27 :: -1] + MANY[5:33][number % 27 + 1 :],
            "pictures that no list ranks: 32 of 60",
        ),
    ],
)
def test_what_all_lists_show(ranked, remark, judged):
    rows = [f"{number},{reference},{target},{number}" for number, (reference, target) in enumerate(ASKED)]
    lists = {}
    for number, (reference, _) in enumerate(ASKED):
        others = [name for name in MANY if name != reference]
        lists[str(number)] = [name for name in ranked(number, others) if name != reference]
    triplets = "\n".join(["id,reference,target,caption", *rows])
    status, _, said = judged(lists, triplets=triplets, gallery=MANY)
    assert status == 0
    odd = [line for line in said if "not known" not in line]
    assert [remark in line for line in odd] == ([] if remark is None else [True])


# ---- re-ranking ----


def test_re_ranking_by_hand(judged, tmp_path):
    """Another program's score, the later in the alphabet the better, puts f.jpg first: right for the third query."""
    candidates = tmp_path / "candidates.jsonl"
    assert judged({query: names[:4] for query, names in RANKED.items()}, "--candidates", candidates)[0] == 0
    lines = [json.loads(line) for line in candidates.read_text().splitlines()]
    asked = [("1", "a.jpg", ["red"]), ("2", "a.jpg", ["blue"]), ("3", "d.jpg", ["old"])]
    assert [(line["query"], line["reference"]["name"], line["texts"]) for line in lines] == asked
    assert [one["name"] for one in lines[0]["candidates"]] == RANKED["1"][:4]
    assert lines[0]["candidates"][1]["path"] == str(tmp_path / "hand" / "in" / "c.jpg")

    answers = {line["query"]: sorted((one["name"] for one in line["candidates"]), reverse=True) for line in lines}
    assert answers["1"] == ["in/c.jpg", "e.jpg", "d.jpg", "b.jpg"]
    _, metrics, _ = judged(answers)
    # The targets come fourth, first and, as the one that the list lacks, last: fifth.
    assert metrics["recall_at1"] == pytest.approx(100 / 3, abs=1e-4)
    assert metrics["recall_at5"] == 100


def test_candidates_of_a_model_and_their_groups(data, ours, tmp_path):
    folder = ours("CIRR")
    lines = [json.loads(line) for line in (folder / "run.clip4cir.jsonl").read_text().splitlines()]
    assert {line["query"]: [one["name"] for one in line["candidates"]] for line in lines} == lists_in(
        folder / "run.clip4cir.trec"
    )
    groups = {line["query"]: [one["name"] for one in line["group"]] for line in lines}
    assert groups == lists_in(folder / "run.clip4cir.group.trec")
    scores = [one["score"] for one in lines[0]["candidates"]]
    assert scores == sorted(scores, reverse=True)


# ---- beside ours ----


@pytest.fixture(scope="module")
def large(world, tmp_path_factory):
    """Return a folder with FashionIQ's toy, in which each category has sixty more pictures; none is opened."""
    folder = tmp_path_factory.mktemp("large") / "fashionIQ_dataset"
    shutil.copytree(world / folder.name, folder, ignore=shutil.ignore_patterns("images"))
    (folder / "images").symlink_to(world / folder.name / "images")
    for path in (folder / "image_splits").glob("*.val.json"):
        path.write_text(json.dumps([*json.loads(path.read_text()), *(f"B{number:04}" for number in range(60))]))
    return folder.parent


@pytest.mark.parametrize("form", ["JSON", "CSV", "per-query"])
def test_compare_takes_what_one_protocol_does_not_know(form, large, tmp_path, capsys):
    """Fifty places, from which the reference leaves under "covr": R@50 of the query that found nothing is unknown."""
    first, options = tmp_path / "first.csv", ["--protocol", "clip4cir", "covr", "--data-path", str(large)]
    lists, whole = {}, {}
    for category, split in TASKS["FashionIQ"].read_all(large, "val").items():
        for number, triplet in enumerate(split.triplets):
            rest = [name for name in split.pictures if name not in (triplet.reference, *triplet.targets)]
            names = [triplet.reference, *(triplet.targets if number else ()), *rest]
            lists[category, str(number)] = names[:50]
            whole[f"{category}-{number}"] = [*names, *triplet.targets][: len(rest) + 2]
    ours = written(tmp_path / "whole.json", json.dumps(whole))
    validate.main(["--dataset", "FashionIQ", "--run", str(ours), "--per-query", str(first), *options])
    if form == "CSV":
        rows = [f"{query},{category},{'|'.join(names)}\n" for (category, query), names in lists.items()]
        other = written(tmp_path / "cut.csv", "query,category,answers\n" + "".join(rows))
    else:
        other = written(tmp_path / "cut.json", json.dumps({"-".join(key): names for key, names in lists.items()}))
    if form == "per-query":
        run, other = other, tmp_path / "cut.csv"
        validate.main(["--dataset", "FashionIQ", "--run", str(run), "--per-query", str(other), *options])
    capsys.readouterr()
    result = tmp_path / "compared.json"
    assert status_of(compare.main, [first, other, "--data-path", large, "--json", result]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Left out: metric recall_at50 of protocol covr, which cut does not know." in said
    found = {one["protocol"]: one["differences"] for one in json.loads(result.read_text())["comparisons"]}
    assert "dress_recall_at50" in found["clip4cir"]
    assert found["covr"].keys() == {f"{name}_recall_at10" for name in ("dress", "toptee", "shirt", "average")}


def test_compare_wants_ours_first(ours, tmp_path, capsys):
    run = ours("FashionIQ") / "run.covr.trec"
    table = written(tmp_path / "other.csv", CSV.format(5))
    capsys.readouterr()
    for first in (run, table):
        assert status_of(compare.main, [first, run.with_name("run.csv")]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"{first}: no file of validate.py --per-query, which the first must be; the others may" in line


def test_compare_takes_a_run(data, ours, tmp_path, capsys):
    folder = ours("FashionIQ")
    lists = {query: names[:12] for query, names in lists_in(folder / "run.covr.trec").items()}
    cut = written(tmp_path / "cut.json", json.dumps(lists))
    result = tmp_path / "compared.json"
    compare.main([str(folder / "run.csv"), str(cut), "--data-path", str(data), "--json", str(result)])
    said = capsys.readouterr()
    assert "protocol clip4cir: left out" in said.err
    assert "protocol clip4cir, searle, which cut does not have" in " ".join(said.out.split())
    (first, *_) = json.loads(result.read_text())["comparisons"]
    assert first["protocol"] == "covr"
    assert {of["gain"] for of in first["differences"].values()} == {0}
    # Equal up to the cut, so no rank is known to have changed.
    assert first["moved_most"] == []
