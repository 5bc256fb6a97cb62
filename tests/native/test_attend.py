"""Attention of recorded networks: accuracy, masks, the same bits in any batch and on any threads."""

import pytest
import torch
from accuracy import assert_accurate
from attend_cases import Case, exact, make, masks, plain_sums, run, sample_of
from memory import before_a_wall, same
from torch.nn.functional import scaled_dot_product_attention

from diffusion_engine.ops.functional import attention


def check(case, **options):
    got = run(case, **options)
    assert_accurate(got, plain_sums(case), exact(case))
    return got


SIZES = [
    (1, 1, 256, 256, 256), (2, 4, 16, 16, 32), (1, 2, 64, 77, 64), (2, 3, 5, 7, 9), (1, 1, 1, 1, 8),
    (1, 2, 33, 129, 40), (1, 1, 49, 49, 13), (2, 1, 130, 3, 1), (1, 1, 40, 70, 512),
]  # fmt: skip


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("scale", [None, -0.1, 0.0])
def test_accurate(isa, sizes, scale):
    check(make(*sizes, scale), threads=2)


def test_accurate_at_length(isa):
    check(make(1, 1, 40, 4096, 40))


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("kind", ["", "b", "q", "bhq", "hq"])
def test_accurate_with_a_mask(isa, sizes, kind):
    case = make(*sizes)
    case.mask = masks(case, kind)
    check(case, threads=2)


@pytest.mark.parametrize("scale", [-0.3, 0.0, 0.7])
def test_a_mask_is_added_after_the_scale(isa, scale):
    case = make(2, 2, 20, 30, 16, scale)
    case.mask = masks(case, "bhq")
    check(case)


@pytest.mark.parametrize("keys", [5, 64, 77, 200])
def test_keys_that_are_masked_out_weigh_nothing(isa, keys):
    case = make(2, 2, 37, keys, 24)
    kept = torch.rand(2, 1, 37, keys, generator=torch.Generator().manual_seed(2)) < 0.3
    kept[..., : keys // 2] = False
    kept[..., -1] = True
    case.mask = torch.zeros(kept.shape).masked_fill(~kept, -torch.inf)
    clean = check(case)
    case.k[:, :, : keys // 2] = 1e4
    case.v[:, :, : keys // 2] = 1e30
    assert torch.equal(run(case), clean)


def test_a_query_without_any_key_becomes_zero(isa):
    """As torch has it."""
    case = make(1, 2, 9, 70, 16)
    case.mask = torch.zeros(9, 70)[None, None]
    case.mask[:, :, 4] = -torch.inf
    got = run(case)
    assert (got[:, :, 4] == 0.0).all()
    want = scaled_dot_product_attention(case.q, case.k, case.v, case.mask.clone())
    assert torch.allclose(got, want, atol=1e-5)


@pytest.mark.parametrize("least", [-1e4, torch.finfo(torch.float32).min])
def test_masks_of_large_negative_numbers(isa, least):
    case = make(1, 2, 20, 150, 16)
    case.mask = torch.where(torch.arange(150) < 90, 0.0, least)[None, None, None]
    got = run(case)
    short = Case(case.q, case.k[:, :, :90], case.v[:, :, :90], case.scale)
    assert_accurate(got, plain_sums(short), exact(short))
    case.mask = case.mask.flip(-1).contiguous()
    got = run(case)
    short = Case(case.q, case.k[:, :, 60:], case.v[:, :, 60:], case.scale)
    assert_accurate(got, plain_sums(short), exact(short))


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("masked", [False, True])
def test_same_bits_in_any_batch_on_any_threads(isa, sizes, masked):
    case = make(3, *sizes[1:])
    if masked:
        case.mask = masks(case, "bq")
    want = run(case)
    for threads in (1, 2, 3, 7):
        for options in ({}, {"backwards": True}, {"gap": 0}):
            assert same(run(case, threads, **options), want)
    for b in (2, 0, 1):
        alone = sample_of(case, b)
        for threads in (1, 2, 16):
            assert same(run(alone, threads)[0], want[b])


def test_the_same_bits_as_the_op(isa):
    case = make(2, 3, 50, 90, 24)
    assert torch.equal(run(case), attention(case.q, case.k, case.v, case.scale, backend="cpp"))


@pytest.mark.parametrize("dim", [3, 8, 24])
@pytest.mark.parametrize("queries", [1, 15, 23])
def test_nothing_is_read_beyond_the_tensors(isa, dim, queries):
    """An error here ends the process."""
    case = make(1, 1, queries, 5, dim)
    case.mask = masks(case, "q")
    walled = Case(*(before_a_wall(t.contiguous()) for t in (case.q, case.k, case.v)), case.scale)
    walled.mask = before_a_wall(case.mask)
    assert same(run(walled), run(case))
