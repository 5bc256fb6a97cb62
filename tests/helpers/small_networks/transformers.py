"""Transformers of pictures and of embeddings."""

import torch

from .case import STEP, Case, times, whole


def dit():
    from diffusers import DiTTransformer2DModel

    module = DiTTransformer2DModel(
        sample_size=8, num_layers=2, num_attention_heads=2, attention_head_dim=8, in_channels=4,
        num_embeds_ada_norm=20, patch_size=2,
    )  # fmt: skip
    inputs = {"hidden_states": (4, 8, 8), "timestep": whole(20), "class_labels": whole(20)}
    return Case(module, inputs)


def sd3():
    from diffusers import SD3Transformer2DModel

    module = SD3Transformer2DModel(
        sample_size=8, patch_size=1, in_channels=4, num_layers=2, attention_head_dim=8, num_attention_heads=4,
        caption_projection_dim=32, joint_attention_dim=16, pooled_projection_dim=24, out_channels=4,
        qk_norm="rms_norm", dual_attention_layers=(0,),
    )  # fmt: skip
    inputs = {
        "hidden_states": (4, 8, 8), "encoder_hidden_states": (7, 16), "pooled_projections": (24,),
        "timestep": STEP,
    }  # fmt: skip
    return Case(module, inputs)


def flux():
    from diffusers import FluxTransformer2DModel

    module = FluxTransformer2DModel(
        patch_size=1, in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=32, pooled_projection_dim=24, axes_dims_rope=(4, 4, 8),
        guidance_embeds=True,
    )  # fmt: skip
    inputs = {
        "hidden_states": (16, 4), "encoder_hidden_states": (7, 32), "pooled_projections": (24,),
        "timestep": times, "guidance": times,
    }  # fmt: skip
    return Case(module, inputs, {"img_ids": _grid(4), "txt_ids": torch.zeros(7, 3)})


def _grid(n):
    return torch.cartesian_prod(torch.zeros(1), torch.arange(n).float(), torch.arange(n).float())


def chroma():
    from diffusers import ChromaTransformer2DModel

    module = ChromaTransformer2DModel(
        patch_size=1, in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=32, axes_dims_rope=(4, 4, 8),
        approximator_num_channels=8, approximator_hidden_dim=16, approximator_layers=1,
    )  # fmt: skip
    inputs = {"hidden_states": (16, 4), "encoder_hidden_states": (7, 32), "timestep": times}
    return Case(module, inputs, {"img_ids": _grid(4), "txt_ids": torch.zeros(7, 3)})


def pixart():
    from diffusers import PixArtTransformer2DModel

    module = PixArtTransformer2DModel(
        sample_size=8, num_layers=2, patch_size=2, attention_head_dim=8, num_attention_heads=3,
        caption_channels=32, in_channels=4, cross_attention_dim=24, out_channels=8,
        use_additional_conditions=False,
    )  # fmt: skip
    inputs = {"hidden_states": (4, 8, 8), "encoder_hidden_states": (7, 32), "timestep": STEP}
    more = {"added_cond_kwargs": {"resolution": None, "aspect_ratio": None}}
    return Case(module, inputs, more)


def transformer2d():
    from diffusers import Transformer2DModel

    module = Transformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=16, num_layers=2, norm_num_groups=4,
        cross_attention_dim=12, sample_size=8,
    )  # fmt: skip
    return Case(module, {"hidden_states": (16, 8, 8), "encoder_hidden_states": (7, 12)})


def vq_diffusion():
    """Classes of pixels in place of a picture, as VQ-Diffusion has them."""
    from diffusers import Transformer2DModel

    module = Transformer2DModel(
        num_attention_heads=2, attention_head_dim=8, num_layers=1, num_vector_embeds=17, sample_size=8,
        cross_attention_dim=12,
    )  # fmt: skip
    inputs = {"hidden_states": whole(17, 64), "encoder_hidden_states": (7, 12)}
    return Case(module, inputs)


