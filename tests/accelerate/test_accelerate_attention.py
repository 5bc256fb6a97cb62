"""Calls of torch's attention layer in all their forms: the original's result, fused or not."""

import pytest
import torch
from accelerate_cases import X, close, is_close, randomised
from torch import nn
from torch.nn import functional as F

from diffusion_engine.accelerate.attention import FusedMultiheadAttention
from diffusion_engine.accelerate.fused_ops import attention_takes, op
from diffusion_engine.accelerate.group_norm import FusedGroupNorm
from diffusion_engine.ops.library import register

register()


# torch's attention layer

TOKENS, TEXT, MORE = torch.randn(3, 2, 5, 16).unbind(0)
OTHER, VALUES = torch.randn(2, 4, 12), torch.randn(2, 4, 20)
ATTENTIONS = {
    "plain": ({}, (TOKENS, TOKENS, TOKENS)),
    "cross": ({}, (TOKENS, TEXT, TEXT)),
    "three": ({}, (TOKENS, TEXT, MORE)),
    "values of their own": ({}, (TOKENS, TOKENS, MORE)),
    "no bias": ({"bias": False}, (TOKENS, TEXT, MORE)),
    "other widths": ({"kdim": 12, "vdim": 20}, (TOKENS, OTHER, VALUES)),
    "tokens first": ({"batch_first": False}, (TOKENS, TEXT, MORE)),
    "unbatched": ({}, (TOKENS[0], TEXT[0], MORE[0])),
}
WAYS = {
    "alone": {"need_weights": False},
    "with weights": {"need_weights": True},
    "weights of each head": {"need_weights": True, "average_attn_weights": False},
    "a mask": {"need_weights": False, "attn_mask": torch.full((5, 5), 1.5).triu(1)},
    "causal": {
        "need_weights": False, "is_causal": True, "attn_mask": torch.full((5, 5), -torch.inf).triu(1),
    },
    "padding": {"need_weights": False, "key_padding_mask": torch.tensor([[False] * 3 + [True] * 2] * 2)},
}  # fmt: skip


@pytest.mark.parametrize("kind", ATTENTIONS)
@torch.no_grad()
def test_calls_of_attention(kind):
    options, given = ATTENTIONS[kind]
    layer = randomised(nn.MultiheadAttention(16, 2, **({"batch_first": True} | options)))
    replacement = FusedMultiheadAttention("attention", layer)
    assert replacement.objection() is None
    for name, way in WAYS.items():
        square = given[0].shape[-2] == given[1].shape[-2]
        if name != "alone" and (kind in ("tokens first", "unbatched") or not square):
            continue
        is_close(replacement.forward(*given, **way), layer(*given, **way))
        is_close(replacement.forward(*given, **way), type(layer).forward(layer, *given, **way))


def test_attention_that_adds_keys_of_its_own():
    for options in ({"add_bias_kv": True}, {"add_zero_attn": True}):
        replacement = FusedMultiheadAttention(
            "attention", nn.MultiheadAttention(16, 2, **options).eval()
        )
        assert "it adds keys of its own" in replacement.objection()


Q, K, V = torch.randn(3, 2, 4, 6, 16).unbind(0)
TAKEN = {
    "plain": (True, (Q, K, V)),
    "other keys": (True, (Q, K[:, :, :5], V[:, :, :5])),
    "bfloat16": (True, (Q.bfloat16(), K.bfloat16(), V.bfloat16())),
    "shared keys": (False, (Q, K[:, :2], V[:, :2])),
    "other values": (False, (Q, K, V[..., :8])),
    "other heads": (False, (Q, K[..., :8], V[..., :8])),
    "another batch": (False, (Q, K[:1], V[:1])),
    "three axes": (False, (Q[0], K[0], V[0])),
    "float64": (False, (Q.double(), K.double(), V.double())),
    "two dtypes": (False, (Q, K, V.bfloat16())),
    "few elements": (False, (Q[..., :4], K[..., :4], V[..., :4])),
    "no queries": (False, (Q[:, :, :0], K, V)),
    "no keys": (False, (Q, K[:, :, :0], V[:, :, :0])),
}


@pytest.mark.parametrize("name", TAKEN)
def test_queries_keys_and_values_that_the_op_takes(name):
    """Where it takes them it computes attention."""
    taken, given = TAKEN[name]
    assert attention_takes(*given) == taken
    if taken:
        close(op("attention")(*given), F.scaled_dot_product_attention(*given))


@torch.no_grad()
def test_a_module_in_training_mode_runs_as_it_is(ran):
    """A part that was put into training mode on purpose, for its dropout."""
    layer = nn.MultiheadAttention(16, 2, dropout=0.5, batch_first=True)
    replacement = FusedMultiheadAttention("attention", layer)
    given = {"query": TOKENS, "key": TEXT, "value": TEXT, "need_weights": False}
    assert (
        not torch.equal(replacement.forward(**given)[0], replacement.forward(**given)[0])
        and not ran
    )
    layer.eval()
    assert (
        torch.equal(replacement.forward(**given)[0], replacement.forward(**given)[0])
        and len(ran) == 2
    )
    norm = FusedGroupNorm("norm", nn.GroupNorm(2, 8))
    for train in (True, False):
        norm.module.train(train)
        ran.clear()
        norm.forward(X)
        assert ran == ["group_norm"] * (not train)
