"""Judging a ranking of another program by itself, without torch: what `validate.py --run` does."""

from collections.abc import Mapping

from src.command.data_flags import chosen_protocols
from src.command.frame import one_line_errors
from src.command.parser import hyper_parameters
from src.evaluation.full import FullJudging
from src.evaluation.published import print_published
from src.tasks.registry import find_task


@one_line_errors
def judge_run_only(options: Mapping) -> None:
    """Print what a ranking scores, and write the files that `options` name. No picture is looked at."""
    task = find_task(options["dataset"])
    rules = (options[name] for name in ("protocol", "gallery", "reference", "captions"))
    protocols = chosen_protocols(task, *rules)
    splits = task.read_all(options["data_path"], "val")
    full = FullJudging(task, protocols, options, splits)
    if options["prints_tables"]:
        full.print("")
    else:
        judged = full.judged[0]
        print_published(task, judged.described(), task.printed(judged.recalls()))
    full.write(hyper_parameters(options), weights={}, remarks={})
