"""Search one's own pictures in a browser: a picture and a caption, the answers, and on from any of them.

    python demo.py --pictures photos --clip-model-path tuned_clip.pt --combiner-path combiner.pt

The page is there at once, and shows how far encoding is. It is served to this machine alone, which calls no other.
"""

from src.apps.demo.before import LOOPBACK, PORTS, free_port, require_sense
from src.apps.demo.walk import MOST_ANSWERS
from src.command.combining import names_in
from src.command.flags import CombiningOptions, add_searching_options, parse_judging
from src.command.frame import one_line_errors
from src.command.parser import Parser, count, file_path

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

from pathlib import Path

from combiner import COMBINING_FUNCTIONS, default_name, load_combining_function, network_in, with_clip_of_pair
from src.apps.demo.engine import Engine, Functions
from src.apps.demo.running import serve
from src.apps.demo.walk import Query
from utils import Backbone, Settings, load_retriever, say_device, settings


def load_functions(combining: CombiningOptions, backbone: Backbone) -> Functions:
    """Load every function that can combine, the strongest first; of networks the one whose weights there are.

    Raises InputError when the one that `combining` names cannot be loaded.
    """
    path, functions = combining.combiner_path, {}
    for line in reversed(COMBINING_FUNCTIONS):
        if not line.is_network:
            functions[line.name] = line.function
        elif line.name == combining.name or (path is not None and line.name == network_in(path).name):
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
    return Engine(retriever, functions, folder, Query(function=name, k=k), precision)


@one_line_errors
def main(argv=None):
    args = parse_judging(make_parser(), FUNCTIONS, argv)
    # Before anything is loaded: what is wrong is found at once.
    require_sense(args.pictures, args.k)
    port = free_port(args.host, args.port)
    serve(lambda: load_engine(settings(args), args.pictures, args.k, args.precision), args.host, port)


if __name__ == "__main__":
    main()
