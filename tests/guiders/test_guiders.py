"""Guidance by a number of each sample: the papers' formulas with any solver, the same bits in any company."""

import json

import pytest
import torch
from batches import capacity, jobs_of, together
from optional import needs
from oracles import guiders as oracle
from tape import TapeRecorder, taped

from diffusion_engine import Sampler, ScoreNetwork
from diffusion_engine.executors import Eager, Graph, stages
from diffusion_engine.guiders import GUIDERS, guider
from diffusion_engine.plan import Plan
from diffusion_engine.plan.guidance import inside
from diffusion_engine.processes import Discrete, FlowMatching
from diffusion_engine.testing import labelled_mixture
from diffusion_engine.zoo import load_network

SHAPE, CLASSES, SCALE = (3, 5, 7), [0, 1, 2, 0], 6.0
NET = labelled_mixture(shape=SHAPE)
CASES = {
    "rescale": {"phi": 0.8},
    "cfg_zero": {"zero": 0},
    "tcfg": {},
    "apg": {"eta": 0.3, "momentum": -0.4, "limit": 4.0},
    "threshold": {"q": 0.9, "most": 1.5},
}
SOLVERS = {
    "ddim": {},
    "euler": {},
    "heun": {},
    "dpmpp_2m": {},
    "ipndm": {},
    "dpmpp_2m_sde": {},
    "dpm_solver_2": {},
    "unipc": {"max_order": 2},
}


def asked(name, **more):
    return {"name": name, "options": CASES[name] | more}


def before(state, like):
    return state.get("before", torch.zeros_like(like))


def steered(name, options):
    """The same by the paper, as a network of one output."""

    def apg(estimate, without, state):
        made, state["before"] = oracle.apg(
            estimate, without, SCALE, **options, before=before(state, estimate)
        )
        return made

    rules = {
        "rescale": lambda x, c, u, *_: oracle.rescale(c, u, SCALE, **options),
        "cfg_zero": lambda x, c, u, *_: oracle.cfg_zero(c, u, SCALE),
        "tcfg": lambda x, c, u, *_: oracle.tcfg(c, u, SCALE),
        "apg": oracle.on_estimates(apg),
    }
    module = oracle.Steered(NET.module, NET.process, NET.null, rules[name])
    return ScoreNetwork(module, NET.process, SHAPE, label_dtype=torch.float64, classes=3)


def run(network, solver, steps=6, seed=3, **more):
    own = {**SOLVERS.get(solver, {}), **more}
    return Sampler(network, solver, steps, **own).sample(seed=seed, condition=CLASSES).samples


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("name", sorted(CASES.keys() - {"threshold"}))
def test_formulas(name, solver):
    """In float64, beside a network whose one output is the guided one."""
    exact = {"dtype": torch.float64, "backend": "torch"}
    got = run(NET, solver, guidance=SCALE, guider=asked(name), **exact)
    want = run(steered(name, CASES[name]), solver, **exact)
    assert got.dtype == torch.float64
    assert (got - want).abs().max() < 1e-9 * want.abs().max()
    plain = run(NET, solver, guidance=SCALE, **exact)
    assert (got - plain).abs().max() > 1e-3


@pytest.mark.parametrize("name", sorted(CASES.keys() - {"threshold"}))
def test_the_direction_before_clipping(name):
    """Rows that read the output itself beside the clipped estimate."""
    exact = {"dtype": torch.float64, "backend": "torch", "clip": (-1.0, 1.0), "clipped_eps": False}
    made = Sampler(NET, "ddim", 6, guidance=SCALE, guider=asked(name), **exact)
    assert any(any(row.e) for row in made.plan().rows)
    got = made.sample(seed=3, condition=CLASSES).samples
    want = run(steered(name, CASES[name]), "ddim", **exact)
    assert (got - want).abs().max() < 1e-9 * want.abs().max()
    held = run(NET, "ddim", guidance=SCALE, guider=asked(name), **exact | {"clip": None})
    assert (got - held).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["rescale", "apg"])
def test_an_interval(name):
    """Outside it the condition alone."""
    low, high = interval = (0.2, 3.0)
    own = steered(name, CASES[name])
    rule = own.module.rule

    def within(x, c, u, alpha, sigma, state):
        return rule(x, c, u, alpha, sigma, state) if low < sigma / alpha <= high else c

    own.module.rule = within
    exact = {"dtype": torch.float64, "backend": "torch"}
    got = run(NET, "dpmpp_2m", 8, guidance=SCALE, guider=asked(name), interval=interval, **exact)
    want = run(own, "dpmpp_2m", 8, **exact)
    assert (got - want).abs().max() < 1e-9 * want.abs().max()


