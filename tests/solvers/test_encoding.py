"""Encoding: images to latents by the same solver upwards, and back."""

import json
import math

import pytest
import torch
from analytic import OF_X

from diffusion_engine import SOLVERS, Sampler, ScoreNetwork
from diffusion_engine.genie import exact_derivative
from diffusion_engine.processes import EDM, VE, VP, Discrete, FlowMatching, SubVP, grids
from diffusion_engine.processes.levels import Levels
from diffusion_engine.solvers.inverse import encoding
from diffusion_engine.testing import labelled_mixture as mixture

F64 = {"dtype": torch.float64, "backend": "torch"}
EXACT = exact_derivative(mixture())
IMAGES = torch.tensor([[0.12], [-0.85], [0.7], [0.02]], dtype=torch.float64)
DETERMINISTIC = [name for name in OF_X if not SOLVERS[name]().stochastic]


def error(network, solver, steps, refine=0, x=IMAGES, given=None, **options):
    sampler = Sampler(network, solver, steps, **({"end": "t_min"} | F64 | options))
    latents = sampler.encode(x, refine=refine, **(given or {})).samples
    back = sampler.sample(x=latents, noised=True, **(given or {})).samples
    return float((back - x).abs().max()), latents


@pytest.mark.parametrize("solver", [*DETERMINISTIC, "genie"])
def test_the_round_trip_falls_with_the_order(solver):
    network = EXACT if solver == "genie" else mixture()
    options = {"afs": False, "denoise": True} if solver == "genie" else {}
    own = SOLVERS[solver](**options)
    assert own.order >= 1
    # GENIE's exact derivative is dear, and its second order shows early.
    steps = 20 if solver == "genie" else 40
    coarse, _ = error(network, solver, steps)
    fine, _ = error(network, solver, 2 * steps)
    slope = math.log2(coarse / fine)
    assert slope > min(own.order, 2) - 0.45, (coarse, fine)
    assert fine < {1: 0.1, 2: 0.02}.get(own.order, 0.01)


@pytest.mark.parametrize("refine, order", [(0, 1), (1, 2), (2, 3)])
def test_refinement_raises_the_order(refine, order):
    errors = [error(mixture(), "ddim", n, refine)[0] for n in (80, 160)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.35)


@pytest.mark.parametrize("solver", ["ddim", "euler", "genie"])
def test_refinement_inverts_the_steps_themselves(solver):
    """To rounding, on a grid far too coarse for the plain way up; an iteration halves what is left."""
    network = EXACT if solver == "genie" else mixture()
    coarse, _ = error(network, solver, 20)
    refine, left = (12, 5e-7) if solver == "genie" else (18, 1e-8)
    exact, _ = error(network, solver, 20, refine=refine)
    assert exact < left < 1e-3 < coarse
    sampler = Sampler(network, solver, 20, end="t_min", **F64)
    assert [sampler.encode(IMAGES, refine=k).nfe for k in (1, 3)] == [1 + 20, 1 + 3 * 20]


def test_one_sampler_goes_up_in_every_way():
    def made():
        return Sampler(mixture(), "ddim", 8, end="t_min", **F64)

    one, start = made(), 0.1
    one.sample(x=IMAGES, start=start)
    for refine in (0, 2, 5):
        latents = one.encode(IMAGES, start=start, refine=refine).samples
        assert torch.equal(latents, made().encode(IMAGES, start=start, refine=refine).samples)


@pytest.mark.parametrize("solver", ["ddim", "euler"])
@pytest.mark.parametrize("process", [VP(), EDM(), FlowMatching()], ids=["vp", "edm", "flow"])
def test_an_iteration_is_the_paper_s(solver, process):
    """x_s <- (x_t - c eps(x_s)) / a: beside eps the iterate itself has no weight."""
    sampler = Sampler(mixture(process), solver, times=grids.points(process, 8, None, "t_min")[1:])
    about = sampler.network.parameterisation
    rows = encoding(sampler.solver, sampler.points, about, None, None, 2).rows
    for row in rows[2:]:  # after the first guess
        iterate = row.new.get(1, row.new[0])  # where a guess follows, slot 1 has it
        weight = iterate["S0"] + iterate["D"] / row.call.at.alpha
        assert abs(weight) < 1e-9 * (1.0 + abs(iterate["D"]) / row.call.at.alpha)


