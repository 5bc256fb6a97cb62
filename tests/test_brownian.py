"""Brownian noise: the tree's weights, the same bits everywhere, and runs that agree whatever their steps."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from analytic import network
from oracles.problems import TM

from diffusion_engine import Sampler, ScoreNetwork, brownian
from diffusion_engine.backends import native
from diffusion_engine.ops import layout as at
from diffusion_engine.ops.brownian import BrownianArgs
from diffusion_engine.ops.registry import resolve
from diffusion_engine.plan import CELLS
from diffusion_engine.processes import EDM, VP, Discrete, FlowMatching, Point
from diffusion_engine.solvers.ddim import posterior_std

# Intervals


def intervals(count=40):
    ends = np.sort(
        np.random.default_rng(0).choice(np.arange(20_000, 100_000), count, replace=False)
    )
    low = np.concatenate([ends[:-1], ends[:-3], [0, 0, CELLS - 1, CELLS // 2, 0]])
    high = np.concatenate([ends[1:], ends[3:], [1, CELLS, CELLS, CELLS // 2 + 1, CELLS // 2]])
    return low, high


def clock(cell):
    return math.exp(4.0 * brownian.RANGE / CELLS * (cell - CELLS / 2))


def test_increments_have_the_covariance_of_a_brownian_path():
    """cov = v(common part) / sqrt(v(one) v(other)), exactly: disjoint intervals are independent."""
    low, high = intervals()
    keys, weights = brownian.weights(low, high)
    dense = np.zeros((len(low), CELLS))
    for row, key, weight in zip(dense, keys, weights, strict=True):
        np.add.at(row, key, weight)
    first, last = np.maximum.outer(low, low), np.minimum.outer(high, high)
    length = np.vectorize(clock)
    common = np.maximum(length(last) - length(first), 0.0)
    own = np.sqrt(length(high) - length(low))
    assert np.abs(dense @ dense.T - common / np.outer(own, own)).max() < 1e-13


def test_an_increment_takes_two_nodes_a_level_at_most():
    keys, weights = brownian.weights(*intervals())
    assert keys.shape[1] == at.TERMS
    assert all(
        len(set(k[w != 0])) == np.count_nonzero(w) for k, w in zip(keys, weights, strict=True)
    )


def test_the_clock_is_the_one_of_ancestral_noise():
    """Over x alpha / sigma^2 the noise of DDPM's steps adds up like v = e^(2 lam)."""
    process = VP()
    s, u, t = (process.at(t) for t in (0.8, 0.5, 0.3))

    def added(a, b):
        return (posterior_std(a, b) * b.alpha / b.sigma**2) ** 2

    assert added(s, t) == pytest.approx(added(s, u) + added(u, t), rel=1e-12)
    assert added(s, t) == pytest.approx(math.exp(2 * t.lam) - math.exp(2 * s.lam), rel=1e-12)


def test_cells():
    infinite = [Point(0.0, 1.0, 0.0).lam, Point(1.0, 0.0, 1.0).lam]
    assert [brownian.cell(lam) for lam in (*infinite, 0.0, 99.0, 2.0**-12)] == [
        CELLS, 0, CELLS // 2, CELLS, CELLS // 2 + 1,
    ]  # fmt: skip
    near = Point(1.0, 1.0, 1.0), Point(1.0, 1.0, 1.0 - 1e-6)
    assert brownian.span(*near) is None and brownian.span(*reversed(near)) is None


# The op


def arguments(shape, last=False, seed=0):
    """[draws, batch, ...] buffers, rows of several lengths, one sample that is done."""
    draws, batch, rows = *shape[:2], 5
    generator = np.random.default_rng(seed)
    terms = generator.integers(0, 2**31, (rows, draws, at.HEADER + at.TERMS), dtype=np.int32)
    terms[..., 0] = generator.integers(0, at.TERMS + 1, (rows, draws))
    terms[0, 0, 0], terms[1, -1, 0], terms[..., 1] = 1, 0, generator.integers(0, 6, (rows, draws))
    weight = generator.standard_normal((rows, draws, at.TERMS)).astype(np.float32)
    row = np.arange(batch, dtype=np.int32) % rows
    row[-1] = -1 if batch > 1 else 0
    out = torch.full(shape, -7.0)
    if last:
        out = torch.full((*shape[:2], *shape[3:], shape[2]), -7.0).movedim(-1, 2)
    seeds = torch.from_numpy(generator.integers(-(2**63), 2**63 - 1, batch))
    return BrownianArgs(out, seeds, *map(torch.from_numpy, (row, terms, weight)))


def drawn(backend, args):
    resolve("brownian", backend, args)()
    return args.out


SHAPES = [(1, 2, 3, 5, 7), (2, 3, 4, 8, 8), (1, 6, 1, 130), (2, 2, 33, 31), (3, 4, 3, 40, 36)]


