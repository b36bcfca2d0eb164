"""Search one's own pictures in a browser: a picture and a caption, the answers, and on from any of them.

    python demo.py --pictures photos --clip-model-path tuned_clip.pt --combiner-path combiner.pt

The page is there at once, and shows how far encoding is. It is served to this machine alone, which calls no other.
"""

from src.base.parser import Parser, count, file_path
from src.command.flags import add_searching_options, combining_options, parse_judging, retriever_options
from src.command.walk import MOST_ANSWERS

LOOPBACK = "127.0.0.1", "localhost"
PORTS = range(7860, 7960)


def make_parser() -> Parser:
    parser = Parser("Serve a page that searches a folder of pictures, to this machine alone.")
    group = parser.add_argument_group("page")
    help_text = "folder of pictures, at any depth"
    group.add_argument("--pictures", type=file_path, required=True, metavar="FOLDER", help=help_text)
    group.add_argument("-k", type=count, default=12, help=f"how many answers at first, at most {MOST_ANSWERS}")
    help_text = f"port of the page (default: the first free one from {PORTS.start})"
    group.add_argument("--port", type=count, metavar="N", help=help_text)
    help_text = "address to serve at; any other than this one lets whole networks in, and asks nobody for a password"
    group.add_argument("--host", default=LOOPBACK[0], metavar="ADDRESS", help=help_text)
    add_searching_options(parser)
    return parser


if __name__ == "__main__":
    parse_judging(make_parser())  # --help and a wrong flag are answered here, before torch is imported

import os
import socket
import sys
import tempfile
import threading
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from torch import Tensor

from combiner import load_combining_function, with_clip_of_pair
from retriever import Retriever, load_retriever
from searching import Found, Question, Searcher, collect
from src.base.errors import InputError, in_a_line, one_line_errors
from src.base.folders import pictures_below
from src.base.signals import Stopping
from src.command.examples import Example, examples_of
from src.command.flags import COMBINING_FUNCTIONS, CombiningOptions
from src.command.local_only import call_nobody
from src.command.walk import Query
from src.models.backbone import Backbone
from src.models.facts import told_by_checkpoints
from src.retrieval.collection import Collection
from utils import autocast, say_device

Functions = dict[str, Callable[[Tensor, Tensor], Tensor]]


class Engine:
    """Answers the page's queries about a folder, once its pictures are encoded."""

    def __init__(self, retriever: Retriever, functions: Functions, folder: Path, first: Query, precision: str = "auto"):
        """`first` is what the page asks at first: nothing yet, but by which function, and for how many answers."""
        self.retriever, self.functions, self.folder = retriever, functions, folder
        self.first, self.precision = first, precision
        self.names: list[str] = []
        self.examples: list[Example] = []
        self.remarks: list[str] = []
        self._collection: Collection | None = None
        self._searchers: dict[str, Searcher] = {}
        # Stores of features are written by one thread at a time.
        self._one_by_one = threading.Lock()

    def encode(self) -> None:
        """Encode the pictures; raises InputError when none can be read."""
        with autocast(self.precision):
            collection, lost = collect(self.retriever, self.folder)
        self.remarks = lost.lines()
        self.examples = examples_of(self.folder, lambda name: collection.row(name) is not None)
        for name, function in self.functions.items():
            self._searchers[name] = Searcher(self.retriever.combining_by(function), collection)
        self._collection = collection
        # Last, since other threads take it for the sign that all is ready.
        self.names = collection.names

    def path(self, name: str) -> Path | None:
        """Return the file of a picture of the gallery; None for a name that is not there."""
        return None if self._collection.row(name) is None else self.folder / name

    def ask(self, query: Query) -> dict[str, list[Found]]:
        """Return the answers of each function of a query; raises InputError where there are none."""
        question = Question(query.upload or query.reference or None, query.caption, caption_weight=query.caption_weight)
        with self._one_by_one, autocast(self.precision):
            return {name: self._searchers[name].ask(question, query.k) for name in query.functions}


def load_functions(combining: CombiningOptions, backbone: Backbone) -> Functions:
    """Load every function that can combine, the Combiner where there is one."""
    each = {name: CombiningOptions(name) for name in COMBINING_FUNCTIONS if name != "combiner"}
    if combining.combiner_path is not None:
        each = {"combiner": combining._replace(name="combiner"), **each}
    return {
        name: load_combining_function(name, path, backbone, *dimensions)
        for name, (_, path, *dimensions) in each.items()
    }


def load_engine(args: Namespace) -> Engine:
    """Load CLIP and all functions; raises InputError when something cannot be loaded."""
    vars(args).update(told_by_checkpoints((args.clip_model_path, args.combiner_path), vars(args), args.given))
    retriever = load_retriever(with_clip_of_pair(retriever_options(args), args.combiner_path))
    say_device(args.precision)
    functions = load_functions(combining_options(args), retriever.backbone)
    first = Query(function=args.combining_function or next(iter(functions)), k=args.k)
    return Engine(retriever, functions, args.pictures, first, args.precision)


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


def import_page(uploads: str) -> ModuleType:
    """Import the page, and gradio with it; `uploads` is the folder that receives uploads."""
    # Before gradio is imported, which reads them then.
    os.environ.update(GRADIO_TEMP_DIR=uploads, GRADIO_ANALYTICS_ENABLED="False", HF_HUB_DISABLE_TELEMETRY="1")
    try:
        from src.command import demo_page
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        raise InputError("demo.py needs gradio: pip install -r requirements-demo.txt") from None
    return demo_page


@one_line_errors
def main(argv=None):
    args = parse_judging(make_parser(), argv)
    # Before anything is loaded: what is wrong is found at once.
    if args.k > MOST_ANSWERS:
        raise InputError(f"-k {args.k}: the page shows at most {MOST_ANSWERS} answers")
    if not args.pictures.is_dir():
        raise InputError(f"--pictures {args.pictures}: no such folder")
    if not pictures_below(args.pictures, {}):
        raise InputError(f"--pictures {args.pictures}: holds no pictures, at no depth")
    port = free_port(args.host, args.port)
    # However it ends, no upload stays behind.
    uploads = tempfile.TemporaryDirectory(prefix="demo-", ignore_cleanup_errors=True)
    with uploads, Stopping(lambda: "the page is closed"):
        demo_page = import_page(uploads.name)
        engine = load_engine(args)
        page, address = demo_page.DemoPage(engine).launch(args.host, port, LOOPBACK)
        # Weights may have been downloaded; from here on all is at hand.
        call_nobody()
        print(f"{address}  (Ctrl-C ends it)", flush=True)
        # The page is there already, and shows how far this is.
        engine.encode()
        print(f"{len(engine.names):,} pictures are ready", file=sys.stderr, flush=True)
        page.block_thread()


if __name__ == "__main__":
    main()
