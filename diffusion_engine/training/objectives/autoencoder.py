"""Autoencoders: pictures to latents that stay near a standard normal, and back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ... import checks
from ...zoo.autoencoder import Autoencoder
from ..data import Batch
from .base import Given, Objective, Turn


class Autoencoding(Objective):
    """|x - decode(z)| + kl |encode(x)|^2 / 2 with z ~ N(encode(x), noise^2): the KL term of a posterior of
    that width, but for a constant (Rombach et al. 2022, eq. 25). The linear preview follows beside it.

    noise  standard deviation of the posterior, 0 or more: the decoder learns to bear such errors
    kl     weight of the KL term, 0 or more
    crop   pixels a side that a step looks at, a multiple of 4; None is the whole picture

    The card says the scale factor: what makes the latents of all pictures have unit variance, and their
    mean, which is taken off. Raises ValueError where a number makes no sense.
    """

    def __init__(
        self, given: Given, noise: float = 0.1, kl: float = 1e-3, crop: int | None = None
    ) -> None:
        if not isinstance(module := given.module, Autoencoder):
            raise ValueError(
                f"the architecture of {given.recipe.name!r} is no autoencoder; give it the name 'autoencoder'"
            )
        self.given, self.module = given, module
        wanted = "a number of 0 or more"
        self.noise, self.kl = (
            checks.number("noise", noise, wanted),
            checks.number("kl", kl, wanted),
        )
        if min(self.noise, self.kl) < 0.0 or (crop is not None and (crop < 4 or crop % 4)):
            raise ValueError(
                f"noise={noise}, kl={kl}, crop={crop}: give numbers of 0 or more, and a multiple of 4 pixels"
            )
        self.crop = crop

    def turns(self) -> list[Turn]:
        return [Turn("loss", self.module.parameters(), self._loss)]

    def _loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        module, x = self.module, batch.x0
        if self.crop is not None:
            x = cropped(x, self.crop, generator)
        mean = module.encode(x)
        eps = torch.randn(mean.shape, generator=generator).to(mean.device)
        z = mean + self.noise * eps
        error = (module.decode(z) - x).abs().mean()
        shown = module.preview(z.detach()) - F.avg_pool2d(x, x.shape[-1] // z.shape[-1])
        return error + 0.5 * self.kl * mean.square().mean() + shown.square().mean()

    @torch.no_grad()
    def after(self, steps: int, average: nn.Module) -> dict[str, Any]:
        assert isinstance(average, Autoencoder) and self.given.draw is not None
        images = self.given.draw.x0
        parts = [part.to(self.given.device) for part in images.split(256)]
        latents = [average.encode(part) for part in parts]
        errors = [
            (average.decode(z) - part).square().mean(dim=(1, 2, 3))
            for z, part in zip(latents, parts, strict=True)
        ]
        peak = -10.0 * torch.log10(torch.cat(errors) / 4.0)  # of values in [-1, 1]
        z = torch.cat(latents)
        return {
            "scale_factor": round(1.0 / float(z.std()), 6),
            "shift": round(float(z.mean()), 6),
            "figures": {"psnr": round(float(peak.mean()), 2), "pictures": len(images)},
        }


def cropped(x: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """A square of x [B, C, H, W], at the same random place in all of them."""
    top, left = (
        int(torch.randint(length - side + 1, (), generator=generator)) for length in x.shape[2:]
    )
    return x[:, :, top : top + side, left : left + side]
