"""Networks of videos."""

import torch
from torch import nn

from .case import STEP, Case


def unet3d():
    from diffusers import UNet3DConditionModel

    module = UNet3DConditionModel(
        block_out_channels=(4, 8), norm_num_groups=4, layers_per_block=1, cross_attention_dim=8,
        down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"), attention_head_dim=4,
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"), sample_size=8,
    )  # fmt: skip
    inputs = {"sample": (4, 3, 8, 8), "timestep": STEP, "encoder_hidden_states": (7, 8)}
    return Case(module, inputs)


def stable_video():
    from diffusers import UNetSpatioTemporalConditionModel

    module = UNetSpatioTemporalConditionModel(
        block_out_channels=(32, 64), num_attention_heads=(2, 4), layers_per_block=1, cross_attention_dim=8,
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"), sample_size=8,
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"), in_channels=4,
        addition_time_embed_dim=8, projection_class_embeddings_input_dim=24,
    )  # fmt: skip
    inputs = {
        "sample": (2, 4, 8, 8), "timestep": STEP, "encoder_hidden_states": (1, 8), "added_time_ids": (3,),
    }  # fmt: skip
    return Case(module, inputs)


class Repeated(nn.Module):
    """A network of frames that is given the text of each."""

    def __init__(self, network, frames):
        super().__init__()
        self.network, self.frames = network, frames

    def forward(self, sample, timestep, encoder_hidden_states):
        text = encoder_hidden_states.repeat_interleave(self.frames, dim=0)
        return self.network(sample, timestep, encoder_hidden_states=text)


def motion():
    from diffusers import UNetMotionModel

    module = UNetMotionModel(
        block_out_channels=(16, 32), norm_num_groups=4, layers_per_block=1, cross_attention_dim=8,
        down_block_types=("CrossAttnDownBlockMotion", "DownBlockMotion"), num_attention_heads=2,
        up_block_types=("UpBlockMotion", "CrossAttnUpBlockMotion"), motion_num_attention_heads=2,
    )  # fmt: skip
    inputs = {"sample": (4, 3, 8, 8), "timestep": STEP, "encoder_hidden_states": (7, 8)}
    return Case(Repeated(module, 3), inputs)


def cogvideox():
    from diffusers import CogVideoXTransformer3DModel

    module = CogVideoXTransformer3DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=4, time_embed_dim=2,
        text_embed_dim=8, num_layers=2, sample_width=8, sample_height=8, sample_frames=5, patch_size=2,
        temporal_compression_ratio=4, max_text_seq_length=7,
    )  # fmt: skip
    inputs = {"hidden_states": (2, 4, 8, 8), "encoder_hidden_states": (7, 8), "timestep": STEP}
    return Case(module, inputs)


def ltx():
    from diffusers import LTXVideoTransformer3DModel

    module = LTXVideoTransformer3DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=8, cross_attention_dim=16,
        num_layers=2, caption_channels=16,
    )  # fmt: skip

    def mask(batch, numbers):
        return torch.ones(batch, 7, dtype=torch.bool)

    inputs = {
        "hidden_states": (32, 4), "encoder_hidden_states": (7, 16), "timestep": STEP,
        "encoder_attention_mask": mask,
    }  # fmt: skip
    return Case(module, inputs, {"num_frames": 2, "height": 4, "width": 4})


def wan():
    from diffusers import WanTransformer3DModel

    module = WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4,
        text_dim=16, freq_dim=32, ffn_dim=32, num_layers=2, rope_max_seq_len=32,
    )  # fmt: skip
    inputs = {"hidden_states": (4, 2, 8, 8), "timestep": STEP, "encoder_hidden_states": (7, 16)}
    return Case(module, inputs)


def latte():
    from diffusers import LatteTransformer3DModel

    module = LatteTransformer3DModel(
        sample_size=8, num_layers=1, patch_size=2, attention_head_dim=4, num_attention_heads=3,
        caption_channels=8, in_channels=4, cross_attention_dim=12, out_channels=8, attention_bias=True,
        num_embeds_ada_norm=1000, norm_type="ada_norm_single", norm_elementwise_affine=False,
        activation_fn="gelu-approximate", video_length=2,
    )  # fmt: skip
    inputs = {"hidden_states": (4, 2, 8, 8), "encoder_hidden_states": (7, 8), "timestep": STEP}
    return Case(module, inputs)


NETWORKS = {
    "UNet3DConditionModel": unet3d,
    "UNetSpatioTemporalConditionModel": stable_video,
    "UNetMotionModel": motion,
    "CogVideoXTransformer3DModel": cogvideox,
    "LTXVideoTransformer3DModel": ltx,
    "WanTransformer3DModel": wan,
    "LatteTransformer3DModel": latte,
}