def uvit():
    from diffusers import UVit2DModel

    module = UVit2DModel(
        hidden_size=32, cond_embed_dim=24, micro_cond_encode_dim=8, micro_cond_embed_dim=5 * 8,
        encoder_hidden_size=16, vocab_size=20, codebook_size=16, in_channels=16, block_out_channels=16,
        num_res_blocks=1, downsample=True, upsample=True, block_num_heads=2, num_hidden_layers=1,
        num_attention_heads=2, intermediate_size=48, sample_size=8,
    )  # fmt: skip
    inputs = {
        "input_ids": whole(20, 8, 8), "encoder_hidden_states": (7, 16), "pooled_text_emb": (24,),
        "micro_conds": (5,),
    }  # fmt: skip
    return Case(module, inputs)


def prior():
    from diffusers import PriorTransformer

    module = PriorTransformer(
        num_attention_heads=2, attention_head_dim=8, num_layers=2, embedding_dim=16, num_embeddings=7,
        additional_embeddings=4,
    )  # fmt: skip
    inputs = {
        "hidden_states": (16,), "timestep": STEP, "proj_embedding": (16,), "encoder_hidden_states": (7, 16),
    }  # fmt: skip
    return Case(module, inputs)


def hunyuan():
    from diffusers import HunyuanDiT2DModel

    module = HunyuanDiT2DModel(
        sample_size=8, patch_size=2, in_channels=4, num_layers=2, attention_head_dim=8, num_attention_heads=2,
        cross_attention_dim=16, cross_attention_dim_t5=16, pooled_projection_dim=4, hidden_size=16,
        text_len=4, text_len_t5=4, use_style_cond_and_image_meta_size=True,
    )  # fmt: skip

    def mask(batch, numbers):
        return torch.randint(0, 2, (batch, 4), generator=numbers)

    inputs = {
        "hidden_states": (4, 8, 8), "timestep": times, "encoder_hidden_states": (4, 16),
        "text_embedding_mask": mask, "encoder_hidden_states_t5": (4, 16), "text_embedding_mask_t5": mask,
        "image_meta_size": (6,), "style": whole(1),
    }  # fmt: skip
    angles = torch.randn(16, 8, generator=torch.Generator().manual_seed(0))
    return Case(module, inputs, {"image_rotary_emb": [angles.cos(), angles.sin()]})


def auraflow():
    from diffusers import AuraFlowTransformer2DModel

    module = AuraFlowTransformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, num_mmdit_layers=1, num_single_dit_layers=1,
        attention_head_dim=8, num_attention_heads=2, joint_attention_dim=16, caption_projection_dim=16,
        pos_embed_max_size=16,
    )  # fmt: skip
    inputs = {"hidden_states": (4, 8, 8), "encoder_hidden_states": (7, 16), "timestep": times}
    return Case(module, inputs)


def sana():
    from diffusers import SanaTransformer2DModel

    module = SanaTransformer2DModel(
        patch_size=1, in_channels=4, out_channels=4, num_layers=2, attention_head_dim=4,
        num_attention_heads=4, num_cross_attention_heads=4, cross_attention_head_dim=4,
        cross_attention_dim=16, caption_channels=8, sample_size=8,
    )  # fmt: skip
    inputs = {"hidden_states": (4, 8, 8), "encoder_hidden_states": (7, 8), "timestep": STEP}
    return Case(module, inputs)


def lumina():
    from diffusers import LuminaNextDiT2DModel

    module = LuminaNextDiT2DModel(
        sample_size=16, patch_size=2, in_channels=4, hidden_size=24, num_layers=2, num_attention_heads=3,
        num_kv_heads=1, multiple_of=16, cross_attention_dim=32, norm_eps=1e-5,
    )  # fmt: skip
    inputs = {"hidden_states": (4, 16, 16), "timestep": times, "encoder_hidden_states": (7, 32)}
    inputs["encoder_mask"] = lambda batch, numbers: torch.ones(batch, 7)
    from diffusers.models.embeddings import get_2d_rotary_pos_embed_lumina

    turns = get_2d_rotary_pos_embed_lumina(8, 8, 8)
    return Case(
        module, inputs,
        {"image_rotary_emb": turns, "cross_attention_kwargs": {}},
    )  # fmt: skip


