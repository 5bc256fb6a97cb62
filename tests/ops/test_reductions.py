"""The ops norms and quantile: the same bits on every backend, in any layout, batch and number of threads."""

import math

import on_host
import pytest
import torch

from diffusion_engine.backends import native, norms, quantile
from diffusion_engine.ops import functional, table
from diffusion_engine.ops import norms as norms_op
from diffusion_engine.ops import quantile as quantile_op
from diffusion_engine.ops.library import register
from diffusion_engine.ops.norms import NormsArgs
from diffusion_engine.ops.quantile import QuantileArgs
from diffusion_engine.testing.plain import allowed

NORMS_ON_HOST = on_host.emulated(norms.bind)
QUANTILE_ON_HOST = on_host.emulated(quantile.bind)
BACKENDS = ["cpp", "triton", "emulated"]
INFINITE, NAN = math.inf, math.nan
SHAPES = [
    (1, 1),
    (5, 2, 1),
    (2, 3, 5, 7),
    (3, 3, 33, 31),
    (2, 3, 97, 101),
    (1, 2, 8192),
    (2, 20_003),
]
QS = (0.0, 0.1234, 0.5, 0.995, 1.0)


@pytest.fixture(params=BACKENDS)
def backend(request, monkeypatch):
    """Of which "emulated" runs the code of the CUDA kernels on the CPU."""
    if request.param == "emulated":
        if isinstance(reason := native.module("_cuda"), str):
            pytest.skip(reason)
        for op in ("norms", "quantile"):
            where = f"{__name__}:{op.upper()}_ON_HOST"
            monkeypatch.setitem(table.IMPLEMENTATIONS, (op, "emulated"), where)
    return request.param


def images(shape, layout="contiguous", seed=0):
    """Of very different sizes, so that every order of a sum has bits of its own."""
    draw = torch.Generator().manual_seed(seed)
    made = torch.randn(shape, generator=draw) * torch.randn(shape, generator=draw).exp()
    if layout == "channels_last":
        return made.movedim(1, -1).contiguous().movedim(-1, 1)
    if layout == "part":  # the first channels of wider tensors, one element off
        wide = torch.zeros(shape[0], 2 * shape[1] + 1, *shape[2:])
        wide[:, 1 : shape[1] + 1] = made
        return wide[:, 1 : shape[1] + 1]
    return made


def same(a, b):
    """Equal, and NaN where the other is."""
    return torch.equal(a.isnan(), b.isnan()) and torch.equal(
        *(t.nan_to_num(7, 8, 9) for t in (a, b))
    )


LAYOUTS = ["contiguous", "channels_last", "part"]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_norms_have_the_same_bits(backend, shape, layout):
    plain = images(shape), images(shape, seed=1)
    x, y = images(shape, layout), images(shape, "contiguous" if layout == "part" else layout, 1)
    assert torch.equal(
        functional.norms(x, y, backend=backend), functional.norms(*plain, backend="torch")
    )
    assert torch.equal(
        functional.norms(x, backend=backend), functional.norms(plain[0], backend="torch")
    )


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_quantiles_have_the_same_bits(backend, shape, layout):
    plain, x = images(shape), images(shape, layout)
    for q in QS[:: 1 if x.numel() < 9999 or backend == "cpp" else 2]:
        want = functional.quantile(plain, q, backend="torch")
        assert torch.equal(functional.quantile(x, q, backend=backend), want)


def test_every_instruction_set(isa):
    """The last shape with parts for several threads."""
    for shape in (*SHAPES, (3, 3, 256, 256)):
        x, y = images(shape), images(shape, seed=1)
        assert torch.equal(functional.norms(x, y), functional.norms(x, y, backend="torch"))
        for q in QS:
            assert torch.equal(
                functional.quantile(x, q), functional.quantile(x, q, backend="torch")
            )


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_do_not_matter(threads):
    x, y = images((2, 3, 256, 256)), images((2, 3, 256, 256), seed=1)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert torch.equal(functional.norms(x, y), functional.norms(x, y, backend="torch"))
        assert torch.equal(
            functional.quantile(x, 0.995), functional.quantile(x, 0.995, backend="torch")
        )
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("name", ["torch", "cpp", "triton"])
def test_a_sample_has_the_same_bits_alone(name):
    x, y = images((5, 3, 65, 67)), images((5, 3, 65, 67), seed=1)
    q = torch.tensor([0.1, 0.5, 0.9, 0.99, NAN], dtype=torch.float64)
    sums = functional.norms(x, y, backend=name)
    found = functional.quantile(x, q, backend=name)
    for b in range(5):
        one = slice(b, b + 1)
        assert torch.equal(functional.norms(x[one], y[one], backend=name), sums[one])
        assert same(functional.quantile(x[one], q[one], backend=name), found[one])
    assert found.isnan().tolist() == [False] * 4 + [True]