def test_the_latent_of_the_ode():
    """Both ways up come to the latent that the ODE itself leads to."""
    fine = Sampler(mixture(), "dpm_solver_3", 300, end="t_min", **F64).encode(IMAGES).samples
    for refine in (0, 2):
        _, latents = error(mixture(), "ddim", 320, refine)
        assert (latents - fine).abs().max() < 0.02


def test_gaussian_data_are_scaled():
    """x / sqrt(V) is constant along the ODE of a Gaussian."""
    network = mixture(weights=[1.0], means=[0.0], stds=[0.5])
    sampler = Sampler(network, "dpm_solver_3", 60, end="t_min", **F64)
    low, high = sampler.points[-1], sampler.points[0]
    ratio = math.sqrt((0.25 * high.alpha**2 + high.sigma**2) / (0.25 * low.alpha**2 + low.sigma**2))
    made = sampler.encode(IMAGES).samples
    assert (made - ratio * IMAGES).abs().max() < 1e-5
    later = sampler.encode(IMAGES, start=0.3).samples
    start = VP().at(0.3)
    ratio = math.sqrt(
        (0.25 * high.alpha**2 + high.sigma**2) / (0.25 * start.alpha**2 + start.sigma**2)
    )
    assert (later - ratio * IMAGES).abs().max() < 1e-5


@pytest.mark.parametrize("refine", [0, 12])
def test_conditions_and_guidance_pass_through(refine):
    given = {"condition": [0, 1, 2, 0], "guidance": 1.5}
    steps = 40 if refine else 80
    guided, latents = error(mixture(), "ddim", steps, refine, given=given)
    assert guided < (0.2 if refine == 0 else 1e-4)
    _, plain = error(mixture(), "ddim", steps, refine)
    assert (latents - plain).abs().max() > 0.1
    composed, _ = error(
        mixture(), "ddim", steps, refine, given={"compose": [([0, 1, 2, 0], 0.5), (1, 0.3)]}
    )
    assert composed < (0.2 if refine == 0 else 1e-4)


@pytest.mark.parametrize("solver", DETERMINISTIC)
def test_guided_images_come_back_from_every_solver(solver):
    given = {"condition": [1, 0, 2, 1], "guidance": 1.5}
    coarse, fine = (error(mixture(), solver, n, given=given)[0] for n in (20, 80))
    assert fine < {1: 0.1, 2: 0.01}.get(SOLVERS[solver]().order, 0.005)
    assert fine < 0.4 * coarse


def heads():
    """Heads that mix to the exact derivative."""

    def module(x, t):
        eps, slope = EXACT.module(x, t)
        g = Levels.of(VP(), t).ratio[:, None].to(x.dtype)
        return torch.cat((eps, 0.5 * x, 0.0 * x, (slope + 0.5 * x / g) * g * (1 + g * g)), dim=1)

    return ScoreNetwork(module, VP(), (1,), label_dtype=torch.float64, derivative="heads")


@pytest.mark.parametrize("refine", [0, 3])
def test_encoding_with_genie(refine):
    """By heads and by the exact derivative; with neither of the options of the way down."""
    latents = [
        Sampler(network, "genie", 10, end="t_min", afs=on, denoise=on, **F64).encode(
            IMAGES, refine=refine
        )
        for network in (heads(), EXACT)
        for on in (False, True)
    ]
    assert all(made.nfe == (1 + 10 * refine if refine else 10) for made in latents)
    for made in latents[1:]:
        assert (made.samples - latents[0].samples).abs().max() < 1e-9


def test_encoding_with_genie_along_a_guided_ode():
    guided, given = exact_derivative(mixture(), guidance=1.5), {"condition": [1, 0, 2, 1]}
    coarse, fine = (error(guided, "genie", n, given=given)[0] for n in (20, 40))
    assert fine < 0.35 * coarse


def test_an_image_with_nan_is_refused():
    x = IMAGES.clone()
    x[1] = math.nan
    with pytest.raises(ValueError, match="x holds NaN or infinity; give finite images"):
        Sampler(mixture(), "ddim", 8, **F64).encode(x)


