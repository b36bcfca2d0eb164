"""demo.py as a process of its own, and what somebody does on its page."""

import http.client
import json
import os
import re
import socket
import subprocess
import sys
from contextlib import contextmanager
from urllib.parse import quote

from src.base.files import PROJECT_ROOT
from tests.support.processes import PATIENCE, wait_until, works

NOTING = """
import pathlib, runpy, sys, time
calls, hold = pathlib.Path(sys.argv.pop(1)), pathlib.Path(sys.argv.pop(1))
LOCAL = None, "", "127.0.0.1", "localhost", "::1", b"127.0.0.1", b"localhost"

def note(event, arguments):
    host = None
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    if event == "socket.getaddrinfo":
        host = arguments[0]
    if host not in LOCAL:
        with calls.open("a") as file:
            print(host, file=file)

def wait(event, arguments):
    if event == "open" and str(arguments[0]).endswith("waits.png"):
        while hold.exists():
            time.sleep(0.01)

sys.addaudithook(note)
sys.addaudithook(wait)
sys.path.insert(0, "")
runpy.run_path("demo.py", run_name="__main__")
"""
"""demo.py, which notes every machine but this one that it would call, and waits at waits.png while a file is there."""


FORM = "multipart/form-data; boundary=x"


class DemoServer:
    """A demo that is served at `port`."""

    def __init__(self, process: subprocess.Popen, port: int, folder):
        self.process, self.port, self.folder = process, port, folder
        self.address = f"http://127.0.0.1:{port}"

    def said(self):
        return (self.folder / "said.txt").read_text()

    def calls(self):
        """Return the other machines that the server would have called, each once."""
        path = self.folder / "calls.txt"
        return set(path.read_text().split()) if path.exists() else set()

    def get(self, path, method="GET", body=None, headers=()):
        """Return status and body of a request for a path exactly as it is written."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request(method, path, body, dict(headers))
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def event(self, part, event):
        """Return the number of what happens at an event of a part of the page, by its elem_id."""
        config = json.loads(self.get("/config")[1])
        (number,) = [found["id"] for found in config["components"] if found["props"].get("elem_id") == part]
        # The first one: a second one may be answered by the browser itself.
        numbers = [found["id"] for found in config["dependencies"] if [number, event] in found["targets"]]
        return numbers[0]

    def opening(self):
        """Return the number of what happens when the page opens."""
        return json.loads(self.get("/config")[1])["dependencies"][0]["id"]

    def join(self, content, link=""):
        """Return status and body of a request that joins the queue with this JSON, on a page opened by a link."""
        content = content if isinstance(content, (str, bytes)) else json.dumps(content)
        kind = {"Content-Type": "application/json"}
        return self.get(f"/gradio_api/queue/join{link}", "POST", content, kind)

    def said_to(self, session):
        """Return the last message that a session gets, as a dict."""
        body = self.get(f"/gradio_api/queue/data?session_hash={quote(session, safe='')}")[1].decode()
        return json.loads(re.findall(r"^data: (.*process_completed.*)$", body, re.MULTILINE)[-1])

    def upload(self, *contents, headers=()):
        """Return status and body of an upload of files with these contents."""
        body = b"".join(form_part(content) for content in contents) + b"--x--"
        return self.get("/gradio_api/upload", "POST", body, {"Content-Type": FORM, **dict(headers)})

    def kept(self):
        """Return the files that the server keeps of uploads."""
        return [path for path in self.folder.glob("demo-*/*/**/*") if path.is_file()]

    def answers(self):
        try:
            return self.get("/")[0] == 200
        except OSError:
            return False


def form_part(content, name="a.png"):
    head = f"--x\r\nContent-Disposition: form-data; name=files; filename={name}\r\n\r\n"
    return head.encode() + content + b"\r\n"


@contextmanager
def served(folder, *options, env=()):
    """Serve a demo that writes to `folder`, until the block ends; `env` are variables beside those of the tests.

    It waits at waits.png for as long as there is a file `hold` in `folder`.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-c", NOTING, folder / "calls.txt", folder / "hold", "--port", port, *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(folder), **dict(env)}
    with (folder / "said.txt").open("w") as said:
        process = subprocess.Popen(
            [str(part) for part in command], cwd=PROJECT_ROOT, env=environment, stdout=said, stderr=said
        )
    server = DemoServer(process, port, folder)
    try:
        wait_until(lambda: server.answers() or not works(process.pid), server.said)
        assert works(process.pid), server.said()
        yield server
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        finally:
            process.kill()


# ---- what somebody does ----


def search(page, caption):
    page.locator("#caption textarea, #caption input").fill(caption)
    page.locator("#caption button").click()
    page.locator("#trail [aria-current]").filter(has_text=caption).wait_for()


def answered(page, number=0):
    """Return [(name, score)] of a column of answers."""
    section = page.locator("#answers section").nth(number)
    names = section.locator("img").evaluate_all("images => images.map(image => image.alt)")
    return list(zip(names, map(float, section.locator(".score").all_inner_texts()), strict=True))


def go_on(page, number):
    """Search from an answer."""
    page.locator("#answers .card").nth(number).click()
    page.get_by_role("button", name="Search from here").click()


def upload(page, file):
    """Upload a file, or a dict of what it is called and holds."""
    with page.expect_file_chooser() as chooser:
        page.locator("#upload").click()
    chooser.value.set_files(file)


def called(name, content, kind="image/png"):
    return {"name": name, "mimeType": kind, "buffer": content}


def to_its_start(page, slider, in_link):
    """Move a slider by the keyboard until the link says so: gradio sets it back within milliseconds of its showing."""
    handle = page.locator(f"#{slider} input[type=range]")

    def is_there():
        handle.press("ArrowRight")
        handle.press("Home")
        page.wait_for_timeout(500)
        return re.search(in_link, page.url)

    wait_until(is_there, lambda: f"{slider} stays where it is: {page.url}")


def reference(page):
    return page.locator("#reference")


def caption_of(page):
    return page.locator("#caption textarea, #caption input")
