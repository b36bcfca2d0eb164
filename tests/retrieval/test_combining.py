"""What joins the table of combining functions is known by its own name everywhere, and takes no other file."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

import validate
from combiner import COMBINING_FUNCTIONS, line_of
from src.base.errors import InputError
from src.base.files import PROJECT_ROOT
from src.base.folders import pictures_below
from src.command.combining import names_in
from src.command.flags import RetrieverOptions
from src.pictures.pictures import Pictures
from src.retrieval.fusion import compared, predict
from src.retrieval.gallery import Gallery
from src.retrieval.retriever import load_retriever
from src.tasks.registry import TASKS
from tests.apps.search.test_search import assert_ranks_agree
from tests.support.commands import COMBINER, copy_project, status_of, toy_options
from tests.support.processes import python

# Each a definition and its line. The network has a learned side for pictures, of another dimension than CLIP's.
FUNCTION = '''
def mine(image_features, text_features):
    """Add twice the text."""
    return image_features + 2 * text_features
'''
NETWORK = '''
class Towers(nn.Module):
    """Project queries and pictures, each by weights of their own."""

    def __init__(self, clip_feature_dim, projection_dim, hidden_dim=0, dropout=0.5):
        super().__init__()
        self.query = nn.Linear(clip_feature_dim, projection_dim)
        self.picture = nn.Linear(clip_feature_dim, projection_dim)

    @classmethod
    def sizes(cls, weights):
        projection_dim, clip_feature_dim = weights["query.weight"].shape
        return {"clip_feature_dim": clip_feature_dim, "projection_dim": projection_dim}

    def combine_features(self, image_features, text_features):
        return F.normalize(self.query(image_features + text_features), dim=-1)

    def compared_features(self, gallery_features):
        return self.picture(gallery_features)
'''
TABLE = "\n\nCOMBINING_FUNCTIONS = (\n"
# Runs each [module, arguments] of stdin in the copy's root, and answers with what it said.
DRIVER = """
import contextlib, importlib, io, json, sys
sys.path.insert(0, ".")
from src.processes.workers import end_with_parent
end_with_parent(9)
def run(module, arguments):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            importlib.import_module(module).main(arguments)
            status = 0
        except SystemExit as end:
            status = end.code
    return status, out.getvalue(), err.getvalue()
for order in sys.stdin:
    print(json.dumps(run(*json.loads(order))), file=sys.__stdout__, flush=True)
"""
WITHOUT_TORCH = """
import io, contextlib, runpy, sys

class Refused:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in ("torch", "numpy", "pandas", "combiner"):
            raise AssertionError(f"{name} is imported")

sys.meta_path.insert(0, Refused())
sys.path.insert(0, ".")
for door in sys.argv[1:]:
    for arguments in (["--help"], ["--combining-function", "minee"], ["--network", "minee"]):
        said = io.StringIO()
        sys.argv = [door, *arguments]
        try:
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                runpy.run_path(door, run_name="__main__")
        except SystemExit as end:
            print(door, arguments[0], end.code, " ".join(said.getvalue().split()))
