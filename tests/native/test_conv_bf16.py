"""Convolutions and linear layers in bf16, by the processor's own kernels and by the emulation of AMX."""

import copy

import pytest
import torch
from accuracy import assert_accurate
from memory import before_a_wall, same
from test_bf16_product import kind
from test_conv import ACTIVATIONS, ALL, AROUND, LAYERS, SILU, Layer

from diffusion_engine import _cpu

__all__ = ["kind"]


class HalfLayer(Layer):
    """One whose sums have inputs rounded to bf16."""

    def rounded(self):
        layer = copy.copy(self)
        layer.x, layer.weight = (t.bfloat16().float() for t in (self.x, self.weight))
        return layer

    def exact(self):
        return super(HalfLayer, self.rounded()).exact()

    def plain(self):
        return super(HalfLayer, self.rounded()).plain()

    def run(self, threads=1, only=slice(None), backwards=False, in_place=False):
        p = _cpu.ConvParams()
        hold = self.describe(p, only)
        if in_place:
            value = self.extras["residual"][only]
            hold[0].copy_(value.flatten(2).mT)
            p.residual = p.out
        p.kernel_height, p.kernel_width = self.kernel
        p.out_height, p.out_width = self.out_size
        p.stride_y, p.stride_x = self.stride
        p.pad_top, p.pad_left = self.pad[:2]
        p.dilation_y, p.dilation_x = self.dilation
        p.groups = self.groups
        packed = before_a_wall(pack(self.weight))
        p.half = packed.data_ptr()
        _cpu.run_task(p, threads, 1, backwards)
        self.whole = hold[0]
        return self.picture(hold)


def pack(weight):
    columns, channels, *kernel = weight.shape
    sizes = (columns, channels, torch.Size(kernel).numel())
    packed = torch.full((_cpu.conv_bf16_packed_size(*sizes),), -1, dtype=torch.int16)
    _cpu.conv_bf16_pack(weight.data_ptr(), *sizes, packed.data_ptr())
    return packed


CASES = {name: layer for name, layer in LAYERS.items() if "groups" not in layer} | {
    "linear of few": dict(batch=5, channels=70, columns=100, size=(1, 1), extras=("bias",)),
    "5x5": dict(batch=1, channels=17, columns=33, size=(7, 6), kernel=(5, 5), pad=(2, 2, 2, 2)),
    "5x3, strided": dict(batch=2, channels=33, columns=8, size=(10, 11), kernel=(5, 3), stride=(3, 3),
                         pad=(2, 1, 2, 1)),
    "dilated, strided": dict(batch=1, channels=18, columns=9, size=(13, 12), kernel=(3, 3), dilation=(3, 2),
                             stride=(2, 2), pad=(3, 2, 3, 2)),
    "dilated by its stride": dict(batch=1, channels=6, columns=5, size=(12, 9), kernel=(3, 2),
                                  dilation=(4, 2), stride=(2, 2), pad=(4, 0, 4, 1)),
    "1x1, strided": dict(batch=2, channels=20, columns=5, size=(9, 9), stride=(2, 2)),
    "1x1, padded": dict(batch=2, channels=3, columns=5, size=(3, 4), pad=(1, 2, 0, 1)),
    "1-D, strided": dict(batch=3, channels=40, columns=9, size=(1, 33), kernel=(1, 3), stride=(1, 2),
                         pad=(0, 1, 0, 1), dilation=(1, 2)),
    "1-D, from two lines": dict(batch=2, channels=8, columns=9, size=(2, 9), kernel=(1, 3), pad=(0, 1, 0, 1)),
    "a line, upsampled": dict(batch=2, channels=8, columns=9, size=(1, 9), kernel=(1, 3), pad=(0, 1, 0, 1),
                              upsample=2),
    "a line, around": dict(batch=2, channels=8, columns=9, size=(1, 9), **AROUND),
    "lines wider than an item's": dict(batch=2, channels=5, columns=40, size=(3, 133), **AROUND, extras=ALL),
    "several items": dict(batch=3, channels=24, columns=70, size=(19, 33), **AROUND, extras=ALL),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_accuracy(kind, name):
    layer = HalfLayer(**CASES[name])
    assert_accurate(layer.run(), layer.plain(), layer.exact())


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations(kind, activation):
    layer = HalfLayer(2, 50, 37, (3, 3), activation=activation, extras=ALL)
    layer.weight *= 0.3
    assert_accurate(layer.run(), layer.plain(), layer.exact())


@pytest.mark.parametrize("name", CASES)
def test_same_bits_alone_on_any_threads_and_in_any_order(kind, name):
    layer = HalfLayer(**CASES[name])
    want = layer.run()
    assert same(layer.run(3, backwards=True), want)
    for b in range(len(want)):
        assert same(layer.run(2, slice(b, b + 1))[0], want[b])


BATCHES = {
    "a list": dict(channels=40, columns=100, size=(4, 4), **AROUND),
    "strips": dict(channels=33, columns=100, size=(8, 8), **AROUND),
    "linear": dict(channels=300, columns=200, size=(1, 1)),
    "pixels": dict(channels=64, columns=70, size=(5, 13)),
    "signal": dict(channels=40, columns=40, size=(1, 70), kernel=(1, 5), pad=(0, 2, 0, 2)),
}  # fmt: skip


@pytest.mark.parametrize("name", BATCHES)
def test_same_bits_in_any_batch(kind, name):
    layer = HalfLayer(11, **BATCHES[name], activation=SILU, extras=ALL)
    want = layer.run()
    assert_accurate(want, layer.plain(), layer.exact())
    for threads in (2, 8):
        assert same(layer.run(threads), want)
    for b in (0, 7):
        assert same(layer.run(2, slice(b, b + 4)), want[b : b + 4])
    layer.x[:5] = layer.x[6:] = torch.nan
    assert same(layer.run(2)[5], want[5])


def test_what_is_not_a_number_reaches_what_reads_it(kind):
    layer = HalfLayer(2, 20, 40, (8, 9), **AROUND)
    clean = layer.run()
    layer.x[1, 3, 4, 5] = torch.nan
    got = layer.run(2)
    reached = got.isnan()
    assert reached[1, :, 3:6, 4:7].all() and reached.sum() == 40 * 9
    assert same(got[~reached], clean[~reached])


def test_out_may_be_the_residual(kind):
    layer = HalfLayer(3, 40, 70, (5, 9), **AROUND, extras=ALL, activation=SILU)
    assert same(layer.run(2, in_place=True), layer.run())


def test_touches_no_other_memory(kind):
    layer = HalfLayer(3, 21, 37, (6, 7), **AROUND, wide=11)
    layer.run(2)
    around = layer.whole._base.view(3, 42, 48)
    assert around[..., :11].isnan().all() and not around[..., 11:].isnan().any()


def test_packed_weight():
    weight = torch.randn(35, 3, 2, 1)
    weight[0, 0], weight[1, 1, 0] = torch.nan, 1 + 2.0**-8  # a tie, to even
    packed = pack(weight).view(torch.bfloat16).view(2, 2, 1, 16, 32, 2)
    want = torch.zeros(64, 2, 32)
    want[:35, :, :3] = weight.flatten(2).mT
    want = want.view(2, 32, 2, 1, 16, 2).permute(0, 2, 3, 4, 1, 5)
    assert same(packed.nan_to_num(7.0), want.bfloat16().nan_to_num(7.0))


def test_refuses_groups(kind):
    layer = HalfLayer(1, 8, 8, (3, 3), groups=2)
    with pytest.raises(ValueError, match="has one group; it was given 2"):
        layer.run()
