"""GENIE: the derivative along the ODE, the solver on it, and heads on a U-Net."""

import copy
import math
import threading

import numpy as np
import pytest
import torch
from analytic import BY_SCHEDULE, points_of
from optional import diffusers
from oracles import golden
from oracles.genie import genie as oracle
from oracles.genie import slope
from oracles.problems import SCHEDULES, TM
from tape import TapeRecorder, taped
from torch import nn
from torch.nn import functional as F

from diffusion_engine import Sampler, ScoreNetwork, from_diffusers, with_classifier
from diffusion_engine.executors import Graph, eager, graph
from diffusion_engine.genie import Head, attach, exact_derivative
from diffusion_engine.genie.exact import rates
from diffusion_engine.processes import EDM, VE, VP, Discrete, FlowMatching, GaussianProcess, SubVP
from diffusion_engine.processes.levels import Levels, levels
from diffusion_engine.testing import Mixture
from diffusion_engine.testing import labelled_mixture as mixture

EXACT = exact_derivative(mixture())
F64 = {"dtype": torch.float64, "backend": "torch"}
GRIDS = {"lam": "lambda", "karras": "karras", "t": "uniform"}


def column(*values):
    return torch.tensor(values, dtype=torch.float64)[:, None]


def run(x, steps, grid="lambda", end="t_min", network=EXACT, **options):
    sampler = Sampler(network, "genie", steps, grid=grid, end=end, **(F64 | options))
    return sampler.sample(x=column(*x), noised=True).samples[:, 0].numpy(), sampler


# --- the derivative --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "t, x, g, eps, d_eps, dx, dt",
    [
        (0.5, 0.4, 3.41291831, 0.41962464, 0.0044298, 0.0100559, 0.0536992),
        (0.1, -0.2, 0.34017653, -0.53764508, 2.7250400, -0.4480215, 0.2917647),
        (0.02, 0.25, 0.07744621, 0.70040564, 4.8672107, 0.6790684, 0.3091746),
    ],
)
def test_derivative(t, x, g, eps, d_eps, dx, dt):
    found, slope = EXACT.module(column(x), torch.tensor([t], dtype=torch.float64))
    assert float(found) == pytest.approx(eps, abs=1e-8)
    assert float(slope) == pytest.approx(d_eps, abs=1e-7)
    at, per_g, growth = rates(VP(), torch.tensor([t], dtype=torch.float64))
    assert float(at.ratio) == pytest.approx(g, abs=1e-8)
    assert float(per_g) == pytest.approx(dt, abs=1e-7)
    assert float(growth * x + at.alpha * found) == pytest.approx(dx, abs=1e-7)


@pytest.mark.parametrize("schedule", list(BY_SCHEDULE))
def test_derivative_of_every_process(schedule):
    """The law in torch is the process's own, and the total derivative that of the closed form."""
    process = BY_SCHEDULE[schedule]
    t = np.linspace(0.05, 0.9, 7) * process.t_max
    t = np.round(t) if isinstance(process, Discrete) else t
    alpha, sigma = levels(process, torch.from_numpy(t))
    assert np.abs(alpha.numpy() - process.alpha(t)).max() < 1e-13
    assert np.abs(sigma.numpy() / process.sigma(t) - 1).max() < 1e-11
    x_bar = np.linspace(-1.5, 1.5, 7) * (1 + process.sigma(t) / process.alpha(t))
    network = exact_derivative(mixture(process))
    eps, d_eps = network.module(
        torch.from_numpy(process.alpha(t) * x_bar)[:, None], torch.from_numpy(t)
    )
    want = np.array(
        [
            slope(TM, x, s / a)
            for x, s, a in zip(x_bar, process.sigma(t), process.alpha(t), strict=True)
        ]
    ).T
    assert np.abs(eps[:, 0].numpy() - want[0]).max() < 1e-9
    assert np.abs(d_eps[:, 0].numpy() - want[1]).max() < 1e-6 * max(1.0, np.abs(want[1]).max())


DENOISER = mixture(EDM()).module


def denoised(x_bar, g):
    """E[x0 | x_bar] at noise-to-signal ratios g [N]."""
    return x_bar - g[:, None] * DENOISER(x_bar, g)


def predicting(prediction, process):
    """A network of the exact prediction that is told t."""

    def module(x, t):
        at = Levels.of(process, t)
        wide = Levels(*(value[:, None] for value in (at.t, at.alpha, at.sigma)))
        state = x.double() / network.parameterisation.c_in(wide)
        (p,), q = network.parameterisation.weights(wide)
        return ((denoised(state / wide.alpha, at.ratio) - p * state) / q).to(x.dtype)

    network = ScoreNetwork(module, process, (1,), prediction=prediction, label_dtype=torch.float64)
    return network