@pytest.mark.parametrize("guidance", [1.0, SCALE])
def test_dynamic_thresholding(guidance):
    """Against a loop of DDIM: x0 is thresholded, and eps is what leads there."""
    options = CASES["threshold"]
    made = Sampler(
        NET, "ddim", 6, guidance=guidance, guider=asked("threshold"), dtype=torch.float64
    )
    x = 2.0 * torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(0)).double()
    got = made.sample(x=x, noised=True, condition=CLASSES).samples
    y, null = torch.tensor(CLASSES), torch.full((4,), NET.null)
    for s, t in zip(made.points, made.points[1:], strict=False):
        labels = torch.full((4,), s.t, dtype=torch.float64)
        c, u = NET.module(x, labels, y), NET.module(x, labels, null)
        estimate = (x - s.sigma * (u + guidance * (c - u))) / s.alpha
        own = oracle.threshold(estimate, **options)
        eps = (x - s.alpha * own) / s.sigma
        x = t.alpha * own + t.sigma * eps
    assert (got - x).abs().max() < 1e-9


def test_the_first_outputs_are_zero():
    """A flow stays where it is."""
    flow = ScoreNetwork(
        lambda x, t, y: x, FlowMatching(), SHAPE, prediction="flow", null=3, classes=3
    )
    made = Sampler(
        flow, "euler", 6, guidance=SCALE, guider={"name": "cfg_zero", "options": {"zero": 2}}
    )
    calls = [row for row in made.plan().rows if row.call]
    assert [bool(any(row.q)) for row in calls] == [False] * 2 + [True] * 4
    assert [row.branches for row in calls] == [(0,)] * 2 + [(0, 1)] * 4
    for row in calls[:2]:
        assert row.new[0]["S0"] + row.new[0]["D"] * row.p[0] == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("solver", ["dpmpp_2m", "ipndm"])
@pytest.mark.parametrize("name", CASES)
def test_the_same_bits_alone_in_a_batch_and_on_every_backend(name, solver):
    own = {"guidance": SCALE, "guider": asked(name)}
    made = [Sampler(NET, solver, 5, backend=backend, **own) for backend in ("torch", "cpp")]
    one, two = (s.sample(seeds=[5, 0, 9, 7], condition=CLASSES).samples for s in made)
    assert torch.equal(one, two) and one.isfinite().all()
    for i, seed in enumerate([5, 0, 9, 7]):
        alone = made[1].sample(seeds=[seed], condition=CLASSES[i : i + 1]).samples
        assert torch.equal(alone[0], one[i])


def mixed():
    options = (
        {"solver": "ddim"},
        {"solver": "heun"},
        {"solver": "ipndm"},
        {"solver": "dpmpp_2m_sde"},
    )
    own = [Sampler(NET, one["solver"], 4 + i % 3, guidance=SCALE, guider=asked(name))
           for i, (one, name) in enumerate(zip((*options, options[0]), CASES, strict=True))]  # fmt: skip
    return [*own, Sampler(NET, "unipc", 5, guidance=2.0), Sampler(NET, "ddpm", 6)]


@pytest.mark.parametrize("backend", ["torch", "cpp"])
def test_a_batch_that_mixes_them(backend):
    samplers = mixed()
    order = [0, 1, 2, 3, 4, 5, 6, 3, 1]
    conditions = (torch.tensor(1), torch.tensor(NET.null))
    made, finite = together(Eager(backend), NET, jobs_of(samplers, order, conditions=conditions))
    assert all(finite)
    for i, p in enumerate(order):
        assert torch.equal(made[i], samplers[p].sample(seeds=[i], condition=[1]).samples[0])


def test_an_engine():
    """Requests of several guiders in one batch, and one of none beside it."""
    from diffusion_engine.engine import Engine
    from diffusion_engine.sampler.spec import Spec

    specs = [
        Spec(solver="dpmpp_2m", steps=4 + i, guidance=SCALE, guider=asked(name))
        for i, name in enumerate(CASES)
    ]
    specs.append(Spec(solver="ddim", steps=4, guidance=2.0))
    with Engine(NET, 4, probe=False) as engine:
        handles = [engine.submit(spec, seeds=[i], condition=[1]) for i, spec in enumerate(specs)]
        made = [handle.result(timeout=100.0) for handle in handles]
    for i, (spec, result) in enumerate(zip(specs, made, strict=True)):
        rest = spec.arguments()
        alone = Sampler(NET, spec.solver.name, **rest).sample(seeds=[i], condition=[1])
        assert torch.equal(result.samples, alone.samples)


