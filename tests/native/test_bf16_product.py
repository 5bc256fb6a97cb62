"""A block of a product in bf16, as the processor's own kernels and the emulation of AMX make it."""

import pytest
import torch
from accuracy import assert_accurate
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusion_engine import _cpu

KINDS = [*_cpu.bf16s(), "emulated"]


@pytest.fixture(params=KINDS)
def kind(request):
    _cpu.set_bf16(request.param)
    return request.param


def packed(right):
    """[terms, 32] as [pair, 32, 2]."""
    return right.unflatten(0, (-1, 2)).transpose(1, 2).contiguous()


def product(left, right, offsets, blocks, rows, to, add=False):
    """left [rows to the next multiple of 16, ...] and right [terms, 32] in bf16."""
    panel = packed(right)
    _cpu.bf16_product(
        left.data_ptr(), left.stride(0), offsets, blocks, panel.data_ptr(), rows,
        to.data_ptr(), to.stride(0), add,
    )  # fmt: skip
    return to[:rows]


def terms(left, offsets, blocks):
    return torch.cat([left[:, o : o + 32 * blocks] for o in offsets], 1)


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 32), count=st.integers(1, 5), blocks=st.integers(1, 3),
    gap=st.sampled_from([0, 32, 40]), seed=st.integers(0, 99),
)  # fmt: skip
def test_it_is_the_product(rows, count, blocks, gap, seed):
    torch.manual_seed(seed)
    offsets = [i * (32 * blocks + gap) for i in range(count)]
    left = torch.randn(-(-rows // 16) * 16, offsets[-1] + 32 * blocks + 8).bfloat16()
    left[rows:] = float("nan")
    right = torch.randn(count * blocks * 32, 32).bfloat16()
    a, start = terms(left, offsets, blocks)[:rows], torch.randn(32, 40)
    for name in KINDS:
        _cpu.set_bf16(name)
        to = torch.full((32, 40), float("nan"))
        got = product(left, right, offsets, blocks, rows, to)[:, :32]
        assert_accurate(got, plain_sum(a, right), a.double() @ right.double())
        assert to[:, 32:].isnan().all()
        added = product(left, right, offsets, blocks, rows, start.clone(), add=True)[:, :32]
        want = start[:rows, :32].double() + a.double() @ right.double()
        assert_accurate(added, plain_sum(a, right, start[:rows, :32]), want)


def plain_sum(a, right, start=0.0):
    """In float32, term by term."""
    total = torch.zeros(len(a), 32) + start
    for k in range(a.shape[1]):
        total = total + a[:, k : k + 1].float() * right[k].float()
    return total


def test_a_row_has_the_same_bits_in_any_block(kind):
    torch.manual_seed(0)
    left, right = torch.randn(32, 96).bfloat16(), torch.randn(96, 32).bfloat16()
    whole = product(left, right, [0], 3, 32, torch.empty(32, 32))
    for rows in (1, 13, 15, 16, 17, 31):
        part = product(left, right, [0], 3, rows, torch.empty(32, 32))
        assert torch.equal(part, whole[:rows])


def test_tiles_are_counted_where_they_are_emulated():
    _cpu.set_bf16("emulated")
    _cpu.bf16_reset()
    left, right = torch.ones(32, 64).bfloat16(), torch.ones(64, 32).bfloat16()
    product(left, right, [0, 32], 1, 32, torch.empty(32, 32))
    assert _cpu.bf16_counts() == {"dots": 8, "loads": 8, "stores": 4}
    product(left, right, [0, 32], 1, 16, torch.empty(32, 32))
    assert _cpu.bf16_counts() == {"dots": 12, "loads": 14, "stores": 6}


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match=r"'sse' are none of this machine's.*emulated"):
        _cpu.set_bf16("sse")
