"""Annealed MCMC: against the loops of the papers, its own bits, and what it refuses."""

import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from mcmc_cases import PAIR, gaussians, mcmc, sampled
from oracles import mcmc as oracle

from diffusion_engine import Engine, Sampler, Spec
from diffusion_engine.drivers.mcmc_levels import Level
from diffusion_engine.ops import philox
from diffusion_engine.processes import EDM, VP
from diffusion_engine.solvers import SOLVERS
from diffusion_engine.testing import cld_mixture, labelled_mixture

MEANS, STDS = (0.0, 1.0), (1.0, 0.6)
NETWORK = gaussians(MEANS, STDS, shape=(2, 3))
# Options, and the oracle's moves with e = the given step times sigma^2, or its root.
CHAINS = {
    "ula": (dict(steps=3, step=0.3), oracle.ula(lambda at: 0.3 * at[1] ** 2, 3)),
    "mala": (dict(steps=5, step=0.4), oracle.mala(lambda at: 0.4 * at[1] ** 2, 5)),
    "uhmc": (
        dict(steps=2, step=0.3, leapfrogs=3, damping=0.6),
        oracle.hmc(lambda at: 0.3 * at[1], 2, 3, 0.6, False),
    ),
    "hmc": (
        dict(steps=5, step=0.9, leapfrogs=2, damping=0.6),
        oracle.hmc(lambda at: 0.9 * at[1], 5, 2, 0.6, True),
    ),
}


def by_oracle(seed, sampler, density, moves):
    network, points = sampler.network, sampler.points

    def normal(key):
        size = int(np.prod(network.shape))
        made = philox.normals(torch.tensor([seed]), torch.tensor([key]), 0, size)
        return made.double().numpy().reshape(network.shape)

    x = network.process.prior_std(points[0]) * normal(0)
    return oracle.run(x, points, density, moves, normal, lambda key: philox.uniform(seed, key))


@pytest.mark.parametrize("composition", ["product", "mixture"])
@pytest.mark.parametrize("name", CHAINS)
def test_chains_are_those_of_the_papers(name, composition):
    weights = (1.0, 0.7) if composition == "product" else (0.25, 0.75)
    options, moves = CHAINS[name]
    led = mcmc(sampler=name, unit="sigma", composition=composition, **options)
    sampler = Sampler(NETWORK, "ddpm", 4, driver=led, dtype=torch.float64, backend="torch")
    result = sampler.sample(3, seed=3, compose=list(enumerate(weights)))
    density = oracle.gaussians(MEANS, STDS, weights, composition == "mixture")
    shares = []
    for i, seed in enumerate(result.seeds):
        x, accepted = by_oracle(seed, sampler, density, moves)
        assert np.abs(result.samples[i].numpy() - x).max() < 1e-9
        if name in ("mala", "hmc"):
            levels = result.reports[i]["levels"]
            assert [level["acceptance"] for level in levels] == accepted
            assert result.reports[i]["acceptance"] == pytest.approx(np.mean(accepted))
            shares += accepted
    if shares:  # both branches of the algorithm were gone
        assert 0.0 < np.mean(shares) < 1.0
    for level, point in zip(result.reports[0]["levels"], sampler.points, strict=False):
        assert level["t"] == point.t


@pytest.mark.parametrize("scaled", [False, True])
def test_both_scales_of_energy_are_one_density(scaled):
    network = gaussians(MEANS, STDS, shape=(2, 3), scaled=scaled)
    led = mcmc(sampler="mala", steps=3, step=0.3, unit="sigma")
    made = sampled(network, 3, 5, driver=led, dtype=torch.float64, backend="torch")
    other = sampled(NETWORK, 3, 5, driver=led, dtype=torch.float64, backend="torch")
    assert (made.samples - other.samples).abs().max() < 1e-9


@pytest.mark.parametrize("composition", ["product", "mixture"])
@pytest.mark.parametrize("name", CHAINS)
def test_the_same_bits_alone_in_a_batch_and_on_both_backends(name, composition):
    led = mcmc(sampler=name, composition=composition, **CHAINS[name][0])
    compose = PAIR if composition == "product" else [(0, 0.5), (1, 0.5)]
    made = {
        backend: Sampler(NETWORK, "ddpm", 3, driver=led, backend=backend)
        for backend in ("torch", "cpp")
    }
    together = made["cpp"].sample(3, seed=8, compose=compose)
    assert torch.equal(together.samples, made["torch"].sample(3, seed=8, compose=compose).samples)
    for i, backend in enumerate(made):
        alone = made[backend].sample(1, seed=8 + i, compose=compose)
        assert torch.equal(alone.samples[0], together.samples[i])
        assert alone.reports[0] == together.reports[i]
    assert bool(together.samples.isfinite().all())