def test_a_network_that_is_recorded():
    """In C++ on the CPU: the same bits alone and in a batch."""
    network = load_network("digits")
    own = {"guidance": SCALE, "guider": asked("apg"), "executor": "native"}
    made = Sampler(network, "dpmpp_2m", 2, threads=1, **own)
    both = made.sample(seeds=[3, 4], condition=[1, 7]).samples
    assert torch.equal(made.sample(seeds=[4], condition=[7]).samples[0], both[1])
    eager = Sampler(network, "dpmpp_2m", 2, **own | {"executor": "eager"})
    assert (eager.sample(seeds=[3, 4], condition=[1, 7]).samples - both).abs().max() < 1e-3


@pytest.mark.parametrize("name", CASES)
def test_executors(name, monkeypatch):
    own = {"guidance": SCALE, "guider": asked(name)}
    want = Sampler(NET, "dpmpp_2m", 4, **own).sample(seed=2, condition=CLASSES).samples
    monkeypatch.setattr(stages, "resolve", taped(stages.resolve))
    for whole in (False, True):
        graph = Graph(recorder=TapeRecorder(), whole_run=whole)
        made = Sampler(NET, "dpmpp_2m", 4, executor=graph, **own)
        for _ in range(2):
            assert torch.equal(made.sample(seed=2, condition=CLASSES).samples, want)


def test_recipes_and_plans():
    made = Sampler(NET, "dpmpp_2m", 5, guidance=SCALE, guider=asked("apg"))
    result = made.sample(3, seed=4, condition=[0, 1, 2])
    recipe = json.loads(json.dumps(result.recipe))
    assert recipe["guider"] == asked("apg")
    assert torch.equal(Sampler.replay(NET, recipe).samples, result.samples)
    plan = Plan.from_json(made.plan().to_json())
    assert plan.rows == made.plan().rows and plan.guiders == {"apg"}
    saved = Sampler.from_plan(NET, plan).sample(3, seed=4, condition=[0, 1, 2])
    assert torch.equal(saved.samples, result.samples)
    assert "guided by apg (6.0, 0.3, -0.4, 4.0, 2.0)" in str(plan)
    assert "guider" not in Sampler(NET, "ddim", 3).plan().to_json()


def test_scale_1_is_no_guidance():
    for name in CASES.keys() - {"threshold"}:
        made = Sampler(NET, "ddim", 4, guider=name)
        assert made.plan() == Sampler(NET, "ddim", 4).plan() and not made.plan().guiders


def test_each_sample_its_own_scale():
    made = Sampler(NET, "ddim", 4, guider="rescale")
    several = made.sample(seeds=[1, 1, 1], condition=[2] * 3, guidance=[1.0, 3.0, 8.0]).samples
    for scale, sample in zip([1.0, 3.0, 8.0], several, strict=True):
        alone = made.sample(seeds=[1], condition=[2], guidance=scale).samples[0]
        assert torch.equal(alone, sample)


