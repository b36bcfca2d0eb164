"""A demo from its start to its end."""

import contextlib
import sys
from collections.abc import Callable
from types import ModuleType

from src.apps.demo.before import LOOPBACK
from src.apps.demo.engine import Engine
from src.apps.demo.local_only import call_nobody, own_environment
from src.apps.demo.upload_folder import upload_folder
from src.base.errors import InputError
from src.processes.signals import Stopping

QUIET = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}


def serve(load: Callable[[], Engine], host: str, port: int) -> None:
    """Serve a page, whose engine `load()` gives, until somebody ends it."""
    with contextlib.ExitStack() as stack:
        # However it ends, no upload stays behind.
        uploads = stack.enter_context(upload_folder())
        stack.enter_context(Stopping(lambda: "the page is closed"))
        variables = {"GRADIO_TEMP_DIR": str(uploads), "MPLBACKEND": "agg", **QUIET}
        with own_environment(**variables):
            demo_page = _import_page()
        # Weights may be downloaded, by the proxies of this environment.
        engine = load()
        stack.enter_context(own_environment(**variables))
        page, address = demo_page.DemoPage(engine, uploads).launch(host, port, LOOPBACK)
        # From here on all is at hand.
        call_nobody()
        print(f"{address}  (Ctrl-C ends it)", flush=True)
        # The page is there already, and shows how far this is.
        engine.encode()
        print(f"{len(engine.names):,} pictures are ready", file=sys.stderr, flush=True)
        page.block_thread()


def _import_page() -> ModuleType:
    """Import the page, and gradio with it, which reads the environment then."""
    try:
        from src.apps.demo import page as demo_page
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        raise InputError("demo.py needs gradio: pip install -r requirements/demo.txt") from None
    return demo_page