@pytest.mark.parametrize(
    "prediction, process",
    [
        ("eps", VP()), ("x0", VP()), ("v", VP()), ("score", VE()), ("flow", FlowMatching()),
        ("F", EDM()), ("v", SubVP()), ("v", Discrete.linear()),
    ],
)  # fmt: skip
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-9), (torch.float32, 1e-4)])
def test_derivative_of_every_prediction(prediction, process, dtype, tolerance):
    t = torch.linspace(0.15, 0.8, 5, dtype=torch.float64) * process.t_max
    t = t.round() if isinstance(process, Discrete) else t
    at = Levels.of(process, t)
    x = torch.linspace(-1, 1, 5, dtype=torch.float64)[:, None] * (at.alpha + at.sigma)[:, None]
    found = exact_derivative(predicting(prediction, process)).module(x.to(dtype), t)
    for a, b in zip(found, exact_derivative(mixture(process)).module(x, t), strict=True):
        assert a.dtype == dtype
        assert (a.double() - b).abs().max() <= tolerance * max(1.0, float(b.abs().max()))


@pytest.mark.parametrize(
    "label, ratio",
    [
        ("sigma", lambda label: label),
        ("log_sigma", torch.exp),
        ("log_sigma/4", lambda label: torch.exp(4.0 * label)),
        ("lam", lambda label: torch.exp(-label)),
        (lambda at: 2.0 * at.lam, lambda label: torch.exp(-0.5 * label)),
    ],
)
def test_derivative_through_every_label(label, ratio):
    network = ScoreNetwork.from_denoiser(
        lambda x, told: denoised(x, ratio(told)), (1,), VP(), label=label, label_dtype=torch.float64
    )
    x, t = column(0.4, -0.2), torch.tensor([0.5, 0.1], dtype=torch.float64)
    for a, b in zip(exact_derivative(network).module(x, t), EXACT.module(x, t), strict=True):
        assert (a - b).abs().max() < 1e-8


def test_derivative_of_the_other_closed_forms():
    x, t = column(0.4, -0.2), torch.tensor([0.5, 0.1], dtype=torch.float64)
    for prediction in ("x0", "eps"):
        found = exact_derivative(Mixture().network(VP(), prediction=prediction)).module(x, t)
        for a, b in zip(found, EXACT.module(x, t), strict=True):
            assert (a - b).abs().max() < 1e-8


def test_derivative_of_a_network_with_attention_in_half_precision_regions():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv = nn.Linear(4, 12)

        def forward(self, x, t):
            q, k, v = self.qkv(x.flatten(2).mT * t.view(-1, 1, 1)).chunk(3, dim=2)
            return F.scaled_dot_product_attention(q, k, v).mT.reshape(x.shape)

    torch.manual_seed(0)
    network = exact_derivative(
        ScoreNetwork(Net().double().eval(), VP(), (4, 3, 3), label_dtype=torch.float64)
    )
    x, t = torch.randn(2, 4, 3, 3, dtype=torch.float64), torch.tensor([0.3, 0.6]).double()
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        eps, d_eps = network.module(x, t)
    d = 1e-4
    lam = VP().lam(t.numpy())
    near = []
    for sign in (1, -1):  # along the ODE, by a central difference in g
        g = torch.exp(torch.from_numpy(-lam)) + sign * d
        later = torch.from_numpy(VP().t_of_lam(-np.log(g.numpy())))
        a, b = (torch.from_numpy(VP().alpha(u.numpy())).view(-1, 1, 1, 1) for u in (t, later))
        near.append(network.module(b * (x / a + sign * d * eps), later)[0])
    assert ((near[0] - near[1]) / (2 * d) - d_eps).abs().max() < 1e-6


# --- the solver ------------------------------------------------------------------------------

ENDS = [
    ("lam", 0.7, 0.226720715, 0.235959441),
    ("lam", -1.3, -0.944255741, -0.960434090),
    ("karras", 0.7, 0.226816908, 0.235764021),
    ("t", 0.7, 0.254828430, 0.195030707),
]
ERRORS = {
    0.7: ((1.14e-2, 2.21e-3, 4.91e-4, 1.13e-4, 2.70e-5), 2.07),
    -1.3: ((2.48e-2, 8.63e-3, 2.28e-3, 5.84e-4, 1.48e-4), 1.98),
}


@pytest.mark.parametrize("grid, x_T, at_10, at_20", ENDS)
def test_end_values(grid, x_T, at_10, at_20):
    for steps, value in ((10, at_10), (20, at_20)):
        made, _ = run([x_T], steps, GRIDS[grid])
        assert float(made[0]) == pytest.approx(value, abs=1e-8)
        fast = Sampler(EXACT, "genie", steps, grid=GRIDS[grid], end="t_min", backend="cpp")
        single = fast.sample(x=torch.tensor([[x_T]]), noised=True).samples
        assert float(single) == pytest.approx(value, abs=2e-5)


