"""One of CLIP's encoders as a module, in training."""

from torch import Tensor, nn

from src.models.backbone import Backbone
from src.models.facts import LEARNED_ALONG
from src.pictures.normalisation import normalised


class OneEncoder(nn.Module):
    """One of CLIP's encoders as a module, for pixels [rows, side, side, 3] or tokens [rows, context]."""

    def __init__(self, backbone: Backbone, encoder: str):
        super().__init__()
        self.backbone, self.clip_model, self.encoder = backbone, backbone.model, encoder

    def learning(self) -> dict[str, nn.Parameter]:
        """Return {name: parameter} for the trainable weights of this encoder."""
        return {
            f"clip_model.{name}": weight
            for name, weight in self.clip_model.named_parameters()
            if weight.requires_grad and self.backbone.encoder_of(name) == self.encoder
        }

    def facts(self) -> dict:
        """The facts of a checkpoint that holds it beside the Combiner that it learned with."""
        return {LEARNED_ALONG: self.encoder, "clip_weights": self.backbone.digest()}

    def forward(self, rows: Tensor) -> Tensor:
        if self.encoder == "image":  # normalised as late as here: a card need not hold a whole batch in fp32
            return self.backbone.encode_images(normalised(rows, self.backbone.normalisation))
        return self.backbone.encode_tokens(rows)

    def in_pieces(self, rows: Tensor, size: int | None) -> Tensor:
        """Return features [rows, dim], with `size` rows in memory at a time; None is all of them."""
        if size is None or len(rows) <= size:
            return self(rows)
        from src.training.gradient_caching import in_pieces  # late: most batches fit into memory

        # `learning` at each call, since it needs the weights that the module has now.
        return in_pieces(self, rows, size, self.learning())