"""
JUDGING = "validate.py", "cirr_test_submission.py", "circo_test_submission.py", "search.py", "demo.py"


class Extended:
    """A copy of the project with a definition and its line in combiner.py, and a process that runs its commands."""

    def __init__(self, folder, world, definition, line):
        self.folder = copy_project(folder, world)
        before, table, after = (folder / "combiner.py").read_text().partition(TABLE)
        assert table
        (folder / "combiner.py").write_text(f"{before}\n\n{definition}\n{table}{line}{after}")
        command, pipe = [sys.executable, "-c", DRIVER], subprocess.PIPE
        # GNU readline, which pytest imports, sets COLUMNS for all children unless they get an environment.
        self.process = subprocess.Popen(command, cwd=folder, stdin=pipe, stdout=pipe, text=True, env={**os.environ})

    def run(self, *orders):
        """Run commands (module, arguments); return what each said, which must be no error."""
        answers = self.tried(*orders)
        for status, _, err in answers:
            assert status == 0, err
        return [out for _, out, _ in answers]

    def tried(self, *orders):
        """Run commands; return the status, the output and the errors of each."""
        answers = []
        for module, arguments in orders:
            print(json.dumps([module, list(map(str, arguments))]), file=self.process.stdin, flush=True)
            answers.append(json.loads(self.process.stdout.readline()))
        return answers

    def end(self):
        self.process.communicate()


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# ---- the table ----


def test_names_are_read_without_running_the_table():
    assert names_in("combiner.py") == {line.name: line.is_network for line in COMBINING_FUNCTIONS}
    for fact in ("name", "label"):
        assert len({getattr(line, fact) for line in COMBINING_FUNCTIONS}) == len(COMBINING_FUNCTIONS)


@pytest.mark.parametrize("function", [lambda image, text: image, torch.add, torch.nn.Linear(2, 2).forward])
def test_a_function_without_a_name_is_refused(function, world, small_clip):
    with pytest.raises(InputError, match="has no name in tables; a line of COMBINING_FUNCTIONS"):
        line_of(function)
    retriever = load_retriever(RetrieverOptions(str(world / "small_clip.pt"), feature_cache=None))
    with pytest.raises(InputError, match="has no name in tables"):
        validate.fingerprint(retriever.combining_by(function))


def test_src_names_no_combining_function_in_a_list():
    """Each of today's stands in combiner.py alone, so that nothing else need be told of another."""
    for path in (PROJECT_ROOT / "src").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        for name in ("image_only", "text_only", "element_wise_sum", "solved_by_text", "caption only", "picture only"):
            assert f'"{name}' not in text, path


# ---- a function more ----


@pytest.fixture(scope="module")
def with_function(world, tmp_path_factory):
    line = '    CombiningFunction("mine", "my own sum", mine),\n'
    copy = Extended(tmp_path_factory.mktemp("function"), world, FUNCTION, line)
    yield copy
    copy.end()


def test_help_and_a_wrong_name_need_no_torch(with_function):
    done = python("-c", WITHOUT_TORCH, *JUDGING, "combiner_train.py", cwd=with_function.folder, check=False)
    assert done.returncode == 0, done.stderr
    said = dict(re.findall(r"^(\S+ --\S+) (.*)$", done.stdout, re.MULTILINE))
    for door in JUDGING:
        assert said[f"{door} --help"].startswith("0 ")
        assert "combiner, sum, cosines, product, image, text, mine" in said[f"{door} --help"]
        assert (
            "'minee' is none of combiner, sum, cosines, product, image, text, mine"
            in said[f"{door} --combining-function"]
        )
    assert "--network" not in said["combiner_train.py --help"]  # where there is one there is no choice
    assert said["combiner_train.py --network"].startswith("2 error: unknown option --network")


def test_a_function_more_has_its_own_name_everywhere(with_function, world, tmp_path):
    toy = toy_options(world, tmp_path)
    training = ["--dataset", "CIRR", *toy, "--num-epochs", "1", "--batch-size", "16", "--save-training", *COMBINER]
    judging = ["--dataset", "CIRR", *toy, "--protocol", "clip4cir", "--combining-function"]
    files = ["--json", tmp_path / "a.json", "--per-query", tmp_path / "mine.csv"]
    pictures = world / "my_pictures"
    asked = ["--pictures", pictures, "--output-path", tmp_path, "--clip-model-name", world / "small_clip.pt"]
    asked += ["--num-workers", "0", "--reference", sorted(pictures.glob("*/*.png"))[0], "--caption", "in blue"]
    printed, _, _, found, _ = with_function.run(
        ("validate", [*judging, "MINE", *files]),
        ("validate", [*judging, "sum", "--per-query", tmp_path / "sum.csv"]),
        ("compare", [tmp_path / "sum.csv", tmp_path / "mine.csv", "--json", tmp_path / "c.json"]),
        ("search", [*asked, "--combining-function", "mine"]),
        ("combiner_train", training),
    )
    assert "Combiner" not in printed
    ladder = re.findall(r"^(my own sum|my own sum, no shortcut|caption only|sum)  ", printed, re.MULTILINE)
    assert {"my own sum", "my own sum, no shortcut", "caption only", "sum"} <= set(ladder)
    told = json.loads((tmp_path / "a.json").read_text())
    assert told["combining_function"] == "mine"
    protocol = told["protocols"][0]
    recall = protocol["ladder"]["mine"]["recall_at1"]
    assert recall == pytest.approx(protocol["metrics"]["recall_at1"]["percent"])
    rows = rows_of(tmp_path / "mine.csv")
    assert [row["solved_by_mine"] for row in rows] == [row["recall_at1"] for row in rows]
    assert {row["solved_by_combiner"] for row in rows} == {""}
    assert "solved_by_mine" not in json.dumps(json.loads((tmp_path / "c.json").read_text()))  # it is no metric
    assert len(found.splitlines()) == 11

    (run,) = (tmp_path / "models").iterdir()
    (report,) = with_function.run(("report", ["--run-folder", run, "--num-workers", "0"]))
    rungs = [re.split(r"\s{2,}", line.strip())[0] for line in report.splitlines()]
    assert {"tuned CLIP, my own sum", "tuned CLIP, sum of both"} <= set(rungs)
    assert rungs[-2] == "Combiner"  # what the page is about comes last
    assert ">my own sum</button></th>" in (run / "report.html").read_text()


