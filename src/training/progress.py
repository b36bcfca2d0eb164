"""What a training shows of an epoch: its mean loss, as the published code sums it, and its validation."""

from collections.abc import Sequence

from torch import Tensor

from src.command.terminal import PROSE, width
from src.tasks.task import Task


def update_train_running_results(train_running_results: dict, loss: Tensor, images_in_batch: int) -> None:
    """Add a batch's mean loss to the epoch's sums, "accumulated_train_loss" and "images_in_epoch"."""
    # Weighed by the size of the batch, as published.
    train_running_results["accumulated_train_loss"] += loss.item() * images_in_batch
    train_running_results["images_in_epoch"] += images_in_batch


def mean_train_loss(train_running_results: dict) -> float:
    """Return the epoch's mean loss so far."""
    return train_running_results["accumulated_train_loss"] / train_running_results["images_in_epoch"]


def set_train_bar_description(train_bar, epoch: int, num_epochs: int, train_running_results: dict) -> None:
    """Show the epoch and its mean loss so far on the progress bar."""
    description = f"[{epoch}/{num_epochs}] train loss: {mean_train_loss(train_running_results):.3f}"
    train_bar.set_description(description, refresh=False)  # the bar redraws itself ten times a second


def validation_line(
    epoch: int, loss: float, rows: Sequence[dict], task: Task, mark: str = "", best_by: str | None = None
) -> str:
    """Return a validation in a line of at most PROSE columns, of a narrower terminal's width: what has room.

    That is the loss, the metric that picks the best weights and whether it improved, and columns of reports. `rows` are
    those of validation_metrics.csv up to this epoch; `mark` stands after results that lack pictures; `best_by` is the
    column of --best-by.
    """
    *earlier, metrics = rows
    metric = best_by or next(iter(task.best.values()))
    value, verdict = metrics[metric], "first"
    if earlier:
        best = max(earlier, key=lambda row: row[metric])
        improved = value > best[metric]
        verdict = "improved" if improved else f"not above {best[metric]:.2f} of epoch {best['epoch']}"
    line = f"epoch {epoch}: loss {loss:.4f}  {metric} {value:.2f} ({verdict})"
    room = min(PROSE, width() or PROSE) - len(mark)
    for name in task.headline:
        part = f"  {name} {metrics[name]:.2f}"
        if name != metric and len(line) + len(part) <= room:
            line += part
    return line + mark
