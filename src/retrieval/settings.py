"""A command's options as the values that its parts take."""

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from src.base.parser import hyper_parameters
from src.command.comet import CometOptions
from src.command.flags import CombiningOptions, RetrieverOptions
from src.command.training_flags import RunOptions, TrainingPlan
from src.models.facts import told_by_checkpoints


class Settings(NamedTuple):
    """A command's options, completed by what its checkpoints say."""

    options: dict
    """All of them, as plain values."""
    retriever: RetrieverOptions
    combining: CombiningOptions
    comet: CometOptions | None
    """None where the command does not log."""
    run: RunOptions | None
    """None where the command does not train."""


def settings(args: Namespace) -> Settings:
    """Complete a command's options; raises InputError for one that contradicts a checkpoint."""
    checkpoints = args.clip_model_path, getattr(args, "combiner_path", None)
    options = vars(args) | told_by_checkpoints(checkpoints, vars(args), args.given)
    kept = hyper_parameters(options)
    logs = ("api_key", "workspace", "experiment_name", "comet_offline")
    comet = CometOptions(*map(options.get, logs)) if "api_key" in options else None
    combining = CombiningOptions(
        *map(options.get, ("combining_function", "combiner_path", "projection_dim", "hidden_dim"))
    )
    retriever = RetrieverOptions(
        *(options[name] for name in ("clip_model_name", "clip_model_path", "transform", "target_ratio")),
        feature_cache_folder(options),
        *(options.get(name) for name in ("image_cache", "num_workers")),
        options.get("skip_missing", False),
    )
    run = _run_options(options, comet, kept) if "num_epochs" in options else None
    return Settings(kept, retriever, combining, comet, run)


def feature_cache_folder(options: Mapping) -> Path | None:
    """Return the folder that keeps features, None for none."""
    return None if options["no_feature_cache"] else options["feature_cache"] or options["output_path"] / "features"


def _run_options(options: Mapping, comet: CometOptions, kept: dict) -> RunOptions:
    plan = TrainingPlan(**{name: options[name] for name in TrainingPlan._fields})
    extra, places = options["extra_triplets"] or [], (options["output_path"], options["resume"])
    return RunOptions(
        options["dataset"], plan, options["data_path"], extra, options["skip_missing"], *places, comet, kept
    )