# ---- a network more, with a learned side for the gallery ----


@pytest.fixture(scope="module")
def with_network(world, tmp_path_factory):
    """Train a network that combiner.py has beside Combiner; return the copy, where its run wrote, and its weights."""
    line = '    CombiningFunction("towers", "two towers", Towers),\n'
    copy = Extended(tmp_path_factory.mktemp("network"), world, NETWORK, line)
    output = tmp_path_factory.mktemp("runs")
    training = ["--dataset", "CIRR", *toy_options(world, output), "--num-epochs", "2", "--batch-size", "16", *COMBINER]
    training += ["--validation-frequency", "1", "--save-training", "--network", "Towers", "--combiner-lr", "1e-2"]
    copy.run(("combiner_train", training))
    (run,) = (output / "models").iterdir()
    yield copy, run, run / "saved_models" / "combiner_1.pt"
    copy.end()


def test_a_network_learns_both_sides_and_goes_on(with_network, world, tmp_path):
    copy, run, path = with_network
    first, last = (torch.load(path.with_name(f"combiner_{epoch}.pt"), weights_only=True) for epoch in (0, 1))
    assert set(last) == {"epoch", "Towers", "facts"}
    assert last["facts"]["network"] == "towers"
    for name, weight in last["Towers"].items():
        assert not torch.equal(weight, first["Towers"][name]), name
    shutil.copytree(run, tmp_path / "run")
    banked = ["--dataset", "CIRR", *toy_options(world, tmp_path), "--num-epochs", "2", "--batch-size", "16", *COMBINER]
    banked += ["--validation-frequency", "1", "--save-training", "--network", "towers", "--negatives", "bank"]
    copy.run(
        ("combiner_train", ["--resume", tmp_path / "run", "--num-epochs", "3"]),
        ("combiner_train", [*banked, "--combiner-lr", "1e-2"]),
    )
    (bank,) = (tmp_path / "models").iterdir()
    first, last = (torch.load(bank / "saved_models" / f"combiner_{n}.pt", weights_only=True) for n in (0, 1))
    assert not torch.equal(first["Towers"]["picture.weight"], last["Towers"]["picture.weight"])
    # The published network is still what is trained where nothing is said.
    copy.run(("combiner_train", [*banked[: banked.index("--network")], "--output-path", tmp_path / "other"]))
    (other,) = (tmp_path / "other" / "models").iterdir()
    weights = torch.load(other / "saved_models" / "combiner_0.pt", weights_only=True)
    assert "Combiner" in weights and "network" not in weights["facts"]


def score_plainly(path, gallery, images, texts):
    """Return scores [queries, pictures] of a checkpoint of NETWORK, by its two products alone."""
    weights = torch.load(path, weights_only=True)["Towers"]
    queries = (images + texts) @ weights["query.weight"].T + weights["query.bias"]
    pictures = gallery @ weights["picture.weight"].T + weights["picture.bias"]
    return F.normalize(queries, dim=-1) @ F.normalize(pictures, dim=-1).T


