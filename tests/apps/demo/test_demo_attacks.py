"""demo.py beside pages and programs that mean no good: what it refuses, what it keeps, and what it goes on doing."""

import html
import http.client
import json
import os
import random
import re
import shutil
import signal
import socket
import threading
from pathlib import Path

import pytest

from src.apps.demo.local_only import JOIN, UPLOAD
from src.apps.demo.uploads import LARGEST, MOST
from src.apps.demo.walk import LONGEST_CAPTION
from tests.support.demo_server import FORM, form_part, served
from tests.support.odd_pictures import RGB, saved
from tests.support.processes import PATIENCE, wait_until, works

pytest.importorskip("gradio")
NO_UTF8 = os.fsdecode(b"caf\xe9 \xff.png")
ESCAPED = NO_UTF8.encode("utf-8", "backslashreplace").decode()
PICTURE = saved(RGB, "PNG")
EVIL = "https://evil.example"


@pytest.fixture(scope="module")
def options(world):
    return ["--clip-model-name", world / "small_clip.pt", "--num-workers", "0", "--no-feature-cache"]


@pytest.fixture(scope="module")
def pictures(world, tmp_path_factory):
    """Copy some pictures; one is called by no UTF-8, one as that would be written, and one is a link to a secret."""
    folder = tmp_path_factory.mktemp("pictures")
    for path in sorted((world / "my_pictures" / "dress").glob("*.png")):
        shutil.copy(path, folder)
    (folder / NO_UTF8).write_bytes(saved(RGB.rotate(90), "PNG"))
    (folder / ESCAPED).write_bytes(saved(RGB.rotate(180), "PNG"))
    shutil.copy(next(folder.glob("[0-9]*.png")), folder / "waits.png")
    (folder / "secret.txt").write_text("what nobody may read")
    (folder / "link.png").symlink_to(folder / "secret.txt")
    return folder


@pytest.fixture(scope="module")
def server(pictures, options, tmp_path_factory):
    with served(tmp_path_factory.mktemp("attacked"), "--pictures", pictures, *options) as server:
        wait_until(lambda: "pictures are ready" in server.said(), server.said)
        yield server
        assert works(server.process.pid)
        assert "Traceback" not in server.said()
    assert list(server.folder.glob("demo-*")) == []


# ---- other pages ----


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": EVIL},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://localhost:PORT"},
        {"Origin": "http://127.0.0.1.evil.example:PORT"},
        {"Origin": "http://evil.example@127.0.0.1:PORT"},
        {"Origin": "http://[::1"},
        {"Origin": ""},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
        {"Sec-Fetch-Site": "same-origin", "Origin": EVIL},
    ],
)
def test_requests_of_other_pages_are_refused(server, headers):
    headers = {name: value.replace("PORT", str(server.port)) for name, value in headers.items()}
    everywhere = ["/", "/config", "/theme.css", UPLOAD, JOIN, "/gradio_api/queue/data?session_hash=a"]
    everywhere += ["/gradio_api/file=/etc/passwd", "/gradio_api/proxy=http://example.org", "/gradio_api/heartbeat/a"]
    for path in everywhere:
        for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"):
            preflight = {"Access-Control-Request-Method": "POST"} if method == "OPTIONS" else {}
            assert server.get(path, method, headers={**headers, **preflight})[0] == 403, (method, path)
    assert server.upload(PICTURE, headers=headers)[0] == 403
    assert server.kept() == []


def test_a_link_of_another_page_leads_to_the_page_alone(server):
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert server.get("/?caption=in+blue", headers=link)[0] == 200
    assert server.get("/config", headers=link)[0] == 403
    # A form that is sent is a navigation too.
    assert server.get("/", "POST", headers={**link, "Origin": EVIL})[0] == 403
    assert server.upload(PICTURE, headers={**link, "Origin": EVIL})[0] == 403


def test_the_pages_own_requests_and_programs_are_answered(server):
    own = {"Origin": server.address, "Sec-Fetch-Site": "same-origin"}
    for headers in (own, {"Sec-Fetch-Site": "none"}, {}, {"Host": f"localhost:{server.port}"}):
        assert server.get("/config", headers=headers)[0] == 200
    assert server.get("/", headers={"Host": "example.org"})[0] == 400