def test_convergence():
    made = np.array([run(list(ERRORS), n)[0] for n in golden.ERROR_STEPS])
    for values, (x_T, (want, order)) in zip(made.T, ERRORS.items(), strict=True):
        errors = np.abs(values - golden.EXACT_END[x_T])
        assert list(errors) == pytest.approx(want, rel=5.1e-3)  # three digits are printed
        assert math.log2(errors[-2] / errors[-1]) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("grid", ["karras", "t"])
def test_second_order_on_every_grid(grid):
    ends = list(golden.EXACT_END)
    errors = [run(ends, n, GRIDS[grid])[0] - list(golden.EXACT_END.values()) for n in (80, 160)]
    assert np.log2(np.abs(errors[0] / errors[1])) == pytest.approx(2.0, abs=0.15)


@pytest.mark.parametrize("schedule", ["vp", "subvp", "ve", "edm", "flow", "ddpm", "cosine"])
@pytest.mark.parametrize(
    "afs, denoise", [(False, False), (True, False), (False, True), (True, True)]
)
def test_equals_oracle(schedule, afs, denoise):
    process = BY_SCHEDULE[schedule]
    t = np.linspace(1.0, 0.05, 7) ** 1.5 * (
        800 if schedule in ("ddpm", "cosine") else 0.99 * process.t_max
    )
    t = np.round(t) if schedule in ("ddpm", "cosine") else t
    points = [SCHEDULES[schedule].point(time) for time in t]
    network = exact_derivative(mixture(process))
    sampler = Sampler(network, "genie", times=points_of(points), afs=afs, denoise=denoise, **F64)
    x = np.array([0.7, -1.3, 0.1]) * process.prior_std(process.at(float(t[0])))
    made = sampler.sample(x=column(*x), noised=True).samples[:, 0].numpy()
    want = oracle(TM, points, x, afs=afs, denoise=denoise)
    # The discrete table's kinks: its slope at a timestep is the central difference.
    tolerance = 1e-3 if schedule in ("ddpm", "cosine") else 1e-9
    assert np.abs(made - want).max() < tolerance * max(1.0, np.abs(want).max())
    assert sampler.plan().nfe == len(points) - 1 - afs + denoise


def test_grids_of_the_paper():
    quadratic = Sampler(EXACT, "genie", 5, grid="quadratic", end="t_min").points
    assert [p.t for p in quadratic] == pytest.approx(
        [1, 0.65015929, 0.37533893, 0.17553893, 0.05075929, 0.001], abs=1e-8
    )
    ratios = [152.166970, 8.40176924, 1.79378677, 0.618755196, 0.176603061, 0.0104859928]
    assert [p.ratio for p in quadratic] == pytest.approx(ratios, rel=1e-8)
    linear = Sampler(EXACT, "genie", 5, grid="uniform", end="t_min").points
    ratios = [152.166970, 25.1488524, 6.11166251, 2.03442934, 0.723806767, 0.0104859928]
    assert [p.ratio for p in linear] == pytest.approx(ratios, rel=1e-8)


def test_a_step_is_one_call_and_one_launch(monkeypatch):
    recorder, launches = TapeRecorder(), []

    def resolve(*arguments):
        step = taped(RESOLVE)(*arguments)
        return lambda outs=(): (launches.append(len(outs)), step(outs))[1]

    RESOLVE = graph.resolve
    calls = []

    def module(x, t, y=None):
        calls.append(len(x))
        return EXACT.module(x, t, y)

    network = copy.copy(EXACT)
    object.__setattr__(network, "module", module)
    monkeypatch.setattr(eager, "resolve", lambda *a: resolve(*a))
    for afs, denoise in ((False, False), (True, True), (True, False)):
        calls.clear(), launches.clear()
        sampler = Sampler(network, "genie", 6, end="t_min", afs=afs, denoise=denoise, backend="cpp")
        made = sampler.sample(3)
        nfe = 6 - afs + denoise
        assert calls == [3] * nfe and made.nfe == nfe
        assert launches == [0] + [2] * nfe  # row 0 alone reads no output
    assert recorder.recorded == 0


def test_end_zero_ends_with_the_denoising_call():
    to_zero = Sampler(EXACT, "genie", 7, end="zero", **F64)
    denoised = Sampler(EXACT, "genie", 6, end="t_min", denoise=True, **F64)
    x = column(0.7, -1.3)
    a, b = (s.sample(x=x, noised=True).samples for s in (to_zero, denoised))
    assert torch.equal(a, b)


