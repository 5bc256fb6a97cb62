"""GENIE's upsampler: ADM's U-Net beside whose input stands a small image, grown, that was noised."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..guided_diffusion.unet import Form, UNetModel
from ..ncsnpp.blocks import Fourier
from .head import Head
from .network import eps_of_v
from .openai import FourierEmbedding


class Upsampler(UNetModel):
    """eps or v (x, label, y, low, level), of the form's channels without those of the small image.

    low    [N, C, h, w], a small image x_a = alpha(a) x0 + sigma(a) n
    level  [N], the times a, which are embedded beside the label
    """

    def __init__(self, form: Form, classes: int | None, side: int) -> None:
        super().__init__(form, classes)
        self.side = side
        self.aug_gfp = nn.ModuleList([Fourier(form.size)])
        self.time_embed = FourierEmbedding(form.size, form.style.embedded, 2)  # type: ignore[assignment]

    def grown(self, x: Tensor, low: Tensor) -> Tensor:
        """The input, and the small image at its size."""
        size = (self.side, self.side)
        return torch.cat((x, F.interpolate(low, size, mode="bilinear", antialias=True)), dim=1)

    def told(self, t: Tensor, level: Tensor, y: Tensor | None, dtype: torch.dtype) -> Tensor:
        """The embedding of times, levels and classes."""
        waves = self.time_embed[0](t.log()), self.aug_gfp[0](level.log())
        embedding = self.time_embed(torch.cat(waves, dim=1).to(dtype))
        return embedding if self.label_emb is None else embedding + self.label_emb(y)

    def forward(  # type: ignore[override]
        self, x: Tensor, t: Tensor, y: Tensor | None = None, *, low: Tensor, level: Tensor
    ) -> Tensor:
        return self.out(self.features(self.grown(x, low), self.told(t, level, y, x.dtype)))


class WithHead(nn.Module):
    """An upsampler, and k1, k2, k3 of its head, which sees the small image besides.

    rates  beta_min and beta_d of VP where it predicts v, None where it predicts eps
    """

    def __init__(self, unet: Upsampler, head: Head, rates: tuple[float, float] | None) -> None:
        super().__init__()
        self.unet, self.head, self.rates = unet, head, rates
        self.training = unet.training

    def forward(
        self, x: Tensor, t: Tensor, y: Tensor | None = None, *, low: Tensor, level: Tensor
    ) -> tuple[Tensor, Tensor]:
        unet, images = self.unet, self.unet.grown(x, low)
        embedding = unet.told(t, level, y, x.dtype)
        features = unet.features(images, embedding)
        out = unet.out(features)
        eps = out if self.rates is None else eps_of_v(out, x, t, self.rates)
        return out, self.head(images, eps, features, embedding)
