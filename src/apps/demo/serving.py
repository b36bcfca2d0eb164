"""Serving the demo's page, to this machine only unless another address is asked for."""

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

import gradio as gr
from starlette.middleware.trustedhost import TrustedHostMiddleware

from src.apps.demo.local_only import LocalOnly
from src.apps.demo.uploads import LARGEST, Uploads
from src.base.errors import in_a_line

FONTS = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
"""Fonts that every machine has: none is fetched."""
COLOURS = {
    f"{part}{mode}": f"*neutral_{shade}"
    for part in ("body_text_color_subdued", "block_info_text_color", "input_placeholder_color")
    for mode, shade in (("", 600), ("_dark", 300))
}
"""Greys that can be read, which the theme's own cannot on every screen."""


def own_file(name: str) -> str:
    """Read a file that lies beside this one: CSS or JavaScript."""
    return Path(__file__).with_name(name).read_text(encoding="utf-8").strip()


class Page(gr.Blocks):
    """A page that answers values which its fields cannot hold, and which no browser sends, in a line."""

    async def preprocess_data(self, *args, **options):
        """Return what the fields make of a request; raises gr.Error, which the library shows and does not print."""
        try:
            return await super().preprocess_data(*args, **options)
        # Whatever they raise: it is about what was sent, and of many types.
        except Exception as error:
            line = f"a request is refused: {in_a_line(error, longest=300)}"
        print(line, file=sys.stderr, flush=True)
        raise gr.Error(line, print_exception=False)


def serve(page: Page, uploads: Uploads, host: str, port: int, loopback: Sequence[str]) -> str:
    """Start to serve a page in another thread; return its address.

    `loopback` lists the hosts that are this machine.
    """
    events = {number for number, function in page.fns.items() if function.fn is not None}

    @contextlib.asynccontextmanager
    async def guarded(app):
        # Around the library's own middleware, which answers some requests itself.
        app.middleware_stack = LocalOnly(app.middleware_stack, uploads, events)
        if host in loopback:
            # Otherwise a foreign page could give itself this machine's address and read what is served.
            app.middleware_stack = TrustedHostMiddleware(app.middleware_stack, allowed_hosts=list(loopback))
        yield

    # Also what is off by itself, since variables of the environment could turn it on.
    _, address, _ = page.launch(
        server_name=host,
        server_port=port,
        prevent_thread_lock=True,
        quiet=True,
        share=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        run_history=False,
        allowed_paths=[],
        max_file_size=LARGEST,
        footer_links=[],
        app_kwargs={"lifespan": guarded},
        theme=gr.themes.Base(**FONTS).set(**COLOURS),
        css=own_file("style.css"),
        head=f"<style>{own_file('frame.css')}</style>",
    )
    return address
