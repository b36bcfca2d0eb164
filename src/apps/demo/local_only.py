"""What keeps a page to this machine, whatever the library that serves it would do."""

import sys
from collections.abc import Callable

POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; frame-ancestors 'none'; form-action 'self'; base-uri 'self'"
)
"""What a browser may load: from this server alone. The library writes scripts and styles into the page."""
CALLS = {"socket.connect": 1, "socket.sendto": 1, "socket.getaddrinfo": 0}
"""{what Python tells before it calls a machine: which of the event's arguments says whom}"""


class LocalOnly:
    """Middleware that has browsers load from this server alone."""

    def __init__(self, app: Callable):
        self.app = app

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        async def with_policy(message):
            if message["type"] == "http.response.start":
                policy = b"content-security-policy", POLICY.encode()
                message = {**message, "headers": [*message.get("headers", ()), policy]}
            await send(message)

        await self.app(scope, receive, with_policy)


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
