"""A canvas is what the published loop over windows makes, and one large run where windows see no edge."""

from functools import partial

import numpy as np
import pytest
import torch
from analytic import BY_SCHEDULE, points_of
from oracles import multidiffusion as oracle
from oracles.problems import SCHEDULES, karras
from oracles.solvers import sample as ode

from diffusion_engine import Engine, Sampler, ScoreNetwork
from diffusion_engine.drivers import driver
from diffusion_engine.drivers.multidiffusion import MultiDiffusion, windows_of
from diffusion_engine.processes import EDM
from diffusion_engine.testing import Gaussian

SIZE, CANVAS, STRIDE = (4, 6), (7, 15), (2, 4)
STD = 0.5
MEANS = np.random.default_rng(0).uniform(-1.0, 1.0, SIZE)  # each place of a window has its own
REFERENCE = {"dtype": torch.float64, "backend": "torch"}
CORNERS = oracle.windows(CANVAS, SIZE, STRIDE)


def placed(x, sigma, y=None):
    """E[x0 | x] of data whose mean depends on the place in the window, and on a class."""
    sigma = sigma.to(x.dtype)[:, None, None, None]
    means = torch.from_numpy(MEANS).to(x.dtype).expand(x.shape)
    if y is not None:
        means = means + 0.5 * y.to(x.dtype)[:, None, None, None]
    return means + (x - means) * (STD**2 / (STD**2 + sigma * sigma))


def network(**how):
    return ScoreNetwork(
        placed, EDM(), (1, *SIZE), prediction="x0", label="sigma", label_dtype=torch.float64, **how
    )


def denoiser(x, at):
    return MEANS + (x - MEANS) * STD**2 / (STD**2 + at.sigma**2)


def points(n=6):
    law = SCHEDULES["edm"]
    return [*(law.point(g) for g in karras(n, 0.03, 20.0)), law.clean()]


def run(solver, **options):
    """A sampler's canvases from given states with given normals, and both."""
    sampler = Sampler(
        network(), solver, times=points_of(points()), driver=MultiDiffusion(CANVAS, STRIDE),
        **REFERENCE, **options,
    )  # fmt: skip
    x, normals = np.random.default_rng(1).normal(size=CANVAS) * 20.0, {}

    def noise(row, m, seeds):
        normals[row, m] = np.random.default_rng([row, m]).standard_normal(CANVAS, dtype=np.float32)
        return torch.from_numpy(normals[row, m])[None, None]

    start = torch.from_numpy(x)[None, None]
    made = sampler.sample(x=start, noised=True, noise=noise).samples[0, 0].numpy()
    return made, x, iter([normals[at].astype(float) for at in sorted(normals)])


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_it_is_the_papers_loop_over_windows(eta):
    made, x, normals = run("ddim", eta=eta)
    wanted = oracle.windowed_ddim(denoiser, points(), x, CORNERS, SIZE, eta, partial(next, normals))
    assert np.abs(made - wanted).max() <= 1e-12 * np.abs(x).max()
    assert next(normals, None) is None


@pytest.mark.parametrize("solver", ["dpmpp_2m", "heun", "unipc", "dpmpp_2m_sde"])
def test_any_solver_runs_on_the_mean_of_the_estimates(solver):
    def fused(x, at):
        cuts = [x[top : top + SIZE[0], left : left + SIZE[1]] for top, left in CORNERS]
        return oracle.averaged([denoiser(cut, at) for cut in cuts], CORNERS, CANVAS, SIZE)

    made, x, normals = run(solver)
    own = {"unipc": {"order": 3}}.get(solver, {})
    wanted = ode(
        solver, fused, SCHEDULES["edm"], points(), x, lambda step, stage: next(normals), **own
    )
    assert np.abs(made - wanted).max() <= 1e-11 * np.abs(x).max()


@pytest.mark.parametrize("backend", ["torch", "cpp"])
@pytest.mark.parametrize("solver", ["dpmpp_3m", "ddpm"])
def test_windows_that_see_no_edge_make_one_large_run(solver, backend):
    """The estimate of a pixel is the same in all of them, and so is their mean, to the bit."""
    data, wide = Gaussian(0.3, 0.5), (3, 11, 29)
    how = {"backend": backend, "steps": 6}
    made = Sampler(
        data.network(BY_SCHEDULE["vp"], (3, 5, 7)), solver,
        driver=MultiDiffusion(wide[1:], (2, 3)), **how,
    ).sample(3, seed=7)  # fmt: skip
    large = Sampler(data.network(BY_SCHEDULE["vp"], wide), solver, **how).sample(3, seed=7)
    assert made.samples.shape == (3, *wide) and torch.equal(made.samples, large.samples)


@pytest.mark.parametrize("backend", ["torch", "cpp"])
def test_bits_are_the_same_alone_and_in_a_batch(backend):
    sampler = Sampler(
        network(null=5, classes=6), "dpmpp_2m_sde", 5, driver=MultiDiffusion(CANVAS, STRIDE),
        guidance=2.0, backend=backend,
    )  # fmt: skip
    classes = [0, 3, 1]
    together = sampler.sample(3, seed=4, condition=classes).samples
    for i, y in enumerate(classes):
        assert torch.equal(sampler.sample(1, seed=4 + i, condition=[y]).samples[0], together[i])