def test_what_they_do():
    """Rescaled outputs have the conditional one's spread, and no estimate leaves a bound of its own."""
    x, c, u = torch.randn(3, 4, *SHAPE, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(
        oracle.rescale(c, u, 9.0, 1.0).flatten(1).std(dim=1), c.double().flatten(1).std(dim=1)
    )
    assert oracle.threshold(3.0 * x, 0.95, None).abs().max() <= 1.0
    assert sorted(GUIDERS) == sorted(CASES)


@pytest.mark.parametrize(
    "given, said",
    [
        ("agp", "guider=agp: choose rescale"),
        ({"name": "rescale", "options": {"psi": 1}}, "guider 'rescale' takes no psi"),
        ({"name": "rescale", "options": {"phi": 1.5}}, "phi=1.5: the share of the rescaled output"),
        (
            {"name": "cfg_zero", "options": {"zero": -1}},
            "zero=-1: the first calls whose output is zero",
        ),
        (
            {"name": "apg", "options": {"limit": 0.0}},
            "limit=0: the largest norm of a change is above 0",
        ),
        ({"name": "apg", "options": {"momentum": -1.0}}, "momentum=-1: what is kept would grow"),
        ({"name": "threshold", "options": {"q": 2.0}}, "q=2: the quantile of the magnitudes"),
        (
            {"name": "threshold", "options": {"most": 0.5}},
            "most=0.5: the largest bound is 1 or more",
        ),
        (3, "guider=3: give a name"),
    ],
)
def test_bad_input(given, said):
    with pytest.raises(ValueError) as error:
        Sampler(NET, "ddim", 3, guidance=2.0, guider=given)
    assert said in str(error.value).replace("'agp'", "agp")


def test_what_they_cannot_do():
    made = Sampler(NET, "ddim", 3, guider="rescale")
    with pytest.raises(ValueError, match="guides by one condition, and compose= joins several"):
        made.sample(1, compose=[(0, 1.0), (1, 2.0)])
    with pytest.raises(ValueError, match="keeps its momentum in a slot and 'unipc' takes all 5"):
        Sampler(NET, "unipc", 6, guidance=2.0, guider="apg", max_order=3)
    Sampler(NET, "unipc", 6, guidance=2.0, guider=guider("apg", momentum=0.0), max_order=3)
    with pytest.raises(ValueError, match="estimates that a guider has not weighed yet"):
        Sampler(NET, "ddim", 3, guidance=2.0, guider="rescale", driver="dpm_adaptive")
    with pytest.raises(ValueError, match="gives rows other weights than the plan's"):
        Sampler(NET, "ddpm", 3, guidance=2.0, guider="rescale").sample(
            1, condition=[0], record=["log_prob"]
        )


@pytest.mark.parametrize("name", CASES)
def test_a_learned_variance(name):
    """One more channel block, which is none of the prediction's."""
    process = Discrete.linear()
    module, own = labelled_mixture(process, SHAPE).module, {"null": 3, "classes": 3}
    plain = ScoreNetwork(module, process, SHAPE, label_dtype=torch.float64, **own)
    wide = ScoreNetwork(
        lambda x, t, y: torch.cat([module(x, t, y), 0.3 * x], dim=1), process, SHAPE,
        label_dtype=torch.float64, variance="learned_range", **own,
    )  # fmt: skip
    how = {"guidance": SCALE, "guider": asked(name)}
    assert torch.equal(*(run(network, "dpmpp_2m", 3, **how) for network in (plain, wide)))
    how["variance"] = "learned_range"
    made = [run(wide, "ddpm", 3, backend=backend, **how) for backend in ("torch", "cpp")]
    assert torch.equal(*made) and made[0].isfinite().all()


def test_a_batch_that_was_made_without():
    plain, guided = (Sampler(NET, "ddim", 3, guidance=2.0, guider=g) for g in (None, "tcfg"))
    jobs = [
        jobs_of([one], [0], conditions=(torch.tensor(1), torch.tensor(3)))[0]
        for one in (plain, guided)
    ]
    batch = Eager().open(NET, capacity(NET, jobs[:1], seats=2))
    with pytest.raises(ValueError, match="'ddim' is guided by tcfg, which this batch is not"):
        batch.admit(jobs[1])


def test_guided_rows_are_those_of_the_interval():
    made = Sampler(NET, "ddim", 9, guidance=2.0, guider="tcfg", interval=(0.2, 2.0)).plan()
    assert [bool(row.guider) for row in made.rows] == [inside(row, (0.2, 2.0)) for row in made.rows]
    assert 0 < sum(bool(row.guider) for row in made.rows) < 9


def test_formulas_are_those_of_diffusers():
    guides = needs("diffusers.guiders")
    c, apart = torch.randn(2, 4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    u = 0.9 * c + 0.3 * apart  # alike, as outputs of one network are

    def alike(own, peer):  # which works in float32
        return (own - peer).abs().max() < 1e-5 * peer.abs().max()

    peer = guides.classifier_free_zero_star_guidance.cfg_zero_star_scale(c.flatten(1), u.flatten(1))
    own = oracle.cfg_zero(c, u, 5.0)
    fit = peer.view(-1, 1, 1, 1)
    assert alike(own, u * fit + 5.0 * (c - u * fit))
    peer = guides.tangential_classifier_free_guidance.normalized_guidance(c, u, 5.0)
    assert alike(oracle.tcfg(c, u, 5.0), peer)
    peer = guides.guider_utils.rescale_noise_cfg(u + 5.0 * (c - u), c, 0.7)
    assert alike(oracle.rescale(c, u, 5.0, 0.7), peer)
    adaptive = guides.adaptive_projected_guidance
    buffer, kept = adaptive.MomentumBuffer(-0.4), torch.zeros_like(c)
    for estimate in (c, 0.5 * c - u):
        # that of the original formulation: D_c + (s - 1) of the projected change
        peer = adaptive.normalized_guidance(estimate, u, 5.0, buffer, 0.3, 9.0, True)
        own, kept = oracle.apg(estimate, u, 6.0, 0.3, -0.4, 9.0, kept)
        assert alike(own, peer)
