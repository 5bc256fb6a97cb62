"""Calls of 3x3 convolutions in all their forms: the original's result, fused or not."""

import pytest
import torch
from accelerate_cases import is_close, randomised
from torch import nn
from torch.nn import functional as F

from diffusion_engine.accelerate.conv3x3 import FusedConv3x3, fused_conv
from diffusion_engine.ops.library import register

register()


# Convolutions

CONVS = {
    "3x3": {"kernel_size": 3, "padding": 1},
    "3x3 without padding": {"kernel_size": 3},
    "3x3 apart": {"kernel_size": 3, "padding": 1, "groups": 2},
    "3x3 of every second": {"kernel_size": 3, "padding": 1, "stride": 2},
    "3x3 dilated": {"kernel_size": 3, "padding": 1, "dilation": 2},
    "3x3 wide": {"kernel_size": 3, "padding": 2},
    "1x1": {"kernel_size": 1},
    "3x1": {"kernel_size": (3, 1), "padding": (1, 0)},
}


@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", CONVS)
@torch.no_grad()
def test_calls_of_convolutions(kind, bias, last):
    """Alone, and with what is added: a map in any order or dtype, one value a channel, a row."""
    layer = randomised(nn.Conv2d(8, 6, bias=bias, **CONVS[kind]))
    replacement = fused_conv("conv", layer)
    assert (
        isinstance(replacement, FusedConv3x3) == (kind == "3x3") and replacement.objection() is None
    )
    x = torch.randn(2, 8, 7, 9)
    x = x.contiguous(memory_format=torch.channels_last) if last else x
    want = layer(x)
    is_close(replacement.forward(x), want)
    maps = [
        torch.randn_like(want),
        torch.randn(want.shape).contiguous(memory_format=torch.channels_last),
        torch.randn(want.shape),
        torch.randn(want.shape, dtype=torch.float64),
        torch.randn(want.shape[::-1]).permute(3, 2, 1, 0),
    ]
    if kind == "3x3":
        rows = (2, 6, 1, 1), (1, 6, 7, 9), (9,)
        maps += [torch.randn(shape) for shape in rows]
    for residual in maps:
        got = replacement.add(x, residual)
        assert got.dtype == (want + residual).dtype
        is_close(got, want + residual)


@pytest.mark.parametrize(
    "options", [{"padding": "same"}, {"padding": 1, "padding_mode": "circular"},
                {"padding": 1, "padding_mode": "reflect"}],
)  # fmt: skip
def test_paddings_that_onednn_has_not(options):
    replacement = fused_conv("conv", nn.Conv2d(8, 6, 3, **options).eval())
    assert (
        not isinstance(replacement, FusedConv3x3)
        and "is none of oneDNN's" in replacement.objection()
    )


def strided(layer):
    layer.stride = (2, 2)


def doubled(layer):
    layer._conv_forward = lambda x, w, b: 2.0 * F.conv2d(x, w, b, padding=1)


@pytest.mark.parametrize("change", [strided, doubled])
@torch.no_grad()
def test_a_convolution_that_is_changed_after(change):
    """Its geometry, or its call, which is then torch's own again."""
    layer = randomised(nn.Conv2d(8, 6, 3, padding=1))
    replacement, x = fused_conv("conv", layer), torch.randn(2, 8, 6, 5)
    replacement.forward(x)
    change(layer)
    want = layer(x)
    is_close(replacement.forward(x), want)
    is_close(replacement.add(x, torch.ones_like(want)), want + 1.0)