@pytest.mark.parametrize("size", [7, 8192, 100_003])
def test_norms_are_accurate(size):
    """Against exact sums, by the rule of all kernels: far within it."""
    x, y = images((1, size)), images((1, size), seed=1)
    a, b = x[0].double().tolist(), y[0].double().tolist()
    pairs = (a, [1.0] * size), (b, [1.0] * size), (a, a), (b, b), (a, b)
    exact = torch.tensor(
        [[math.fsum(v * w for v, w in zip(*p, strict=True)) for p in pairs]], dtype=torch.float64
    )
    terms = (x, y, x * x, y * y, x * y)
    plain = torch.stack([term.cumsum(1)[:, -1] for term in terms], dim=1)
    got = functional.norms(x, y)
    assert (got - exact).abs().max() <= allowed(plain, exact, torch.float32)
    sizes = torch.tensor([[sum(abs(v * w) for v, w in zip(*p, strict=True)) for p in pairs]])
    assert ((got - exact).abs() / sizes).max() < 1e-14


def test_sums_have_the_written_order():
    """Segments of 16 blocks of 32 rows of 16 lanes, by a loop over single numbers."""
    x = images((1, 20_003))
    padded = x[0].double().tolist() + [0.0] * (-20_003 % 8192)
    total = 0.0
    for begin in range(0, len(padded), 8192):
        blocks = []
        for block in range(16):
            lanes = [0.0] * 16
            for i, value in enumerate(padded[begin + 512 * block : begin + 512 * (block + 1)]):
                lanes[i % 16] += value
            blocks.append(halved(lanes))
        total += halved(blocks)
    assert functional.norms(x)[0, 0].item() == total


def halved(values):
    while len(values) > 1:
        half = len(values) // 2
        values = [a + b for a, b in zip(values[:half], values[half:], strict=True)]
    return values[0]


@pytest.mark.parametrize("q", QS)
def test_quantiles_are_torchs(q):
    x = images((4, 3, 19, 23))
    want = torch.quantile(x.abs().flatten(1).double(), q, dim=1)
    assert torch.allclose(functional.quantile(x, q).double(), want, rtol=1e-7, atol=0)
    assert torch.allclose(functional.quantile(x.double(), q), want * 1.0, rtol=1e-6, atol=0)


SPECIAL = [
    [1.0, -INFINITE, INFINITE, 2.0], [NAN, 1.0, 2.0, 3.0], [0.0, -0.0, 1.0, 1.0],
    [INFINITE, INFINITE, INFINITE, -INFINITE], [1e-45, -2e-45, 0.0, 3.4e38], [1.0, 2.0, -NAN, INFINITE],
]  # fmt: skip


def test_nan_and_infinity(backend):
    x = torch.tensor(SPECIAL)
    for q in (0.0, 1 / 3, 0.4, 2 / 3, 0.9, 1.0):
        want = functional.quantile(x, q, backend="torch")
        assert same(functional.quantile(x, q, backend=backend), want)
        assert want.isnan().tolist() == [False, True, False, False, False, True]
    assert functional.quantile(x, 0.5, backend=backend)[3] == INFINITE
    want = functional.norms(x, x.flip(0), backend="torch")
    assert same(functional.norms(x, x.flip(0), backend=backend), want)
    assert want[1].isnan().tolist() == [True, False, True, False, True]


