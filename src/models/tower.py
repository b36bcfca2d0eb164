"""What decides a transformer's features beside its weights."""

from typing import NamedTuple


class Tower(NamedTuple):
    """The activation and heads of a transformer; the defaults are those of OpenAI's CLIPs."""

    activation: str = "quick_gelu"
    head_width: int = 64
    """Numbers that a head of its attention takes."""

    def differences(self, encoder: str) -> list[str]:
        """Return how the tower called `encoder` differs from OpenAI's, in words."""
        activation = [f"{encoder} {self.activation}"] if self.activation != "quick_gelu" else []
        return activation + ([f"{encoder} heads of {self.head_width}"] if self.head_width != 64 else [])
