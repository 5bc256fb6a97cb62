"""ADM's U-Net as GENIE trained it: its label's logarithm is embedded by Fourier features."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..checkpoint import Fields
from ..guided_diffusion.block import Style
from ..guided_diffusion.config import check
from ..guided_diffusion.unet import Form, UNetModel
from ..ncsnpp.blocks import Fourier
from ..ncsnpp.reader import COUNT, SIDE, WIDTH


class FourierEmbedding(nn.Sequential):
    """The embedding of a label's Fourier features, whose frequencies are its first layer."""

    def __init__(self, size: int, width: int, labels: int = 1) -> None:
        """labels  how many are embedded, one beside the other."""
        linear = nn.Linear(2 * size * labels, width), nn.Linear(width, width)
        super().__init__(Fourier(size), linear[0], nn.SiLU(), linear[1])

    def forward(self, waves: Tensor) -> Tensor:
        return self[3](self[2](self[1](waves)))


class OpenAIUNet(UNetModel):
    """eps or v (x, label, y), the label a time in (0, 1]; without `fourier` it is embedded as ADM does.

    `embedding` returns what blocks and GENIE's head read of time and class.
    """

    def __init__(self, form: Form, classes: int | None, fourier: bool) -> None:
        super().__init__(form, classes)
        self.fourier = fourier
        if fourier:
            self.time_embed = FourierEmbedding(form.size, form.style.embedded)  # type: ignore[assignment]
        self.embedding = nn.Identity()

    def waves(self, t: Tensor) -> Tensor:
        return self.time_embed[0](t.log()) if self.fourier else super().waves(t)

    def embedded(self, t: Tensor, y: Tensor | None, dtype: torch.dtype) -> Tensor:
        return self.embedding(super().embedded(t, y, dtype))


def read_form(
    fields: Fields, side: int, channels: int, outputs: int
) -> tuple[Form, int | None, bool]:
    """The form of a network, its classes, and whether its label is embedded by Fourier features."""
    nf = fields.whole("nf", 32, WIDTH)
    widths = [nf * m for m in fields.wholes("ch_mult", 1, WIDTH)]
    check(fields.where, side, widths)
    heads = fields.whole("num_heads", 1, WIDTH, None) or 1
    up = fields.whole("num_head_upsample", -1, WIDTH, -1)
    style = Style(
        embedded=4 * nf,
        film=fields.flag("use_scale_shift_norm"),
        heads=heads,
        heads_up=heads if up < 1 else up,
        head_channels=fields.whole("num_head_channels", 1, WIDTH, None),
        order="k n c" if fields.flag("use_new_attention_order") else "n k c",
        flat=True,
        updown=fields.flag("resblock_updown"),
    )
    fields.choice("resamp_with_conv", (True,), True)
    blocks = fields.whole("num_res_blocks", 1, COUNT)
    # By how much images are shrunk where they attend, whatever the name says.
    attending = fields.wholes("attn_resolutions", 1, SIDE)
    form = Form(channels, outputs, nf, widths, blocks, attending, style)
    classes = fields.whole("num_classes", 1, 1 << 20, None)
    fourier = fields.number("fourier_scale", 0.0, 1e9, None) is not None
    return form, classes, fourier
