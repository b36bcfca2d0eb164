"""Commands of the project as tests run them in this process, and a copy of the project to run them in."""

import shutil

from src.base.files import PROJECT_ROOT

COMBINER = ["--projection-dim", "16", "--hidden-dim", "32"]
CIRR_RECALLS = [*(f"group_recall_at{k}" for k in (1, 2, 3)), *(f"recall_at{k}" for k in (1, 5, 10, 50))]
"""CIRR's seven, in the published order."""
ENDLESS = ["--save-training", "--save-best", "--num-epochs", "500"]
"""More epochs than a run will get to, and its best weights alone: a run asks for the room of all it will save."""


def toy_options(world, output):
    """Return what every command needs to run on a toy world, in fp32 also on a card, and to write to `output`."""
    return [*toy_paths(world, output), "--clip-model-name", str(world / "small_clip.pt"), "--precision", "fp32"]


def toy_paths(world, output):
    """Return the options of a command on a toy world that leave its CLIP to checkpoints or other options."""
    return ["--data-path", str(world), "--output-path", str(output), "--num-workers", "0"]


def status_of(main, arguments):
    """Run a command; return its exit status."""
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as end:
        return end.code
    return 0


def copy_project(folder, world):
    """Copy the project without its tests to `folder`, with both data sets of a toy world in its root."""
    shutil.copytree(PROJECT_ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    for file in PROJECT_ROOT.glob("*.py"):
        shutil.copy(file, folder)
    for dataset in ("cirr_dataset", "fashionIQ_dataset"):
        (folder / dataset).symlink_to(world / dataset)
    return folder
