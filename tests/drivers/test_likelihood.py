"""Likelihoods by the probability flow ODE: golden numbers, closed forms, scipy, and every way to ask."""

import math

import pytest
import torch
from optional import needs
from oracles import likelihood as oracle

from diffusion_engine import likelihood
from diffusion_engine.drivers.likelihood_divergence import WITHIN, Hutchinson, uniforms
from diffusion_engine.processes import EDM, VDM, VE, VP, Discrete, FlowMatching, SubVP
from diffusion_engine.testing import Gaussian, Mixture, labelled_mixture

needs("torchdiffeq")

F64 = torch.float64
TIGHT = {"dtype": F64, "exact": True, "rtol": 1e-7, "atol": 1e-7}
PROCESSES = (VP(), SubVP(), VE(), EDM(), FlowMatching(), Discrete.linear(), VDM.linear())
DATA = {
    "gaussian": (Gaussian(), ((1.0,), (0.3,), (0.5,))),
    "mixture": (Mixture(), ((0.3, 0.5, 0.2), (-0.9, 0.1, 0.8), (0.15, 0.1, 0.2))),
}
X = torch.tensor([[0.7, -0.4, 0.15], [-0.95, 0.02, 0.9]], dtype=F64)


def named(process):
    return type(process).__name__


def closed(network, data, made, x):
    """log p(x) at t_min in closed form; and what `made` says, had its prior been the law of its latents."""
    process = network.process
    first, last = process.at(made.t_min), process.noisiest
    true = [oracle.log_mixture(one, data, first.alpha, first.sigma) for one in x]
    there = [oracle.log_mixture(z, data, last.alpha, last.sigma) for z in made.latents]
    return torch.tensor(true), made.log_p - made.prior + torch.tensor(there)


@pytest.mark.parametrize("prediction", ["x0", "eps"])
def test_the_golden_numbers(prediction):
    network = Gaussian().network(VP(), prediction=prediction)
    made = likelihood(network, torch.tensor([[0.7]], dtype=F64), **TIGHT | {"rtol": 1e-9})
    assert made.latents.item() == pytest.approx(0.80195762, abs=2e-8)
    assert (made.log_p - made.prior).item() == pytest.approx(0.69312948, abs=2e-8)
    assert made.log_p.item() == pytest.approx(-0.54737706, abs=2e-8)
    at = VP().at(1.0)
    truly = oracle.log_mixture(made.latents, DATA["gaussian"][1], at.alpha, at.sigma)
    assert truly + 0.69312948 == pytest.approx(-0.54579213, abs=2e-8)
    assert made.t_min == 1e-5 and not made.bound
    assert made.error.tolist() == [0.0]


@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("process", PROCESSES, ids=named)
def test_densities_in_closed_form(process, name):
    data, parts = DATA[name]
    network = data.network(process, (3,))
    made = likelihood(network, X[1:], **TIGHT)
    true, said = closed(network, parts, made, X[1:])
    bits = (said - true).abs().max() / (3 * math.log(2.0))
    assert bits < 1e-6
    assert torch.equal(made.bits_per_dim, -made.log_p / (3 * math.log(2.0)) + 7.0)


def test_the_default_tolerance_is_enough_for_a_ten_thousandth_of_a_bit_of_gaussians():
    network = Gaussian().network(VP(), (3,))
    made = likelihood(network, X, dtype=F64, exact=True)
    true, said = closed(network, DATA["gaussian"][1], made, X)
    assert (said - true).abs().max() / (3 * math.log(2.0)) < 1e-4
    assert max(made.nfe) < 60


@pytest.mark.parametrize("process", [VP(), SubVP(), VE()], ids=named)
def test_the_ode_in_t_by_scipy(process):
    network = Mixture().network(process, (3,))
    made = likelihood(network, X[:1], **TIGHT | {"rtol": 1e-8, "atol": 1e-8})

    def law(t):
        at = process.at(t)
        return at.alpha, at.sigma, float(process.drift(t)), float(process.diffusion(t))

    end, change = oracle.by_scipy(X[0], DATA["mixture"][1], law, made.t_min, process.t_max)
    assert made.latents[0].tolist() == pytest.approx(end.tolist(), rel=1e-6)
    assert (made.log_p - made.prior).item() == pytest.approx(change, abs=1e-6)
    scale = process.prior_std(process.at(process.t_max))
    assert made.prior.item() == pytest.approx(oracle.log_normal(end, scale**2), abs=1e-6)


@pytest.mark.parametrize("solver", ["dopri5", "dpm_solver_2"])
@pytest.mark.parametrize("probe", ["rademacher", "gaussian"])
def test_probes_estimate_the_divergence(probe, solver):
    """Data whose elements depend on one another: Rademacher's probes too have a variance."""
    network = labelled_mixture(shape=(4,), means=(-1.0, 0.1, 1.0), stds=(0.3, 0.2, 0.4))
    x = torch.tensor([[0.5, 0.4, 0.6, 0.3], [-0.4, -0.5, -0.6, -0.3]], dtype=F64)
    known = {"dtype": F64, "solver": solver, "t_min": 1e-3}
    known |= {"rtol": 1e-4, "atol": 1e-4} if solver == "dopri5" else {"steps": 20}
    true = likelihood(network, x, exact=True, **known)
    made = likelihood(network, x, probes=12, probe=probe, **known)
    assert bool((made.error > 1e-4).all())
    assert bool(((made.bits_per_dim - true.bits_per_dim).abs() < 3.0 * made.error).all())
    one = likelihood(network, x, probe=probe, **known)
    assert one.error.isnan().all() and not torch.equal(one.log_p, made.log_p)


