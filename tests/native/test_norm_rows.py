"""Layer norm, RMS norm, softmax and sums of rows: accuracy, the same bits in any batch and on any threads."""

import pytest
import torch
from accuracy import assert_accurate
from memory import before_a_wall, same
from native_rows import cpu, fill, neighbours_kept, placed, rows, strided
from torch.nn import functional as F

from diffusion_engine.testing.plain import product

SIZES = [
    (1, 1, 1), (2, 3, 5), (1, 7, 16), (3, 1, 33), (2, 9, 130), (1, 40, 320), (2, 17, 77), (1, 5, 1536),
    (1, 3, 9001),
]  # fmt: skip


def drawn(*shape, seed=0, mean=0.0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 2 + mean


def run(name, x, out=None, threads=1, gap=0, backwards=False, **fields):
    """out  None: x's own memory"""
    batch, count, channels = x.shape
    given = placed(x, gap)
    to = given if out is None else strided(*out, gap=gap)
    p = fill(
        getattr(cpu(), name)(),
        batch=batch,
        rows=count,
        channels=channels,
        x=rows(given),
        out=rows(to),
    )
    cpu().run_task(fill(p, **fields), threads, backwards=backwards)
    assert neighbours_kept(to) and (out is None or same(given, x))
    return to.clone()


class Norm:
    """options: letters of w weight, b bias, m scales and shifts of samples, u factors, s SiLU."""

    def __init__(self, sizes, options, rms=False, mean=0.0, eps=1e-5):
        batch, _, channels = sizes
        self.x, self.eps, self.rms, self.options = drawn(*sizes, mean=mean), eps, rms, options
        self.weight = drawn(channels, seed=1) if "w" in options else None
        self.bias = drawn(channels, seed=2) if "b" in options else None
        self.scale = self.shift = None
        if "m" in options:
            self.scale, self.shift = drawn(batch, 1, 2 * channels, seed=3).chunk(2, 2)

    def run(self, part=slice(None), threads=1, in_place=False, **options):
        fields = {}
        for name in ("weight", "bias"):
            if (tensor := getattr(self, name)) is not None:
                fields[name] = tensor.data_ptr()
        for name in ("scale", "shift"):
            if (tensor := getattr(self, name)) is not None:
                fields[name] = (tensor[part].data_ptr(), tensor.stride(0))
        x, unit = self.x[part], float("u" not in self.options)
        return run(
            "NormRowsParams", x, None if in_place else x.shape, threads,
            rms=self.rms, eps=self.eps, unit=unit, activation=int("s" in self.options), **fields, **options,
        )  # fmt: skip

    def of(self, x, exact):
        """From left to right in float32, or in float64."""

        def mean(values):
            return values.mean(2, keepdim=True) if exact else product(values, one) / values.shape[2]

        one = torch.ones(x.shape[2], 1)
        given = [
            t if t is None else t.to(x.dtype)
            for t in (self.weight, self.bias, self.scale, self.shift)
        ]
        weight, bias, scale, shift = given
        y = x if self.rms else x - mean(x)
        y = y / (mean(y * y) + self.eps).double().sqrt().to(x.dtype)
        y = y if weight is None else y * weight
        y = y if bias is None else y + bias
        if scale is not None:
            y = y * (scale if "u" in self.options else 1 + scale) + shift
        return F.silu(y.double()).to(x.dtype) if "s" in self.options else y

    def check(self, **options):
        got = self.run(**options)
        assert_accurate(got, self.of(self.x, False), self.of(self.x.double(), True))


@pytest.mark.parametrize("rms", [False, True])
@pytest.mark.parametrize("options", ["", "w", "wb", "m", "wbm", "mu", "wbs"])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_norms_are_accurate(isa, sizes, options, rms):
    Norm(sizes, options, rms).check(threads=2, gap=3)


@pytest.mark.parametrize("mean", [100.0, -1e5])
@pytest.mark.parametrize("sizes", [(1, 5, 64), (2, 9, 130), (1, 5, 1536)], ids=str)
def test_norms_are_accurate_far_from_zero(isa, sizes, mean):
    Norm(sizes, "wb", mean=mean).check()


@pytest.mark.parametrize("options", ["wbm", "s"])
@pytest.mark.parametrize("sizes", [*SIZES, (1, 700, 64)], ids=str)
def test_norms_have_the_same_bits(isa, sizes, options):
    norm = Norm((3, *sizes[1:]), options)
    want = norm.run()
    for threads in (1, 2, 3, 7):
        for how in ({}, {"backwards": True}, {"in_place": True}, {"gap": 5}):
            assert same(norm.run(threads=threads, **how), want)
    for b in (2, 0, 1):
        assert same(norm.run(slice(b, b + 1), threads=2)[0], want[b])


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_softmax(isa, sizes):
    x = drawn(*sizes) * 5
    got = run("SoftmaxRowsParams", x, sizes, threads=2, gap=3)
    powers = (x - x.amax(2, keepdim=True)).double().exp().float()
    sums = powers / product(powers, torch.ones(sizes[2], 1))
    assert_accurate(got, sums, x.double().softmax(2))
    assert same(run("SoftmaxRowsParams", x), got)
    for b in range(sizes[0]):
        for threads in (1, 3):
            alone = run("SoftmaxRowsParams", x[b : b + 1], x[:1].shape, threads)
            assert same(alone[0], got[b])


def test_softmax_of_infinite_and_of_large_numbers(isa):
    x = drawn(1, 4, 37)
    x[0, 0, 5:] = -torch.inf
    x[0, 1] *= 1e30
    x[0, 2] = -torch.inf
    x[0, 3, 36] = torch.nan
    got = run("SoftmaxRowsParams", x, x.shape)
    want = x.double().softmax(2)
    assert (got[0, 0, 5:] == 0.0).all()
    assert torch.allclose(got.double(), want, equal_nan=True, atol=1e-6)


@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize("over_rows", [False, True])
@pytest.mark.parametrize("sizes", [*SIZES, (2, 1000, 40), (1, 64, 130), (1, 129, 3)], ids=str)
def test_sums(isa, sizes, over_rows, mean):
    x = drawn(*sizes, mean=0.5)
    batch, count, channels = sizes
    factor = 1.0 / (count if over_rows else channels) if mean else 1.0
    out = (batch, 1, channels) if over_rows else (batch, count, 1)
    got = run("ReduceRowsParams", x, out, threads=2, gap=3, over_rows=over_rows, factor=factor)
    y = x.mT if over_rows else x
    sums = product(y, torch.ones(y.shape[2], 1)) * factor
    exact = y.double().sum(2, keepdim=True) * factor
    assert_accurate(got, *((t.mT if over_rows else t) for t in (sums, exact)))
    for b in range(batch):
        for threads in (1, 3, 16):
            alone = run(
                "ReduceRowsParams", x[b : b + 1], (1, *out[1:]), threads, over_rows=over_rows, factor=factor
            )  # fmt: skip
            assert same(alone[0], got[b])


@pytest.mark.parametrize("channels", [1, 5, 23, 67])
def test_nothing_is_read_beyond_the_tensors(isa, channels):
    """An error here ends the process."""
    x, weight, bias = (
        before_a_wall(drawn(*s)) for s in ((1, 3, channels), (channels,), (channels,))
    )
    fields = {"batch": 1, "rows": 3, "channels": channels, "x": rows(x)}
    norm = {"weight": weight.data_ptr(), "bias": bias.data_ptr()}
    for name, more in (
        ("NormRowsParams", norm),
        ("NormGroupsParams", norm),
        ("SoftmaxRowsParams", {}),
        ("ReduceRowsParams", {"over_rows": True}),
        ("ReduceRowsParams", {"over_rows": False}),
    ):
        out = before_a_wall(
            torch.zeros(1, *((1, channels) if more == {"over_rows": True} else (3, channels)))
        )
        if more == {"over_rows": False}:
            out = before_a_wall(torch.zeros(1, 3, 1))
        cpu().run_task(fill(getattr(cpu(), name)(), **fields, **more, out=rows(out)))


@pytest.mark.parametrize("name", ["NormRowsParams", "SoftmaxRowsParams", "ReduceRowsParams"])
def test_refusals(name):
    with pytest.raises(ValueError, match="needs samples, rows and channels"):
        cpu().run_task(getattr(cpu(), name)())
