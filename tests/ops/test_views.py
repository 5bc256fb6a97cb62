"""Tensors of network ops that are views: the values of a copy, or a sentence."""

import pytest
import torch

from diffusion_engine.ops.attention import AttentionArgs
from diffusion_engine.ops.conv3x3 import Conv3x3Args, pack
from diffusion_engine.ops.functional import attention, conv3x3, group_norm
from diffusion_engine.ops.group_norm import GroupNormArgs
from diffusion_engine.ops.noise import NoiseArgs
from diffusion_engine.ops.registry import objection

close = torch.testing.assert_close


def per_channel(kind):
    """[2, 24] of the kind, and the same in the shape of images."""
    made = {
        "every second": torch.randn(2, 48)[:, ::2],
        "transposed": torch.randn(24, 2).T,
        "one for all channels": torch.randn(2, 1).expand(2, 24),
        "one for all samples": torch.randn(1, 24).expand(2, 24),
    }
    return made[kind]


@pytest.mark.parametrize("backend, size", [("cpp", (1, 1)), ("cpp", (3, 3)), ("triton", (1, 1))])
@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize(
    "kind", ["every second", "transposed", "one for all channels", "one for all samples"]
)
def test_residuals_of_one_value_per_channel(backend, size, last, kind):
    torch.manual_seed(0)
    x, residual = torch.randn(2, 24, *size), per_channel(kind)
    x = x.to(memory_format=torch.channels_last) if last else x
    image = residual[:, :, None, None]
    want = group_norm(x, 4, residual=image.expand(x.shape).contiguous(), backend="torch")
    for given in (residual, image.expand(x.shape)):
        close(group_norm(x, 4, residual=given, backend=backend), want)


def negated(x):
    """-x, as torch makes it of a conjugate's imaginary part: the sign is not in memory."""
    return torch._neg_view(x)


def test_negated_views():
    torch.manual_seed(0)
    x, weight, q = torch.randn(2, 8, 4, 4), torch.randn(8, 8, 3, 3), torch.randn(1, 2, 5, 16)
    packed = pack(weight, 2)
    calls = {
        "group_norm": lambda x, q: group_norm(x, 2, torch.arange(8.0), residual=x),
        "attention": lambda x, q: attention(q, q, q),
        "conv3x3": lambda x, q: conv3x3(x, weight, packed),
    }
    for name, call in calls.items():
        call(x, q)  # the launch that is kept for tensors of this kind is another one
        close(call(negated(x), negated(q)), call(-x, -q), msg=name)
    args = GroupNormArgs(negated(x), torch.empty_like(x))
    for backend in ("cpp", "triton"):
        assert "x is a negated view" in objection("group_norm", backend, args)


def test_what_is_written_has_memory_of_its_own():
    x, q = torch.zeros(2, 8, 4, 4), torch.zeros(2, 2, 5, 16)
    weight = torch.zeros(8, 8, 3, 3)
    shared = torch.zeros(2, 8, 1, 1).expand(2, 8, 4, 4)
    makers = (
        lambda: GroupNormArgs(x, shared),
        lambda: GroupNormArgs(x, x, residual=x, summed=shared),
        lambda: AttentionArgs(q, q, q, q[:1].expand(2, 2, 5, 16)),
        lambda: Conv3x3Args(x, weight, pack(weight, 2), None, None, shared),
        lambda: NoiseArgs(shared, torch.zeros(2, dtype=torch.int64)),
    )
    for make in makers:
        with pytest.raises(ValueError, match=r"whose elements share memory: shape .* contiguous"):
            make()