@pytest.mark.parametrize("solver", ["dopri5", "dpmpp_2m"])
@pytest.mark.parametrize("backend", ["torch", "cpp"])
def test_the_same_bits_alone_and_among_others(solver, backend):
    network = Mixture().network(VP(), (1, 3, 3), prediction="eps")
    x = torch.linspace(-1.0, 1.0, 45).view(5, 1, 3, 3)
    # Gaussian: on a diagonal Jacobian all of Rademacher's directions say the same.
    how = {"probes": 2, "probe": "gaussian", "solver": solver, "backend": backend}
    how |= {"steps": 8} if solver != "dopri5" else {"rtol": 1e-3, "atol": 1e-3}
    together = likelihood(network, x, seed=7, **how)
    parts = likelihood(network, x, seed=7, batch_size=2, **how)
    alone = likelihood(network, x[3:4], seeds=[10], **how)
    for name in ("log_p", "prior", "latents", "error", "bits_per_dim"):
        whole = getattr(together, name)
        assert torch.equal(getattr(parts, name), whole), name
        assert torch.equal(getattr(alone, name)[0], whole[3]), name
    assert together.seeds == (7, 8, 9, 10, 11) and len(together.nfe) == 5


def test_a_condition_is_followed():
    """log p(x | component) of one component's normal law."""
    network = labelled_mixture(shape=(2,))
    x = torch.tensor([[0.0, 0.2], [0.9, 0.6]], dtype=F64)
    made = likelihood(network, x, condition=[1, 2], **TIGHT)
    at = VP().at(1e-5)
    for i, (mean, std) in enumerate(((0.1, 0.1), (0.8, 0.2))):
        part = ((1.0,), (mean,), (std,))
        true = oracle.log_mixture(x[i], part, at.alpha, at.sigma)
        last = VP().at(1.0)
        there = oracle.log_mixture(made.latents[i], part, last.alpha, last.sigma)
        assert (made.log_p - made.prior)[i].item() + there == pytest.approx(true, abs=1e-5)


def test_pixels_are_spread_over_their_levels():
    network = Gaussian().network(VP(), (1, 2, 2))
    levels = torch.tensor([[[[0, 255], [17, 128]]]], dtype=torch.uint8)
    how = {"solver": "ddim", "steps": 2, "seeds": [3], "dtype": F64}
    made = likelihood(network, levels, dequantise=True, **how)
    as_floats = likelihood(network, levels.double() / 127.5 - 1.0, dequantise=True, **how)
    assert torch.allclose(made.latents, as_floats.latents, rtol=0, atol=1e-12)
    u = uniforms([3], 0, WITHIN, (1, 2, 2))
    assert bool((u > 0).all() and (u < 1).all()) and len(u.unique()) == 4
    y = torch.from_numpy(oracle.dequantised(levels.double().numpy() / 255.0, u.numpy()))
    assert torch.allclose(likelihood(network, y, **how).log_p, made.log_p, rtol=0, atol=1e-9)


def test_what_is_added_to_bits():
    network = Gaussian().network(VP(), (2,))
    x = torch.tensor([[0.4, 0.6]], dtype=F64)
    how = {"solver": "ddim", "steps": 2, "dtype": F64}
    offsets = {(-1.0, 1.0): 7.0, (0.0, 1.0): 8.0, (0.0, 256.0): 0.0, None: 0.0}
    for given, offset in offsets.items():
        made = likelihood(network, x, range=given, **how)
        assert made.bits_per_dim.item() == -made.log_p.item() / (2 * math.log(2.0)) + offset


def test_standard_errors():
    network = Mixture().network(VP(), (2,))
    made = likelihood(
        network, X[:, :2], solver="ddim", steps=4, dtype=F64, probe="gaussian", probes=3
    )
    assert made.mean == made.bits_per_dim.mean().item()
    assert made.standard_error == pytest.approx(made.bits_per_dim.std().item() / math.sqrt(2))
    one = likelihood(
        network, X[:1, :2], solver="ddim", steps=4, dtype=F64, probe="gaussian", probes=3
    )
    assert one.standard_error == one.error.item() > 0.0


def test_noise_is_that_of_the_seeds():
    cpu = torch.device("cpu")
    many = Hutchinson.of([5, 2**64 - 1], (3, 2), 4, "gaussian", cpu).directions
    alone = Hutchinson.of([2**64 - 1], (3, 2), 2, "gaussian", cpu).directions
    assert torch.equal(many[:2, 1:], alone)
    signs = Hutchinson.of(range(64), (3, 2), 4, "rademacher", cpu).directions
    assert signs.unique().tolist() == [-1.0, 1.0] and abs(signs.mean().item()) < 0.1