def lumina2():
    from diffusers import Lumina2Transformer2DModel

    module = Lumina2Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, hidden_size=24, num_layers=2, num_refiner_layers=1,
        num_attention_heads=3, num_kv_heads=1, multiple_of=2, axes_dim_rope=(4, 2, 2),
        axes_lens=(128, 128, 128), cap_feat_dim=32,
    )  # fmt: skip

    def mask(batch, numbers):
        return torch.ones(batch, 7, dtype=torch.bool)

    inputs = {
        "hidden_states": (4, 8, 8), "timestep": times, "encoder_hidden_states": (7, 32),
        "encoder_attention_mask": mask,
    }  # fmt: skip
    return Case(module, inputs)


def cogview3():
    from diffusers import CogView3PlusTransformer2DModel

    module = CogView3PlusTransformer2DModel(
        patch_size=2, in_channels=4, num_layers=2, attention_head_dim=4, num_attention_heads=2,
        out_channels=4, text_embed_dim=8, time_embed_dim=8, condition_dim=2, pos_embed_max_size=8,
        sample_size=8,
    )  # fmt: skip
    return Case(module, _cogview_inputs())


def cogview4():
    from diffusers import CogView4Transformer2DModel

    module = CogView4Transformer2DModel(
        patch_size=2, in_channels=4, num_layers=2, attention_head_dim=4, num_attention_heads=4,
        out_channels=4, text_embed_dim=8, time_embed_dim=8, condition_dim=4, pos_embed_max_size=8,
        sample_size=8, rope_axes_dim=(8, 8),
    )  # fmt: skip
    return Case(module, _cogview_inputs())


def _cogview_inputs():
    return {
        "hidden_states": (4, 8, 8), "encoder_hidden_states": (8, 8), "timestep": STEP,
        "original_size": (2,), "target_size": (2,), "crop_coords": (2,),
    }  # fmt: skip


def qwen_image():
    from diffusers import QwenImageTransformer2DModel

    module = QwenImageTransformer2DModel(
        patch_size=2, in_channels=16, out_channels=4, num_layers=2, attention_head_dim=16,
        num_attention_heads=3, joint_attention_dim=16, axes_dims_rope=(8, 4, 4),
    )  # fmt: skip
    inputs = {"hidden_states": (16, 16), "encoder_hidden_states": (7, 16), "timestep": times}
    return Case(module, inputs, {"img_shapes": [(1, 4, 4)], "encoder_hidden_states_mask": None})


def stable_audio():
    from diffusers import StableAudioDiTModel

    module = StableAudioDiTModel(
        sample_size=4, in_channels=3, num_layers=2, attention_head_dim=4, num_attention_heads=2,
        num_key_value_attention_heads=2, out_channels=3, cross_attention_dim=4, time_proj_dim=8,
        global_states_input_dim=8, cross_attention_input_dim=4,
    )  # fmt: skip
    inputs = {
        "hidden_states": (3, 12), "timestep": times, "encoder_hidden_states": (7, 4),
        "global_hidden_states": (1, 8),
    }  # fmt: skip
    angles = torch.randn(13, 2, generator=torch.Generator().manual_seed(0))
    return Case(module, inputs, {"rotary_embedding": (angles.cos(), angles.sin())})


NETWORKS = {
    "DiTTransformer2DModel": dit,
    "SD3Transformer2DModel": sd3,
    "FluxTransformer2DModel": flux,
    "ChromaTransformer2DModel": chroma,
    "PixArtTransformer2DModel": pixart,
    "Transformer2DModel": transformer2d,
    "Transformer2DModel, VQ-Diffusion": vq_diffusion,
    "UVit2DModel": uvit,
    "PriorTransformer": prior,
    "HunyuanDiT2DModel": hunyuan,
    "AuraFlowTransformer2DModel": auraflow,
    "SanaTransformer2DModel": sana,
    "LuminaNextDiT2DModel": lumina,
    "Lumina2Transformer2DModel": lumina2,
    "CogView3PlusTransformer2DModel": cogview3,
    "CogView4Transformer2DModel": cogview4,
    "QwenImageTransformer2DModel": qwen_image,
    "StableAudioDiTModel": stable_audio,
}
