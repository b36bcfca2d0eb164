"""What keeps a page to this machine, whatever the library that serves it allows."""

import re
from collections.abc import Callable
from urllib.parse import unquote

POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; frame-ancestors 'none'; form-action 'self'; base-uri 'self'"
)
"""What a browser may load: from this server alone. The page's library writes scripts and styles into the page."""
REMOTE = re.compile(r"(file|proxy|stream)?=?\s*/*[a-z][a-z0-9+.-]*:/", re.IGNORECASE)
LOCAL_HOSTS = {"127.0.0.1", "localhost", "[::1]"}


class LocalOnly:
    """Middleware that has browsers load from this server alone, and never fetches an address for anybody."""

    def __init__(self, app: Callable, loopback: bool):
        """`loopback` says that requests are answered only where they were meant for this machine.

        Otherwise a foreign page could give itself this machine's address and read what is served.
        """
        self.app, self.loopback = app, loopback

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if self._is_refused(scope):
            await send({"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": b"not served here"})
            return

        async def with_policy(message):
            if message["type"] == "http.response.start":
                added = [
                    (b"content-security-policy", POLICY.encode()),
                    (b"x-content-type-options", b"nosniff"),
                    (b"referrer-policy", b"no-referrer"),
                ]
                message = {**message, "headers": [*message.get("headers", ()), *added]}
            await send(message)

        await self.app(scope, receive, with_policy)

    def _is_refused(self, scope: dict) -> bool:
        host = dict(scope["headers"]).get(b"host", b"").decode("latin-1").lower()
        if self.loopback and re.sub(r":\d+$", "", host) not in LOCAL_HOSTS:
            return True
        # A part of the path that is an address with a scheme, decoded twice.
        last = unquote(unquote(scope["path"])).partition("gradio_api/")[2]
        return REMOTE.match(last) is not None
