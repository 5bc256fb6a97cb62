"""The discriminator of denoising diffusion GANs. It trains beside the generator and does not ship."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...zoo.unet import fold


def leaky(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2)


class Halved(nn.Module):
    """Residual pair of 3x3 convolutions, told `emb` in between; the second halves the image's side."""

    def __init__(self, c_in: int, c_out: int, c_emb: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_in, 3, padding=1)
        self.conv2 = nn.Conv2d(c_in, c_out, 3, padding=1, stride=2)
        self.told = nn.Linear(c_emb, c_in)
        self.skip = nn.Conv2d(c_in, c_out, 1, bias=False)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.conv1(leaky(x)) + self.told(emb)[:, :, None, None]
        return (self.conv2(leaky(h)) + self.skip(F.avg_pool2d(x, 2))) / math.sqrt(2.0)


class Discriminator(nn.Module):
    """D(x_prev, x, i, y): how real a state before x looks, a logit (Xiao et al. 2022, section 4).

    Its last features are compared with a vector of timestep and class (Miyato & Koyama 2018, projection),
    and know how much the batch varies (Karras et al. 2018, minibatch standard deviation).

    Args:
        steps: timesteps of the chain.
        classes: of the data.
        inputs: channels of an image.
        widths: channels at 1/2, 1/4, 1/8 of the image's side.
        emb: width of the vector of timestep and class.
    """

    def __init__(
        self,
        steps: int,
        classes: int,
        inputs: int = 1,
        widths: Sequence[int] = (32, 64, 128),
        emb: int = 64,
    ) -> None:
        super().__init__()
        self.step, self.label = nn.Embedding(steps, emb), nn.Embedding(classes, emb)
        self.mix = nn.Sequential(nn.Linear(emb, emb), nn.SiLU())
        self.stem = nn.Conv2d(8 * inputs, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList(
            Halved(a, b, emb) for a, b in zip(widths, (*widths[1:], widths[-1]), strict=True)
        )
        last = widths[-1]
        self.last = nn.Conv2d(last + 1, last, 1)
        # With torch's own weights each layer loses two thirds of the variance, and a generator that has
        # begun well is ahead of what is left.
        for layer in self.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(layer.weight, a=0.2)
        self.logit, self.project = nn.Linear(last, 1), nn.Linear(emb, last)

    def forward(self, x_prev: Tensor, x: Tensor, i: Tensor, y: Tensor) -> Tensor:
        """Logits [B] of images [B, inputs, H, W], timesteps [B] and classes [B]."""
        emb = self.mix(self.step(i) + self.label(y))
        h = self.stem(torch.cat((fold(x_prev), fold(x)), dim=1))
        for block in self.blocks:
            h = block(h, emb)
        varied = (h.var(dim=0, unbiased=False) + 1e-8).sqrt().mean().expand(len(h), 1, *h.shape[2:])
        h = leaky(self.last(leaky(torch.cat((h, varied), dim=1)))).mean(dim=(2, 3))
        own = (h * self.project(emb)).sum(dim=1) / math.sqrt(h.shape[1])
        return self.logit(h)[:, 0] + own