def test_analytic_first_step_from_the_prior_and_an_image():
    plain, afs = (Sampler(EXACT, "genie", 5, end="t_min", afs=on, **F64) for on in (False, True))
    points, z = afs.points, plain.plan().rows[0].new[0]
    first = afs.plan().rows[0]
    # eps is x itself for VP
    moved = points[1].alpha * (1 / points[0].alpha + points[1].ratio - points[0].ratio)
    assert first.new[0]["z0"] == pytest.approx(moved * z["z0"], rel=1e-12)
    assert first.state == points[1] and first.call is None
    image = afs.plan(start=0.8, kind="image").rows[0]
    assert image.new[0]["S0"] / image.new[0]["z0"] == pytest.approx(
        VP().at(0.8).alpha / VP().at(0.8).sigma
    )
    with pytest.raises(ValueError, match="at least 2 steps"):
        Sampler(EXACT, "genie", 1, end="t_min", afs=True)


def test_gaussian_data_and_point_masses():
    """A point mass has a constant eps: one step is exact. N(0, 1) has d eps / dg = x / (1 + g^2)^1.5."""
    point = exact_derivative(mixture(weights=[1.0], means=[0.4], stds=[0.0]))
    made, sampler = run([1.1], 1, network=point)
    at, end = sampler.points
    eps = (1.1 - at.alpha * 0.4) / at.sigma
    assert float(made[0]) == pytest.approx(end.alpha * 0.4 + end.sigma * eps, abs=1e-12)
    unit = exact_derivative(mixture(weights=[1.0], means=[0.0], stds=[1.0]))
    x, t = column(0.7, -0.4), torch.tensor([0.3, 0.9], dtype=torch.float64)
    found, slope = unit.module(x, t)
    g = Levels.of(VP(), t).ratio[:, None]
    assert (found - x * g / (1 + g * g).sqrt()).abs().max() < 1e-12
    assert (slope - x / (1 + g * g) ** 1.5).abs().max() < 1e-12


def test_heads_are_mixed_with_their_weights():
    """Heads that add up to the exact derivative give the same samples, whatever each of them is."""

    def module(x, t):
        eps, slope = EXACT.module(x, t)
        g = Levels.of(VP(), t).ratio[:, None].to(x.dtype)
        k1, k2 = 0.3 * slope + x, torch.sin(x)
        k3 = (slope + k1 / g - g / (1 + g * g) * k2) * g * (1 + g * g)
        return torch.cat((eps, k1, k2, k3), dim=1)

    heads = ScoreNetwork(module, VP(), (1,), label_dtype=torch.float64, derivative="heads")
    x = column(0.7, -1.3)
    a, b = (
        Sampler(network, "genie", 10, end="t_min", **F64).sample(x=x, noised=True).samples
        for network in (heads, EXACT)
    )
    assert (a - b).abs().max() < 1e-9
    plan = Sampler(heads, "genie", 10).plan()
    assert plan.outputs == 4 and plan.slots == 1
    assert plan.rows[1].channel_blocks == (0, 1, 2, 3) and plan.rows[1].e[0] == 0.0
    single = (
        Sampler(heads, "genie", 10, end="t_min", backend="cpp").sample(x=x, noised=True).samples
    )
    reference = Sampler(heads, "genie", 10, end="t_min", backend="torch", dtype=torch.float32)
    assert torch.equal(single, reference.sample(x=x, noised=True).samples)


def test_guided_heads_are_eight_outputs():
    conditional = mixture()

    def module(x, t, y):
        eps = conditional.module(x, t, y)
        return torch.cat((eps, 0.1 * eps, 0.2 * eps, 0.3 * eps), dim=1)

    network = ScoreNetwork(
        module, VP(), (1,), label_dtype=torch.float64, derivative="heads", null=3, classes=3
    )
    sampler = Sampler(network, "genie", 5, guidance=3.0, end="t_min")
    plan = sampler.plan()
    row = plan.rows[1]
    assert (
        plan.outputs == 8
        and row.branches == (0,) * 4 + (1,) * 4
        and row.channel_blocks == (0, 1, 2, 3) * 2
    )
    assert row.e[5:] == pytest.approx([-2.0 / 3.0 * e for e in row.e[1:4]])
    made = {
        b: Sampler(network, "genie", 5, guidance=3.0, end="t_min", backend=b)
        for b in ("cpp", "torch")
    }
    a, b = (s.sample(4, condition=[0, 1, 2, 0]).samples for s in made.values())
    assert torch.equal(a, b)


def along_the_ode(network, x, t, y, d):
    """d eps / dg by a central difference of two states of the ODE."""
    eps, g, alpha = network.module(x, t, y)[0], Levels.of(VP(), t).ratio, VP().alpha(t.numpy())
    ends = []
    for sign in (1.0, -1.0):
        later = VP().t_of_lam(-np.log(g.numpy() + sign * d))
        there = torch.from_numpy(VP().alpha(later) / alpha)[:, None]
        beside = there * (x + sign * d * torch.from_numpy(alpha)[:, None] * eps)
        ends.append(network.module(beside, torch.from_numpy(later), y)[0])
    return (ends[0] - ends[1]) / (2.0 * d)


