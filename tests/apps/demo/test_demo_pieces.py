"""The pieces of demo.py that need no browser: walks and links, cards, what is refused, and errors before the page."""

import socket
import sys
from pathlib import Path
from urllib.parse import parse_qsl

import pytest

import demo
from src.apps.demo import cards
from src.apps.demo.engine import short_names
from src.apps.demo.examples import SEVERAL, examples_of
from src.apps.demo.fields import set_fields
from src.apps.demo.walk import Query, Walk, link_of, query_of
from src.base.bars import Bar, open_bars, showing_bars
from src.retrieval.searcher import Found
from tests.support.commands import status_of
from tests.support.processes import python

FUNCTIONS = ("sum", "text")
CALLS = """
import socket
from src.apps.demo.local_only import call_nobody

call_nobody()
for call in (lambda: socket.create_connection(("192.0.2.1", 80)), lambda: socket.getaddrinfo("example.org", 80)):
    try:
        call()
    except PermissionError as error:
        print(error)
with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
    client.sendall(b"heard")
    print(server.accept()[0].recv(5).decode())
"""


def query_of_link(link, names=("a b/ü.png",)):
    return query_of(
        dict(parse_qsl(link.removeprefix("?"))), Query(), FUNCTIONS, lambda name: Path(name) if name in names else None
    )


def test_a_walk_goes_on_and_back_as_a_browser_does():
    walk = Walk().asking(Query(caption="first")).going_on(Query("b.png")).asking(Query("b.png", caption="second"))
    assert [step.caption for step in walk.steps] == ["first", "second"]
    back = walk.back_at(0)
    assert (back.query.caption, len(back.steps)) == ("first", 2)
    assert back.going_on(Query("c.png")).steps == (Query(caption="first"), Query("c.png"))


def test_a_link_gives_its_query_again():
    query = Query("a b/ü.png", None, "in blue & <b>longer</b>", "text", "sum", 0.35, 7)
    assert query_of_link(link_of(query)) == (query, [])


@pytest.mark.parametrize(
    "link",
    ["?reference=../../etc/passwd", "?reference=/etc/passwd", "?function=os", "?k=0", "?k=1e9", "?caption_weight=nan"],
)
def test_a_link_with_a_foreign_value_gives_a_line_and_the_default(link):
    query, lines = query_of_link(link)
    assert query == Query()
    assert len(lines) == 1


def test_a_function_does_not_stand_beside_itself():
    query, lines = query_of_link("?caption=red&function=text&beside=text")
    assert (query.functions, lines) == (["text"], [])
    assert set_fields(Query(), ["red", "sum", "sum", 0.5, 5], FUNCTIONS).functions == ["sum"]


def test_names_that_end_alike_have_their_folders():
    names = ["a.png", "x/b.png", "x/c.png", "y/c.png", "c.png", "z/x/c.png", "z/d.png"]
    ends = ["a.png", "b.png", "x/c.png", "y/c.png", "c.png", "z/x/c.png", "d.png"]
    assert short_names(names) == dict(zip(names, ends, strict=True))


def test_what_others_wrote_is_text_on_the_page(tmp_path):
    name = "<script>.png"
    answered = {"sum": [Found(name, 0.5, tmp_path / name)], "text": []}
    pieces = [
        cards.answers(answered, {name: name}),
        cards.gallery([name], lambda name: tmp_path / name, {name: name}),
        cards.large(tmp_path / name, name),
        cards.message(["no <script>"]),
        cards.trail(Walk((Query(name, caption="<script>"),)), lambda query: tmp_path / name),
        cards.link(Query(caption="'\"<script>")),
    ]
    assert not any("<script" in piece for piece in pieces)


def test_progress_is_that_of_the_bar_in_the_terminal():
    assert open_bars() == []
    with showing_bars(), Bar(desc="gallery", total=1000, unit=" pictures") as bar:
        bar.update(320)
        said = cards.progress(*open_bars())
    assert "Encoding pictures: 320 of 1,000, " in said
    assert '<progress value="320" max="1000">' in said
    assert open_bars() == []


@pytest.mark.parametrize("folder", ["my_pictures", "cirr_dataset", "fashionIQ_dataset/images"])
def test_examples_are_queries_of_the_data_set(world, folder):
    found = examples_of(world / folder, lambda name: True)
    assert len(found) == SEVERAL
    for example in found:
        assert (world / folder / example.reference).is_file()
        assert example.caption


def test_a_folder_of_no_data_set_has_no_examples(world, tmp_path):
    assert examples_of(tmp_path, lambda name: True) == []
    assert examples_of(world / "my_pictures", lambda name: False) == []


def test_a_process_that_calls_nobody():
    said = python("-c", CALLS).stdout.splitlines()
    assert said == [
        "this process calls no other machine: 192.0.2.1",
        "this process calls no other machine: example.org",
        "heard",
    ]


@pytest.fixture
def arguments(world, tmp_path):
    clip = ["--clip-model-name", world / "small_clip.pt"]
    return ["--pictures", world / "my_pictures", "--output-path", tmp_path, *clip]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["--pictures", "nowhere"], "nowhere: no such folder"),
        (["-k", "1000"], "-k 1000: the page shows at most 100 answers"),
        (["--combining-function", "combiner"], "needs --combiner-path"),
        (["--picture", "x"], "unknown option --picture; did you mean --pictures?"),
    ],
)
def test_what_is_wrong_is_said_before_the_page_is_served(arguments, capsys, wrong, said):
    assert status_of(demo.main, [*arguments, *wrong]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1


def test_a_folder_without_pictures_is_said(arguments, tmp_path, capsys):
    assert status_of(demo.main, [*arguments, "--pictures", tmp_path]) == 2
    assert "holds no pictures, at no depth" in capsys.readouterr().err


def test_without_gradio_the_line_says_how_to_get_it(arguments, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "src.apps.demo.page", raising=False)
    monkeypatch.delattr("src.apps.demo.page", raising=False)
    assert status_of(demo.main, arguments) == 2
    assert capsys.readouterr().err == "error: demo.py needs gradio: pip install -r requirements/demo.txt\n"


@pytest.mark.parametrize("port", ["taken", 70_000])
def test_a_port_that_cannot_be_served_is_said(arguments, capsys, port):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1] if port == "taken" else port
        assert status_of(demo.main, [*arguments, "--port", port]) == 2
    assert capsys.readouterr().err.startswith(f"error: --host 127.0.0.1 --port {port}: cannot be served (")


def test_an_address_of_another_machine_is_said(arguments, capsys):
    assert status_of(demo.main, [*arguments, "--host", "192.0.2.1"]) == 2
    assert "--host 192.0.2.1 --port 7959: cannot be served" in capsys.readouterr().err
