"""Share the weights of a run: in a folder, or on Hugging Face's hub.

    python -m src.apps.share models/combiner_trained_on_cirr_RN50x4_<time> --to FOLDER --license mit

Writes the weights as safetensors, with config.json, metrics.json and a model card. --clip-model-path and
--combiner-path take the folder, or the place on the hub, as they take a file.
"""

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from src.base.errors import InputError
from src.base.files import replacing, require_writable, write_json
from src.base.hub import FORM, HUB, SHARED, is_on_hub, repository_and_file, require_without_weights, upload
from src.command.frame import one_line_errors
from src.command.parser import Parser, file_path, part_of_a_file_name, words

LISTED = re.compile(r"[a-z0-9][a-z0-9.-]*")
"""What names of licences look like on the hub: mit, cc-by-nc-4.0."""
HERE = "FOLDER"
"""What the card of a folder calls that."""


PRIVATE = {
    *("data_path", "output_path", "feature_cache", "no_feature_cache", "image_cache", "num_workers"),
    *("workspace", "experiment_name", "comet_offline"),
}
"""Options that say nothing of the weights, but of a machine and an account."""


class Licence(NamedTuple):
    """A licence as its author names it."""

    name: str
    is_listed: bool
    """Whether it may be one that the hub lists."""


def place(text: str) -> Path | str:
    """Take a folder to write to, or a repository on the hub."""
    if not is_on_hub(text):
        return file_path(text)
    _, file = repository_and_file(text)
    if file != SHARED:
        raise InputError(f"{text}: a repository is expected, {HUB}OWNER/NAME")
    return text


def make_parser() -> Parser:
    parser = Parser("Share the weights of a run, with a model card.", __doc__)
    parser.prog = "python -m src.apps.share"
    parser.add_argument("run_folder", type=file_path, metavar="RUN_FOLDER", help="run folder of either stage")
    help_text = f"a new or empty folder, or {FORM.partition('[')[0]}, which is made where it is not there"
    parser.add_argument("--to", required=True, metavar="PLACE", help=help_text)
    help_text = "the licence that you give these weights, such as mit or cc-by-nc-4.0"
    parser.add_argument("--license", type=words, required=True, metavar="NAME", help=help_text)
    help_text = "which of the run's weights, such as combiner_harmonic (default: its best, else its last)"
    parser.add_argument("--weights", type=part_of_a_file_name, metavar="NAME", help=help_text)
    return parser


if __name__ == "__main__":
    make_parser().parse_args()  # --help and a wrong flag are answered here, before torch is imported

from src.apps.share.content import Shared, collect, without_places
from src.models.checkpoints import checkpoint_path
from src.models.weights import FACTS, write_safetensors
from src.pictures.skipping import NOT_COMPARABLE
from src.tasks.protocol import GALLERIES, OWN, Protocol
from src.tasks.registry import TASKS
from src.training.finished import FinishedRun, read_run
from src.training.run import FINE_TUNING


@one_line_errors
def main(argv=None):
    args = make_parser().parse_args(argv)
    to = place(args.to)
    run = read_run(args.run_folder)
    if args.weights is not None:
        run = run._replace(weights=checkpoint_path(run.folder, args.weights.removesuffix(".pt")))
    licence = Licence(args.license.strip(), LISTED.fullmatch(args.license.strip()) is not None)
    if isinstance(to, str):
        require_without_weights(to)  # before the work
        with tempfile.TemporaryDirectory() as folder:
            write_folder(Path(folder), run, licence, to)
            upload(Path(folder), to)
    else:
        if to.is_dir() and any(to.iterdir()):
            raise InputError(f"{to}: is not empty; name a new folder")
        require_writable(to)
        write_folder(to, run, licence, HERE)
    print(to)


def write_folder(folder: Path, run: FinishedRun, licence: Licence, called: str) -> None:
    """Write weights, config.json, metrics.json and the card; `called` is what its user will call the place."""
    shared = collect(run)
    facts = shared.content[FACTS]
    dataset = facts.get("dataset", without_places(run.options["dataset"]))
    protocol = TASKS[dataset].protocols[0] if dataset in TASKS else None
    metrics = facts.get("metrics", {})
    result = {"dataset": dataset, "split": "val", "epoch": shared.content["epoch"], "metrics": metrics}
    result["protocol"] = {"name": OWN} if protocol is None else protocol._asdict()
    result |= {key: facts[key] for key in (NOT_COMPARABLE,) if key in facts}
    options = {name: without_places(value) for name, value in run.options.items() if name not in PRIVATE}
    config = {"stage": run.stage.title, "license": licence.name, "facts": facts, "options": options}
    write_safetensors(folder / SHARED, shared.content)
    write_json(folder / "config.json", config, indent=2)
    write_json(folder / "metrics.json", result, indent=2)
    with replacing(folder / "README.md") as unfinished:
        unfinished.write_text(card(run, shared, licence, called, result, protocol), encoding="utf-8")


def card(
    run: FinishedRun, shared: Shared, licence: Licence, called: str, result: Mapping, protocol: Protocol | None
) -> str:
    """Return the model card in Markdown."""
    import jinja2

    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    encoder = run.options.get("encoder", "both")
    learned = "both encoders learned" if encoder == "both" else f"its {encoder} encoder learned"
    is_clip, facts, dataset = run.stage is FINE_TUNING, shared.content[FACTS], result["dataset"]
    return templates.get_template("card.md").render(
        licence=licence,
        title=f"CLIP4Cir on {dataset}: {'a CLIP' if is_clip else 'a Combiner'}",
        what=f"a fine-tuned CLIP ({learned})" if is_clip else "a Combiner, which fuses the features of a CLIP",
        dataset=dataset,
        judged_on=dataset if dataset in TASKS else "MY_TRIPLETS",
        option="--clip-model-path" if is_clip else "--combiner-path",
        place=called,
        placeholder=HERE,
        file=SHARED,
        is_clip=is_clip,
        networks=" or ".join(f"`{key}.`" for key in shared.content if key not in ("epoch", FACTS)),
        clip=shared.clip,
        was_tuned=shared.was_tuned,
        holds_clip=shared.holds_clip,
        metrics=result["metrics"],
        epoch=result["epoch"],
        counted=counted(protocol),
        remarks=[facts[NOT_COMPARABLE]] if NOT_COMPARABLE in facts else [],
        stage=run.stage.title,
        recipe=facts.get("recipe"),
        transform=facts.get("transform", run.options["transform"]),
        seed=facts.get("seed", run.options.get("seed")),
    )


def counted(protocol: Protocol | None) -> str:
    """Say how the numbers were counted, in plain words."""
    if protocol is None:
        return "Each query ranks the whole gallery, without its reference (protocol own)."
    whole = "the split's whole gallery"
    galleries = whole, "the pictures that its queries name", "its own gallery", f"{whole} and what queries name besides"
    gallery = dict(zip(GALLERIES, galleries, strict=True))[protocol.gallery]
    reference = "its reference left out" if protocol.reference == "drop" else "its reference kept in"
    return f"Each query ranks {gallery}, with {reference} (protocol {protocol.name})."


if __name__ == "__main__":
    main()
