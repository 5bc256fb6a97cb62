"""The networks of diffusers that are measured, from their configurations."""

from __future__ import annotations

from torch import nn


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


def dit(layers: int = 28) -> nn.Module:
    """W5, DiT-XL/2 on 32x32 latents (Peebles and Xie 2023)."""
    from diffusers import DiTTransformer2DModel

    return DiTTransformer2DModel(sample_size=32, num_layers=layers, num_attention_heads=16)


def policy() -> nn.Module:
    """The 1-D U-Net of examples/robot_policy.py: 16 actions of 7 numbers."""
    from diffusers import UNet1DModel

    return UNet1DModel(
        sample_size=16, in_channels=7, out_channels=7, layers_per_block=1,
        down_block_types=("DownResnetBlock1D", "DownResnetBlock1D"),
        up_block_types=("UpResnetBlock1D",), mid_block_type="MidResTemporalBlock1D",
        out_block_type="OutConv1DBlock", block_out_channels=(32, 64), act_fn="mish",
        time_embedding_type="positional", use_timestep_embedding=True, flip_sin_to_cos=False, freq_shift=1,
    )  # fmt: skip


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
