"""Small networks of every kind, from configurations: untrained, seeded, called with a list of tensors."""

import torch

from . import codecs, conditional, own, transformers, unets, video
from .case import Called, Case

NETWORKS = {
    **unets.NETWORKS,
    **conditional.NETWORKS,
    **transformers.NETWORKS,
    **video.NETWORKS,
    **codecs.NETWORKS,
    **own.NETWORKS,
}
# Together some seconds of one core.
FAST = {
    "UNet2DModel", "UNet1DModel, policy", "UNet1DModel, value function", "T2IAdapter", "Transformer2DModel",
    "DiTTransformer2DModel", "PriorTransformer", "AutoencoderKL, decoder", "AutoencoderTiny, decoder",
    "AutoencoderDC, decoder", "AutoencoderKLTemporalDecoder", "AutoencoderOobleck, decoder",
    "the zoo's digits", "testing's Mixture",
}  # fmt: skip


def made(name: str) -> tuple[Called, Case]:
    """A network of the table, the same each time, without a parameter that is all zeros."""
    torch.manual_seed(0)
    case = NETWORKS[name]()
    with torch.no_grad():
        for parameter in case.module.parameters():
            if not parameter.any():
                parameter.normal_(std=0.05)
    case.module.eval().requires_grad_(False)
    return Called(case).eval(), case
