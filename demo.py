"""Search one's own pictures in a browser: a picture and a caption, the answers, and on from any of them.

    python demo.py --pictures photos --clip-model-path tuned_clip.pt --combiner-path combiner.pt

The page is there at once, and shows how far encoding is. It is served to this machine alone, which calls no other.
"""

from src.apps.demo.walk import MOST_ANSWERS
from src.base.parser import Parser, count, file_path
from src.command.combining import names_in
from src.command.flags import add_searching_options, parse_judging

LOOPBACK = "127.0.0.1", "localhost"
PORTS = range(7860, 7960)
QUIET = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}

FUNCTIONS = names_in("combiner.py")


def make_parser() -> Parser:
    parser = Parser("Serve a page that searches a folder of pictures, to this machine alone.", __doc__)
    group = parser.add_argument_group("page")
    help_text = "folder of pictures, at any depth"
    group.add_argument("--pictures", type=file_path, required=True, metavar="FOLDER", help=help_text)
    group.add_argument("-k", type=count, default=12, help=f"how many answers at first, at most {MOST_ANSWERS}")
    help_text = f"port of the page (default: the first free one from {PORTS.start})"
    group.add_argument("--port", type=count, metavar="N", help=help_text)
    help_text = "address to serve at; any other than this one lets whole networks in, and asks nobody for a password"
    group.add_argument("--host", default=LOOPBACK[0], metavar="ADDRESS", help=help_text)
    add_searching_options(parser, FUNCTIONS)
    return parser


if __name__ == "__main__":
    parse_judging(make_parser(), FUNCTIONS)  # --help and a wrong flag are answered here, before torch is imported

import contextlib
import socket
import sys
from pathlib import Path
from types import ModuleType

from combiner import COMBINING_FUNCTIONS, default_name, load_combining_function, network_in, with_clip_of_pair
from src.apps.demo.engine import Engine, Functions
from src.apps.demo.local_only import call_nobody, own_environment
from src.apps.demo.upload_folder import upload_folder
from src.apps.demo.walk import Query
from src.base.errors import InputError, in_a_line, one_line_errors
from src.base.folders import PassedOver, pictures_below
from src.command.flags import CombiningOptions
from src.models.backbone import Backbone
from src.processes.signals import Stopping
from src.retrieval.retriever import load_retriever
from src.retrieval.settings import Settings, settings
from utils import say_device


def load_functions(combining: CombiningOptions, backbone: Backbone) -> Functions:
    """Load every function that can combine, the strongest first; of networks the one whose weights there are."""
    path, functions = combining.combiner_path, {}
    for line in reversed(COMBINING_FUNCTIONS):
        if not line.is_network:
            functions[line.name] = line.function
        elif path is not None and line.name == network_in(path).name:
            dimensions = combining.projection_dim, combining.hidden_dim
            functions[line.name] = load_combining_function(line.name, path, backbone, *dimensions)
    return functions


def load_engine(given: Settings, folder: Path, k: int, precision: str) -> Engine:
    """Load CLIP and all functions; raises InputError when something cannot be loaded."""
    combining = given.combining
    retriever = load_retriever(with_clip_of_pair(given.retriever, combining.combiner_path))
    say_device(precision)
    functions = load_functions(combining, retriever.backbone)
    name = combining.name or default_name(combining.combiner_path)
    if name not in functions:
        raise InputError(f"--combining-function {name}: {combining.combiner_path} holds another network")
    return Engine(retriever, functions, folder, Query(function=name, k=k), precision)


def free_port(host: str, port: int | None) -> int:
    """Return `port`, or the first free one; raises InputError where nothing can be served there."""
    # Not left to gradio, which tries for minutes what cannot be.
    for number in PORTS if port is None else [port]:
        try:
            with socket.create_server((host, number)):
                return number
        except (OSError, OverflowError) as error:
            fault = in_a_line(error)
    raise InputError(f"--host {host} --port {number}: cannot be served ({fault})")


def import_page() -> ModuleType:
    """Import the page, and gradio with it, which reads the environment then."""
    try:
        from src.apps.demo import page as demo_page
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        raise InputError("demo.py needs gradio: pip install -r requirements/demo.txt") from None
    return demo_page


@one_line_errors
def main(argv=None):
    args = parse_judging(make_parser(), FUNCTIONS, argv)
    # Before anything is loaded: what is wrong is found at once.
    if args.k > MOST_ANSWERS:
        raise InputError(f"-k {args.k}: the page shows at most {MOST_ANSWERS} answers")
    if not args.pictures.is_dir():
        raise InputError(f"--pictures {args.pictures}: no such folder")
    passed = PassedOver.nothing()
    if not pictures_below(args.pictures, {}, passed):
        lines = ["holds no pictures, at no depth", *passed.lines()]
        raise InputError(f"--pictures {args.pictures}: {'; '.join(lines)}")
    port = free_port(args.host, args.port)
    with contextlib.ExitStack() as stack:
        # However it ends, no upload stays behind.
        uploads = stack.enter_context(upload_folder())
        stack.enter_context(Stopping(lambda: "the page is closed"))
        variables = {"GRADIO_TEMP_DIR": str(uploads), "MPLBACKEND": "agg", **QUIET}
        with own_environment(**variables):
            demo_page = import_page()
        # Weights may be downloaded, by the proxies of this environment.
        engine = load_engine(settings(args), args.pictures, args.k, args.precision)
        stack.enter_context(own_environment(**variables))
        page, address = demo_page.DemoPage(engine, uploads).launch(args.host, port, LOOPBACK)
        # From here on all is at hand.
        call_nobody()
        print(f"{address}  (Ctrl-C ends it)", flush=True)
        # The page is there already, and shows how far this is.
        engine.encode()
        print(f"{len(engine.names):,} pictures are ready", file=sys.stderr, flush=True)
        page.block_thread()


if __name__ == "__main__":
    main()
