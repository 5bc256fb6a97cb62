"""The networks that are measured, from their configurations, with random weights."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


def ddpm_cifar10() -> nn.Module:
    """W1, the network of google/ddpm-cifar10-32 (Ho et al. 2020)."""
    from diffusers import UNet2DModel

    return UNet2DModel(
        sample_size=32,
        in_channels=3,
        out_channels=3,
        block_out_channels=(128, 256, 256, 256),
        layers_per_block=2,
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
        norm_eps=1e-6,
        attention_head_dim=None,
    )


def stable_diffusion() -> nn.Module:
    """W4, the U-Net of Stable Diffusion 1.5 (Rombach et al. 2022); the class's defaults are its own."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(sample_size=64, cross_attention_dim=768)


def dit() -> nn.Module:
    """W5, DiT-XL/2 on 32x32 latents (Peebles and Xie 2023)."""
    from diffusers import DiTTransformer2DModel

    return DiTTransformer2DModel(sample_size=32, num_layers=28, num_attention_heads=16)


def decoder() -> nn.Module:
    """W6, the decoder of Stable Diffusion's autoencoder."""
    from diffusers import AutoencoderKL

    blocks = 4
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        latent_channels=4,
        sample_size=512,
    )


def weights(network: nn.Module, seed: int = 0) -> nn.Module:
    """The network with every weight of two and more dimensions drawn with unit gain, so that values
    keep their size from layer to layer; diffusers starts some at zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in network.parameters():
            if p.ndim > 1:
                p.copy_(torch.randn(p.shape, generator=generator) / p[0].numel() ** 0.5)
    return network.eval()


class Calls(TorchFunctionMode):
    """Counts what a call computes: ("group_norm", shape, groups, silu), ("attention", heads, queries, keys,
    dim) and ("conv3x3", C, output channels, H, W) of stride 1, each of one sample."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[tuple[Any, ...]] = Counter()
        self.last: tuple[Tensor, tuple[Any, ...]] | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if func is F.group_norm:
            key = ("group_norm", tuple(args[0].shape[1:]), args[1], False)
            self.counts[key] += 1
            self.last = out, key
        elif func is F.silu and self.last is not None and args[0] is self.last[0]:
            self.counts[self.last[1]] -= 1
            self.counts[(*self.last[1][:3], True)] += 1
        elif func is F.scaled_dot_product_attention:
            q, k = args[:2]
            self.counts["attention", q.shape[1], q.shape[2], k.shape[2], q.shape[3]] += 1
        elif (
            func is F.conv2d and args[1].shape[2:] == (3, 3) and out.shape[2:] == args[0].shape[2:]
        ):
            self.counts["conv3x3", args[0].shape[1], *out.shape[1:]] += 1
        return out


def calls(network: nn.Module, *given: Any, method: str = "forward") -> Counter[tuple[Any, ...]]:
    """What a network on the meta device computes with such arguments; nothing is computed."""
    with Calls() as found, torch.no_grad():
        getattr(network, method)(*given)
    return +found.counts
