"""Classifiers whose last hidden layer is what qualities of samples are measured in."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F


class ClassifierFeatures(nn.Module):
    """Convolutions, each of which halves the side, a layer of features and one of logits.

    Args:
        features: of the last hidden layer, before its ReLU, 1 or more.
        classes: 2 or more.
        channels: of each convolution.
        inputs: channels of x.
        side: of x, a multiple of 2 to the number of convolutions.

    Raises:
        ValueError: the side does not fit.
    """

    def __init__(
        self,
        features: int = 64,
        classes: int = 10,
        channels: Sequence[int] = (16, 32, 64),
        inputs: int = 1,
        side: int = 32,
    ) -> None:
        super().__init__()
        if side < 1 or side % 2 ** len(channels):
            raise ValueError(
                f"side {side} cannot be halved {len(channels)} times; give a multiple of {2 ** len(channels)}"
            )
        layers: list[nn.Module] = []
        for before, after in zip((inputs, *channels), channels, strict=False):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        last = channels[-1] * (side >> len(channels)) ** 2
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(last, features))
        self.head = nn.Linear(features, classes)

    def features(self, x: Tensor) -> Tensor:
        """[B, features] of images [B, inputs, side, side] in [-1, 1]."""
        return self.body(x)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, classes] of images [B, inputs, side, side] in [-1, 1]."""
        return self.head(F.relu(self.features(x)))
