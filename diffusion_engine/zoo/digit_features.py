"""A classifier of digits, whose last hidden layer is what qualities of samples are measured in."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class DigitFeatures(nn.Module):
    """Three convolutions, a layer of features and one of logits.

    Args:
        features: of the last hidden layer, before its ReLU, 1 or more.
        classes: 2 or more.
    """

    def __init__(self, features: int = 64, classes: int = 10) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in ((1, 16), (16, 32), (32, 64)):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 16, features))
        self.head = nn.Linear(features, classes)

    def features(self, x: Tensor) -> Tensor:
        """[B, features] of images [B, 1, 32, 32] in [-1, 1]."""
        return self.body(x)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, classes] of images [B, 1, 32, 32] in [-1, 1]."""
        return self.head(F.relu(self.features(x)))