def test_in_the_engine_beside_ordinary_samples_and_replayed():
    """Chains of different lengths, beside a sample that follows its plan, and again from recipes."""
    own = {"sampler": "hmc", "steps": 2, "step": 0.5}
    spec = Spec(solver="dpmpp_2m", steps=5, driver={"name": "annealed_mcmc", "options": own})
    mixing = Spec(
        solver="ddpm", steps=4,
        driver={"name": "annealed_mcmc", "options": {"composition": "mixture", "steps": 2}},
    )  # fmt: skip
    with Engine(NETWORK, capacity=3, batch="bucket") as engine:
        handles = [
            engine.submit(spec, 2, seed=5, compose=PAIR),
            engine.submit(Spec(solver="heun", steps=5), 2, seed=1, condition=[0, 1]),
            engine.submit(mixing, 2, seed=5, compose=[(0, 0.5), (1, 0.5)]),
        ]
        led, plain, mixed = (handle.result(60) for handle in handles)
    wanted = Sampler(NETWORK, "dpmpp_2m", 5, driver=mcmc(**own)).sample(2, seed=5, compose=PAIR)
    assert torch.equal(led.samples, wanted.samples)
    assert led.reports == wanted.reports
    assert torch.equal(
        plain.samples, Sampler(NETWORK, "heun", 5).sample(2, seed=1, condition=[0, 1]).samples
    )
    for result in (led, mixed):
        recipe = json.loads(json.dumps(result.recipe))
        assert "driver" not in recipe["needs"]
        assert torch.equal(Sampler.replay(NETWORK, recipe).samples, result.samples)


@pytest.mark.parametrize("solver", ["ddim", "heun", "dpmpp_2m", "dpmpp_3m", "euler_ancestral"])
@pytest.mark.parametrize("name", ["ula", "hmc"])
def test_solvers_go_on_with_their_own_slots(solver, name):
    """A chain that hardly moves leaves the run what it is, also one of several slots."""
    led = mcmc(sampler=name, steps=2, step=1e-12 if name == "ula" else 1e-7, unit="one")
    made = Sampler(NETWORK, solver, 6, driver=led).sample(condition=[0, 1])
    plain = Sampler(NETWORK, solver, 6).sample(condition=[0, 1])
    assert (made.samples - plain.samples).abs().max() < 2e-4


OTHERS = ("genie", "ddgan", "consistency", "lcm", "tcd", "flow_map", "scm")  # run other networks


def test_solvers_that_remember_what_x_was_are_refused():
    refused = set()
    for name, rule in SOLVERS.items():
        if rule.parts == 1 and not rule.needs and name not in OTHERS:
            try:
                Sampler(NETWORK, name, 6, driver=mcmc(steps=1)).plan()
            except ValueError as error:
                assert "before the chain moved it" in str(error)
                refused.add(name)
    assert refused >= {"unipc", "plms", "ipndm"}
    assert not refused & {"ddpm", "ddim", "euler", "heun", "dpmpp_2m", "dpmpp_3m", "dpmpp_sde"}


def test_levels_and_steps():
    """Where the chain runs, and the published steps there."""
    sampler = Sampler(NETWORK, "ddpm", 50, driver=mcmc(above=0.5, below=3.0, steps=1))
    points = sampler.points
    report = sampler.sample(1, compose=PAIR).reports[0]
    inside = [(s, t) for s, t in pairwise(points) if 0.5 < s.ratio <= 3.0]
    assert [level["t"] for level in report["levels"]] == [s.t for s, _ in inside]
    for level, (s, t) in zip(report["levels"], inside, strict=True):
        beta = 1.0 - (s.alpha / t.alpha) ** 2  # of DDPM, on a process that keeps the variance
        assert level["step"] == pytest.approx(2.0 * beta, rel=1e-9)
    given = [0.1 * (i + 1) for i in range(len(inside))]
    for step in (given, lambda at: given[[s for s, _ in inside].index(at)]):
        led = mcmc(above=0.5, below=3.0, step=step, unit="one", steps=1)
        found = Sampler(NETWORK, "ddpm", 50, driver=led).sample(1, compose=PAIR)
        assert [level["step"] for level in found.reports[0]["levels"]] == given


