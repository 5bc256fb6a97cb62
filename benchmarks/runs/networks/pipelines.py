"""Small pipelines of diffusers, made from configurations, that are called with embeddings: no tokenizer, no
text encoder."""

from __future__ import annotations

from typing import Any

import diffusers
import torch
from torch import Tensor, nn

SCHEDULE = {
    "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1
}  # fmt: skip
TWO = {"layers_per_block": 1, "norm_num_groups": 8, "sample_size": 8}


def generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator(seed))


def module(name: str, **config: Any) -> nn.Module:
    """A network whose weights are all drawn: some classes begin at zero."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = getattr(diffusers, name)(**config).eval()
        with torch.no_grad():
            for weight in made.parameters():
                weight.add_(0.02 * torch.randn_like(weight))
    return made


def unet(**more: Any) -> nn.Module:
    return module(
        "UNet2DConditionModel",
        **TWO
        | {
            "block_out_channels": (16, 32),
            "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
            "cross_attention_dim": 16,
            "attention_head_dim": 8,
        }
        | more,
    )


def pixels(**more: Any) -> nn.Module:
    names = ("DownBlock2D", "DownBlock2D"), ("UpBlock2D", "UpBlock2D")
    blocks = {
        "block_out_channels": (16, 16),
        "down_block_types": names[0],
        "up_block_types": names[1],
    }
    return module("UNet2DModel", **TWO | blocks | more)


def vae(**more: Any) -> nn.Module:
    return module(
        "AutoencoderKL",
        block_out_channels=(16, 32), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, norm_num_groups=8, latent_channels=4, sample_size=16,
        **more,
    )  # fmt: skip


def scheduler(name: str, **config: Any) -> Any:
    return getattr(diffusers, name)(**config)


def quiet(name: str, **parts: Any) -> Any:
    """A pipeline by its class's name, without a bar; a part that is not given is None."""
    made = getattr(diffusers, name)
    made = made(**dict.fromkeys(made.__init__.__annotations__) | parts)
    made.set_progress_bar_config(disable=True)
    return made


NO_TEXT = dict.fromkeys(("text_encoder", "tokenizer"))
NO_TEXTS = NO_TEXT | dict.fromkeys(("text_encoder_2", "tokenizer_2"))
UNSAFE = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}


def stable(name: str = "StableDiffusionPipeline", noise: Any = None, **network: Any) -> Any:
    noise = noise or scheduler(
        "DDIMScheduler", clip_sample=False, set_alpha_to_one=False, **SCHEDULE
    )
    return quiet(name, vae=vae(), unet=unet(**network), scheduler=noise, **NO_TEXT, **UNSAFE)


def consistency() -> Any:
    parts = {
        "vae": vae(),
        "unet": unet(time_cond_proj_dim=32),
        "scheduler": scheduler("LCMScheduler"),
    }
    return quiet("LatentConsistencyModelPipeline", **parts, **NO_TEXT, **UNSAFE)


def sdxl() -> Any:
    network = unet(
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=64,
    )
    noise = scheduler("EulerDiscreteScheduler", timestep_spacing="leading", **SCHEDULE)
    parts = {"vae": vae(), "unet": network, "scheduler": noise, "add_watermarker": False}
    return quiet("StableDiffusionXLPipeline", **parts, **NO_TEXTS)


SHIFTED = {"shift_factor": 0.06, "use_quant_conv": False, "use_post_quant_conv": False}


def sd3() -> Any:
    network = module(
        "SD3Transformer2DModel", sample_size=8, in_channels=4, out_channels=4, num_layers=1, patch_size=1,
        attention_head_dim=8, num_attention_heads=2, joint_attention_dim=16, caption_projection_dim=16,
        pooled_projection_dim=16, pos_embed_max_size=8,
    )  # fmt: skip
    noise = scheduler("FlowMatchEulerDiscreteScheduler", shift=3.0)
    parts = {"vae": vae(**SHIFTED), "transformer": network, "scheduler": noise}
    return quiet(
        "StableDiffusion3Pipeline", **parts, **NO_TEXTS, text_encoder_3=None, tokenizer_3=None
    )


def flux() -> Any:
    network = module(
        "FluxTransformer2DModel", patch_size=1, in_channels=16, num_layers=1, num_single_layers=1,
        attention_head_dim=16, num_attention_heads=2, joint_attention_dim=16, pooled_projection_dim=16,
        axes_dims_rope=(4, 4, 8), guidance_embeds=True,
    )  # fmt: skip
    noise = scheduler("FlowMatchEulerDiscreteScheduler", shift=3.0, use_dynamic_shifting=True)
    parts = {"vae": vae(**SHIFTED), "transformer": network, "scheduler": noise}
    return quiet("FluxPipeline", **parts, **NO_TEXTS)


def dit(noise: Any = None) -> Any:
    network = module(
        "DiTTransformer2DModel", num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=8,
        num_layers=1, sample_size=8,
    )  # fmt: skip
    noise = noise or scheduler("DDIMScheduler", clip_sample=False)
    return quiet("DiTPipeline", transformer=network, vae=vae(), scheduler=noise)


def unconditional(name: str, noise: Any, **network: Any) -> Any:
    return quiet(name, unet=pixels(**network), scheduler=noise)


SIZE = {"height": 16, "width": 16}
TEXT = {"prompt_embeds": drawn(2, 7, 16), "num_inference_steps": 6, "output_type": "latent"}
BOTH = TEXT | {"negative_prompt_embeds": drawn(2, 7, 16, seed=2), "guidance_scale": 5.0}
POOLED = {
    "pooled_prompt_embeds": drawn(2, 16, seed=3),
    "negative_pooled_prompt_embeds": drawn(2, 16, seed=4),
}
IMAGE = {"image": drawn(2, 3, 16, 16, seed=5).sigmoid()}
MASK = {"mask_image": (drawn(2, 1, 16, 16, seed=6) > 0.0).float()}
PIXELS = {"num_inference_steps": 6, "output_type": "np"}