def test_float32_on_cpp():
    network = mixture(shape=(3, 4, 5))
    x = 0.1 + 0.1 * torch.randn(5, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    sampler = Sampler(network, "ddim", 30, end="t_min", backend="cpp")
    latents = sampler.encode(x, refine=8, batch_size=2)
    back = sampler.sample(x=latents.samples, noised=True).samples
    assert (back - x).abs().max() < 1e-3
    reference = Sampler(network, "ddim", 30, end="t_min", backend="torch").encode(x, refine=8)
    assert torch.equal(latents.samples, reference.samples)
    recipe = json.loads(json.dumps(latents.recipe))
    assert recipe["encoding"] == 8
    again = Sampler.replay(network, recipe, x=x)
    assert torch.equal(again.samples, latents.samples)


def test_encoding_starts_at_t_min_whatever_the_grid():
    """A table's grid does not visit timestep 0, and end="zero" has a clean point, which is no start."""
    sampler = Sampler(mixture(Discrete.linear(), label_dtype=torch.float64), "ddim", 10)
    rows = sampler.encode(IMAGES.float()).nfe
    assert [p.t for p in sampler.points[-2:]] == [99.0, -1.0]
    assert rows == 10  # 0 to 99, then the nine intervals of the grid
    seen = []
    sampler.encode(IMAGES.float(), on_step=lambda step: seen.append(step.t))
    assert seen == [99.0, 199.0, 299.0, 399.0, 499.0, 599.0, 699.0, 799.0, 899.0, 999.0]


@pytest.mark.parametrize(
    "solver, process, steps, grid",
    [
        ("lms", VP(), 10, "lambda"), ("lms", SubVP(), 5, "lambda"), ("lms", EDM(), 7, "lambda"),
        ("deis", EDM(), 10, "karras"), ("deis", SubVP(), 7, "lambda"), ("lms", VE(), 10, "quadratic"),
    ],
)  # fmt: skip
def test_a_few_steps_of_a_high_order(solver, process, steps, grid):
    """Large weights of small terms: rounding in them is no wrong plan."""
    sampler = Sampler(mixture(process), solver, steps, grid=grid, end="t_min", **F64)
    assert sampler.encode(IMAGES).nfe == steps


@pytest.mark.parametrize("solver", ["ddim", "heun", "dpmpp_2m", "unipc", "dpm_solver_3", "dpm_2"])
def test_encoding_to_pure_noise(solver):
    network = ScoreNetwork(lambda x, t: -0.3 * x, FlowMatching(), (2, 3), prediction="flow")
    sampler = Sampler(network, solver, 60)
    x = torch.randn(2, 2, 3)
    made = sampler.encode(x)
    assert made.finite == [True, True]
    back = sampler.sample(x=made.samples, noised=True).samples
    assert (back - x).abs().max() < 0.1


@pytest.mark.parametrize(
    "solver, given, message",
    [
        ("ddpm", {}, "solver 'ddpm' adds fresh noise"),
        ("dpmpp_2m", {"refine": 2}, "'dpmpp_2m' has others: encode with refine=0"),
        ("heun", {"refine": 1}, "'heun' has others"),
        ("ddim", {"refine": -1}, "refine=-1"),
        ("ddim", {"refine": 1.5}, "refine=1.5"),
        ("ddim", {"start": 1.0}, "at or before the sampler's first time"),
        ("ddim", {"start": 0.0}, "start=0 is clean data"),
        ("ddim", {"condition": 9}, "knows classes 0 to 2"),
        ("ddim", {"start": -1.0}, "no time of"),
        ("ddim", {"start": math.nan}, "start=nan: give a time"),
        ("ddim", {"mask": torch.ones(1), "known": 0}, "encode takes no known, mask"),
        ("ddim", {"noise": "brownian"}, "encode takes no noise"),
        ("ddim", {"noised": True}, "encode takes no noised"),
    ],
)
def test_bad_encodings(solver, given, message):
    sampler = Sampler(mixture(), solver, 5)
    with pytest.raises(ValueError, match="x is None: give the images"):
        sampler.encode(None)
    with pytest.raises(ValueError, match=message):
        sampler.encode(torch.zeros(1, 1), **given)


@pytest.mark.parametrize("solver", ["lms", "deis"])
def test_solvers_that_do_not_reach_pure_noise(solver):
    """On the way up they end where a run begins, which `Sampler` has refused by then."""
    process = FlowMatching()
    rising = [process.at(t) for t in (0.1, 0.5, 1.0)]
    with pytest.raises(ValueError, match="alpha is 0 at its last time t=1"):
        SOLVERS[solver]().plan(mixture(process).parameterisation, rising)
    with pytest.raises(ValueError, match="alpha is 0 at its first time t=1"):
        Sampler(mixture(process), solver, 5)
