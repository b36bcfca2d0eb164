"""What a report reads of finished runs."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from src.base.errors import InputError, in_a_line
from src.base.hub import is_on_hub
from src.command.training_flags import OPTIONS_FILE
from src.pictures.skipping import NOT_COMPARABLE, Skipping
from src.training.finished import FinishedRun, read_run


def runs_behind(folder: Path, moved: dict[str, str]) -> list[FinishedRun]:
    """Return the runs that a page of `folder` is about: its own, and before it the run of stage 1 that it stands on.

    `moved` are options of the run whose files have other places now.
    """
    run = read_run(folder)
    run = run._replace(options=run.options | moved)
    # Stage 2 may stand on published weights or on a file that was moved, which have no run beside them.
    tuned_clip = run.options.get("clip_model_path")
    if tuned_clip is None or is_on_hub(tuned_clip) or not (Path(tuned_clip).parent.parent / OPTIONS_FILE).is_file():
        return [run]
    return [read_run(Path(tuned_clip).parent.parent)._replace(weights=Path(tuned_clip)), run]


def read_table(folder: Path, name: str, columns: Sequence[str]) -> pd.DataFrame:
    """Read a CSV of a run; raises InputError unless it has `columns` of numbers."""
    path = folder / f"{name}.csv"
    try:
        table = pd.read_csv(path)
    except ValueError as error:
        raise InputError(f"{path}: not a table of a run ({in_a_line(error)})") from None
    for column in columns:
        if column not in table or not pd.api.types.is_numeric_dtype(table[column]):
            raise InputError(f"{path}: has no column {column} of numbers, as a table of a run has")
    return table


def not_comparable(runs: list[FinishedRun], skipping: Skipping) -> str:
    """Return a sentence for each run, and for this page, that went on without some pictures (--skip-missing)."""
    remarks = [(run.folder.name, _remark(run.folder)) for run in runs]
    remarks.append(("this page", skipping.remarks.get(NOT_COMPARABLE)))
    return "\n".join(f"Not comparable: {name} was made {remark}." for name, remark in remarks if remark)


def _remark(folder):
    rows = read_table(folder, "train_metrics", ())
    return rows[NOT_COMPARABLE].dropna().iloc[-1] if NOT_COMPARABLE in rows else None
