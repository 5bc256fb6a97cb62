"""Networks of pictures and signals that know of a time and at most a class."""

from .case import STEP, Case, whole


def _unet2d(**options):
    from diffusers import UNet2DModel

    known = {
        "sample_size": 16, "block_out_channels": (16, 32), "layers_per_block": 1, "norm_num_groups": 4,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "attention_head_dim": 8,
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"), **options,
    }  # fmt: skip
    return UNet2DModel(**known)


def picture(module, size=16, channels=3, **inputs):
    return Case(module, {"sample": (channels, size, size), "timestep": STEP, **inputs})


def plain():
    return picture(_unet2d())


def class_embedding():
    return picture(_unet2d(num_class_embeds=7), class_labels=whole(7))


def resnet_sampling():
    return picture(_unet2d(downsample_type="resnet", upsample_type="resnet"))


def scale_shift():
    return picture(
        _unet2d(resnet_time_scale_shift="scale_shift", act_fn="gelu", downsample_padding=0)
    )


def resnet_blocks():
    return picture(
        _unet2d(
            down_block_types=("ResnetDownsampleBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "ResnetUpsampleBlock2D"),
        )
    )


def ncsnpp():
    """FIR kernels, random Fourier features and skips of the picture itself (Song et al. 2021)."""
    return picture(
        _unet2d(
            down_block_types=("SkipDownBlock2D", "AttnSkipDownBlock2D"), norm_eps=1e-6,
            up_block_types=("AttnSkipUpBlock2D", "SkipUpBlock2D"), time_embedding_type="fourier",
            block_out_channels=(32, 64), norm_num_groups=None, mid_block_scale_factor=2**0.5,
        )
    )  # fmt: skip


def policy():
    from diffusers import UNet1DModel

    module = UNet1DModel(
        sample_size=16, in_channels=7, out_channels=7, layers_per_block=1,
        down_block_types=("DownResnetBlock1D", "DownResnetBlock1D"),
        up_block_types=("UpResnetBlock1D",), mid_block_type="MidResTemporalBlock1D",
        out_block_type="OutConv1DBlock", block_out_channels=(32, 64), act_fn="mish",
        time_embedding_type="positional", use_timestep_embedding=True, flip_sin_to_cos=False, freq_shift=1,
    )  # fmt: skip
    return Case(module, {"sample": (7, 16), "timestep": STEP})


def value_function():
    from diffusers import UNet1DModel

    module = UNet1DModel(
        in_channels=14, out_channels=14, sample_size=32, down_block_types=("DownResnetBlock1D",) * 4,
        up_block_types=(), out_block_type="ValueFunction", mid_block_type="ValueFunctionMidBlock1D",
        block_out_channels=(32, 32, 64, 64), layers_per_block=1, downsample_each_block=True, act_fn="mish",
        use_timestep_embedding=True, freq_shift=1.0, flip_sin_to_cos=False, time_embedding_type="positional",
    )  # fmt: skip
    return Case(module, {"sample": (14, 32), "timestep": STEP})


def dance():
    """Waves, with attention in one dimension and resampling by cubic kernels."""
    from diffusers import UNet1DModel

    module = UNet1DModel(
        sample_size=64, in_channels=2, out_channels=2, extra_in_channels=64, time_embedding_type="fourier",
        use_timestep_embedding=False, flip_sin_to_cos=True, block_out_channels=(32, 32, 32),
        down_block_types=("DownBlock1DNoSkip", "DownBlock1D", "AttnDownBlock1D"), layers_per_block=1,
        up_block_types=("AttnUpBlock1D", "UpBlock1D", "UpBlock1DNoSkip"), mid_block_type="UNetMidBlock1D",
    )  # fmt: skip
    return Case(module, {"sample": (2, 64), "timestep": STEP})


NETWORKS = {
    "UNet2DModel": plain,
    "UNet2DModel, class embedding": class_embedding,
    "UNet2DModel, resnet sampling": resnet_sampling,
    "UNet2DModel, scale and shift": scale_shift,
    "UNet2DModel, resnet blocks": resnet_blocks,
    "UNet2DModel, NCSN++": ncsnpp,
    "UNet1DModel, policy": policy,
    "UNet1DModel, value function": value_function,
    "UNet1DModel, waves": dance,
}
