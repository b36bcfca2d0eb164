"""A command's options as the values that its parts take."""

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from src.base.parser import hyper_parameters
from src.command.flags import CombiningOptions, RetrieverOptions
from src.models.facts import told_by_checkpoints

if TYPE_CHECKING:
    from src.command.comet import CometOptions
    from src.command.training_flags import RunOptions


class Settings(NamedTuple):
    """A command's options, completed by what its checkpoints say."""

    options: dict
    """All of them, as plain values."""
    retriever: RetrieverOptions
    combining: CombiningOptions
    comet: "CometOptions | None"
    """None where the command does not log."""
    run: "RunOptions | None"
    """None where the command does not train."""


def settings(args: Namespace) -> Settings:
    """Complete a command's options; raises InputError for one that contradicts a checkpoint."""
    checkpoints = args.clip_model_path, getattr(args, "combiner_path", None)
    options = vars(args) | told_by_checkpoints(checkpoints, vars(args), args.given)
    kept = hyper_parameters(options)
    combining = CombiningOptions(
        *map(options.get, ("combining_function", "combiner_path", "projection_dim", "hidden_dim"))
    )
    retriever = RetrieverOptions(
        *(options[name] for name in ("clip_model_name", "clip_model_path", "transform", "target_ratio")),
        feature_cache_folder(options),
        *(options.get(name) for name in ("image_cache", "num_workers")),
        options.get("skip_missing", False),
    )
    comet = _comet_options(options) if "api_key" in options else None
    run = _run_options(options, comet, kept) if "num_epochs" in options else None
    return Settings(kept, retriever, combining, comet, run)


def feature_cache_folder(options: Mapping) -> Path | None:
    """Return the folder that keeps features, None for none."""
    return None if options["no_feature_cache"] else options["feature_cache"] or options["output_path"] / "features"


def _comet_options(options: Mapping) -> "CometOptions":
    from src.command.comet import CometOptions  # late: a search does not log

    return CometOptions(*map(options.get, ("api_key", "workspace", "experiment_name", "comet_offline")))


def _run_options(options: Mapping, comet: "CometOptions", kept: dict) -> "RunOptions":
    from src.command.training_flags import RunOptions, TrainingPlan  # late: most commands train nothing

    plan = TrainingPlan(**{name: options[name] for name in TrainingPlan._fields})
    extra, places = options["extra_triplets"] or [], (options["output_path"], options["resume"])
    return RunOptions(
        options["dataset"], plan, options["data_path"], extra, options["skip_missing"], *places, comet, kept
    )