def test_websockets_are_refused(server):
    headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    headers["Sec-WebSocket-Key"] = "dGhlIHNhbXBsZSBub25jZQ=="
    for path in ("/", JOIN, "/gradio_api/stream/a"):
        assert server.get(path, headers={**headers, "Origin": EVIL})[0] in (403, 404)
        assert server.get(path, headers=headers)[0] != 101


@pytest.mark.parametrize("host", ["0.0.0.0"])
def test_served_to_others_it_still_takes_no_requests_of_other_pages(pictures, options, tmp_path, host):
    with served(tmp_path, "--pictures", pictures, *options, "--host", host) as server:
        own = {"Host": f"demo.example:{server.port}"}
        assert server.get("/config", headers={**own, "Origin": f"http://demo.example:{server.port}"})[0] == 200
        for origin in (EVIL, "null"):
            status = server.get(
                "/config", "OPTIONS", headers={**own, "Origin": origin, "Access-Control-Request-Method": "GET"}
            )[0]
            assert status == 403
            assert server.upload(PICTURE, headers={**own, "Origin": origin})[0] == 403


# ---- what else the library serves ----


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/info",
        "/gradio_api/openapi.json",
        "/gradio_api/proxy=http://192.0.2.1/",
        "/gradio_api/stream/a/b/1/playlist.m3u8",
        "/gradio_api/upload_progress?upload_id=a",
        "/gradio_api/vibe-code",
        "/gradio_api/runs",
        "/gradio_api/deep_link",
        "/gradio_api/custom_component/a/client/component/..%2f..%2fetc%2fpasswd",
        "/gradio_api/dev/reload",
        "/gradio_api/app_id",
        "/monitoring",
        "/monitoring/summary",
        "/login",
        "/docs",
        "/openapi.json",
        "/gradio_api/file=SECRET",
        "/gradio_api/file=/proc/self/environ",
        "/gradio_api/file%3DSECRET",
        "//gradio_api/file=SECRET",
        "/x/../gradio_api/file=SECRET",
        "/static/../../../../../../../../SECRET",
        "/static/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/SECRET",
        "/assets//SECRET",
        "/assets/..%5c..%5cSECRET",
        "/static/%00",
        "/assets/" + "a" * 300,
        "/assets/" + "a" * 5000,
        "/gradio_api/heartbeat/" + "a" * 5000,
        "/static/",
        "/assets/",
        "/assets",
        "/gradio_api/queue/data",
        "/gradio_api/queue/status",
        "/gradio_api/user",
        "/gradio_api/reset",
        "/gradio_api/cancel",
    ],
)
def test_nothing_but_the_page_is_served(server, pictures, path):
    secret = str(pictures / "secret.txt")
    for method in ("GET", "POST"):
        status, body = server.get(path.replace("SECRET", secret), method)
        assert 400 <= status < 500, (method, path)
        assert b"what nobody may read" not in body


def test_no_code_of_the_page_can_be_edited_or_run(server):
    for path in [
        "vibe-edit/",
        "component_server",
        "process_recording",
        "run/searched",
        "api/searched",
        "call/searched",
    ]:
        assert server.get(f"/gradio_api/{path}", "POST", "{}", {"Content-Type": "application/json"})[0] == 404, path
    assert server.get("/login", "POST", "username=a&password=b")[0] == 404


# ---- uploads ----


def test_an_upload_is_served_to_nobody(server):
    status, body = server.upload(PICTURE)
    (path,) = json.loads(body)
    assert status == 200
    assert [str(file) for file in server.kept()] == [path]
    for where in (f"/gradio_api/file={path}", f"/file={path}", f"/gradio_api/file/{path}", f"/static/{path}"):
        status, content = server.get(where)
        assert status in (403, 404), where
        assert PICTURE not in content


NO_PICTURES = [b"", b"no picture", PICTURE[:200], b"%!PS-Adobe-3.0 EPSF-3.0\n", b"<svg/>", b"\0" * 10_000]


