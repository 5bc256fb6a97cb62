"""Attention in bf16: error, masks, the same bits in any batch and on any threads, by each kind of product.

What rounding may do is derived. Queries, keys and values are rounded in the reference too. A weight p_j
becomes p_j (1 + e_j) with |e_j| <= u / (1 + u), u = 2^-8, in the sums as in their total, so that a result
is off by sum e_j p_j (v_j - out) / sum p_j (1 + e_j), at most u sum p_j |v_j - out|, and that mean is at
most the root of sum p_j v_j^2 - out^2. The rest is float32, and has the yardstick of float32.
"""

import pytest
import torch
from attend_cases import Case, exact_weights, make, masks, plain_sums, run, sample_of
from memory import before_a_wall, same

from diffusion_engine import _cpu
from diffusion_engine.testing.plain import allowed

UNIT = 2.0**-8  # half the distance from 1 to the next number of bf16

SIZES = [
    (2, 4, 16, 16, 32), (1, 2, 64, 77, 64), (2, 3, 5, 7, 9), (1, 1, 1, 1, 8), (1, 2, 33, 129, 40),
    (1, 1, 49, 49, 13), (2, 1, 130, 3, 1), (1, 1, 40, 300, 160), (1, 1, 70, 256, 72),
]  # fmt: skip


@pytest.fixture(params=[*_cpu.bf16s(), "emulated"])
def kind(request):
    _cpu.set_bf16(request.param)
    return request.param


def attend(case, threads=1, **options):
    return run(case, threads, bf16=True, **options)


def rounded(case):
    q, k, v = (t.bfloat16().float() for t in (case.q, case.k, case.v))
    return Case(q, k, v, case.scale, case.mask)


def check(case, threads=1):
    got = attend(case, threads)
    assert torch.isfinite(got).all()
    given = rounded(case)
    weights, v = exact_weights(given), given.v.double()
    want = weights @ v
    spread = (weights @ v.square() - want.square()).clamp(min=0.0).sqrt()
    bound = UNIT * spread + allowed(plain_sums(given), want, torch.float32)
    excess = ((got.double() - want).abs() / bound).max().item()
    assert excess <= 1.0, f"an error is {excess:.3g} times what rounding may do"
    return got


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("scale", [None, -0.1, 0.0])
def test_error_is_that_of_rounding(kind, sizes, scale):
    check(make(*sizes, scale), threads=2)


@pytest.mark.slow
def test_error_is_that_of_rounding_at_length(kind):
    check(make(1, 1, 40, 4096, 40))


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("shared", ["", "b", "q", "bhq", "hq"])
def test_error_with_a_mask(kind, sizes, shared):
    case = make(*sizes)
    case.mask = masks(case, shared)
    check(case, threads=2)


@pytest.mark.parametrize("scale", [-0.3, 0.0, 0.7])
def test_a_mask_is_added_after_the_scale(kind, scale):
    case = make(2, 2, 20, 30, 16, scale)
    case.mask = masks(case, "bhq")
    check(case)


@pytest.mark.parametrize("keys", [2, 7, 130])
def test_a_mean_of_equal_values_is_their_value(kind, keys):
    """The total is of the rounded weights: what is left are two sums in float32."""
    case = make(1, 2, 40, keys, 24)
    case.v[:] = 1.0
    assert (attend(case) - 1.0).abs().max() <= keys * torch.finfo(torch.float32).eps


@pytest.mark.parametrize("keys", [5, 64, 77, 300])
def test_keys_that_are_masked_out_weigh_nothing(kind, keys):
    case = make(2, 2, 37, keys, 24)
    kept = torch.rand(2, 1, 37, keys, generator=torch.Generator().manual_seed(2)) < 0.3
    kept[..., : keys // 2] = False
    kept[..., -1] = True
    case.mask = torch.zeros(kept.shape).masked_fill(~kept, -torch.inf)
    clean = check(case)
    case.k[:, :, : keys // 2] = 1e4
    case.v[:, :, : keys // 2] = 1e30
    assert torch.equal(attend(case), clean)


@pytest.mark.parametrize("keys", [70, 200])
def test_a_query_without_any_key_becomes_zero(kind, keys):
    case = make(1, 2, 9, keys, 16)
    case.mask = torch.zeros(9, keys)[None, None]
    clean = attend(case)
    case.mask[:, :, 4] = -torch.inf
    got = attend(case)
    assert (got[:, :, 4] == 0.0).all()
    assert torch.equal(got[:, :, :4], clean[:, :, :4])


@pytest.mark.parametrize("least", [-1e4, torch.finfo(torch.float32).min])
def test_masks_of_large_negative_numbers(kind, least):
    case = make(1, 2, 20, 150, 16)
    case.mask = torch.where(torch.arange(150) < 90, 0.0, least)[None, None, None]
    short = Case(case.q, case.k[:, :, :90], case.v[:, :, :90], case.scale)
    assert torch.allclose(attend(case), check(short), rtol=0, atol=1e-6)
    case.mask = case.mask.flip(-1).contiguous()
    short = Case(case.q, case.k[:, :, 60:], case.v[:, :, 60:], case.scale)
    check(short)
    check(case)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("masked", [False, True])
def test_same_bits_in_any_batch_on_any_threads(kind, sizes, masked):
    case = make(3, *sizes[1:])
    if masked:
        case.mask = masks(case, "bq")
    want = attend(case)
    for threads in (1, 2, 7):
        for options in ({}, {"backwards": True}, {"gap": 0}):
            assert same(attend(case, threads, **options), want)
    for b in (2, 0, 1):
        for threads in (1, 16):
            assert same(attend(sample_of(case, b), threads)[0], want[b])


@pytest.mark.parametrize("queries", [1, 31, 70])
def test_a_query_has_the_same_bits_beside_any_others(kind, queries):
    case = make(1, 2, 130, 90, 24)
    want = attend(case)
    part = Case(case.q[:, :, 60 : 60 + queries], case.k, case.v, case.scale)
    assert same(attend(part), want[:, :, 60 : 60 + queries])


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_what_lies_around_the_tensors_counts_nothing(kind, sizes):
    case = make(*sizes)
    want = attend(case)
    batch, count, _, dim = case.q.shape
    for name in ("q", "k", "v"):
        x = getattr(case, name)
        room = torch.full((batch, x.shape[2] + 40, count, dim + 70), float("nan"))
        room = room.transpose(1, 2)[:, :, : x.shape[2], :dim]
        setattr(case, name, room.copy_(x))
    assert same(attend(case), want)


@pytest.mark.parametrize("dim", [3, 8, 24, 40])
@pytest.mark.parametrize("queries", [1, 15, 23])
def test_nothing_is_read_beyond_the_tensors(kind, dim, queries):
    """An error here ends the process."""
    case = make(1, 1, queries, 5, dim)
    case.mask = masks(case, "q")
    walled = Case(*(before_a_wall(t.contiguous()) for t in (case.q, case.k, case.v)), case.scale)
    walled.mask = before_a_wall(case.mask)
    assert same(attend(walled), attend(case))


@pytest.mark.parametrize(("queries", "keys", "dim"), [(32, 32, 32), (96, 256, 64), (64, 320, 160)])
def test_no_tile_is_multiplied_that_need_not_be(queries, keys, dim):
    """A dot product of tiles is 16 rows by 16 columns by 32 terms."""
    _cpu.set_bf16("emulated")
    _cpu.bf16_reset()
    attend(make(1, 2, queries, keys, dim))
    assert _cpu.bf16_counts()["dots"] == 2 * 2 * queries * keys * dim // (16 * 16 * 32)