def test_values_that_all_look_alike():
    """Where the guess at a sample finds too much, too little, or nothing."""
    n = 40_000
    for x in (
        torch.ones(1, n), torch.arange(n).flip(0)[None].float(), torch.zeros(1, n),
        torch.cat([torch.zeros(n - 1), torch.ones(1)])[None], images((1, n)).round(),
        (torch.arange(n) % 78 == 0).float()[None] * images((1, n)),
    ):  # fmt: skip
        for q in (0.0, 0.001, 0.5, 0.98, 0.995, 1.0):
            assert torch.equal(
                functional.quantile(x, q), functional.quantile(x, q, backend="torch")
            )


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["cuda", "triton"])
@pytest.mark.parametrize("shape", [*SHAPES, (16, 3, 256, 256)], ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_same_bits_on_the_gpu(backend, shape, layout):
    x, y = images(shape, layout), images(shape, layout, 1)
    here = x.cuda(), y.cuda()
    assert torch.equal(functional.norms(*here, backend=backend).cpu(), functional.norms(x, y))
    for q in QS:
        assert torch.equal(
            functional.quantile(here[0], q, backend=backend).cpu(), functional.quantile(x, q)
        )


def test_float64_is_the_references():
    x, y = images((2, 3, 5, 7)).double(), images((2, 3, 5, 7), seed=1).double()
    want = torch.stack([(a * b).flatten(1).sum(1) for a, b in ((x, x), (y, y), (x, y))], dim=1)
    assert torch.allclose(functional.norms(x, y)[:, 2:], want, rtol=1e-14)
    assert functional.quantile(x, 0.5).dtype == torch.float64
    with pytest.raises(ValueError, match=r"cpp: the kernels take float32; x is torch.float64"):
        functional.norms(x, backend="cpp")


def test_wrong_arguments():
    x, q = torch.zeros(2, 3, 4), torch.zeros(2, dtype=torch.float64)
    out = torch.zeros(2, 5, dtype=torch.float64)
    for wrong in (x[0, 0], x[:0], x[:, :0]):
        with pytest.raises(ValueError, match=r"\[batch, channels, \*pixel\] with elements"):
            functional.norms(wrong)
        with pytest.raises(ValueError, match=r"\[batch, channels, \*pixel\] with elements"):
            functional.quantile(wrong, 0.5)
    with pytest.raises(TypeError, match=r"norms: x is torch.bfloat16; cast it to float32"):
        functional.norms(x.bfloat16())
    with pytest.raises(TypeError, match=r"quantile: x is torch.int64; cast it to float32"):
        functional.quantile(x.long(), 0.5)
    with pytest.raises(ValueError, match=r"norms needs y like x, \[2, 3, 4\] torch.float32"):
        functional.norms(x, x[:, :2])
    with pytest.raises(ValueError, match=r"norms writes out \[2, 5\] float64"):
        NormsArgs(out[:, :4], x)
    with pytest.raises(ValueError, match=r"whose elements share memory"):
        NormsArgs(out[:1].expand(2, 5), x)
    with pytest.raises(ValueError, match=r"q=1.5: a quantile's share is from 0 to 1"):
        functional.quantile(x, 1.5)
    with pytest.raises(
        ValueError, match=r"quantile needs q \[2\] float64, one a sample; got \[1\]"
    ):
        functional.quantile(x, q[:1])
    with pytest.raises(ValueError, match=r"quantile writes out \[2\] torch.float32"):
        QuantileArgs(q, x, q)


def test_operators():
    register()
    x, q = images((2, 3, 5, 7)), torch.tensor([0.3, 0.7], dtype=torch.float64)
    torch.library.opcheck(torch.ops.diffusion_engine.norms.default, (x, 2 * x))
    torch.library.opcheck(torch.ops.diffusion_engine.norms.default, (x,))
    torch.library.opcheck(torch.ops.diffusion_engine.quantile.default, (x, q))


def test_the_sizes_of_native_code_are_those_of_python():
    """A segment and an element more: other sizes would make other bits."""
    assert norms_op.SEGMENT == 8192 == norms_op.LANES * norms_op.ROWS * norms_op.BLOCKS
    for size in (norms_op.SEGMENT - 1, norms_op.SEGMENT, norms_op.SEGMENT + 1):
        x = images((1, size))
        assert torch.equal(functional.norms(x), functional.norms(x, backend="torch"))
    assert quantile_op.OP.plain(torch.device("cpu")).q.item() == 0.0
