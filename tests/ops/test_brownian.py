"""Brownian noise: the tree's weights, the same bits everywhere, and runs that agree whatever their steps."""

import json
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from analytic import network
from batches import jobs_of, together
from brownian_cases import arguments
from on_host import OnHost
from oracles.problems import TG, TM
from tape import TapeRecorder, taped

from diffusion_engine import Sampler, ScoreNetwork
from diffusion_engine.backends import native
from diffusion_engine.backends.brownian import bind
from diffusion_engine.executors import Eager, Graph, stages
from diffusion_engine.ops import layout as at
from diffusion_engine.ops import philox as noise
from diffusion_engine.ops.brownian import BrownianArgs
from diffusion_engine.ops.registry import resolve
from diffusion_engine.plan import CELLS, Plan, brownian
from diffusion_engine.plan.linear import normal, x
from diffusion_engine.processes import EDM, VP, Discrete, FlowMatching, Point
from diffusion_engine.solvers import Solver, Update
from diffusion_engine.solvers.ddim import posterior_std
from diffusion_engine.testing import cld_mixture, exact_network

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


def drawn(backend, args):
    resolve("brownian", backend, args)()
    return args.out


SHAPES = [(1, 2, 3, 5, 7), (2, 3, 4, 8, 8), (1, 6, 1, 130), (2, 2, 33, 31), (2, 2, 3, 40, 36)]