@pytest.mark.parametrize("content", NO_PICTURES)
def test_what_is_no_picture_is_not_kept(server, content):
    before = server.kept()
    status, body = server.upload(content)
    assert status == 200
    assert server.kept() == before
    (path,) = json.loads(body)
    file = {"path": path, "meta": {"_type": "gradio.FileData"}}
    asked(server, server.event("upload", "upload"), [None, *FIELDS, file], path)
    assert "a.png: cannot be read as a picture" in json.dumps(server.said_to(path))


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (form_part(PICTURE) * 2 + b"--x--", FORM),
        (b"", FORM),
        (form_part(PICTURE), "multipart/form-data"),
        (form_part(PICTURE) + b"--x--", "multipart/form-data; boundary=y"),
        (b"--x\r\nContent-Disposition: form-data\r\n\r\na\r\n--x--", FORM),
        (b"--x\r\n" + b"a: b\r\n" * 5000 + b"\r\na\r\n--x--", FORM),
        (
            b"--x\r\nContent-Disposition: form-data; name=a\r\n\r\n" + b"a" * 2**21 + b"\r\n--x--",
            FORM,
        ),
        (b"files=a", "application/x-www-form-urlencoded"),
        (PICTURE, "image/png"),
        (PICTURE, "multipart/form-data; boundary=" + "x" * 300),
        (PICTURE, "multipart/form-data; boundary=\xff; charset=nonsense"),
    ],
)
def test_a_form_without_one_picture_is_refused(server, body, kind):
    before = server.kept()
    assert server.get(UPLOAD, "POST", body, {"Content-Type": kind})[0] in (400, 413)
    assert server.kept() == before


def test_an_upload_that_is_cut_off_leaves_nothing(server):
    before = server.kept()
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as line:
            line.sendall(
                b"POST /gradio_api/upload HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9999999\r\n"
                b"Content-Type: multipart/form-data; boundary=x\r\n\r\n" + form_part(PICTURE * 1000)
            )
    # What is answered after them was received after them.
    assert server.upload(b"no picture")[0] == 200
    assert server.kept() == before
    assert [path for path in server.folder.rglob("*") if path.is_file() and path.stat().st_size > 10**5] == []


