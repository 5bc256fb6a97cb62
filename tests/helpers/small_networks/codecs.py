"""Autoencoders, one half at a time."""

from torch import nn

from .case import Case, whole


class Part(nn.Module):
    """Layers of an autoencoder, one after another."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x):
        return self.layers(x)


def _kl():
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(16, 32), norm_num_groups=4, layers_per_block=1, latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        sample_size=16,
    )  # fmt: skip


def kl_encoder():
    kl = _kl()
    return Case(Part(kl.encoder, kl.quant_conv), {"x": (3, 16, 16)})


def kl_decoder():
    kl = _kl()
    return Case(Part(kl.post_quant_conv, kl.decoder), {"x": (4, 8, 8)})


def kl_temporal():
    from diffusers import AutoencoderKLTemporalDecoder

    module = AutoencoderKLTemporalDecoder(
        block_out_channels=(32,),
        layers_per_block=1,
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",),
    )
    return Case(module, {"z": (4, 8, 8)}, {"num_frames": 1}, "decode")


def _tiny():
    from diffusers import AutoencoderTiny

    return AutoencoderTiny(
        encoder_block_out_channels=(16, 16), decoder_block_out_channels=(16, 16), num_encoder_blocks=(1, 2),
        num_decoder_blocks=(2, 1),
    )  # fmt: skip


def tiny_encoder():
    return Case(Part(_tiny().encoder), {"x": (3, 16, 16)})


def tiny_decoder():
    return Case(Part(_tiny().decoder), {"x": (4, 8, 8)})


def _vq(**options):
    from diffusers import VQModel

    known = {
        "block_out_channels": (16, 32),
        "norm_num_groups": 4,
        "num_vq_embeddings": 12,
        "latent_channels": 3,
    }
    return VQModel(
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        **{**known, **options},
    )  # fmt: skip


def vq_decoder():
    """Latents, each the nearest of a table, and the picture of them."""
    return Case(_vq(), {"h": (3, 8, 8)}, {}, "decode")


def vq_encoder():
    vq = _vq()
    return Case(Part(vq.encoder, vq.quant_conv), {"x": (3, 16, 16)})


def movq_decoder():
    return Case(
        _vq(norm_type="spatial", block_out_channels=(32, 32), norm_num_groups=32),
        {"h": (3, 8, 8)},
        {},
        "decode",
    )


def consistency():
    from diffusers import UNet2DModel

    module = UNet2DModel(
        sample_size=16, in_channels=7, out_channels=6, block_out_channels=(16, 32), layers_per_block=1,
        down_block_types=("ResnetDownsampleBlock2D",) * 2, up_block_types=("ResnetUpsampleBlock2D",) * 2,
        resnet_time_scale_shift="scale_shift", time_embedding_type="learned", num_train_timesteps=64,
        norm_num_groups=4, add_attention=False, downsample_type="conv",
    )  # fmt: skip
    return Case(module, {"sample": (7, 16, 16), "timestep": whole(64)})


def asymmetric():
    from diffusers import AsymmetricAutoencoderKL

    module = AsymmetricAutoencoderKL(
        down_block_types=("DownEncoderBlock2D",), down_block_out_channels=(32,), layers_per_down_block=1,
        up_block_types=("UpDecoderBlock2D",), up_block_out_channels=(32,), layers_per_up_block=1,
        latent_channels=4, sample_size=16,
    )  # fmt: skip
    inputs = {"z": (4, 16, 16), "image": (3, 16, 16), "mask": (1, 16, 16)}
    return Case(module, inputs, {}, "decode")


def _deep():
    from diffusers import AutoencoderDC

    return AutoencoderDC(
        in_channels=3, latent_channels=4, attention_head_dim=2,
        encoder_block_types=("ResBlock", "EfficientViTBlock"),
        decoder_block_types=("ResBlock", "EfficientViTBlock"), encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8), encoder_qkv_multiscales=((), (5,)),
        decoder_qkv_multiscales=((), (5,)), encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1), downsample_block_type="pixel_unshuffle",
    )  # fmt: skip


def dc_encoder():
    return Case(Part(_deep().encoder), {"x": (3, 16, 16)})


def dc_decoder():
    return Case(Part(_deep().decoder), {"x": (4, 8, 8)})


def oobleck():
    from diffusers import AutoencoderOobleck

    module = AutoencoderOobleck(
        encoder_hidden_size=12, decoder_channels=12, decoder_input_channels=6, audio_channels=2,
        downsampling_ratios=[2, 4], channel_multiples=[1, 2],
    )  # fmt: skip
    return Case(Part(module.decoder), {"x": (6, 8)})


NETWORKS = {
    "AutoencoderKL, encoder": kl_encoder,
    "AutoencoderKL, decoder": kl_decoder,
    "AutoencoderKLTemporalDecoder": kl_temporal,
    "AsymmetricAutoencoderKL, decoder": asymmetric,
    "AutoencoderTiny, encoder": tiny_encoder,
    "AutoencoderTiny, decoder": tiny_decoder,
    "AutoencoderDC, encoder": dc_encoder,
    "AutoencoderDC, decoder": dc_decoder,
    "VQModel, encoder": vq_encoder,
    "VQModel, decoder": vq_decoder,
    "VQModel, spatial norm": movq_decoder,
    "ConsistencyDecoderVAE, network": consistency,
    "AutoencoderOobleck, decoder": oobleck,
}