GUIDED = {
    "free": lambda: exact_derivative(mixture(), guidance=2.5),
    "classifier": lambda: exact_derivative(
        with_classifier(mixture(), mixture().module.classifier, conditional=False),
        classifier_scale=2.5,
    ),
}


@pytest.mark.parametrize("kind", list(GUIDED))
def test_the_exact_derivative_of_a_guided_ode(kind):
    network = GUIDED[kind]()
    x, y = column(0.7, -0.3, 0.1), torch.tensor([0, 2, 1])
    t = torch.tensor([0.1, 0.2, 0.4], dtype=torch.float64)
    found = network.module(x, t, y)[1]
    assert (found - along_the_ode(network, x, t, y, 1e-5)).abs().max() < 1e-6
    # Guiding the derivatives of the branches is something else.
    c, u = EXACT.module(x, t, y)[1], EXACT.module(x, t)[1]
    assert (found - (2.5 * c - 1.5 * u)).abs().max() > 0.1
    with pytest.raises(ValueError, match=r"to a class|needs a condition"):
        Sampler(network, "genie", 2).sample(2)


def test_a_classifier_that_sees_x_over_alpha():
    """Its gradient is that of what it sees, a multiple of x."""
    own = mixture().module

    def natural(x_bar, t):
        return x_bar * levels(VP(), t)[0][:, None]

    network = ScoreNetwork(
        lambda x_bar, t: own(natural(x_bar, t), t), VP(), (1,), scale="sigma", null=3, classes=3,
        label_dtype=torch.float64,
    )  # fmt: skip
    classified = with_classifier(
        network, lambda x_bar, t: own.classifier(natural(x_bar, t), t), conditional=False
    )
    x, y = column(0.7, -0.3), torch.tensor([0, 2])
    t = torch.tensor([0.1, 0.4], dtype=torch.float64)
    scaled, plain = (make.module(x, t, y) for make in (
        exact_derivative(classified, classifier_scale=2.5), GUIDED["classifier"](),
    ))  # fmt: skip
    for a, b in zip(scaled, plain, strict=True):
        assert (a - b).abs().max() < 1e-9


def test_named_conditions_of_an_exactly_guided_network():
    own = mixture().module
    named = ScoreNetwork(
        lambda x, t, *, y: own(x, t, y),
        VP(),
        (1,),
        null={"y": torch.tensor(3)},
        label_dtype=torch.float64,
    )
    x, y = column(0.7, -0.3), torch.tensor([0, 2])
    t = torch.tensor([0.1, 0.4], dtype=torch.float64)
    found = exact_derivative(named, guidance=2.5).module(x, t, y=y)
    for a, b in zip(found, GUIDED["free"]().module(x, t, y), strict=True):
        assert torch.equal(a, b)


def test_the_exact_derivative_under_autocast():
    """A tangent in half precision has no digits: the module runs in its own dtype."""

    class Linear(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.layer = nn.Linear(4, 4)

        def forward(self, x, t):
            return torch.sin(self.layer(x)) * (1.0 + t.to(x.dtype))[:, None]

    exact = exact_derivative(ScoreNetwork(Linear().eval(), VP(), (4,)))
    x, t = torch.randn(3, 4), torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64)
    want = exact.module(x, t)
    with torch.autocast("cpu", torch.bfloat16):
        got = exact.module(x, t)
    for a, b in zip(got, want, strict=True):
        assert torch.equal(a, b)


def test_both_guidances_follow_one_ode():
    """log p(y | x) is log p(x | y) - log p(x): the same scale is the same score."""
    x, y = column(0.7, -0.3), [0, 2]
    a, b = (
        Sampler(make(), "genie", 12, end="t_min", **F64)
        .sample(x=x, noised=True, condition=y)
        .samples
        for make in GUIDED.values()
    )
    assert (a - b).abs().max() < 1e-9


# --- heads on a U-Net ------------------------------------------------------------------------


class UNet(nn.Module):
    """A network with what attach needs: a time embedding and a last feature map, here of half the side."""

    def __init__(self):
        super().__init__()
        self.time = nn.Sequential(nn.Linear(1, 8), nn.SiLU(), nn.Linear(8, 8))
        self.inner = nn.ModuleDict(
            {"stem": nn.Conv2d(12, 16, 3, padding=1), "up": nn.Conv2d(16, 16, 1)}
        )
        self.out = nn.Conv2d(16, 12, 3, padding=1)
        self.calls = 0

    def forward(self, x, label):
        if not torch.compiler.is_compiling():
            self.calls += 1
        embedding = self.time(label[:, None].to(x.dtype))
        h = self.inner["stem"](F.pixel_unshuffle(x, 2)) + embedding.repeat(1, 2)[:, :, None, None]
        return F.pixel_shuffle(self.out(F.silu(self.inner["up"](h))), 2)