@pytest.mark.parametrize("backend", ["cpp", "triton"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels-last"])
def test_same_bits(backend, shape, last):
    want = drawn("torch", arguments(shape, last))
    assert torch.equal(drawn(backend, arguments(shape, last)), want)
    if shape[1] > 1:
        assert (want[:, -1] == -7.0).all()


@pytest.mark.parametrize("isa", ["scalar", "avx2", "avx512"])
def test_same_bits_of_large_samples(isa):
    cpu = native.module("_cpu")
    if isa not in cpu.isas():
        pytest.skip(f"this processor has no {isa}")
    before = cpu.isa()
    cpu.set_isa(isa)
    try:
        for shape in ((1, 1, 3, 97, 101), (1, 2, 20_003)):
            assert torch.equal(drawn("cpp", arguments(shape)), drawn("torch", arguments(shape)))
    finally:
        cpu.set_isa(before)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels-last"])
@pytest.mark.parametrize("multiprocessors", [1, 132])
def test_code_of_the_gpu_equals_the_reference(shape, last, multiprocessors):
    cuda = native.module("_cuda")
    if isinstance(cuda, str):
        pytest.skip(cuda)
    got = arguments(shape, last)
    run = partial(cuda.brownian_on_host, multiprocessors=multiprocessors)
    native._bind_brownian(got, "_cuda", run)()
    assert torch.equal(got.out, drawn("torch", arguments(shape, last)))


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["cuda", "triton"])
@pytest.mark.parametrize("shape", [*SHAPES, (2, 8, 3, 256, 256)], ids=str)
def test_same_bits_on_the_gpu(backend, shape):
    args = arguments(shape)
    moved = BrownianArgs(*(t.cuda() for t in vars(args).values()))
    assert torch.equal(drawn(backend, moved).cpu(), drawn("cpp", args))


def test_wrong_arguments():
    args = arguments((1, 2, 3, 4))
    with pytest.raises(TypeError, match="takes float32 out, int64 seed"):
        BrownianArgs(args.out.double(), args.seed, args.row, args.terms, args.weight)
    with pytest.raises(ValueError, match=r"row has shape \[1\]; \[2\] is needed"):
        BrownianArgs(args.out, args.seed, args.row[:1], args.terms, args.weight)
    with pytest.raises(ValueError, match=r"terms has shape"):
        BrownianArgs(args.out, args.seed, args.row, args.terms[..., 1:], args.weight)


# Runs

SHAPE = (3, 5, 7)
PLAIN = ScoreNetwork(lambda x, label: x * 0.7 + 0.1 * x.abs(), VP(), SHAPE)
STOCHASTIC = [
    ("dpmpp_2m_sde", {}),
    ("dpmpp_3m_sde", {}),
    ("dpmpp_sde", {}),
    ("ddpm", {}),
    ("euler_ancestral", {}),
    ("ddim", {"eta": 0.6}),
    ("heun", {"s_churn": 10.0}),
    ("dpm_2", {"s_churn": 10.0}),
]


def finals(solver, steps, how, net=None, n=512, **options):
    net = net or network(TM, VP())
    sampler = Sampler(net, solver, steps, batch_size=n, **options)
    return sampler.sample(n, noise=how, progress=False).samples.double().flatten(1)


@pytest.mark.parametrize("solver, options", STOCHASTIC, ids=lambda v: str(v))
def test_more_steps_come_to_the_same_sample(solver, options):
    """Mean distance of runs of n and 2n steps on the mixture. Default noise: that of strangers."""
    options = {"dtype": torch.float64, "backend": "torch"} | options
    options |= {"grid": "karras"} if solver in ("heun", "dpm_2") else {}

    def distances(how):
        made = [finals(solver, n, how, **options) for n in (10, 20, 40, 80)]
        return [float((a - b).abs().mean()) for a, b in zip(made, made[1:], strict=False)]

    path, fresh = distances("brownian"), distances(None)
    print(solver, path, fresh)
    assert path[2] < 0.5 * path[0] and path[2] < 0.3 * fresh[2]
    assert fresh[2] > 0.7 * fresh[0]


@pytest.mark.parametrize(
    "process", [VP(), EDM(), FlowMatching(), Discrete.linear()], ids=lambda p: type(p).__name__
)
@pytest.mark.parametrize("solver", ["dpmpp_2m_sde", "ddpm", "euler_ancestral"])
def test_noise_of_a_run_does_not_depend_on_its_steps(solver, process):
    """Where x0 is known, the noise is all there is, and these solvers are exact: so is the agreement,
    but for the ends' rounding to cells."""
    known = ScoreNetwork(lambda x, label: torch.full_like(x, 0.3), process, (4,), prediction="x0")
    options = {"grid": "uniform" if isinstance(process, FlowMatching) else "lambda"}
    first, *others = (
        finals(solver, n, "brownian", known, 64, end="t_min", **options) - 0.3 for n in (7, 20, 90)
    )
    for other in others:
        assert (first - other).abs().max() < 0.02 * first.std()
    fresh = finals(solver, 20, None, known, 64, end="t_min", **options) - 0.3
    assert (first - fresh).abs().max() > first.std()