@pytest.mark.parametrize("backend", ["cpp", "triton"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels-last"])
def test_same_bits(backend, shape, last):
    want = drawn("torch", arguments(shape, last))
    assert torch.equal(drawn(backend, arguments(shape, last)), want)
    if shape[1] > 1:
        assert (want[:, -1] == -7.0).all()


def test_same_bits_of_large_samples(isa):
    for shape in ((1, 1, 3, 97, 101), (1, 2, 20_003)):
        assert torch.equal(drawn("cpp", arguments(shape)), drawn("torch", arguments(shape)))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels-last"])
@pytest.mark.parametrize("multiprocessors", [1, 132])
def test_code_of_the_gpu_equals_the_reference(shape, last, multiprocessors):
    cuda = native.module("_cuda")
    if isinstance(cuda, str):
        pytest.skip(cuda)
    got = arguments(shape, last)
    bind(OnHost(multiprocessors=multiprocessors), got)()
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
    ("euler_maruyama", {}),
    ("reverse_diffusion", {}),
    ("ancestral", {}),
    ("vdm", {}),
]


def finals(solver, steps, how, net=None, n=384, **options):
    net = net or network(TM, VP())
    sampler = Sampler(net, solver, steps, batch_size=n, **options)
    return sampler.sample(n, noise=how, progress=False).samples.double().flatten(1)


@pytest.mark.parametrize("solver, options", STOCHASTIC, ids=lambda v: str(v))
def test_more_steps_come_to_the_same_sample(solver, options):
    """Mean distance of runs of n and 2n steps on the mixture. Default noise: that of strangers."""

    def distances(how):
        made = [finals(solver, n, how, **options) for n in (10, 20, 40, 80)]
        return [float((a - b).abs().mean()) for a, b in pairwise(made)]

    path, fresh = distances("brownian"), distances(None)
    assert path[2] < 0.5 * path[0] and path[2] < 0.3 * fresh[2]
    assert fresh[2] > 0.7 * fresh[0]


@pytest.mark.parametrize(
    "solver", [name for name, options in STOCHASTIC if "s_churn" not in options]
)
def test_the_distance_halves_with_the_steps(solver):
    """Strong order 1 or better: of 20 and 40 steps, 40 and 80, 80 and 160 on Gaussian data."""
    made = [
        finals(solver, n, "brownian", network(TG, VP(), (4,)), 200, grid="lambda")
        for n in (20, 40, 80, 160)
    ]
    first, *_, last = (float((a - b).square().mean().sqrt()) for a, b in pairwise(made))
    assert math.log2(first / last) / 2.0 > 0.85


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


@pytest.mark.parametrize("how", ["brownian", None])
def test_half_steps_are_part_of_whole_ones(how):
    """dpmpp_sde's second prediction has to know the noise that is to come: independent noise leaves
    out its covariance with x, of the order of the step, and is worse than twice the steps of one call."""

    def error(solver, steps):
        end = finals(solver, steps, how, network(TG, VP(), (64,)), 1000, grid="lambda")
        return abs(float(end.var()) - 0.25)

    assert error("dpmpp_sde", 20) < 0.6 * error("euler_ancestral", 40)


def run_pair(solver, steps=6, net=PLAIN, **options):
    return [Sampler(net, solver, steps, backend=b, **options) for b in ("torch", "cpp")]


@pytest.mark.parametrize("solver, options", STOCHASTIC, ids=str)
def test_samples_have_the_same_bits_on_every_backend(solver, options):
    one, two = (s.sample(3, noise="brownian").samples for s in run_pair(solver, **options))
    assert torch.equal(one, two)
    assert not torch.equal(one, run_pair(solver, **options)[0].sample(3).samples)


@pytest.mark.parametrize("solver", ["ddim", "dpmpp_2m", "heun"])
def test_runs_without_fresh_noise_stay_as_they_are(solver):
    """The prior draw is the same, too."""
    own = Sampler(PLAIN, solver, 5)
    assert torch.equal(own.sample(3, noise="brownian").samples, own.sample(3).samples)
    state = {"x": torch.rand(3, *SHAPE), "noised": True}  # of which nothing is drawn at all
    assert torch.equal(own.sample(**state, noise="brownian").samples, own.sample(**state).samples)


@pytest.mark.parametrize("solver, options", STOCHASTIC, ids=str)
def test_a_sample_equals_itself_alone_and_replayed(solver, options):
    own = Sampler(PLAIN, solver, 5, **options)
    made = own.sample(seeds=[5, 2**63 + 1, 0], noise="brownian", batch_size=2)
    alone = own.sample(seeds=[2**63 + 1], noise="brownian")
    assert torch.equal(made.samples[1:2], alone.samples)
    assert made.recipe["noise"] == "brownian" and made.recipe["needs"] == []
    again = Sampler.replay(PLAIN, json.loads(json.dumps(made.recipe)))
    assert torch.equal(again.samples, made.samples)


def test_image_to_image_and_inpainting():
    own, image = Sampler(PLAIN, "dpmpp_2m_sde", 6), torch.rand(SHAPE) - 0.5
    for how in ({"x": image, "start": 0.5}, {"mask": torch.ones(1, 5, 7), "known": image}):
        one, two = (own.sample(2, noise=n, **how).samples for n in ("brownian", None))
        other = Sampler(PLAIN, "dpmpp_2m_sde", 6, backend="torch")
        assert torch.equal(one, other.sample(2, noise="brownian", **how).samples)
        assert not torch.equal(one, two)


def test_plans_of_one_batch_keep_their_own_paths():
    samplers = [
        Sampler(PLAIN, "dpmpp_2m_sde", 4),
        Sampler(PLAIN, "ddim", 7),
        Sampler(PLAIN, "dpmpp_sde", 5),
        Sampler(PLAIN, "heun", 3, s_churn=3.0),
    ]
    plan_of = [0, 1, 2, 3, 0, 2]
    made, finite = together(Eager(), PLAIN, jobs_of(samplers, plan_of, brownian=True))
    assert all(finite)
    for i, p in enumerate(plan_of):
        alone = samplers[p].sample(seeds=[i], noise="brownian")
        assert torch.equal(made[i], alone.samples[0])


@pytest.mark.parametrize("whole_run", [False, True])
@pytest.mark.parametrize("solver", ["dpmpp_2m_sde", "dpmpp_sde", "ddim"])
def test_a_graph_makes_the_same_samples(monkeypatch, solver, whole_run):
    monkeypatch.setattr(stages, "resolve", taped(stages.resolve))
    executor = Graph(recorder=TapeRecorder(), whole_run=whole_run)
    captured = Sampler(PLAIN, solver, 4, executor=executor)
    eager = Sampler(PLAIN, solver, 4)
    for how in ("brownian", None, "brownian"):
        for seed in (3, 9):
            want, got = (s.sample(5, seed=seed, noise=how) for s in (eager, captured))
            assert torch.equal(want.samples, got.samples)


def test_a_plan_says_which_intervals_its_normals_take():
    plan = Sampler(PLAIN, "dpmpp_sde", 4).plan()
    assert Plan.from_json(plan.to_json()).rows == plan.rows
    first, half, full, *_ = (row.spans for row in plan.rows)
    assert first == ()  # the prior draw
    (path, low, middle), (other, again, high) = half[0], full[0]
    assert (
        path == other == 0 and low < middle == again < high
    )  # the first is part of the whole step
    old = json.loads(plan.to_json())
    for row in old["rows"]:
        del row["spans"]
    assert not any(row.spans for row in Plan.from_json(json.dumps(old)).rows)
    for wrong in ([0, 5, CELLS + 1], [0, 5], [2, 5, 6], [0, 6, 6], [0, 1.5, 6]):
        old["rows"][1]["spans"] = [wrong]
        with pytest.raises(ValueError, match=r"row 1: spans are \(path 0 or 1, low < high"):
            Plan.from_json(json.dumps(old))


def test_a_solver_that_goes_back_gets_other_noise():
    class Restart(Solver):
        name, source, exact = "restart", "none", False

        def updates(self, process, points):
            for a, b in ((0, 1), (1, 0), (0, 1), (1, 2)):
                s, t = points[a], points[b]
                yield Update(s, {0: 0.5 * x + 0.5 * normal(0)}, t)

    process = VP()
    points = [process.at(t) for t in (0.9, 0.6, 0.3)]
    spans = [bool(row.spans) for row in Restart().plan(PLAIN.parameterisation, points).rows]
    assert spans == [False, True, False, False, True]


def test_a_solver_without_a_path_says_so():
    for name in ("ald", "consistency", "lcm", "ddgan"):  # noise that is renewed follows no path
        steps, own = (4, {"n_steps": 2} if name == "ald" else {})
        with pytest.raises(
            ValueError, match=f"'{name}' draws noise that its rows give no interval"
        ):
            Sampler(exact_network(name), name, steps, **own).sample(1, noise="brownian")
    assert Sampler(cld_mixture(), "cld_ode", 4).sample(1, noise="brownian").finite == [True]


def test_an_unknown_name_of_noise():
    with pytest.raises(
        ValueError, match="noise='brown': give 'brownian', a tensor of normals or a function"
    ):
        Sampler(PLAIN, "ddpm", 3).sample(1, noise="brown")


def test_paths_share_no_draw_with_other_uses():
    assert at.NORMALS < noise.LATENT < noise.PATH  # m = NORMALS is the known region's
    terms, weight = brownian.pack(Sampler(PLAIN, "dpmpp_2m_sde", 5).plan())
    assert set(terms[1:-1, 0, 1].tolist()) == {noise.PATH}
    assert terms[0, 0, : at.HEADER + 1].tolist() == [1, 0, 0] and weight[0, 0, 0] == 1.0
    assert (weight**2).sum(axis=2)[1:-1, 0] == pytest.approx(1.0, abs=1e-6)
