"""Ways to train: what --recipe NAME sets, a dict of options for each command, and where it is from."""

from typing import NamedTuple


class Recipe(NamedTuple):
    """Options of a training command that belong together."""

    source: str
    options: dict
    """{name of an option: value}; what it leaves out has the command's default."""
    needs_tuned: bool = False
    """Whether it goes on from a tuned CLIP, which --clip-model-path names."""

    def changed(self, options: dict) -> str:
        """Return, as flags, the recipe's options that have other values in `options`; "" for none."""
        other = {name: options.get(name) for name, value in self.options.items() if options.get(name) != value}
        return ", ".join(f"--{name.replace('_', '-')} {value}" for name, value in other.items())


CLIP4CIR = "Baldrati et al., ACM TOMM 2023, arXiv 2308.11485, the commands of its code"
FINE_TUNING_RECIPES = {
    "published": Recipe(
        CLIP4CIR, {"num_epochs": 100, "learning_rate": 2e-6, "batch_size": 128, "validation_frequency": 1}
    ),
    # It stands in for a Combiner.
    "spn4cir": Recipe(
        "Feng et al., ACM MM 2024, its second stage",
        {
            **{"encoder": "text", "negatives": "bank", "scale": 50.0},
            **{"num_epochs": 3, "learning_rate": 2e-5, "batch_size": 256},
        },
        needs_tuned=True,
    ),
}
COMBINER_RECIPES = {
    "published": Recipe(
        CLIP4CIR,
        {"num_epochs": 300, "combiner_lr": 2e-5, "batch_size": 4096, "clip_bs": 32, "validation_frequency": 1},
    ),
    # How long and at which rates depends on the CLIP and the data.
    "projection": Recipe(
        "docs/recipes.md",
        {
            **{"encoder": "text", "negatives": "bank", "dropout": 0.2, "gallery_projection": 512},
            **{"frozen_epochs": 1, "validation_frequency": 1},
        },
    ),
}
