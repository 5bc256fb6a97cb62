"""Group norm of rows of channels: accuracy, the same bits in any batch, on any threads, in any order."""

from dataclasses import dataclass

import pytest
import torch
from accuracy import assert_accurate
from memory import same
from native_rows import cpu, fill, neighbours_kept, placed, rows, strided
from torch import Tensor
from torch.nn import functional as F

from diffusion_engine.testing import plain

SILU = 1
ACTIVATIONS = (
    lambda y: y, F.silu, F.gelu, lambda y: F.gelu(y, approximate="tanh"), F.relu,
)  # fmt: skip


@dataclass
class Case:
    x: Tensor  # [B, rows, C]
    groups: int
    weight: Tensor | None = None
    bias: Tensor | None = None
    scale: Tensor | None = None  # [B, C]
    shift: Tensor | None = None
    activation: int = 0
    unit: float = 1.0
    eps: float = 1e-5


def make(batch, count, channels, groups, options="wbs", mean=0.0, seed=0):
    """options: letters of w weight, b bias, m scale and shift, s silu."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, count, channels, generator=draw) * 3 + mean
    x += torch.randn(channels, generator=draw) * 2
    case = Case(x, groups, activation=SILU * ("s" in options))
    if "w" in options:
        case.weight = torch.randn(channels, generator=draw)
    if "b" in options:
        case.bias = torch.randn(channels, generator=draw)
    if "m" in options:
        both = torch.randn(batch, 2 * channels, generator=draw)
        case.scale, case.shift = both.chunk(2, dim=1)
    return case


def run(case, threads=1, gap=0, in_place=False, backwards=False):
    x = placed(case.x, gap)
    out = x if in_place else strided(*x.shape, gap=gap)
    batch, count, channels = x.shape
    p = fill(
        cpu().NormGroupsParams(),
        batch=batch, rows=count, channels=channels, groups=case.groups, eps=case.eps,
        unit=case.unit, activation=case.activation, x=rows(x), out=rows(out),
    )  # fmt: skip
    for name in ("weight", "bias"):
        if (tensor := getattr(case, name)) is not None:
            setattr(p, name, tensor.data_ptr())
    for name in ("scale", "shift"):
        if (tensor := getattr(case, name)) is not None:
            setattr(p, name, (tensor.data_ptr(), tensor.stride(0)))
    tasks = cpu().run_task(p, threads, backwards=backwards)
    assert neighbours_kept(out) and neighbours_kept(x)
    assert in_place or same(x, case.x)
    return out.clone(), tasks


def exact(case):
    x = case.x.double().unflatten(2, (case.groups, -1))
    centred = x - x.mean((1, 3), keepdim=True)
    y = (centred / (centred.square().mean((1, 3), keepdim=True) + case.eps).sqrt()).flatten(2)
    if case.weight is not None:
        y = y * case.weight.double()
    if case.bias is not None:
        y = y + case.bias.double()
    if case.scale is not None:
        y = y * (case.unit + case.scale.double()[:, None]) + case.shift.double()[:, None]
    return ACTIVATIONS[case.activation](y)


def check(case, **options):
    got, tasks = run(case, **options)
    scale = None if case.scale is None else case.scale + (case.unit - 1.0)
    sums = plain.group_norm(
        case.x.mT, case.groups, case.weight, case.bias, case.eps,
        silu=case.activation == SILU, scale=scale, shift=case.shift,
    ).mT  # fmt: skip
    if case.activation != SILU:
        sums = ACTIVATIONS[case.activation](sums.double()).float()
    assert_accurate(got, sums, exact(case))
    return got, tasks


SIZES = [
    (2, 16, 256, 32), (1, 64, 128, 32), (2, 1, 32, 4), (3, 7, 33, 11), (1, 1, 1, 1), (2, 5, 3, 1),
    (1, 130, 130, 10), (2, 63, 5, 5), (1, 65, 72, 24), (1, 1000, 40, 8), (1, 129, 320, 32), (2, 2500, 6, 2),
]  # fmt: skip


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("options", ["", "wb", "wbs", "wbms", "m", "ws"])
def test_accurate(isa, sizes, options):
    check(make(*sizes, options), gap=3)


@pytest.mark.parametrize("mean", [30.0, -1000.0, 1e5])
@pytest.mark.parametrize("sizes", [(1, 256, 64, 16), (2, 200, 24, 1), (1, 5000, 8, 2)], ids=str)
def test_accurate_far_from_zero(isa, sizes, mean):
    check(make(*sizes, "wb", mean=mean), threads=2)


def test_accurate_where_a_map_begins_with_a_black_border(isa):
    case = make(1, 4096, 32, 8, "wb")
    case.x[:, :80] = -300.0
    check(case)


@pytest.mark.parametrize(
    "sizes, threads, tasks",
    [
        ((1, 256, 128, 32), 1, 1), ((1, 256, 128, 32), 2, 1), ((5, 256, 128, 32), 2, 1),
        ((1, 256, 128, 32), 64, 2), ((1, 9000, 64, 8), 2, 2), ((1, 5000, 130, 1), 2, 2),
        ((1, 150, 5, 1), 2, 2), ((1, 60, 5, 1), 2, 1),
    ],
    ids=str,
)  # fmt: skip
def test_tasks(isa, sizes, threads, tasks):
    """Two where slices of channels are too few for the threads or too large for a cache."""
    assert check(make(*sizes), threads=threads)[1] == tasks


@pytest.mark.parametrize(
    "sizes", [*SIZES, (1, 9000, 64, 8), (1, 5000, 130, 1), (1, 500, 513, 27)], ids=str
)
def test_same_bits_in_any_batch_on_any_threads(isa, sizes):
    case = make(3, *sizes[1:], "wbms")
    want, _ = run(case)
    for threads in (1, 2, 3, 7, 33):
        for options in ({}, {"backwards": True}, {"in_place": True}, {"gap": 5}):
            assert torch.equal(run(case, threads, **options)[0], want)
    for b in (2, 0, 1):
        parts = (case.x[b : b + 1], case.groups, case.weight, case.bias)
        alone = Case(*parts, case.scale[b : b + 1], case.shift[b : b + 1], case.activation)
        for threads in (1, 2, 64):
            assert torch.equal(run(alone, threads)[0][0], want[b])


@pytest.mark.parametrize("activation", range(5))
def test_activations(isa, activation):
    case = make(2, 7, 40, 4, "wbm")
    case.activation = activation
    check(case)


def test_a_factor_instead_of_a_scale(isa):
    case = make(2, 20, 24, 3, "wbms")
    case.unit = 0.0
    check(case)


def test_one_scale_for_all_samples(isa):
    case = make(3, 20, 24, 3, "wbm")
    case.scale, case.shift = (t[:1].expand(3, -1) for t in (case.scale, case.shift))
    check(case)


def test_a_constant_group_is_finite(isa):
    case = make(1, 70, 16, 4)
    case.x[:, :, :4] = 1e4
    got, _ = run(case)
    assert torch.allclose(got[0, :, :4], F.silu(case.bias[:4]))
    assert got.isfinite().all()


def test_nan_stays_in_its_group(isa):
    case = make(2, 70, 48, 4)
    clean, _ = run(case)
    case.x[1, 3, 13] = torch.nan
    got, _ = run(case)
    assert got[1, :, 12:24].isnan().all()
    got[1, :, 12:24] = clean[1, :, 12:24]
    assert torch.equal(got, clean)


@pytest.mark.parametrize(
    "field, value", [("groups", 3), ("channels", 0), ("rows", 0), ("batch", 0)]
)
def test_refusals(field, value):
    x = torch.zeros(1, 2, 4)
    p = fill(
        cpu().NormGroupsParams(), batch=1, rows=2, channels=4, groups=2, x=rows(x), out=rows(x)
    )
    setattr(p, field, value)
    with pytest.raises(ValueError, match="norm_groups"):
        cpu().run_task(p)
