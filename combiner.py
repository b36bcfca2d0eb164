"""The Combiner network: fuses the features of a reference image and a relative caption (paper, section 3.3)."""

import torch
import torch.nn.functional as F
from torch import nn


class Combiner(nn.Module):
    """C(image, text): a learned mixture of both features plus a convex combination of them.

    State-dict names and shapes are those of the published checkpoints. `clip_feature_dim` is CLIP's, 640 for RN50x4.
    """

    def __init__(self, clip_feature_dim, projection_dim, hidden_dim):
        super().__init__()
        self.text_projection_layer = nn.Linear(clip_feature_dim, projection_dim)
        self.image_projection_layer = nn.Linear(clip_feature_dim, projection_dim)
        self.combiner_layer = nn.Linear(2 * projection_dim, hidden_dim)
        self.output_layer = nn.Linear(hidden_dim, clip_feature_dim)
        self.dropout = nn.Dropout(0.5)
        self.dynamic_scalar = nn.Sequential(
            nn.Linear(2 * projection_dim, hidden_dim),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(hidden_dim, 1),
            nn.Sigmoid(),
        )

    def forward(self, image_features, text_features, target_features):
        """Logits [queries, targets]: 100 times the cosine similarity of the combined and the target features."""
        combined_features = self.combine_features(image_features, text_features)
        return 100 * combined_features @ F.normalize(target_features, dim=-1).T

    def combine_features(self, image_features, text_features):
        """Combined features [queries, dim], normalised, of image and text features, all [queries, dim]."""
        projected_text = self.dropout(F.relu(self.text_projection_layer(text_features)))
        projected_image = self.dropout(F.relu(self.image_projection_layer(image_features)))
        both = torch.cat((projected_text, projected_image), dim=-1)
        mixture = self.output_layer(self.dropout(F.relu(self.combiner_layer(both))))
        text_share = self.dynamic_scalar(both)
        return F.normalize(mixture + text_share * text_features + (1 - text_share) * image_features, dim=-1)
