"""Search one's own pictures in a browser: a picture and a caption, the answers, and on from any of them.

python demo.py --pictures my_pictures --clip-model-path models/.../tuned_clip_best.pt \
    --combiner-path models/.../combiner.pt
"""

from src.base.files import PROJECT_ROOT
from src.base.parser import Parser, count, file_path
from src.command.flags import (
    RetrieverOptions,
    add_clip_options,
    add_combiner_options,
    add_feature_cache_options,
    add_num_workers,
    feature_cache_folder,
    parse_judging,
)
from src.command.walk import MOST_ANSWERS

LOOPBACK = "127.0.0.1", "localhost"


def make_parser() -> Parser:
    parser = Parser("Serve a page that searches a folder of pictures, to this machine alone.")
    help_text = "folder whose pictures are searched, at any depth"
    parser.add_argument("--pictures", type=file_path, required=True, metavar="FOLDER", help=help_text)
    parser.add_argument("-k", type=count, default=12, metavar="N", help=f"answers at first, at most {MOST_ANSWERS}")
    group = parser.add_argument_group("machine")
    group.add_argument("--port", type=count, help="port of the page (default: the first free one from 7860)")
    help_text = "address to serve at; any other than this one lets whole networks in, and asks nobody for a password"
    group.add_argument("--host", default=LOOPBACK[0], help=help_text)
    add_num_workers(group)
    help_text = "folder that receives features/ (default: the project's root)"
    group.add_argument("--output-path", type=file_path, default=PROJECT_ROOT, help=help_text)
    add_clip_options(parser)
    add_combiner_options(parser)
    add_feature_cache_options(parser)
    return parser


if __name__ == "__main__":
    parse_judging(make_parser())  # --help and a wrong flag are answered here, before torch is imported

import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from torch import Tensor

from combiner import load_combining_function
from retriever import Retriever, load_retriever
from searching import Question, Searcher, collect
from src.base.bars import Bar
from src.base.errors import InputError, first_ten, in_a_line, one_line_errors
from src.base.folders import pictures_below
from src.base.local_only import LocalOnly
from src.base.signals import Stopping
from src.command.examples import examples_of
from src.command.flags import COMBINING_FUNCTIONS
from src.command.walk import Answer, Query
from src.models.facts import told_by_checkpoints