NAMES = {"feature": "inner.up", "embedding": "time"}


def unet():
    torch.manual_seed(0)
    return ScoreNetwork(UNet().eval(), VP(), (3, 8, 8))


def trained_head(network):
    """A head with weights of its own, which a new one's last layer has not."""
    torch.manual_seed(1)
    head = Head(3, 16, 8, width=12, fold=2).eval()
    for parameter in head.parameters():
        nn.init.normal_(parameter, std=0.2)
    return head


def by_hand(module, head, x, label):
    kept = {}
    hooks = [
        module.get_submodule(name).register_forward_hook(
            lambda m, a, out, k=kind: kept.update({k: out})
        )
        for kind, name in NAMES.items()
    ]
    eps = module(x, label)
    for hook in hooks:
        hook.remove()
    return eps, head(x, eps, kept["feature"], kept["embedding"])


def test_an_attached_head_takes_the_same_forward():
    network = unet()
    head = trained_head(network)
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([0.3, 0.8])
    want = by_hand(network.module, head, x, t)
    attached = attach(network, head, **NAMES)
    calls = network.module.calls
    found = attached.module(x, t)
    assert network.module.calls == calls + 1
    assert all(torch.equal(a, b) for a, b in zip(found, want, strict=True))
    assert found[1].shape == (2, 9, 8, 8)
    # A call of the user's own keeps nothing.
    network.module(x, t)
    assert all(getattr(tap.local, "kept", None) is None for tap in attached.module.taps)
    made = Sampler(attached, "genie", 4).sample(2)
    assert made.finite == [True] * 2 and made.nfe == 4
    assert list(attached.module.unet.state_dict()) == list(unet().module.state_dict())


def test_a_head_costs_no_launch(monkeypatch):
    """One call of the U-Net and one launch of the step a step, guided or not."""
    network = unet()
    attached = attach(network, trained_head(network), **NAMES)
    launches = []

    def resolve(op, backend, args):
        step = RESOLVE(op, backend, args)
        return lambda outs=(): (launches.append(len(outs)), step(outs))[1]

    RESOLVE = eager.resolve
    monkeypatch.setattr(eager, "resolve", resolve)
    for afs, denoise in ((False, False), (True, True)):
        before = network.module.calls
        launches.clear()
        options = {"end": "t_min", "afs": afs, "denoise": denoise, "backend": "cpp"}
        made = Sampler(attached, "genie", 5, **options).sample(2)
        nfe = 5 - afs + denoise
        assert made.nfe == network.module.calls - before == nfe
        assert launches == [0] + [2] * nfe  # eps, and k1 to k3; row 0 alone reads none


@pytest.mark.parametrize("label_dtype", [torch.float32, torch.int64])
def test_heads_on_a_discrete_table(label_dtype):
    base = unet()
    network = ScoreNetwork(base.module, Discrete.linear(), base.shape, label_dtype=label_dtype)
    head = trained_head(network)
    sampler = Sampler(attach(network, head, **NAMES), "genie", 4, end="t_min", **F64)
    x = torch.randn(1, 3, 8, 8, dtype=torch.float64)
    made = sampler.sample(x=x, noised=True).samples
    module = copy.deepcopy(network.module).double()
    for s, t in zip(sampler.points, sampler.points[1:], strict=False):
        g, h = s.ratio, t.ratio - s.ratio
        label = torch.tensor([s.t]).to(label_dtype)
        with torch.no_grad():
            eps, heads = by_hand(module, copy.deepcopy(head).double(), x, label)
        k1, k2, k3 = heads.chunk(3, dim=1)
        slope = -k1 / g + g / (1 + g * g) * k2 + k3 / (g * (1 + g * g))
        x = t.alpha * (x / s.alpha + h * eps + 0.5 * h * h * slope)
    assert (made - x).abs().max() < 1e-9 * float(x.abs().max())


def test_an_untrained_head_is_ddim():
    network = unet()
    attached = attach(network, Head(3, 16, 8, fold=2).eval(), **NAMES)
    genie, ddim = (Sampler(attached, solver, 5).sample(3).samples for solver in ("genie", "ddim"))
    assert torch.equal(genie, ddim)