def test_search_and_validation_compare_pictures_as_it_learned_to(with_network, world, tmp_path):
    copy, _, path = with_network
    pictures = tmp_path / "pictures"
    shutil.copytree(world / "my_pictures", pictures)
    (pictures / "gallery.val.txt").unlink()
    toy = ["--output-path", tmp_path, "--clip-model-name", world / "small_clip.pt", "--num-workers", "0"]
    clip = [*toy, "--precision", "fp32", "--combiner-path", path]
    triplets = ["--dataset", pictures, "--per-query", tmp_path / "p.csv", "--json", tmp_path / "p.json", *clip]
    printed, *_ = copy.run(("validate", [*triplets, "--protocol", "own"]))
    assert re.search("^two towers  ", printed, re.MULTILINE) and "Combiner" not in printed
    told = json.loads((tmp_path / "p.json").read_text())
    assert told["combining_function"] == "towers" and "towers" in told["weights_sha256"]
    rows = rows_of(tmp_path / "p.csv")
    assert {row["solved_by_combiner"] for row in rows} == {""}
    with (tmp_path / "q.csv").open("w", newline="") as file:
        questions = [(row["reference"], row["caption"], row["query"]) for row in rows]
        csv.writer(file).writerows([("reference", "caption", "id"), *questions])
    index = ["--index", tmp_path / "index", "--queries", tmp_path / "q.csv", "-k", "50", *clip]
    copy.run(
        ("search", ["--pictures", pictures, *index, "--json", tmp_path / "a.json"]),
        ("search", [*index, "--json", tmp_path / "b.json"]),
    )
    whole, alone = (json.loads((tmp_path / name).read_text()) for name in ("a.json", "b.json"))
    assert_ranks_agree(whole, tmp_path / "p.csv")
    for first, second in zip(whole, alone, strict=True):
        assert [answer["name"] for answer in first["answers"]] == [answer["name"] for answer in second["answers"]]

    retriever = load_retriever(RetrieverOptions(str(world / "small_clip.pt"), feature_cache=None))
    gallery = retriever.gallery(Pictures(pictures_below(pictures), retriever.preprocess))
    features = gallery.features.cpu()
    texts = retriever.encoder.captions([row["caption"] for row in rows]).cpu()
    scores = score_plainly(path, features, features[[gallery.row(row["reference"]) for row in rows]], texts)
    for found, scored in zip(whole, scores, strict=True):
        for answer in found["answers"]:
            assert answer["score"] == pytest.approx(scored[gallery.row(answer["name"])].item(), abs=1e-5)


def test_submission_and_report_compare_pictures_as_it_learned_to(with_network, world, tmp_path):
    copy, run, path = with_network
    options = [*toy_options(world, tmp_path), "--combiner-path", path]
    _, report, ladder = copy.run(
        ("cirr_test_submission", [*options, "--submission-name", "a"]),
        ("report", ["--run-folder", run, "--num-workers", "0"]),
        ("validate", ["--dataset", "CIRR", *options, "--protocol", "clip4cir"]),
    )
    answers = json.loads((tmp_path / "submission" / "CIRR" / "recall_submission_a.json").read_text())
    (split,) = TASKS["CIRR"].read_all(world, "test1").values()
    retriever = load_retriever(RetrieverOptions(str(world / "small_clip.pt"), feature_cache=None))
    gallery = retriever.gallery(retriever.pictures(split.pictures))
    features = gallery.features.cpu()
    texts = retriever.encoder.captions([triplet.captions[0] for triplet in split.triplets]).cpu()
    references = gallery.row_numbers([triplet.reference for triplet in split.triplets])
    scores = score_plainly(path, features, features[references], texts)
    scores[torch.arange(len(references)), references] = -torch.inf
    for triplet, order in zip(split.triplets, scores.argsort(dim=1, descending=True), strict=True):
        assert answers[triplet.id] == [gallery.names[row] for row in order[:-1].tolist()][:50]

    (reported,) = re.findall(r"^two towers +([\d.]+) \(", report, re.MULTILINE)
    printed = re.findall(r"^two towers +([\d.]+)", ladder, re.MULTILINE)
    assert reported in printed
    page = (run / "report.html").read_text()
    assert "stage 2, two towers" in page and "Combiner" not in page.partition("<h2>Curves")[0]