def test_an_upload_without_end_is_stopped_on_its_way(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    sent = 0

    def for_ever():
        nonlocal sent
        yield b"--x\r\nContent-Disposition: form-data; name=files; filename=a.png\r\n\r\n"
        while sent < 4 * LARGEST:
            sent += 2**20
            yield bytes(2**20)

    connection.putrequest("POST", UPLOAD)
    connection.putheader("Content-Type", FORM)
    connection.putheader("Transfer-Encoding", "chunked")
    connection.endheaders()
    answered = threading.Event()
    most = []
    try:
        for part in for_ever():
            connection.send(b"%x\r\n%s\r\n" % (len(part), part))
            most.append(sum(file.stat().st_size for file in server.folder.rglob("*") if file.is_file()))
    except OSError:  # refused before all was sent
        answered.set()
    if not answered.is_set():
        connection.send(b"0\r\n\r\n")
        assert connection.getresponse().status == 413
    connection.close()
    assert max(most) < 2 * LARGEST


def test_uploads_have_a_sum_and_the_oldest_go_first(server):
    # A picture with much behind it, as nobody checks what follows its end.
    content = PICTURE + bytes(LARGEST // 2)
    paths = [json.loads(server.upload(content)[1])[0] for _ in range(2 * MOST // LARGEST + 2)]
    kept = [str(file) for file in server.kept()]
    assert sum(Path(path).stat().st_size for path in kept) <= MOST
    assert paths[-1] in kept
    assert paths[0] not in kept
    file = {"path": paths[0], "meta": {"_type": "gradio.FileData"}}
    asked(server, server.event("upload", "upload"), [None, *FIELDS, file], "oldest")
    assert "is not kept any more" in json.dumps(server.said_to("oldest"))


# ---- questions ----

FIELDS = ["in blue", "sum", "", 0.5, 5]


def asked(server, event, data, session, **others):
    sent = {"data": data, "fn_index": event, "session_hash": session, **others}
    status, body = server.join(sent)
    assert status == 200, body


def answer(server, event, data, session, **others):
    """Return what a request was answered: the text of its page, or of its refusal."""
    status, body = server.join({"data": data, "fn_index": event, "session_hash": session, **others})
    return json.dumps(server.said_to(session)) if status == 200 else f"refused {status} {body.decode()}"


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        (0, "a" * (LONGEST_CAPTION + 1), "a caption of 501 letters: the limit is 500"),
        (0, "a" * 10**7, "refused 413"),
        (0, None, "the caption must be a text"),
        (0, {"a": "b"}, "the caption must be a text"),
        (0, "\ud800", "refused 400"),
        (1, "os.system", "os.system: is none of"),
        (1, None, "is none of"),
        (1, ["sum"], "is none of"),
        (2, "nonsense", "nonsense: is none of"),
        (2, {}, "is none of"),
        (3, 9, "caption weight 9: must be from 0 to 1"),
        (3, "0.5", "caption weight 0.5: must be"),
        (3, None, "caption weight None: must be"),
        (3, float("nan"), "refused 400"),
        (3, float("inf"), "refused 400"),
        (4, 101, "answers 101: must be from 1 to 100"),
        (4, 10**9, "must be from 1 to 100"),
        (4, -1, "must be from 1 to 100"),
        (4, [[]], "must be from 1 to 100"),
        (4, 10**4000, "must be from 1 to 100"),
    ],
)
def test_a_value_that_no_browser_sends_ends_in_a_line(server, field, value, said):
    fields = [*FIELDS]
    fields[field] = value
    assert said in answer(server, server.event("caption", "submit"), [None, *fields], f"field {field} {said}")


@pytest.mark.parametrize(
    ("part", "event_data", "said"),
    [
        ("trail", {"key": "1"}, "There is no such step."),
        ("trail", {"key": "-1"}, "There is no such step."),
        ("trail", {"key": "9" * 5000}, "There is no such step."),
        ("trail", {"key": 0}, "There is no such step."),
        ("trail", {}, "There is no such step."),
        ("trail", None, "There is no such step."),
        ("trail", [1], "refused 422"),
        ("examples", {"key": "99"}, "There is no such example."),
        ("examples", {"key": {}}, "There is no such example."),
        ("gallery", {"key": "../secret.png"}, "There is no such picture."),
        ("gallery", {"key": "/etc/passwd"}, "There is no such picture."),
        ("gallery", {"key": ["a"]}, "There is no such picture."),
        ("gallery", {"keys": "a"}, "There is no such picture."),
        ("answers", {"key": None}, "There is no such picture."),
    ],
)
def test_a_click_on_what_is_not_there_ends_in_a_line(server, part, event_data, said):
    data = [None] if part == "trail" else [None, *FIELDS]
    session = f"{part} {event_data}"[:60]
    assert said in answer(server, server.event(part, "click"), data, session, event_data=event_data)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "not JSON",
        "[]",
        "[" * 60_000,
        '{"data": []}',
        '{"data": [], "fn_index": 9999, "session_hash": "a"}',
        '{"data": [], "fn_index": -1, "session_hash": "a"}',
        '{"data": [], "fn_index": "a", "session_hash": "a"}',
        '{"data": [], "fn_index": true, "session_hash": "a"}',
        '{"data": [], "fn_index": 0, "session_hash": null}',
        '{"data": [], "fn_index": 0, "session_hash": ["a"]}',
        '{"data": {}, "fn_index": 0, "session_hash": "a"}',
        '{"data": [], "fn_index": 0, "session_hash": "\\ud800"}',
        '{"data": [], "fn_index": 0, "session_hash": "a", "trigger_id": "a"}',
        b"\xff\xfe",
    ],
)
def test_a_question_of_another_form_is_refused(server, content):
    assert server.join(content)[0] in (400, 422)


