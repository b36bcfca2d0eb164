"""Measure CLIPs beside each other, with random weights: speed of both encoders, and memory of a step of stage 1.

    python -m benchmarks.backbones

Needs requirements-backbones.txt. Writes backbones.md to this folder, or to --output. Each CLIP has a process of its
own, so that no memory of another counts.
"""

import logging
import os
from argparse import Namespace
from pathlib import Path

from src.base.parser import Parser

CLIPS = ("RN50x4", "ViT-B/32", "ViT-L/14", "open_clip:ViT-H-14", "open_clip:ViT-B-16-SigLIP")
"""OpenAI's by their names, open_clip's by their architectures."""


def parse_arguments(argv=None) -> Namespace:
    parser = Parser("Measure the speed of CLIPs with random weights, and the memory of a step of stage 1.")
    parser.add_argument("--clips", nargs="+", default=CLIPS, metavar="NAME", help="RN50x4, open_clip:ViT-H-14, …")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent, help="receives backbones.md")
    return parser.parse_args(argv)


if __name__ == "__main__":
    parse_arguments()  # --help and a wrong flag are answered here, before torch is imported
    os.environ["TQDM_DISABLE"] = "1"  # bars would stand between the lines

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch
from torch import Tensor

from benchmarks.machine import encoding, figure
from benchmarks.measure import alternate, machine, peak_memory
from benchmarks.memory import Steps
from benchmarks.worlds import SIZES, clip_named
from src.base.errors import one_line_errors, require_one_of
from src.models.backbone import Backbone
from src.models.open_clip import PREFIX, OpenClip, usual_normalisation
from src.models.weights import size_of
from utils import device

TRIPLETS = 2
HEAD = (
    "| CLIP | pixels | features | weights | pictures a second | captions a second "
    f"| a step of {TRIPLETS} triplets | a triplet more |\n" + "|---" * 8 + "|"
)


def untrained(name: str) -> Backbone:
    """Make one of OpenAI's CLIPs or of open_clip's, with random weights and without a download."""
    if not name.startswith(PREFIX):
        require_one_of(name, SIZES, "size")
        return clip_named(name)
    import open_clip

    logging.disable(logging.WARNING)  # it warns of random weights, which are meant here
    architecture = name.removeprefix(PREFIX)
    require_one_of(architecture, open_clip.list_models(), "architecture of open_clip")
    config = open_clip.get_model_config(architecture)
    torch.manual_seed(0)
    model = open_clip.create_model(architecture, load_weights=False)
    downloaded = "hf_tokenizer_name" in config["text_cfg"]
    tokenizer = tokens_of(**config["text_cfg"]) if downloaded else open_clip.get_tokenizer(architecture)
    return OpenClip(model, config, tokenizer, usual_normalisation(open_clip, architecture)).to(device)


def tokens_of(context_length: int, vocab_size: int, **_) -> Callable[[Sequence[str]], Tensor]:
    """Return a function that gives captions random tokens, where a tokenizer would have to be downloaded."""
    return lambda captions: torch.randint(vocab_size, (len(captions), context_length))


def line(name: str) -> str:
    """Measure a CLIP in this process, which must do nothing else; return its row of the table."""
    backbone = untrained(name)
    rates = encoding(backbone, 4 * TRIPLETS)
    steps = Steps(backbone)
    held = [alternate({size: steps.forward(size, "fp32")}, 2)[size].peak_bytes for size in (TRIPLETS, 2 * TRIPLETS)]
    steps.prepare(TRIPLETS, precision="fp32")()
    sizes = size_of(backbone.model.state_dict()), peak_memory(), (held[1] - held[0]) / TRIPLETS
    weights, step, more = (f"{size / 1e9:.2f} GB" for size in sizes)
    cells = (f"`{name}`", backbone.resolution, backbone.dimension, weights, *map(figure, rates), step, more)
    return f"| {' | '.join(map(str, cells))} |"


@one_line_errors
def main(argv=None):
    args = parse_arguments(argv)
    lines = [HEAD]
    for name in args.clips:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            lines.append(pool.submit(line, name).result())
        print(lines[-1], flush=True)
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "backbones.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"\n{machine()}")


if __name__ == "__main__":
    main()