@pytest.mark.parametrize("at_once", [1, 2, 100])
def test_fewer_windows_at_once_make_the_same(at_once):
    calls = []

    def counted(x, sigma, y):
        calls.append(len(x))
        return placed(x, sigma, y)

    net = network(null=5, classes=6).with_module(counted)
    samplers = [
        Sampler(net, "ddim", 3, driver=MultiDiffusion(CANVAS, STRIDE, n)) for n in (None, at_once)
    ]
    made = [sampler.sample(2, condition=[1, 2]).samples for sampler in samplers]
    assert torch.equal(*made)
    assert calls[:3] == [2 * len(CORNERS)] * 3 and max(calls[3:]) == 2 * min(at_once, len(CORNERS))


@pytest.mark.parametrize("canvas", [(4,), (5,), (17,), (4, 6), (9, 6), (10, 23), (4, 5, 9)])
@pytest.mark.parametrize("step", [1, 2, 3])
def test_windows_hold_every_pixel(canvas, step):
    size = (4, 5, 3)[: len(canvas)]
    held = np.zeros(canvas, int)
    for window in windows_of(canvas, size, (step,) * len(canvas)):
        assert held[window].shape == size
        held[window] += 1
    assert held.min() == 1


def test_several_outputs_and_images_that_are_given():
    def pair(x, sigma):
        return placed(x, sigma), torch.ones_like(x).repeat(1, 2, 1, 1)

    net = network().with_module(pair)
    canvas = MultiDiffusion(CANVAS, STRIDE)
    x = torch.linspace(-1.0, 1.0, 105).view(1, 1, *CANVAS)
    mask = torch.zeros(CANVAS, dtype=torch.bool)
    mask[:, 8:] = True
    how = {"x": x, "start": 0.5, "mask": mask, "known": x}
    made = [Sampler(n, "ddim", 8, driver=canvas).sample(1, **how).samples for n in (net, network())]
    assert torch.equal(*made) and torch.equal(made[0][..., :8], x[..., :8])


def test_an_engine_and_a_recipe_have_it():
    net = network(null=5, classes=6)
    led = {"name": "multidiffusion", "options": {"canvas": list(CANVAS), "stride": list(STRIDE)}}
    spec = {"solver": "heun", "steps": 4, "driver": led}
    with Engine(net) as engine:
        plain = engine.submit({"solver": "ddim", "steps": 4}, seeds=[3], condition=2)
        result = engine.submit(spec, seeds=[1, 2], condition=[0, 1]).result()
        assert plain.result().samples.shape == (1, 1, *SIZE)
    sampler = Sampler(net, "heun", 4, driver=MultiDiffusion(CANVAS, STRIDE))
    alone = sampler.sample(seeds=[1, 2], condition=[0, 1])
    assert torch.equal(result.samples, alone.samples)
    assert alone.recipe["driver"]["options"] == led["options"] | {"at_once": None}
    assert torch.equal(Sampler.replay(net, alone.recipe).samples, alone.samples)


def sampled(**options):
    return Sampler(network(), "ddim", 2, driver=MultiDiffusion(**options))


BAD = {
    "nothing": (lambda: driver("multidiffusion"), r"canvas=\(\): give the canvas's pixels"),
    "number": (lambda: MultiDiffusion(128), "canvas=128: give the canvas's pixels"),
    "zero": (lambda: MultiDiffusion((0, 4)), "canvas=0: give"),
    "stride": (lambda: MultiDiffusion((8, 8), 0), "stride=0: give the pixels from window to window"),
    "at once": (lambda: MultiDiffusion((8, 8), at_once=0), "at_once=0: give how many windows"),
    "axes": (lambda: sampled(canvas=(8,)), "2 axes of pixels, the canvas 1 and the stride 2"),
    "strides": (lambda: sampled(canvas=(8, 8), stride=(2, 2, 2)), "the canvas 2 and the stride 3"),
    "small": (lambda: sampled(canvas=(8, 5)), r"the canvas \[8, 5\] is smaller than the network's \[4, 6\]"),
    "gaps": (lambda: sampled(canvas=(8, 9), stride=5), r"stride \[5, 5\] leaves gaps between windows"),
    "x": (lambda: sampled(canvas=(8, 9)).sample(x=torch.zeros(1, 1, 4, 6), start=0.5), r"\(1, 8, 9\)|8, 9"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_told(case):
    make, said = BAD[case]
    with pytest.raises(ValueError, match=said):
        make()


def test_a_latent_of_each_call_is_refused():
    from diffusion_engine.testing.exact_networks import generator

    with pytest.raises(ValueError, match="draws a latent for each call"):
        Sampler(generator((1, 2)), "ddgan", 4, driver=MultiDiffusion((4,)))
