"""demo.py as somebody uses it: a real server, and a real browser that asks nobody but that server."""

import re
import shutil
from urllib.parse import quote

import pytest

import utils
from combiner import Combiner, load_combined
from src.base.files import PROJECT_ROOT
from src.command.flags import CombiningOptions, RetrieverOptions
from src.retrieval.picture_folder import collect
from src.retrieval.searcher import Question, Searcher
from tests.support.browsers import CHROMIUM
from tests.support.demo_server import (
    answered,
    called,
    caption_of,
    go_on,
    reference,
    search,
    served,
    to_its_start,
    upload,
)
from tests.support.odd_pictures import RGB, black_png, saved

pytest.importorskip("gradio")
sync_api = pytest.importorskip("playwright.sync_api")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
HOSTILE = "<img src=x onerror=hacked=1> ${hacked=1} {{hacked}}.png"
SECRET = "what nobody may read"
FOREIGN = {"example.org", "192.0.2.1"}
"""Machines that tests ask the server to call."""
expect = sync_api.expect
expect.set_options(timeout=60_000)


@pytest.fixture(scope="module")
def folder(world, tmp_path_factory):
    """Copy the toy world's own pictures, and add one with a hostile name and one that comes late and broken."""
    folder = tmp_path_factory.mktemp("demo")
    shutil.copytree(world / "my_pictures", folder / "pictures")
    # More than a batch, so that there is a progress to see.
    shutil.copytree(world / "cirr_dataset" / "train", folder / "pictures" / "more")
    (folder / "pictures" / HOSTILE).write_bytes(saved(RGB, "PNG"))
    # The last one by its name, at which the server waits.
    (folder / "pictures" / "waits.png").write_bytes(saved(RGB, "PNG")[:200])
    (folder / "hold").touch()
    (folder / "secret.txt").write_text(SECRET)
    (folder / "secret.png").write_bytes(saved(RGB, "PNG"))
    return folder


@pytest.fixture(scope="module")
def models(world, folder, small_clip):
    """Return the options of the toy world's CLIP and of a Combiner that has learned nothing."""
    utils.save_model("combiner", 0, Combiner(small_clip.dimension, 16, 32), folder)
    combiner = folder / "saved_models" / "combiner.pt"
    return ["--clip-model-name", world / "small_clip.pt", "--combiner-path", combiner, "--num-workers", "0"]


@pytest.fixture(scope="module")
def server(folder, models):
    with served(folder, "--pictures", folder / "pictures", *models, "--no-feature-cache", "-k", "8") as server:
        yield server
    assert server.calls() <= FOREIGN, "it calls other machines unasked"
    assert list(folder.glob("demo-*")) == [], "uploads stay behind"


@pytest.fixture(scope="module")
def seen_while_encoding(server, browser, folder):
    """Open the page before all is encoded; return what it says, once it has gone on by itself."""
    page = browser.new_page()
    page.goto(server.address)
    said = page.locator(".progress").filter(has_text=re.compile(r"[1-9]\d* of"))
    expect(said).to_be_visible()
    text = said.inner_text()
    (folder / "hold").unlink()
    expect(page.locator("#gallery .card").first).to_be_visible()
    page.close()
    return text


