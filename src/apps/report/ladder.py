"""The ladder from chance to what was trained, and the curves of the training."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from src.apps.pages.curves import curves
from src.apps.report.runs import FinishedRun, read_table
from src.evaluation.judged import Judged
from src.models.registry import model_label


class Rung(NamedTuple):
    """A step of the ladder: what ranks, and what that is worth."""

    name: str
    metrics: dict[str, float]
    within: dict[str, tuple[float, float]] | None = None
    """The 95 % interval of each metric; chance has none."""


def climb(before: Judged, after: Judged) -> list[Rung]:
    """Return the rungs from chance to what was trained; both are judged on the same queries."""
    rungs = [(f"CLIP before training, {before.label}", before, before.rung)]
    # A sum that barely beats the caption alone and the picture alone, which come first, has learned a shortcut.
    for function in after.reported():
        name = function.label if function.is_network else f"tuned CLIP, {function.words}"
        rungs.append((name, after, function.name))
    return [
        Rung("chance", after.chance),
        *(
            Rung(name, judged.of_rung(rung), judged._replace(rung=rung).intervals(cluster=None))
            for name, judged, rung in rungs
        ),
    ]


def climb_to_run(judged: Judged) -> list[Rung]:
    """Return the rungs from chance to a ranking of another program, of which no other is known."""
    return [
        Rung("chance", judged.chance),
        Rung(judged.label, judged.of_rung(judged.rung), judged.intervals(cluster=None)),
    ]


def ladder_cells(rungs: list[Rung], headline: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Return the ladder as a header and rows of strings, as "34.17 (31.5–36.8)"."""

    def cell(rung, name):
        # What chance is worth is not known of every measure.
        if name not in rung.metrics:
            return "–"
        within = "" if rung.within is None else " ({:.1f}–{:.1f})".format(*rung.within[name])
        return f"{rung.metrics[name]:.2f}{within}"

    return ["", *headline], [[rung.name, *(cell(rung, name) for name in headline)] for rung in rungs]


def draw_curves(runs: list[FinishedRun], headline: Sequence[str], labels: Mapping[str, str]) -> str:
    """Draw loss and recalls of each run over its epochs as SVGs; `labels` are those of the combining functions."""
    panels = []
    for run in runs:
        training = read_table(run.folder, "train_metrics", ("epoch", "train_epoch_loss"))
        validation = read_table(run.folder, "validation_metrics", ("epoch", *headline))
        recalls = {name: (validation["epoch"], validation[name]) for name in headline}
        panels.append((run.title(labels), "loss", {"loss": (training["epoch"], training["train_epoch_loss"])}))
        panels.append((run.title(labels), "recall, %", recalls))
    return curves(panels)


def describe(run: FinishedRun, judged: Judged) -> str:
    """Return what was judged, and how, in a line."""
    clip = model_label(run.options["clip_model_name"])
    recipe = run.stage.recipe(run.options)
    return f"{judged.described()}. CLIP {clip}, {run.options['transform']}." + (f" Recipe {recipe}." if recipe else "")
