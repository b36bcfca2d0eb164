"""A command's options as the values that its parts take."""

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from src.command.flags import CombiningOptions, CometOptions, RetrieverOptions
from src.command.parser import hyper_parameters
from src.models.facts import told_by_checkpoints

if TYPE_CHECKING:
    from src.command.training_flags import RunOptions


class Settings(NamedTuple):
    """A command's options, completed by what its checkpoints say."""

    options: dict
    """All of them, as plain values."""
    retriever: RetrieverOptions
    combining: CombiningOptions
    comet: CometOptions | None
    """None where the command does not log."""
    run: "RunOptions | None"
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
    run = None
    if "num_epochs" in options:
        from src.command.training_flags import run_options  # late: most commands do not train

        run = run_options(options, comet, kept)
    return Settings(kept, retriever, combining, comet, run)


def feature_cache_folder(options: Mapping) -> Path | None:
    """Return the folder that keeps features, None for none."""
    return None if options["no_feature_cache"] else options["feature_cache"] or options["output_path"] / "features"
