"""The pieces of demo.py that need no browser: walks and links, cards, what is refused, and errors before the page."""

import asyncio
import socket
import sys
from urllib.parse import parse_qsl

import pytest

import demo
from src.base.bars import Bar
from src.base.local_only import LocalOnly
from src.command import cards
from src.command.examples import SEVERAL, examples_of
from src.command.walk import Answer, Query, Walk, link_of, query_of
from tests.commands import status_of

FUNCTIONS = ("sum", "text")


def query_of_link(link, names=("a b/ü.png",)):
    return query_of(dict(parse_qsl(link.removeprefix("?"))), Query(), FUNCTIONS, lambda name: name in names)


def test_a_walk_goes_on_and_back_as_a_browser_does():
    walk = Walk().asking(Query(caption="first")).going_on(Query("b.png")).asking(Query("b.png", caption="second"))
    assert [step.caption for step in walk.steps] == ["first", "second"]
    back = walk.back_at(0)
    assert (back.query.caption, len(back.steps)) == ("first", 2)
    assert back.going_on(Query("c.png")).steps == (Query(caption="first"), Query("c.png"))
    assert back.back_at(-1) == back.back_at(2) == back


def test_a_link_gives_its_query_again():
    query = Query("a b/ü.png", None, "in blue & <b>longer</b>", "text", "sum", 0.35, 7)
    assert query_of_link(link_of(query)) == (query, [])


@pytest.mark.parametrize(
    "link", ["?reference=../../etc/passwd", "?reference=/etc/passwd", "?function=os", "?k=0", "?k=1e9", "?weight=nan"]
)
def test_a_link_with_a_foreign_value_gives_a_line_and_the_default(link):
    query, lines = query_of_link(link)
    assert query == Query()
    assert len(lines) == 1


def test_what_others_wrote_is_text_on_the_page(tmp_path):
    name = "<script>.png"
    answered = {"sum": [Answer(0, name, 0.5)], "text": []}
    pieces = [
        cards.answers(answered, lambda row: tmp_path / name),
        cards.gallery([name], lambda row: tmp_path / name),
        cards.message(["no <script>"]),
        cards.trail(Walk((Query(name, caption="<script>"),)), lambda query: tmp_path / name),
        cards.link(Query(caption="'\"<script>")),
    ]
    assert not any("<script" in piece for piece in pieces)


def test_progress_says_how_fast_and_how_long():
    assert "320 of 1,000, 32.0 pictures/second, about 21 s left" in cards.encoding(320, 1000, 10)
    assert [cards.duration(seconds) for seconds in (5, 600, 9000)] == ["5 s", "10 min", "2.5 h"]


def test_a_watcher_is_told_of_every_bar(monkeypatch):
    told = []
    monkeypatch.setattr(Bar, "watcher", lambda bar: told.append((bar.desc, bar.n, bar.total)))
    with Bar(desc="some", total=3, file=sys.stderr, leave=False) as bar:
        bar.update(2)
    assert told == [("some", 2, 3)]


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


@pytest.mark.parametrize(
    ("path", "host", "status"),
    [
        ("/", b"127.0.0.1:7860", 200),
        ("/gradio_api/queue/join", b"localhost:7860", 200),
        ("/", b"example.org", 403),
        ("/", b"", 403),
        ("/gradio_api/file=https://example.org/a.png", b"127.0.0.1", 403),
        ("/gradio_api/file=HTTP%3A%2F%2Fexample.org", b"127.0.0.1", 403),
        ("/gradio_api/proxy=https://example.org", b"127.0.0.1", 403),
    ],
)
def test_a_page_of_this_machine_fetches_for_nobody(path, host, status):
    sent = []

    async def page(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "path": path, "headers": [(b"host", host)] if host else []}
    asyncio.run(LocalOnly(page, loopback=True)(scope, None, send))
    assert sent[0]["status"] == status
    assert status != 200 or b"content-security-policy" in dict(sent[0]["headers"])


@pytest.fixture
def arguments(world, tmp_path):
    return [
        "--pictures",
        world / "my_pictures",
        "--clip-model-name",
        world / "small_clip.pt",
        "--output-path",
        tmp_path,
    ]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["--pictures", "nowhere"], "nowhere: no such folder"),
        (["-k", "1000"], "-k 1000: the page shows at most 100 answers"),
        (["--combining-function", "combiner"], "needs --combiner-path"),
        (["--picture", "x"], "there is no --picture, but there is --pictures"),
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
    monkeypatch.delitem(sys.modules, "src.command.demo_page", raising=False)
    assert status_of(demo.main, arguments) == 2
    assert capsys.readouterr().err == "error: demo.py needs gradio: pip install -r requirements-demo.txt\n"


def test_a_port_in_use_is_said(arguments, capsys):
    pytest.importorskip("gradio")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert status_of(demo.main, [*arguments, "--port", port]) == 2
    assert f"--port {port}: cannot be served at 127.0.0.1" in capsys.readouterr().err.splitlines()[-1]
