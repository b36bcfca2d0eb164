"""A finished run, judged again: CLIP before the training, and what came of it."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from src.apps.report.runs import FinishedRun
from src.command.combining import CombiningFunction
from src.command.flags import RetrieverOptions
from src.evaluation import judging
from src.evaluation.judged import Judged
from src.evaluation.outside import judge_runs
from src.evaluation.validation import Validation
from src.models.facts import holds_its_clip
from src.retrieval.retriever import load_retriever
from src.retrieval.settings import feature_cache_folder
from src.tasks.registry import TASKS, find_task
from src.tasks.task import Task
from src.tasks.triplets import Split
from src.training.run import COMBINER_TRAINING


def find_tasks(dataset: str, of_run: str) -> tuple[Task, Task]:
    """Return the data set to judge on, and the run's."""
    task = find_task(dataset)
    # A folder of own triplets that stands in for the run's is taken for the same one, moved.
    is_moved = not {dataset, of_run} & TASKS.keys()
    return task, task if is_moved else find_task(of_run)


def retriever_options(of_run: Mapping, options: Mapping) -> RetrieverOptions:
    """Return how a run's CLIP is loaded without its weights: as the run had it, on the machine that `options` say."""
    # The run's own cache, unless a flag names another.
    cache_folder = feature_cache_folder(options | {"output_path": Path(of_run["output_path"])})
    transform = of_run["transform"], of_run["target_ratio"]
    machine = cache_folder, None, options["num_workers"], options["skip_missing"]
    return RetrieverOptions(of_run["clip_model_name"], None, *transform, *machine)


def validations(
    run: FinishedRun, task: Task, splits: dict[str, Split], options: RetrieverOptions, load_network: Callable
) -> tuple[Validation, Validation]:
    """Return the validation of CLIP before training, and of what the run trained: CLIP, and the Combiner if it has one.

    `load_network(path, backbone)` loads the Combiner.
    """
    is_combiner = run.stage is COMBINER_TRAINING
    before = load_retriever(options)
    # Both try the same pictures, so what was left out is counted once.
    tuned = run.options["clip_model_path"] if is_combiner and not holds_its_clip(run.weights) else run.weights
    after = load_retriever(options._replace(clip_model_path=tuned), skipping=before.skipping)
    if is_combiner:
        after = after.combining_by(load_network(run.weights, after.backbone).combine_features)
    return Validation(task, splits, before), Validation(task, splits, after)


def judge_ranking(task: Task, splits: Mapping[str, Split], path: Path) -> tuple[Judged, list[str]]:
    """Judge a ranking of another program by the data set's own protocol; return lines about it too."""
    options = {"run": path, "group_run": None, "protocol": None}
    (outside,) = judge_runs(task, splits, [task.protocol()], options)
    return outside.judged, outside.lines()


def judge(validation: Validation, functions: Sequence[CombiningFunction], name: str) -> Judged:
    """Judge a retriever, whose combining function has this `name`, and its baselines by the data set's own protocol."""
    return judging.judge(validation, validation.protocol, functions, name)