def test_too_few_values_end_in_a_line(server):
    assert '"success": false' in answer(server, server.event("caption", "submit"), [None, "in blue"], "few")
    assert '"success": false' in answer(server, server.event("upload", "upload"), [], "none")


@pytest.mark.parametrize(
    "file", [None, "a", 5, [], {}, {"path": 5, "meta": {"_type": "gradio.FileData"}}, {"path": "a"}, [{"path": "a"}]]
)
def test_an_upload_that_is_none_ends_in_a_line(server, file):
    said = answer(server, server.event("upload", "upload"), [None, *FIELDS, file], f"file {file}"[:60])
    assert '"success": false' in said or "is not kept any more" in said


def test_random_questions_end_without_a_traceback(server):
    dice = random.Random(1)
    values = [None, "", "a", 0, 1, -1, 0.5, True, [], {}, ["a"], {"key": "0"}]
    values += ["sum", 10**30, "\x00", "\u202e", "a" * 600]
    for number in range(60):
        event = dice.randrange(0, 14)
        data = [dice.choice(values) for _ in range(dice.randrange(0, 8))]
        sent = {"data": data, "fn_index": event, "session_hash": f"dice {number}", "event_data": dice.choice(values)}
        sent |= {"batched": True, "simple_format": dice.choice(values), "event_id": dice.choice(values)}
        if server.join(sent)[0] == 200:
            server.said_to(sent["session_hash"])
    assert server.get("/")[0] == 200


def test_many_idle_connections_stop_nobody(server):
    lines = [socket.create_connection(("127.0.0.1", server.port), PATIENCE) for _ in range(200)]
    for line in lines:
        line.sendall(b"POST /gradio_api/upload HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\nslow")
    assert server.get("/")[0] == 200
    assert server.upload(PICTURE)[0] == 200
    for line in lines:
        line.close()
    assert server.get("/", headers={"X": "a" * 100_000})[0] in (200, 400, 431)


def test_a_slow_question_keeps_nobody_from_opening_the_page(server):
    opened = server.opening()
    assert "waits.png" in answer(server, opened, [], "before")
    hold = server.folder / "hold"
    hold.touch()
    try:
        clicked = {"event_data": {"key": "waits.png"}}
        asked(server, server.event("gallery", "click"), [None, *FIELDS], "slow", **clicked)
        # More pages than the library has threads, each of which has something to ask.
        for number in range(45):
            sent = {"data": [], "fn_index": opened, "session_hash": f"opens {number}"}
            assert server.join(sent, link="?caption=in+blue")[0] == 200
            page = json.dumps(server.said_to(f"opens {number}"))
            assert "data-key" in page
            assert "Searching" in page
    finally:
        hold.unlink()
    assert "score" in json.dumps(server.said_to("slow"))


# ---- names and files ----


def test_names_that_are_no_utf8_are_shown_and_can_be_asked(server):
    page = answer(server, server.opening(), [], "opens")
    keys = re.findall(r'data-key=\\"([^"]*)\\"', page)
    written = [html.unescape(key.replace("\\\\", "\\")) for key in keys]
    assert {ESCAPED, f"{ESCAPED}'"} <= set(written)
    for name in (ESCAPED, f"{ESCAPED}'"):
        said = answer(server, server.event("gallery", "click"), [None, *FIELDS], name, event_data={"key": name})
        assert "There is no such picture" not in said
        assert "score" in said
        assert "cannot be read" not in said


@pytest.mark.parametrize("change", ["delete", "pipe", "socket", "folder", "unreadable"])
def test_a_picture_that_is_gone_since_blanks_no_page(server, pictures, change):
    path = pictures / sorted(path.name for path in pictures.glob("[0-9]*.png"))[0]
    content = path.read_bytes()
    path.unlink()
    holder = socket.socket(socket.AF_UNIX)
    {
        "delete": lambda: None,
        "pipe": lambda: os.mkfifo(path),
        "socket": lambda: holder.bind(os.path.relpath(path)),
        "folder": path.mkdir,
        "unreadable": lambda: path.symlink_to("/proc/1/mem"),
    }[change]()
    try:
        page = answer(server, server.opening(), [], f"opens {change}")
        assert "cannot be read" in page
        assert page.count("data-key") > 3
        for event, key in (("gallery", path.name), ("gallery", ESCAPED)):
            said = answer(
                server, server.event(event, "click"), [None, *FIELDS], f"{change} {key}", event_data={"key": key}
            )
            assert "score" in said or (change == "unreadable" and f"{path.name}: " in said)
    finally:
        holder.close()
        path.rmdir() if change == "folder" else path.unlink(missing_ok=True)
        path.write_bytes(content)


