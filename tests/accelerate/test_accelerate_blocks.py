"""diffusers' blocks in all their options: the original's result, by the fused ops where they know them."""

import pytest
import torch
from accelerate_cases import close
from optional import needs

from diffusion_engine.accelerate.diffusers import FusedAttention, FusedResnetBlock
from diffusion_engine.accelerate.find import by_class
from diffusion_engine.ops import launches

X, TEMB = torch.randn(2, 16, 6, 4), torch.randn(2, 8)
CONTEXT = torch.randn(2, 5, 24)
RESNETS = {
    "plain": {},
    "wider": {"out_channels": 24},
    "scale and shift": {"time_embedding_norm": "scale_shift"},
    "activated time": {"skip_time_act": True},
    "scaled": {"output_scale_factor": 1.7},
    "no time": {"temb_channels": None},
    "up": {"up": True},
    "down": {"down": True, "out_channels": 24},
    "its own shortcut": {"use_in_shortcut": True},
    "another eps": {"eps": 0.3},
    "other groups": {"groups_out": 8},
}
ATTENTIONS = {
    "self": ({}, {}),
    "cross": ({"cross_attention_dim": 24}, {"encoder_hidden_states": CONTEXT}),
    "images": ({"norm_num_groups": 4, "residual_connection": True}, {}),
    "tokens with a norm": ({"norm_num_groups": 4}, {}),
    "residual": ({"residual_connection": True}, {}),
    "rescaled": ({"rescale_output_factor": 1.7, "residual_connection": True}, {}),
    "bias": ({"bias": True}, {}),
    "no output bias": ({"out_bias": False}, {}),
    "normed text": (
        {"cross_attention_dim": 24, "cross_attention_norm": "layer_norm"}, {"encoder_hidden_states": CONTEXT},
    ),
    "masked": ({}, {"attention_mask": torch.zeros(2, 1, 24).index_fill(2, torch.tensor([0, 3]), -1e4)}),
    "a name that is not read": ({}, {"temb": TEMB}),
}  # fmt: skip
NORMALISES = "it normalises its queries, keys or positions"
REFUSED = {
    "activation": ("resnet", {"non_linearity": "gelu"}, "its activation is GELU, not SiLU"),
    "queries": ("attention", {"qk_norm": "layer_norm"}, NORMALISES),
    "positions": ("attention", {"query_dim": 32, "spatial_norm_dim": 8}, NORMALISES),
    "small heads": ("attention", {"dim_head": 4}, "its heads have 4 elements, not 8 to 256"),
}  # fmt: skip


def randomised(block):
    torch.manual_seed(0)
    for p in block.parameters():
        p.data = 0.3 * torch.randn_like(p)
    return block.eval().requires_grad_(False)


def resnet(**options):
    made = needs("diffusers.models.resnet").ResnetBlock2D
    return randomised(made(**({"in_channels": 16, "temb_channels": 8, "groups": 4} | options)))


def attention(**options):
    made = needs("diffusers.models.attention_processor").Attention
    return randomised(made(**({"query_dim": 16, "heads": 2, "dim_head": 8} | options)))


def fused(monkeypatch, op):
    """A list that tells how often a fused op ran."""
    ran, run = [], launches.call
    monkeypatch.setattr(
        launches, "call", lambda name, *a: (name == op and ran.append(1), run(name, *a))[1]
    )
    return ran


@pytest.mark.parametrize("name", RESNETS)
@torch.no_grad()
def test_resnet_blocks(name, monkeypatch):
    block = resnet(**RESNETS[name])
    replacement, ran = by_class("block", block), fused(monkeypatch, "group_norm")
    assert isinstance(replacement, FusedResnetBlock) and replacement.objection() is None
    temb = None if name == "no time" else TEMB
    close(replacement.forward(X, temb), block(X, temb))
    assert len(ran) == 2
    if temb is not None:  # one for all samples
        close(replacement.forward(X, temb[:1]), block(X, temb[:1]))


@pytest.mark.parametrize("name", ATTENTIONS)
@torch.no_grad()
def test_attention_blocks(name, monkeypatch):
    options, given = ATTENTIONS[name]
    block = attention(**options)
    replacement, ran = by_class("block", block), fused(monkeypatch, "attention")
    assert isinstance(replacement, FusedAttention) and replacement.objection() is None
    x = X if name == "images" else X.flatten(2).transpose(1, 2)
    close(replacement.forward(x, **given), block(x, **given))
    assert len(ran) == (name != "masked")


@pytest.mark.parametrize("name", REFUSED)
def test_blocks_that_compute_something_else(name):
    kind, options, message = REFUSED[name]
    block = {"resnet": resnet, "attention": attention}[kind](**options)
    assert by_class("block", block).objection() == message


def test_parts_that_are_parametrized():
    """They make their weights anew, which the fused forms do not ask for."""

    class Doubled(torch.nn.Module):
        def forward(self, weight):
            return 2.0 * weight

    for part, reason in (
        ("norm1", "its norm is a ParametrizedGroupNorm"),
        ("conv2", "its ParametrizedConv2d is parametrized; remove the parametrization"),
    ):
        block = resnet()
        torch.nn.utils.parametrize.register_parametrization(
            getattr(block, part), "weight", Doubled()
        )
        assert by_class("block", block).objection() == reason


def test_a_missing_time_embedding_is_a_sentence():
    replacement = by_class("block", resnet(time_embedding_norm="scale_shift"))
    with (
        torch.no_grad(),
        pytest.raises(ValueError, match="block: time_embedding_norm='scale_shift' needs temb"),
    ):
        replacement.forward(X, None)
