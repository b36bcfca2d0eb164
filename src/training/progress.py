"""The mean loss of an epoch, as the published code sums and shows it."""

from torch import Tensor


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
