"""Keep the demo local: a strict CSP, no requests of other pages, and no outgoing connections."""

import contextlib
import json
import os
import sys
from collections.abc import Callable, Collection, Iterator
from urllib.parse import urlsplit

POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; frame-ancestors 'none'; form-action 'self'; base-uri 'self'"
)
"""What a browser may load: from this server alone. The library writes scripts and styles into the page."""
CALLS = {"socket.connect": 1, "socket.sendto": 1, "socket.getaddrinfo": 0}
"""{what Python tells before it calls a machine: which of the event's arguments says whom}"""
UPLOAD, JOIN = "/gradio_api/upload", "/gradio_api/queue/join"
READ = "/", "/config", "/theme.css", "/favicon.ico", "/gradio_api/queue/data", "/gradio_api/startup-events"
READ_BELOW = "/assets/", "/static/", "/gradio_api/heartbeat/"
"""What the page needs, beside UPLOAD and JOIN. The library has more: files, calls, code to edit."""
LONGEST_PATH = 250
MOST_BYTES = 2**16
"""Size of a request that is no upload: a caption and a few settings."""
FIELDS = {"data": [list], "fn_index": [int], "session_hash": [str], "event_data": [dict, type(None)]}
FIELDS |= {"trigger_id": [int, type(None)]}
"""{what a request that joins the queue says: its types}"""
FOREIGN = "GRADIO_", "FASTAPI_", "OTEL_", "UVICORN_", "OAUTH_", "SPACE", "KAGGLE_", "SSL", "MPL"
FOREIGN += "WEB_CONCURRENCY", "FORWARDED_ALLOW_IPS"
"""What variables begin with that the library and those below it read, and that nobody has set for this page."""


@contextlib.contextmanager
def own_environment(**settings: str) -> Iterator[None]:
    """Let a library that serves pages find no variables but its own `settings` inside the block, no proxies either."""
    before = dict(os.environ)
    for name in before:
        if name.upper().startswith(FOREIGN) or name.upper().endswith("_PROXY"):
            del os.environ[name]
    os.environ.update(settings)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


class Refused(Exception):
    """A request that is not answered."""

    def __init__(self, status: int, line: str):
        super().__init__(line)
        self.status = status


class LocalOnly:
    """Middleware that answers the page alone, lets browsers load from this server alone, and takes no other's form."""

    def __init__(self, app: Callable, uploads: Callable, events: Collection[int]):
        """Take the app that receives uploads, and the numbers of the events that the page can ask for."""
        self.app, self.uploads, self.events = app, uploads, events

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        async def with_policy(message):
            if message["type"] == "http.response.start":
                policy = b"content-security-policy", POLICY.encode()
                message = {**message, "headers": [*message.get("headers", ()), policy]}
            await send(message)

        if scope["type"] == "websocket":  # the page opens none
            await send({"type": "websocket.close"})
        elif scope["type"] != "http":
            await self.app(scope, receive, send)
        else:
            try:
                await self._answer(scope, receive, with_policy)
            except Refused as refused:
                await _say(with_policy, refused)

    async def _answer(self, scope, receive, send) -> None:
        _require_own(scope)
        path, method = scope["path"], scope["method"]
        if (method, path) == ("POST", UPLOAD):
            await self.uploads(scope, receive, send)
        elif (method, path) == ("POST", JOIN):
            body = _checked(await _body(receive), self.events)
            headers = [(name, value) for name, value in scope["headers"] if name != b"content-length"]
            headers.append((b"content-length", str(len(body)).encode()))
            await self.app({**scope, "headers": headers}, _receiving(body, receive), send)
        elif method in ("GET", "HEAD") and (path in READ or path.startswith(READ_BELOW)) and len(path) <= LONGEST_PATH:
            await self.app(scope, receive, send)
        else:
            raise Refused(404, "not found")


def _require_own(scope: dict) -> None:
    """Raise Refused for a request that a page from elsewhere makes; a link from there to the page is none."""
    found = {name: [] for name in (b"host", b"origin", b"sec-fetch-site", b"sec-fetch-mode")}
    for name, value in scope["headers"]:
        if name in found:
            found[name].append(value.decode("latin-1").lower())
    # Programs send neither of both, and browsers at least the one where it matters.
    is_link = scope["method"] in ("GET", "HEAD") and scope["path"] == "/" and found[b"sec-fetch-mode"] == ["navigate"]
    is_own = all(site in ("same-origin", "none") for site in found[b"sec-fetch-site"])
    hosts = [_host(origin) for origin in found[b"origin"]]
    if not (is_own or is_link) or any([host] != found[b"host"] for host in hosts):
        raise Refused(403, "this page takes no requests of other pages")


def _host(origin: str) -> str | None:
    """Return host and port of an origin; None for one that has none, such as a file's or a sandbox's."""
    try:
        return urlsplit(origin).netloc or None
    except ValueError:
        return None


async def _body(receive: Callable) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
        if len(body) > MOST_BYTES:
            raise Refused(413, f"requests of more than {MOST_BYTES} bytes are refused")
    return body


def _checked(body: bytes, events: Collection[int]) -> bytes:
    """Return what a request asks for, in JSON that the library can read, and nothing else; raises Refused."""
    try:
        sent = json.loads(body)
        values = {name: sent.get(name) for name in FIELDS} if isinstance(sent, dict) else {}
        # What JSON can say and nobody can send on: half letters, numbers that are none.
        checked = json.dumps(
            values | {"event_data": values.get("event_data") or {}}, ensure_ascii=False, allow_nan=False
        )
        encoded = checked.encode()
    except (ValueError, RecursionError):
        raise Refused(400, "not JSON") from None
    wrong = [name for name, kinds in FIELDS.items() if type(values.get(name)) not in kinds]
    if wrong or values["fn_index"] not in events:
        raise Refused(422, f"{', '.join(wrong) or 'fn_index'}: not what this page asks")
    return encoded


def _receiving(body: bytes, receive: Callable) -> Callable:
    """Return what gives `body` first, and then what `receive` gives."""
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def received():
        return messages.pop() if messages else await receive()

    return received


async def _say(send: Callable, refused: Refused) -> None:
    body = json.dumps({"detail": str(refused)}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def call_nobody() -> None:
    """Refuse from now on that this process calls another machine, with PermissionError.

    The library would fetch for a browser whatever address a request names.
    """
    here = {None, "", "127.0.0.1", "::1", "localhost"}

    def refuse(event, arguments):
        if event not in CALLS:
            return
        whom = arguments[CALLS[event]]
        # Of an internet address; one of this machine's own sockets is no tuple.
        called = whom[0] if isinstance(whom, tuple) else whom if event == "socket.getaddrinfo" else None
        called = called.decode("ascii", "replace") if isinstance(called, bytes) else called
        if called not in here:
            raise PermissionError(f"this process calls no other machine: {called}")

    sys.addaudithook(refuse)