# ---- the machine around it ----

FOREIGN = {
    "http_proxy": "http://192.0.2.1:1",
    "HTTPS_PROXY": "http://192.0.2.1:1",
    "ALL_PROXY": "socks5://192.0.2.1:1",
    "no_proxy": "",
    "MPLBACKEND": "module://matplotlib_inline.backend_inline_of_nobody",
    "SSL_CERT_FILE": "/nowhere",
    "SSLKEYLOGFILE": "/nowhere/log",
    "WEB_CONCURRENCY": "many",
    "FORWARDED_ALLOW_IPS": "*",
    "FASTAPI_OTEL_AUTO_CONFIGURE": "true",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "ftp://nowhere",
    "SPACE_ID": "a/b",
    "SYSTEM": "spaces",
    "GRADIO_SERVER_NAME": "0.0.0.0",
    "GRADIO_SERVER_PORT": "no port",
    "GRADIO_NUM_PORTS": "no number",
    "GRADIO_SHARE": "true",
    "GRADIO_ROOT_PATH": "https://evil.example/root",
    "GRADIO_ALLOWED_PATHS": "/",
    "GRADIO_SSR_MODE": "true",
    "GRADIO_MCP_SERVER": "true",
    "GRADIO_NUM_WORKERS": "3",
    "GRADIO_DEFAULT_CONCURRENCY_LIMIT": "none of it",
    "GRADIO_WATCH_DIRS": "/",
    "GRADIO_VIBE_MODE": "1",
    "GRADIO_DEBUG": "1",
    "GRADIO_LOCAL_DEV_MODE": "1",
    "GRADIO_PROFILING": "1",
    "GRADIO_ANALYTICS_ENABLED": "True",
    "GRADIO_TEMP_DIR": "/nowhere",
    "GRADIO_HEARTBEAT_INTERVAL": "-1",
}


def test_variables_that_nobody_set_for_it_change_nothing(pictures, options, tmp_path):
    with served(tmp_path, "--pictures", pictures, *options, env=FOREIGN) as server:
        wait_until(lambda: "pictures are ready" in server.said(), server.said)
        assert b"evil" not in server.get("/config")[1]
        assert "data-key" in answer(server, server.opening(), [], "opens")
        assert "score" in answer(server, server.event("caption", "submit"), [None, *FIELDS], "asks")
        assert server.get("/gradio_api/file=/etc/hostname")[0] == 404
        assert "Traceback" not in server.said()
        assert f"http://127.0.0.1:{server.port}/  (Ctrl-C ends it)" in server.said()
    assert server.calls() == set()


def test_what_a_killed_demo_left_is_removed_and_what_a_living_one_has_is_not(server, pictures, options, tmp_path):
    shared, foreign = {"TMPDIR": str(server.folder)}, [server.folder / name for name in ("demo-mine/a", "demo-yours")]
    for folder in foreign:
        folder.mkdir(parents=True)
    assert server.upload(PICTURE)[0] == 200
    kept = server.kept()
    with served(tmp_path, "--pictures", pictures, *options, env=shared) as killed:
        assert killed.upload(PICTURE)[0] == 200
        killed.process.send_signal(signal.SIGKILL)
        killed.process.wait(PATIENCE)
    (left,) = set(server.kept()) - set(kept)
    with served(tmp_path, "--pictures", pictures, *options, env=shared):
        assert not left.exists()
        assert server.kept() == kept
    assert len(list(server.folder.glob("demo-*"))) == 3
    for folder in (foreign[0], foreign[0].parent, foreign[1]):
        folder.rmdir()
