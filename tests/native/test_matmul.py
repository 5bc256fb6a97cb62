"""Products of activations of a recorded network, as C++ runs them."""

import pytest
import torch
from accuracy import assert_accurate
from memory import before_a_wall, same

from diffusion_engine import _cpu
from diffusion_engine.testing.plain import product


@pytest.fixture(params=_cpu.isas())
def isa(request):
    before = _cpu.isa()
    _cpu.set_isa(request.param)
    yield request.param
    _cpu.set_isa(before)


def heads(*shape, last):
    """[B, H, N, M] at the end of a page; `last`: the rows of all heads beside each other."""
    x = torch.randn(shape)
    return (
        before_a_wall(x.transpose(1, 2).contiguous()).transpose(1, 2) if last else before_a_wall(x)
    )


def matmul(a, b, transposed, alpha, last, threads=1):
    p = _cpu.MatmulParams()
    p.batch, p.heads, p.rows, p.depth = a.shape
    p.columns, p.transposed, p.alpha = b.shape[2 if transposed else 3], transposed, alpha
    out = heads(*a.shape[:3], p.columns, last=last).fill_(torch.nan)
    p.a, p.b, p.out = ((t.data_ptr(), *t.stride()[:3]) for t in (a, b, out))
    _cpu.run_task(p, threads)
    return out


def given(batch, count, rows, columns, depth, transposed, last=False):
    torch.manual_seed(0)
    sizes = (columns, depth) if transposed else (depth, columns)
    return heads(batch, count, rows, depth, last=last), heads(batch, count, *sizes, last=last)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(
    "sizes",
    [
        (1, 1, 1, 1, 1),
        (2, 3, 7, 33, 20),
        (1, 2, 130, 130, 40),
        (2, 1, 3, 300, 5),
        (1, 1, 16, 5, 900),
    ],
    ids=str,
)
def test_accuracy(isa, sizes, transposed, last):
    a, b = given(*sizes, transposed, last)
    right = b.mT if transposed else b
    got = matmul(a, b, transposed, 0.3, last)
    assert_accurate(got, product(a, right) * 0.3, a.double() @ right.double() * 0.3)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("sizes", [(5, 2, 16, 16, 64), (3, 1, 200, 290, 500)], ids=str)
def test_same_bits_alone_and_on_any_threads(isa, sizes, transposed):
    a, b = given(*sizes, transposed)
    want = matmul(a, b, transposed, 0.3, False)
    for threads in (1, 2, 3, 8):
        assert same(matmul(a, b, transposed, 0.3, False, threads), want)
        assert same(matmul(a[1:2], b[1:2], transposed, 0.3, False, threads)[0], want[1])