@pytest.mark.parametrize("prediction", ["v", "x0"])
def test_a_head_is_given_eps_whatever_the_base_predicts(prediction):
    seen = []

    class Spy(nn.Module):
        def forward(self, x, eps, features, embedding):
            seen.append(eps)
            return torch.zeros_like(x).repeat(1, 3, 1, 1)

    base = unet()
    network = ScoreNetwork(base.module, VP(), base.shape, prediction=prediction, label="999t")
    attached = attach(network, Spy(), **NAMES)
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([0.3, 0.8], dtype=torch.float64)
    out = network.module(x, (999.0 * t).float())
    prediction_, zeros = attached.module(x, t)
    assert torch.allclose(prediction_, out) and not zeros.any()
    alpha, sigma = (value.float().view(-1, 1, 1, 1) for value in levels(VP(), t))
    want = alpha * out + sigma * x if prediction == "v" else (x - alpha * out) / sigma
    assert torch.allclose(seen[0], want, atol=1e-5)
    a, b = (Sampler(n, "ddim", 4).sample(2).samples for n in (attached, network))
    assert torch.allclose(a, b, atol=1e-5 * float(b.abs().max()))


def test_threads_share_an_attached_network():
    attached = attach(unet(), trained_head(None), **NAMES)
    inputs = [(torch.randn(4, 3, 8, 8), torch.rand(4)) for _ in range(4)]
    want = [attached.module(*pair) for pair in inputs]
    wrong = []

    def work(i):
        with torch.no_grad():
            for _ in range(30):
                found = attached.module(*inputs[i])
                if not all(torch.equal(a, b) for a, b in zip(found, want[i], strict=True)):
                    wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_attached_networks_compile_copy_and_are_captured(monkeypatch):
    attached = attach(unet(), trained_head(None), **NAMES)
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([0.3, 0.8])
    want = attached.module(x, t)
    compiled = torch.compile(attached.module, backend="eager", fullgraph=True)
    for a, b in zip(compiled(x, t), want, strict=True):
        assert torch.equal(a, b)
    assert all(tap.traced is None for tap in attached.module.taps)
    for a, b in zip(copy.deepcopy(attached.module)(x, t), want, strict=True):
        assert torch.equal(a, b)
    half = Sampler(attached, "genie", 3, dtype=torch.bfloat16).sample(2)
    assert half.finite == [True, True]
    monkeypatch.setattr(graph, "resolve", taped(graph.resolve))
    eager = Sampler(attached, "genie", 4).sample(3)
    captured = Sampler(attached, "genie", 4, executor=Graph(recorder=TapeRecorder())).sample(3)
    assert torch.equal(eager.samples, captured.samples)


def test_heads_on_a_network_of_diffusers():
    """The names are those of its own modules, whatever the engine has put around it."""
    own = diffusers.UNet2DModel(
        sample_size=8, in_channels=3, out_channels=3, block_out_channels=(32,), layers_per_block=1,
        down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",),
    )  # fmt: skip
    network = from_diffusers(own.eval(), diffusers.DDIMScheduler(clip_sample=False))
    names = {"feature": "up_blocks.0", "embedding": "time_embedding"}
    attached = attach(network, Head(3, 32, 128).eval(), **names)
    genie, ddim = (Sampler(n, s, 3) for n, s in ((attached, "genie"), (network, "ddim")))
    assert torch.allclose(genie.sample(1).samples, ddim.sample(1).samples, atol=1e-5)
    with pytest.raises(
        ValueError, match="feature='up_block' is no module of the network, which has"
    ):
        attach(network, Head(3, 32, 128), feature="up_block", embedding="time_embedding")


class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm = nn.Conv2d(4, 8, 3, padding=1), nn.GroupNorm(2, 8)
        self.out = nn.Conv2d(8, 3, 1)

    def forward(self, x, t):
        wide = t.to(x.dtype).view(-1, 1, 1, 1).expand_as(x[:, :1])
        return self.out(self.norm(self.conv(torch.cat((x, wide), dim=1))))


@pytest.mark.parametrize(
    "images, weights, accelerate",
    [
        (torch.channels_last, torch.contiguous_format, False),
        (torch.contiguous_format, torch.channels_last, False),
        (torch.channels_last, torch.channels_last, False),
        (torch.contiguous_format, torch.contiguous_format, True),
    ],
)
def test_the_exact_derivative_in_channels_last(images, weights, accelerate):
    """Torch has no forward derivative of group norm in that format, which acceleration may choose too."""
    formats = ((torch.contiguous_format,) * 2, (images, weights))
    want, made = (
        Sampler(
            exact_derivative(
                ScoreNetwork(Normed().eval().to(memory_format=w), VP(), (3, 8, 8), memory_format=m)
            ),
            "genie",
            3,
            accelerate=fast,
        )
        .sample(2)
        .samples
        for (m, w), fast in zip(formats, (False, accelerate), strict=True)
    )
    assert (made - want).abs().max() < 1e-4 * want.abs().max()