def test_the_demo_has_it_among_its_choices(with_network, world, tmp_path):
    copy, _, path = with_network
    pictures = world / "my_pictures"
    options = ["--pictures", pictures, "--clip-model-name", world / "small_clip.pt", "--combiner-path", path]
    options += ["--output-path", tmp_path, "--num-workers", "0", "--precision", "fp32"]
    options = list(map(str, options))
    code = f"""
import sys; sys.path.insert(0, ".")
import demo
args = demo.parse_judging(demo.make_parser(), demo.FUNCTIONS, {options!r})
engine = demo.load_engine(demo.settings(args), args.pictures, args.k, args.precision)
engine.encode()
query = engine.first._replace(reference=engine.names[0], caption="in blue", k=5, beside="sum")
print(list(engine.functions), engine.first.function, [found.name for found in engine.ask(query)["towers"]])
"""
    done = python("-c", code, cwd=copy.folder, check=False)
    assert done.returncode == 0, done.stderr
    reference = pictures / next(iter(pictures_below(pictures)))
    asked = [*options, "--reference", reference, "--caption", "in blue", "-k", "5"]
    copy.run(("search", [*asked, "--json", tmp_path / "a.json"]))
    (answered,) = json.loads((tmp_path / "a.json").read_text())
    expected = [answer["name"] for answer in answered["answers"]]
    choices = ["sum", "cosines", "product", "image", "text", "towers"]
    assert done.stdout.strip() == f"{choices} towers {expected}"


def test_what_cannot_be_is_refused_in_a_line(with_network, world, tmp_path, capsys):
    copy, _, path = with_network
    clip = ["--clip-model-name", world / "small_clip.pt", "--output-path", tmp_path, "--num-workers", "0"]
    search = ["--pictures", world / "my_pictures", "--caption", "in blue", *clip]
    both = [*search, "--reference", sorted((world / "my_pictures").glob("*/*.png"))[0], "--combiner-path", path]
    foreign = torch.load(path, weights_only=True)
    foreign["facts"]["network"] = "three\ntowers"
    torch.save(foreign, tmp_path / "foreign.pt")
    judged = ["--dataset", "CIRR", "--data-path", world, *clip, "--combiner-path"]
    projecting = [*judged[:-1], "--batch-size", "16", "--network", "towers", "--gallery-projection"]
    cases = [
        (("search", [*both, "--caption-weight", "0.7"]), "--caption-weight, --without: not for a network"),
        (("search", [*both, "--without", "a belt"]), "--caption-weight, --without: not for a network"),
        (("validate", [*judged, path, "--combining-function", "combiner"]), "holds another network, towers"),
        (("validate", [*judged, tmp_path / "foreign.pt"]), "holds the network three\\ntowers, but combiner.py has"),
        (("validate", [*judged, path, "--hidden-dim", "8"]), "a Towers of --projection-dim 16, not of 8"),
        (("combiner_train", projecting), "--gallery-projection is for --network combiner, not towers"),
        (("validate", [*judged[:-1], "--combining-function", "towers"]), "towers needs --combiner-path, a checkpoint"),
    ]
    for (status, _, err), (_, fault) in zip(copy.tried(*(order for order, _ in cases)), cases, strict=True):
        assert status == 2, err
        assert "Traceback" not in err
        assert fault in err.splitlines()[-1], err
    assert not (tmp_path / "q").exists()
    # So is the network where combiner.py has it no more.
    assert status_of(validate.main, [*judged, path]) == 2
    assert "holds the network towers, but combiner.py has combiner" in capsys.readouterr().err


def test_what_a_function_says_is_compared_in_one_place(device):
    features = torch.randn(6, 4, device=device)
    gallery = Gallery(features, [*"abcdef"])
    assert gallery.compared_by(torch.add) is gallery
    assert compared(torch.add, features) is features
    assert predict(torch.add, features, features).shape == (1, 6, 4)

    def halves(image_features, text_features):
        return torch.stack([image_features, text_features])[:, :, :2]

    halves.compared_features = lambda pictures: pictures[:, 2:]
    assert predict(halves, features, features).shape == (2, 6, 2)
    torch.testing.assert_close(gallery.compared_by(halves).features, F.normalize(features[:, 2:], dim=-1))
