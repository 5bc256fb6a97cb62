"""Networks of pictures that read a text, and what steers them."""

import torch

from .case import STEP, Case, whole

TEXT = (7, 16)


def _conditional(kind="UNet2DConditionModel", **options):
    import diffusers

    known = {
        "block_out_channels": (16, 32), "layers_per_block": 1, "norm_num_groups": 4,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"), "attention_head_dim": 8,
        "cross_attention_dim": 16, **options,
    }  # fmt: skip
    if kind == "UNet2DConditionModel":
        known |= {"sample_size": 16, "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D")}
    return getattr(diffusers, kind)(**{**known, **options})


def _inputs(channels=4, **more):
    return {"sample": (channels, 16, 16), "timestep": STEP, "encoder_hidden_states": TEXT, **more}


def stable_diffusion():
    return Case(_conditional(), _inputs())


def stable_diffusion_2():
    return Case(_conditional(use_linear_projection=True, attention_head_dim=(2, 4)), _inputs())


def stable_diffusion_xl():
    module = _conditional(
        use_linear_projection=True, transformer_layers_per_block=(1, 2), addition_embed_type="text_time",
        addition_time_embed_dim=8, projection_class_embeddings_input_dim=24 + 6 * 8,
        attention_head_dim=(2, 4),
    )  # fmt: skip
    more = {"added_cond_kwargs.text_embeds": (24,), "added_cond_kwargs.time_ids": (6,)}
    return Case(module, _inputs(**more))


def class_condition():
    module = _conditional(
        class_embed_type="simple_projection", projection_class_embeddings_input_dim=6
    )
    return Case(module, _inputs(class_labels=(6,)))


def masked():
    """A text whose last tokens are of no meaning for some."""

    def mask(batch, numbers):
        return torch.arange(7) < torch.randint(2, 7, (batch, 1), generator=numbers)

    return Case(_conditional(), _inputs(encoder_attention_mask=mask))


def deep_floyd():
    """IF (DeepFloyd 2023): keys and values of the text beside those of the picture."""
    module = _conditional(
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn", addition_embed_type="text",
        addition_embed_type_num_heads=2, resnet_time_scale_shift="scale_shift", act_fn="gelu",
        encoder_hid_dim=16,
    )  # fmt: skip
    return Case(module, _inputs())


def kandinsky():
    """Kandinsky 2.2: the text is an embedding of a picture."""
    module = _conditional(
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn", addition_embed_type="image",
        encoder_hid_dim_type="image_proj", encoder_hid_dim=16, resnet_time_scale_shift="scale_shift",
        class_embed_type=None,
    )  # fmt: skip
    inputs = {"sample": (4, 16, 16), "timestep": STEP, "added_cond_kwargs.image_embeds": (16,)}
    return Case(module, inputs, {"encoder_hidden_states": None})


def kandinsky3():
    from diffusers import Kandinsky3UNet

    module = Kandinsky3UNet(
        in_channels=4, time_embedding_dim=16, groups=2, attention_head_dim=4, layers_per_block=3,
        block_out_channels=(8, 16), cross_attention_dim=8, encoder_hid_dim=16,
    )  # fmt: skip
    return Case(module, _inputs(encoder_attention_mask=whole(2, 7)))


def stable_cascade():
    from diffusers.models.unets import StableCascadeUNet

    module = StableCascadeUNet(
        in_channels=4, out_channels=4, conditioning_dim=16, block_out_channels=(16, 32),
        num_attention_heads=(2, 4), down_num_layers_per_block=(1, 1), up_num_layers_per_block=(1, 1),
        block_types_per_layer=(("SDCascadeResBlock", "SDCascadeTimestepBlock", "SDCascadeAttnBlock"),) * 2,
        clip_text_in_channels=16, clip_text_pooled_in_channels=16, clip_image_in_channels=16, clip_seq=2,
        timestep_ratio_embedding_dim=16,
    )  # fmt: skip
    inputs = {
        "sample": (4, 16, 16), "timestep_ratio": lambda batch, g: torch.rand(batch, generator=g),
        "clip_text_pooled": (1, 16), "clip_text": TEXT, "clip_img": (1, 16),
    }  # fmt: skip
    return Case(module, inputs)


def controlnet():
    module = _conditional(
        "ControlNetModel", conditioning_embedding_out_channels=(8, 16), block_out_channels=(16, 32)
    )
    return Case(module, _inputs(controlnet_cond=(3, 32, 32)))


def adapter():
    from diffusers import T2IAdapter

    module = T2IAdapter(
        in_channels=3, channels=[8, 16, 16, 16], num_res_blocks=1, downscale_factor=8
    )
    return Case(module, {"x": (3, 64, 64)})


def light_adapter():
    from diffusers import T2IAdapter

    module = T2IAdapter(
        in_channels=3,
        channels=[8, 16, 16],
        num_res_blocks=1,
        downscale_factor=8,
        adapter_type="light_adapter",
    )
    return Case(module, {"x": (3, 64, 64)})


NETWORKS = {
    "UNet2DConditionModel, Stable Diffusion 1": stable_diffusion,
    "UNet2DConditionModel, Stable Diffusion 2": stable_diffusion_2,
    "UNet2DConditionModel, Stable Diffusion XL": stable_diffusion_xl,
    "UNet2DConditionModel, class projection": class_condition,
    "UNet2DConditionModel, masked text": masked,
    "UNet2DConditionModel, DeepFloyd": deep_floyd,
    "UNet2DConditionModel, Kandinsky 2.2": kandinsky,
    "Kandinsky3UNet": kandinsky3,
    "StableCascadeUNet": stable_cascade,
    "ControlNetModel": controlnet,
    "T2IAdapter": adapter,
    "T2IAdapter, light": light_adapter,
}
