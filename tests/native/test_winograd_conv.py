"""Winograd's convolutions of a recorded network, and what follows them."""

import pytest
from accuracy import assert_accurate
from memory import same
from test_conv import ALL, AROUND, SILU, Layer, isa

from diffusion_engine import _cpu
from diffusion_engine.native.weights import Weights
from diffusion_engine.ops.conv3x3 import pack
from diffusion_engine.ops.functional import conv3x3

__all__ = ["isa"]


def run(layer, tile, threads=1, only=slice(None), given=False):
    p = _cpu.WinogradConvParams()
    hold = layer.describe(p, only)
    packed = Weights().panels(layer.weight) if given else pack(layer.weight, tile)
    p.weight, p.tile, p.given = packed.data_ptr(), tile, given
    _cpu.run_task(p, threads)
    return layer.picture(hold)


@pytest.mark.parametrize("tile", [2, 4])
@pytest.mark.parametrize("extras", [(), ("bias",), ("bias", "residual")], ids=str)
def test_bits_of_the_op(isa, tile, extras):
    layer = Layer(3, 70, 37, (9, 11), **AROUND, extras=extras, wide=3)
    extra = layer.extras
    want = conv3x3(
        layer.x,
        layer.weight,
        pack(layer.weight, tile),
        extra.get("bias"),
        extra.get("residual"),
        backend="cpp",
    )
    for threads in (1, 2, 5):
        assert same(run(layer, tile, threads), want)


@pytest.mark.parametrize("tile", [2, 4])
@pytest.mark.parametrize("columns", [5, 16, 37, 64])
@pytest.mark.parametrize("channels", [70, 128, 266])
def test_transforms_a_given_weight(isa, tile, columns, channels):
    layer = Layer(3, channels, columns, (9, 11), **AROUND, extras=ALL, activation=SILU, wide=3)
    layer.weight *= 0.1
    want = run(layer, tile, given=True)
    assert_accurate(want, layer.plain(), layer.exact())
    for threads in (2, 5):
        assert same(run(layer, tile, threads, given=True), want)
    assert same(run(layer, tile, 1, slice(1, 2), given=True)[0], want[1])


@pytest.mark.parametrize("tile", [2, 4])
@pytest.mark.parametrize("upsample", [1, 2])
@pytest.mark.parametrize("size", [(1, 1), (5, 4), (8, 8)], ids=str)
def test_epilogue_and_upsampling(isa, tile, upsample, size):
    layer = Layer(3, 66, 37, size, **AROUND, upsample=upsample, activation=SILU, extras=ALL)
    layer.weight *= 0.1
    want = run(layer, tile)
    assert_accurate(want, layer.plain(), layer.exact())
    for threads in (1, 2, 5):
        assert same(run(layer, tile, threads, slice(1, 2))[0], want[1])


@pytest.mark.parametrize("tile", [2, 4])
def test_upsampled_bits_are_those_of_the_larger_picture(tile):
    layer = Layer(2, 64, 64, (6, 5), **AROUND, upsample=2)
    large = Layer(2, 64, 64, (12, 10), **AROUND)
    large.x = layer.x.repeat_interleave(2, -1).repeat_interleave(2, -2)
    large.weight = layer.weight
    assert same(run(layer, tile), run(large, tile))