def test_the_exact_derivative_leaves_a_learned_variance():
    network = exact_derivative(
        mixture(
            variance="learned_range",
        )
    )
    assert (
        network.parameterisation.variance is None and network.parameterisation.derivative == "exact"
    )


# --- bad input -------------------------------------------------------------------------------


def test_a_network_without_a_derivative():
    with pytest.raises(
        ValueError, match=r"does not offer d eps / dg; wrap it with genie\.exact_deriv"
    ):
        Sampler(mixture(), "genie", 5)
    with pytest.raises(ValueError, match="derivative='head'"):
        mixture(derivative="head")


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: exact_derivative(mixture(label_dtype=torch.int64)), "label that varies smoothly"),
        (lambda: exact_derivative(EXACT), "offers d eps / dg already"),
        (lambda: exact_derivative(mixture(null=None), guidance=2.0), "needs an unconditional branch"),
        (lambda: exact_derivative(mixture(label=lambda at: math.log(at.t))), "label= has to take tensors"),
        (lambda: exact_derivative(mixture(), guidance=[1.0, 2.0]), "the same for all samples"),
        (lambda: exact_derivative(mixture(), guidance=math.nan), "give a finite number"),
        (lambda: exact_derivative(mixture(), classifier_scale=3.0), "the network has no classifier"),
        (lambda: attach(mixture(), Head(1, 1, 1), **NAMES), "feature='inner.up' is no module"),
        (lambda: attach(EXACT, Head(1, 1, 1), **NAMES), "before anything is added"),
        (lambda: attach(unet(), Head(1, 1, 1), feature="out", embedding="tim"), "embedding='tim' is no"),
        (lambda: mixture(derivative="exact", variance="learned"), "both read from channel block 1"),
        (lambda: exact_derivative(mixture(latent=4)), "has no ODE to take a derivative along"),
        (lambda: with_classifier(mixture(latent=4), print), "none to guide"),
        (lambda: with_classifier(EXACT, print), "add the classifier first"),
    ],
)  # fmt: skip
def test_bad_networks(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "blocks, derivative, needs", [(2, "heads", 4), (3, "heads", 4), (1, "exact", 2)]
)
def test_a_network_that_returns_less_than_it_said(blocks, derivative, needs):
    network = ScoreNetwork(lambda x, t: x.repeat(1, blocks), VP(), (1,), derivative=derivative)
    message = (
        f"returned {blocks} channels; with derivative='{derivative}' it returns {needs} or more"
    )
    with pytest.raises(ValueError, match=message):
        Sampler(network, "genie", 3).sample()


@pytest.mark.parametrize(
    "options, request_, message",
    [
        ({"interval": (0.1, 2.0)}, {}, "this network follows one guided ODE for all times"),
        ({"classifier_scale": 3.0}, {}, r"is guided within; say exact_derivative\("),
        ({"guidance": 3.0}, {"condition": 1}, "needs an unconditional branch"),
        (
            {},
            {"compose": [(0, 1.0), (1, 1.0)]},
            "that of one guided ODE, which no composition follows",
        ),
    ],
)
def test_what_an_exactly_guided_network_would_not_follow(options, request_, message):
    with pytest.raises(ValueError, match=message):
        Sampler(GUIDED["free"](), "genie", 3, **options).sample(**request_)


class OfItsOwn(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 0.5 * x

    @staticmethod
    def backward(ctx, grad):
        return 0.5 * grad


@pytest.mark.parametrize(
    "module", [lambda x, t: OfItsOwn.apply(x), lambda x, t: torch.from_numpy(x.numpy())]
)
def test_modules_without_a_forward_derivative(module):
    network = exact_derivative(ScoreNetwork(module, VP(), (1,)))
    with pytest.raises(ValueError, match="the network has no forward derivative"):
        Sampler(network, "genie", 3).sample()


def test_a_process_that_torch_does_not_know():
    class Mine(VP):
        pass

    class Other(GaussianProcess):
        def alpha(self, t):
            return np.cos(np.asarray(t))

        def sigma(self, t):
            return np.sin(np.asarray(t))

    assert levels(Mine(), torch.tensor([0.5]))[0].shape == (1,)
    network = ScoreNetwork(lambda x, t: x, Other(t_min=0.01, t_max=1.5), (1,))
    with pytest.raises(
        ValueError, match=r"with @diffusion_engine\.processes\.levels\.levels\.register"
    ):
        exact_derivative(network)


def test_a_module_that_is_not_called():
    class Skips(UNet):
        def forward(self, x, label):
            return x

    attached = attach(ScoreNetwork(Skips(), VP(), (3, 8, 8)), Head(3, 16, 8, fold=2), **NAMES)
    with pytest.raises(ValueError, match=r"module 'inner\.up' gave NoneType"):
        Sampler(attached, "genie", 2).sample()
