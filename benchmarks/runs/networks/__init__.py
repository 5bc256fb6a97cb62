"""The networks that are measured, with random weights, and what they compute."""

from __future__ import annotations

import torch
from torch import nn


def weights(network: nn.Module, seed: int = 0) -> nn.Module:
    """The network with every weight of two and more dimensions drawn with unit gain, so that values
    keep their size from layer to layer; diffusers starts some at zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in network.parameters():
            if p.ndim > 1:
                p.copy_(torch.randn(p.shape, generator=generator) / p[0].numel() ** 0.5)
    return network.eval()