QUIET = {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_RUN_HISTORY": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}
"""What keeps gradio from telling anybody that it runs, and the browser from keeping what was asked."""


class Engine:
    """Answers the page's queries about a folder, once its pictures are encoded."""

    def __init__(self, retriever: Retriever, functions: dict[str, Callable[[Tensor, Tensor], Tensor]], folder: Path):
        self.retriever, self.functions, self.folder = retriever, functions, folder
        self.first, self.examples = Query(), []
        self._searchers: dict[str, Searcher] = {}
        self._lost, self._told = [], (0, 0)
        self._started = time.monotonic()
        # Stores of features are written by one thread at a time.
        self._one_by_one = threading.Lock()

    def encode(self) -> None:
        """Encode the pictures; raises InputError when none can be read."""
        self._started, Bar.watcher = time.monotonic(), self._watch
        try:
            collection, self._lost = collect(self.retriever, self.folder)
        finally:
            Bar.watcher = None
        self.examples = examples_of(self.folder, lambda name: collection.row(name) is not None)
        searchers = {}
        for name, function in self.functions.items():
            searchers[name] = Searcher(self.retriever.combining_by(function), collection)
        # At last, and at once: other threads take it for the sign that all is ready.
        self._searchers = searchers

    def _watch(self, bar: Bar) -> None:
        if bar.desc == "gallery":
            self._told = bar.n, bar.total

    @property
    def collection(self):
        return next(iter(self._searchers.values())).collection

    @property
    def names(self) -> list[str]:
        """Return the names of the gallery; none until all pictures are encoded."""
        return self.collection.names if self._searchers else []

    def row(self, name: str) -> int | None:
        """Return the number of `name` in the gallery; None for a name that is not there."""
        return self.collection.row(name) if self._searchers else None

    def path(self, row: int) -> Path:
        """Return the file of a picture of the gallery."""
        return self.folder / self.names[row]

    def progress(self) -> tuple[int, int, float]:
        """Return how many pictures are encoded, of how many, in how many seconds."""
        return *self._told, time.monotonic() - self._started

    def remarks(self) -> list[str]:
        """Return lines about pictures that cannot be read."""
        several = "pictures cannot be read, and are" if len(self._lost) > 1 else "picture cannot be read, and is"
        return [f"{len(self._lost)} {several} left out: {first_ten(self._lost)}"] if self._lost else []

    def ask(self, query: Query) -> dict[str, list[Answer]]:
        """Return the answers of each function of a query; raises InputError where there are none."""
        reference = query.reference or query.upload
        # A name that the gallery lacks would be taken for a path.
        if query.reference and self.row(query.reference) is None:
            raise InputError("the gallery has no such picture")
        question = Question(reference, query.caption.strip(), caption_weight=query.caption_weight)
        with self._one_by_one:
            found = {name: self._searchers[name].ask(question, query.k) for name in query.functions}
        return {
            function: [Answer(self.row(answer.name), answer.name, answer.score) for answer in answers]
            for function, answers in found.items()
        }


def load_engine(args) -> Engine:
    """Load CLIP and every function that can combine; raises InputError when something cannot be loaded."""
    options = RetrieverOptions(
        args.clip_model_name,
        args.clip_model_path,
        args.transform,
        args.target_ratio,
        feature_cache_folder(args),
        num_workers=args.num_workers,
    )
    retriever, functions = load_retriever(options), {}
    for name in COMBINING_FUNCTIONS:
        of_combiner = (args.combiner_path, args.projection_dim, args.hidden_dim) if name == "combiner" else (None,) * 3
        if name != "combiner" or args.combiner_path is not None:
            path, *dimensions = of_combiner
            functions[name] = load_combining_function(name, path, retriever.backbone, *dimensions)
    engine = Engine(retriever, functions, args.pictures)
    preferred = args.combining_function or ("combiner" if args.combiner_path else "sum")
    engine.first = Query(function=preferred, k=args.k)
    return engine


def import_page(temporary: str) -> ModuleType:
    """Import the page, and gradio with it; `temporary` is the folder that receives uploads."""
    # Before gradio is imported, which reads them then.
    os.environ.update(QUIET, GRADIO_TEMP_DIR=temporary)
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
    vars(args).update(told_by_checkpoints((args.clip_model_path, args.combiner_path), vars(args), args.given))
    # Before anything is loaded: what is wrong is found at once.
    if args.k > MOST_ANSWERS:
        raise InputError(f"-k {args.k}: the page shows at most {MOST_ANSWERS} answers")
    if not args.pictures.is_dir():
        raise InputError(f"--pictures {args.pictures}: no such folder")
    if not pictures_below(args.pictures):
        raise InputError(f"--pictures {args.pictures}: holds no pictures, at no depth")
    with tempfile.TemporaryDirectory(prefix="demo-", ignore_cleanup_errors=True) as temporary:
        demo_page = import_page(temporary)
        engine = load_engine(args)
        try:
            page, address = demo_page.DemoPage(engine).launch(args.host, args.port, (LocalOnly, args.host in LOOPBACK))
        except OSError as error:
            port = "no port from 7860 on" if args.port is None else f"--port {args.port}"
            raise InputError(f"{port}: cannot be served at {args.host} ({in_a_line(error)})") from None
        print(f"{address}  (Ctrl-C ends it)", flush=True)
        # However it ends, no upload stays behind.
        with Stopping(lambda: "the page is closed"):
            # The page is there already, and shows how far this is.
            engine.encode()
            print(f"{len(engine.names)} pictures are ready", file=sys.stderr, flush=True)
            page.block_thread()


if __name__ == "__main__":
    main()