@pytest.fixture
def page(server, browser, seen_while_encoding):
    """Yield a page of the demo, which must ask this machine alone and must meet no error."""
    said = len(server.said())
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(60_000)
    addresses, documents, errors = [], [], []
    page.on("request", lambda request: addresses.append(request.url))
    page.on("request", lambda request: documents.append(request.url) if request.is_navigation_request() else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.goto(server.address)
    expect(page.locator("#gallery .card").first).to_be_visible()
    yield page
    assert [address for address in addresses if not address.startswith((server.address, "data:", "blob:"))] == []
    # A page that is left gives up what it still asks for, and says so.
    given_up = ["AbortError: "] + ["Unexpected error Connection errored out."] * (len(documents) > 1)
    assert [error for error in errors if not error.startswith(tuple(given_up))] == []
    assert "Traceback" not in server.said()[said:]
    assert page.evaluate("typeof hacked") == "undefined"
    page.close()


# ---- what is so ----


def test_the_page_says_how_far_encoding_is_and_goes_on_by_itself(seen_while_encoding):
    assert re.search(r"Encoding pictures: \d+ of \d+, [\d.]+ pictures/s, \d+:\d+ left", seen_while_encoding)


def test_a_walk_from_an_upload_through_answers_and_back(page, folder):
    upload(page, next((folder / "pictures" / "dress").glob("*.png")))
    expect(reference(page)).to_contain_text("your picture")
    search(page, "in blue")
    expect(page.locator("#answers h3")).to_have_text("combiner")
    first = answered(page)
    assert len(first) == 8
    assert [score for _, score in first] == sorted((score for _, score in first), reverse=True)

    page.locator("#answers .card").nth(1).click()
    expect(page.locator(".large p")).to_have_text(first[1][0])
    assert page.locator(".large img").evaluate("image => image.naturalWidth") > 0
    page.keyboard.press("Escape")
    expect(page.locator(".large")).to_have_count(0)
    assert answered(page) == first
    go_on(page, 1)
    expect(reference(page)).to_contain_text(first[1][0])
    expect(caption_of(page)).to_have_value("")
    search(page, "with a belt")
    second = answered(page)
    assert second != first
    assert first[1][0] not in dict(second), "a reference is no answer to itself"
    expect(page.locator("#trail li")).to_have_count(2)

    page.locator("#trail .card").first.click()
    expect(caption_of(page)).to_have_value("in blue")
    expect(reference(page)).to_contain_text("your picture")
    assert answered(page) == first
    page.locator("#trail .card").nth(1).click()
    expect(caption_of(page)).to_have_value("with a belt")
    assert answered(page) == second


def test_functions_one_after_the_other_and_side_by_side_and_a_reload(page, world, folder):
    page.locator("#gallery .card").nth(2).click()
    name = page.locator("#gallery img").nth(2).get_attribute("alt")
    expect(reference(page)).to_contain_text(name)
    search(page, "in blue")
    expect(page.locator("#function")).to_be_hidden()
    page.locator("#how button").first.click()
    page.locator("#function").get_by_text("sum", exact=True).click()
    expect(page.locator("#answers h3")).to_have_text("sum")
    page.locator("#beside input").click()
    offered = [name.split()[-1] for name in page.get_by_role("option").all_inner_texts()]
    assert offered == ["none", "combiner", "cosines", "product", "image", "text"], "the function itself stands there"
    page.get_by_role("option", name="product").click()
    expect(page.locator("#answers h3")).to_have_text(["sum", "product"])
    both = answered(page, 0), answered(page, 1)

    for found, function in zip(both, ("sum", "product"), strict=True):
        options = RetrieverOptions(str(world / "small_clip.pt"), feature_cache=None)
        retriever = load_combined(options, CombiningOptions(function))
        searcher = Searcher(retriever, collect(retriever, folder / "pictures")[0])
        right = searcher.ask(Question(name, "in blue"), 8)
        assert [name for name, _ in found] == [answer.name for answer in right]
        assert [score for _, score in found] == pytest.approx([answer.score for answer in right], abs=1e-3)

    expect(page).to_have_url(re.compile(f"reference={quote(name, safe='')}.*beside=product"))
    page.reload()
    expect(page.locator("#answers h3")).to_have_text(["sum", "product"])
    expect(caption_of(page)).to_have_value("in blue")
    assert (answered(page, 0), answered(page, 1)) == both
    page.locator("#link a").click()
    expect(page.locator("#answers h3")).to_have_text(["sum", "product"])


def test_somebody_in_a_hurry_loses_no_word_and_no_step(page):
    for _ in range(2):
        # Each before the page has answered the one before.
        page.locator("#gallery .card").nth(2).click()
        search(page, "in blue")
        go_on(page, 0)
        search(page, "with a belt")
        expect(page.locator("#trail li")).to_have_count(2)
        expect(page.locator("#trail .card").first).to_contain_text("in blue")
        expect(caption_of(page)).to_have_value("with a belt")


def test_the_weight_the_number_of_answers_an_example_and_a_caption_alone(page):
    page.locator("#examples .card").first.click()
    expect(page.locator("#answers .card")).to_have_count(8)
    with_both = answered(page)
    page.locator("#how button").first.click()
    to_its_start(page, "weight", "caption_weight=0&")
    expect(page.locator("#answers .card")).to_have_count(8)
    assert answered(page) != with_both
    to_its_start(page, "k", "k=1$")
    expect(page.locator("#answers .card")).to_have_count(1)
    page.locator("#clear").click()
    expect(reference(page)).to_contain_text("No picture yet")
    expect(page).not_to_have_url(re.compile("reference="))
    expect(page.locator("#answers .card")).to_have_count(1)


def test_more_pictures_are_shown_and_the_broken_one_is_told(page, folder):
    expect(page.locator("#message")).to_contain_text("1 of the pictures cannot be read and is left out: waits.png")
    while page.locator("#more").is_visible():
        count = page.locator("#gallery .card").count()
        page.locator("#more").click()
        expect(page.locator("#gallery .card").nth(count)).to_be_visible()
    expect(page.locator("#gallery .card")).to_have_count(len(list((folder / "pictures").rglob("*.png"))) - 1)
    page.locator("#gallery .card").filter(has_text="<img").click()
    expect(reference(page)).to_contain_text(HOSTILE)
    search(page, HOSTILE)


def test_a_phone_has_it_all_in_its_width(page):
    page.set_viewport_size({"width": 390, "height": 844})
    page.locator("#gallery .card").first.click()
    expect(reference(page)).not_to_contain_text("No picture yet")
    search(page, "in blue")
    page.wait_for_function("Math.abs(document.getElementById('answers').getBoundingClientRect().top) < 50")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.locator("#answers .card").first.click()
    expect(page.locator(".large")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.get_by_role("button", name="Close").click()
    expect(page.locator(".large")).to_have_count(0)


def test_a_link_with_foreign_values_gives_messages(page, server):
    page.goto(
        f"{server.address}/?reference=..%2Fsecret.png&function=os&caption_weight=9&k=0&caption=%3Cimg+src=x+onerror=hacked=1%3E"
    )
    for said in ("reference, ../secret.png", "function, os", "caption_weight, 9", "k, 0"):
        expect(page.locator("#message")).to_contain_text(said)
    expect(reference(page)).to_contain_text("No picture yet")
    expect(caption_of(page)).to_have_value("<img src=x onerror=hacked=1>")
    expect(page.locator("#answers .card")).to_have_count(8)


# ---- what somebody wicked does ----

WICKED = [
    called("text.png", b"no picture at all"),
    called("empty.png", b""),
    called("torn.png", saved(RGB, "PNG")[:300]),
    called("bomb.png", black_png(20_000, 20_000)),
    called("drawing.svg", b"<svg xmlns='http://www.w3.org/2000/svg' onload='hacked=1'/>", "image/svg+xml"),
    called("page.png", b"<!doctype html><script>hacked=1</script>"),
    called("..\\..\\..%2Fetc%2Fpasswd.png", b"x"),
    called(HOSTILE, b"x"),
]


def test_uploads_that_are_no_pictures_end_in_a_message(page):
    before = ""
    for file in WICKED:
        upload(page, file)
        message = page.locator("#message").filter(has_text="cannot be read as a picture")
        expect(message).not_to_have_text(before)
        before = message.inner_text()
        assert "/demo-" not in before, "where it lies is nobody's business"
        expect(reference(page)).to_contain_text("No picture yet")
    upload(page, called("good.png", saved(RGB, "PNG")))
    expect(reference(page)).to_contain_text("your picture")
    expect(page.locator("#message")).to_be_hidden()


def test_an_upload_that_is_too_large_ends_in_a_message(page, server, folder):
    large = folder / "large.png"
    with large.open("wb") as file:
        file.truncate(65 * 2**20)
    upload(page, large)
    expect(page.get_by_text("exceed the maximum allowed size of 64")).to_be_visible()
    # The browser has refused it; the server does too.
    assert server.upload(large.read_bytes())[0] == 413


def test_no_file_is_served(server, folder, seen_while_encoding):
    inside, outside = str(folder / "pictures" / "waits.png"), str(folder / "secret.txt")
    up = f"{'../' * 12}{outside[1:]}"
    files = [inside, outside, up, quote(up, safe=""), quote(quote(up, safe=""), safe=""), up.replace("../", "....//")]
    files += [f"{outside}%00.png", "demo.py", str(PROJECT_ROOT / "demo.py")]
    for file in files:
        for place in ("/gradio_api/file=", "/file=", "/static/", "/assets/", "/gradio_api/file/", "/"):
            status, body = server.get(f"{place}{file}")
            # The page itself answers for any other path.
            assert status >= 400 or "=" not in place, (place, file)
            assert not any(told in body for told in (SECRET.encode(), b"make_parser", b"\x89PNG")), (place, file)


def test_the_browser_loads_nothing_from_elsewhere(server, browser, seen_while_encoding):
    page = browser.new_page()
    page.goto(server.address)
    blocked = """() => new Promise(done => {
        document.addEventListener("securitypolicyviolation", violation => done(violation.blockedURI));
        new Image().src = "http://192.0.2.1/a.png";
    })"""
    assert page.evaluate(blocked) == "http://192.0.2.1/a.png"
    page.close()


@pytest.mark.parametrize("path", ["http://example.org/a.png", "http://192.0.2.1/a.png", "/etc/passwd", "secret.png"])
def test_an_upload_that_is_an_address_or_another_file_is_refused(server, folder, seen_while_encoding, path):
    path = path if "/" in path else str(folder / path)
    data = [None, "in blue", "sum", "", 0.5, 5, {"path": path, "meta": {"_type": "gradio.FileData"}}]
    sent = {"data": data, "fn_index": server.event("upload", "upload"), "session_hash": path}
    assert server.join(sent)[0] == 200
    assert server.said_to(path)["success"] is False
    if path.startswith("http"):
        assert f"this process calls no other machine: {path.split('/')[2]}" in server.said()