def test_calls():
    """One a move of Langevin's, `leapfrogs` of HMC's, one more a level where moves are accepted or not."""
    levels, moves = 4, 3
    counts = {"ula": moves, "mala": moves + 1, "uhmc": 2 * moves, "hmc": 2 * moves + 1}
    for name, calls in counts.items():
        led = mcmc(sampler=name, steps=moves, leapfrogs=2)
        sampler = Sampler(NETWORK, "ddpm", levels, driver=led)
        result = sampler.sample(2, compose=PAIR)
        at = [p for p in sampler.points if p.sigma > 0.0]
        assert result.nfe == levels + len(at) * calls, name
        assert result.evaluations == 2 * 2 * result.nfe


@pytest.mark.parametrize("given", [{}, {"start": 1.0}, {"noised": True}], ids=str)
def test_a_given_x_has_other_normals(given, monkeypatch):
    """An x that the same seed has made used the normals of its own run."""
    keys = []
    real = Level.row

    def row(self, *how):
        keys.append(self.key)
        return real(self, *how)

    monkeypatch.setattr(Level, "row", row)
    own = {"x": torch.zeros(1, *NETWORK.shape)} if given else {}
    sampler = Sampler(NETWORK, "ddim", 3, driver=mcmc(steps=2, step=0.1))
    result = sampler.sample(1, compose=PAIR, **own, **given)
    bits = {"start": philox.IMAGE, "noised": philox.STATE}.get(next(iter(given), ""), 0)
    assert keys == [bits | (i + 1) << 16 for i in range(3) for _ in range(2)]
    assert bool(result.samples.isfinite().all())


BAD = [
    (dict(sampler="gibbs"), "sampler='gibbs': choose ula, mala, uhmc, hmc"),
    (dict(step=-0.1), "step=-0.1: give a number above 0"),
    (dict(step=[0.1, 0.0]), "give a number above 0"),
    (dict(step=[]), "give a number above 0"),
    (dict(steps=-1), "moves a level, 0 or more"),
    (dict(steps=1 << 16), "at most 65535 moves"),
    (dict(leapfrogs=0), "leapfrog steps of a move, 1 or more"),
    (dict(damping=1.0), r"damping=1: it lies in \[0, 1\)"),
    (dict(above=2.0, below=1.0), "0 <= above < below"),
    (dict(unit="beta2"), "unit='beta2'"),
    (dict(composition="sum"), "composition='sum'"),
    (dict(stepsize=0.1), "takes no stepsize; did you mean step"),
]


@pytest.mark.parametrize(("options", "said"), BAD, ids=str)
def test_bad_options(options, said):
    with pytest.raises(ValueError, match=said):
        mcmc(**options)


def test_networks_that_do_not_suit():
    plain = labelled_mixture()
    for options in ({"sampler": "mala"}, {"sampler": "hmc"}, {"composition": "mixture"}):
        with pytest.raises(
            ValueError, match="by their energy, which the network 'labelled mixture' does not"
        ):
            Sampler(plain, "ddpm", 5, driver=mcmc(**options))
    with pytest.raises(ValueError, match="that of the velocity alone"):
        Sampler(cld_mixture(), "sscs", 5, driver=mcmc())
    sampled(plain, 2, 5, driver=mcmc(steps=1, step=0.1))  # the score is enough for ULA


def test_requests_that_do_not_suit():
    mixing = Sampler(NETWORK, "ddpm", 4, driver=mcmc(composition="mixture", steps=1))
    for weights in ([(0, 0.5), (1, 0.6)], [(0, 1.5), (1, -0.5)]):
        with pytest.raises(ValueError, match="weights above 0 that sum to 1"):
            mixing.sample(1, compose=weights)
    with pytest.raises(ValueError, match="guidance=1 and composition='mixture'"):
        mixing.sample(1, condition=0)
    sampler = Sampler(NETWORK, "ddpm", 4, driver=mcmc(steps=1))
    x = torch.zeros(1, *NETWORK.shape)
    with pytest.raises(ValueError, match="a known region would hold some of it"):
        sampler.sample(1, compose=PAIR, mask=x, known=x)
    with pytest.raises(ValueError, match="has 2 numbers and the chain runs at 4 levels"):
        Sampler(NETWORK, "ddpm", 4, driver=mcmc(step=[0.1, 0.2])).plan()
    with pytest.raises(ValueError, match=r"step\(t=1\)=-1"):
        Sampler(NETWORK, "ddpm", 4, driver=mcmc(step=lambda at: -1.0)).plan()


def test_other_processes():
    network = gaussians(MEANS, STDS, (2,), EDM())
    led = mcmc(sampler="hmc", steps=2, step=0.3)
    assert bool(sampled(network, 2, 8, solver="euler", driver=led).samples.isfinite().all())
    assert VP() == NETWORK.process
