"""Convolutions and linear layers of a recorded network, as C++ runs them."""

import pytest
import torch
from accuracy import assert_accurate
from memory import before_a_wall, same
from torch.nn import functional as F

from diffusion_engine import _cpu
from diffusion_engine.testing.plain import product

SILU, GELU, GELU_TANH, RELU = 1, 2, 3, 4
ACTIVATIONS = {
    0: lambda y: y,
    SILU: F.silu,
    GELU: F.gelu,
    GELU_TANH: lambda y: F.gelu(y, approximate="tanh"),
    RELU: F.relu,
}


@pytest.fixture(params=_cpu.isas())
def isa(request):
    before = _cpu.isa()
    _cpu.set_isa(request.param)
    yield request.param
    _cpu.set_isa(before)


class Layer:
    """A convolution of random values; `hold` keeps what its parameters point at."""

    def __init__(
        self, batch, channels, columns, size, kernel=(1, 1), stride=(1, 1), pad=(0, 0, 0, 0), dilation=(1, 1),
        upsample=1, groups=1, activation=0, extras=(), wide=0,
    ):  # fmt: skip
        torch.manual_seed(0)
        self.groups, self.stride, self.dilation, self.upsample = groups, stride, dilation, upsample
        self.kernel, self.pad, self.activation, self.wide = kernel, pad, activation, wide
        self.x = torch.randn(batch, channels, *size)
        self.weight = torch.randn(columns, channels // groups, *kernel)
        top, left, bottom, right = pad
        edges = [
            (n * upsample + before + after - d * (k - 1) - 1) // s + 1
            for n, k, s, d, before, after in zip(
                size, kernel, stride, dilation, (top, left), (bottom, right), strict=True
            )
        ]
        self.out_size = tuple(edges)
        shapes = {
            "bias": (columns,),
            "shift": (batch, columns),
            "gate": (batch, columns),
            "residual": (batch, columns, *edges),
        }
        self.extras = {name: torch.randn(shapes[name]) for name in extras}

    def padded(self, x):
        top, left, bottom, right = self.pad
        if self.upsample == 2:
            x = x.repeat_interleave(2, -1).repeat_interleave(2, -2)
        return F.pad(x, (left, right, top, bottom))

    def followers(self, y, like=lambda t: t):
        extra = {name: like(t) for name, t in self.extras.items()}
        if "bias" in extra:
            y = y + extra["bias"][:, None, None]
        if "shift" in extra:
            y = y + extra["shift"][:, :, None, None]
        y = ACTIVATIONS[self.activation](y)
        if "gate" in extra:
            y = y * extra["gate"][:, :, None, None]
        return y + extra["residual"] if "residual" in extra else y

    def exact(self):
        y = F.conv2d(
            self.padded(self.x.double()),
            self.weight.double(),
            None,
            self.stride,
            0,
            self.dilation,
            self.groups,
        )
        return self.followers(y, lambda t: t.double())

    def plain(self):
        windows = F.unfold(self.padded(self.x), self.kernel, self.dilation, 0, self.stride)
        grouped = windows.unflatten(1, (self.groups, -1)).movedim(1, 0)
        weights = self.weight.flatten(1).unflatten(0, (self.groups, -1))
        y = torch.cat([product(w, g) for w, g in zip(weights, grouped, strict=True)], 1)
        return self.followers(y.unflatten(2, self.out_size))

    def rows(self, x):
        """[B, C, H, W] as rows of channels, in a wider tensor if wanted; and (address, strides)."""
        batch, channels, height, width = x.shape
        rows = torch.full((batch, height * width, channels + self.wide), torch.nan)
        part = before_a_wall(rows)[..., self.wide :]
        part.copy_(x.flatten(2).mT)
        return part, (part.data_ptr(), part.stride(0), part.stride(1))

    def describe(self, p, only):
        """Fills what the parameters of all kinds of convolutions have; what they point at."""
        x = self.x[only]
        p.batch, p.channels, p.height, p.width = x.shape
        p.out_channels, p.upsample, p.activation = len(self.weight), self.upsample, self.activation
        out, p.out = self.rows(x.new_full((len(x), len(self.weight), *self.out_size), torch.nan))
        kept, p.x = self.rows(x)
        hold = [out, kept]
        for name, values in self.extras.items():
            value = before_a_wall(values if name == "bias" else values[only])
            if name == "bias":
                p.bias = value.data_ptr()
            elif name == "residual":
                value, p.residual = self.rows(value)
            else:
                setattr(p, name, (value.data_ptr(), value.stride(0)))
            hold.append(value)
        return hold

    def picture(self, hold):
        return hold[0].mT.unflatten(2, self.out_size)

    def run(self, threads=1, only=slice(None)):
        p = _cpu.ConvParams()
        hold = self.describe(p, only)
        p.kernel_height, p.kernel_width = self.kernel
        p.out_height, p.out_width = self.out_size
        p.stride_y, p.stride_x = self.stride
        p.pad_top, p.pad_left = self.pad[:2]
        p.dilation_y, p.dilation_x = self.dilation
        p.groups = self.groups
        packed = before_a_wall(pack(self.weight, self.groups))
        p.weight = packed.data_ptr()
        _cpu.run_task(p, threads)
        return self.picture(hold)


def pack(weight, groups=1):
    columns, channels, *kernel = weight.shape
    sizes = (columns, channels * groups, torch.Size(kernel).numel(), groups)
    packed = torch.full((_cpu.conv_packed_size(*sizes),), torch.nan)
    _cpu.conv_pack(weight.data_ptr(), *sizes, packed.data_ptr())
    return packed


AROUND = {"kernel": (3, 3), "pad": (1, 1, 1, 1)}
ALL = ("bias", "shift", "gate", "residual")
LAYERS = {
    "one": dict(batch=1, channels=1, columns=1, size=(1, 1)),
    "1x1": dict(batch=2, channels=130, columns=70, size=(5, 7), extras=("bias",)),
    "linear": dict(batch=3, channels=512, columns=33, size=(1, 1), extras=("bias", "residual")),
    "linear of rows": dict(batch=2, channels=400, columns=130, size=(1, 77)),
    "3x3": dict(batch=2, channels=32, columns=48, size=(9, 7), **AROUND),
    "3x3, wide": dict(batch=2, channels=40, columns=20, size=(6, 6), **AROUND, wide=24, extras=("residual",)),
    "strided": dict(batch=2, channels=19, columns=35, size=(9, 8), kernel=(3, 3), stride=(2, 2),
                    pad=(0, 0, 1, 1)),
    "7x7": dict(batch=1, channels=3, columns=64, size=(12, 11), kernel=(7, 7), pad=(3, 3, 3, 3)),
    "7x7 of a small map": dict(batch=2, channels=5, columns=3, size=(2, 2), kernel=(7, 7), pad=(3, 3, 3, 3)),
    "1-D": dict(batch=2, channels=20, columns=20, size=(1, 16), kernel=(1, 5), pad=(0, 2, 0, 2)),
    "one channel": dict(batch=2, channels=1, columns=17, size=(8, 8), **AROUND),
    "to three": dict(batch=2, channels=70, columns=3, size=(8, 8), **AROUND, extras=("bias",)),
    "to four, long": dict(batch=2, channels=130, columns=4, size=(5, 3), **AROUND, extras=ALL),
    "to five": dict(batch=2, channels=16, columns=5, size=(3, 3), **AROUND),
    "dilated": dict(batch=1, channels=9, columns=10, size=(11, 9), kernel=(3, 3), dilation=(2, 3),
                    pad=(2, 3, 2, 3)),
    "upsampled": dict(batch=2, channels=24, columns=16, size=(4, 5), **AROUND, upsample=2),
    "upsampled, strided": dict(batch=1, channels=5, columns=6, size=(4, 5), kernel=(3, 2), stride=(2, 1),
                               pad=(1, 0, 1, 1), upsample=2),
    "uneven": dict(batch=2, channels=7, columns=6, size=(5, 6), kernel=(4, 2), stride=(1, 3),
                   pad=(3, 0, 2, 1)),
    "groups": dict(batch=2, channels=24, columns=36, size=(6, 6), **AROUND, groups=4,
                   extras=("bias", "residual")),
    "depthwise": dict(batch=2, channels=37, columns=37, size=(7, 7), kernel=(3, 3), stride=(2, 1),
                      pad=(1, 1, 1, 1), groups=37, extras=("bias", "residual"), wide=3),
    "depthwise, twice as many": dict(batch=2, channels=5, columns=10, size=(6, 6), kernel=(3, 3), groups=5),
    "everything": dict(batch=3, channels=33, columns=67, size=(5, 4), **AROUND, wide=5, activation=SILU,
                       extras=ALL),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_accuracy(isa, name):
    layer = Layer(**LAYERS[name])
    assert_accurate(layer.run(), layer.plain(), layer.exact())


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("columns", [1, 37])
def test_activations(isa, activation, columns):
    layer = Layer(2, 50, columns, (3, 3), activation=activation, extras=ALL)
    layer.weight *= 0.3
    assert_accurate(layer.run(), layer.plain(), layer.exact())


@pytest.mark.parametrize("channels", [256, 1500])
@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize("size", [(1, 1), (4, 4), (9, 13)], ids=str)
def test_same_bits_alone_and_on_any_threads(isa, channels, threads, size):
    layer = Layer(15, channels, 160, size, activation=SILU, extras=ALL)
    want = layer.run()
    assert same(layer.run(threads), want)
    for b in (0, 7, 14):
        assert same(layer.run(threads, slice(b, b + 1))[0], want[b])
        assert same(layer.run(threads, slice(b, b + 4))[0], want[b])


@pytest.mark.parametrize("name", LAYERS)
def test_any_layer_has_the_same_bits_alone(name):
    layer = Layer(**LAYERS[name])
    want = layer.run()
    for b in range(len(want)):
        assert same(layer.run(2, slice(b, b + 1))[0], want[b])
